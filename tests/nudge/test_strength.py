"""Nudges that are too strong: they raise only if the gradient is wrong, and never for linear systems."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import echograd as eg
from cases import Chain

pytestmark = pytest.mark.least_effort

STEPS = 30


class Hard(Chain):
    """The same chain with hardening springs."""

    hardening: jax.Array

    def potential(self, t, q, u):
        return Chain.potential(self, t, q, u) + jnp.sum(self.hardening * q**4)


def machines():
    mass, stiffness = jnp.asarray([1.0, 2.0, 0.5]), jnp.asarray([1.0, 0.5, 0.7])
    return {"linear": Chain(mass, stiffness), "hard": Hard(mass, stiffness, jnp.asarray([0.2, 0.3, 0.1]))}


@eqx.filter_jit
def gradients(machine, nudges, throw):
    """Return the gradient of each nudge, and the exact one."""

    def of(nudge):
        def loss(args):
            system, q, u = args
            start = eg.InitialValue(q, jnp.asarray([0.1, 0.4, -0.3]))
            sol = eg.solve(system, start, u, dt=0.1, gradient=nudge, throw=throw)
            return jnp.sum(jnp.sin(sol.q[-1])) + jnp.sum(sol.p[STEPS // 2])

        args = machine, jnp.asarray([0.5, -0.2, 0.3]), jnp.cos(jnp.arange(STEPS, dtype=machine.mass.dtype))
        return jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(eqx.filter_grad(loss)(args))])

    return of(eg.Backprop()), jax.lax.map(lambda nudge: of(eg.Echo(nudge)), nudges)


MAKE = {
    "Symmetric": eg.Symmetric,
    "Richardson": lambda beta: eg.Richardson(beta, order=4),
    "Holomorphic": lambda beta: eg.Holomorphic(beta, points=4),
}


@pytest.mark.parametrize(
    "scheme", ["Symmetric", pytest.param("Richardson", marks=pytest.mark.float64_only), "Holomorphic"]
)
def test_what_is_refused_is_off_and_strong_nudges_are(scheme):
    make, machine = MAKE[scheme], machines()["hard"]
    betas = jnp.logspace(-2, 1, 10)
    exact, found = gradients(machine, jax.vmap(make)(betas), throw=False)
    errors = jnp.linalg.norm(found - exact[None], axis=1) / jnp.linalg.norm(exact)
    assert errors[0] < 0.01  # and so the bound is between these strengths
    assert not errors[-1] < 0.3

    def refused(beta):
        try:
            gradients(machine, jax.tree.map(lambda x: x[None], make(beta)), throw=True)
        except eqx.EquinoxRuntimeError as error:
            return "too strong" in str(error) or "leak" in str(error)
        return False

    told = np.asarray([refused(beta) for beta in betas])
    assert not told[0]
    assert told[-1]
    assert np.all(~(errors[told] < 0.01))
    assert np.all(errors[~told] < 0.5)


@pytest.mark.parametrize("scheme", ["Symmetric", "Richardson"])
def test_of_a_linear_system_no_nudge_is_too_strong(scheme):
    machine = machines()["linear"]
    nudges = jax.vmap(MAKE[scheme])(jnp.asarray([1.0, 1e3 if jax.config.jax_enable_x64 else 1e2]))
    exact, found = gradients(machine, nudges, throw=True)
    tolerance = 1e-9 if exact.dtype == jnp.float64 else 1e-2
    np.testing.assert_allclose(found, jnp.stack([exact] * 2), atol=tolerance * float(jnp.max(jnp.abs(exact))))
