"""Mirrors: the echo with the right one is exact, and without it it is wrong, which is why it is refused."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import echograd as eg
from cases import mixed, worst
from echograd.systems import ChargedParticle, KerrLattice

pytestmark = pytest.mark.float64_only

# Two sites joined by a phase, in a ring: PT-symmetric under the exchange of 0, 1 and of 2, 3.
RING = np.array([[0, np.exp(0.5j), 0, 1], [np.exp(-0.5j), 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0]])


class Unmirrored(ChargedParticle):
    """A charge in a magnetic field, with a plain flip of its momentum for a time reversal."""

    def mirror(self, q):
        return q


WAVE = eg.canonical(jnp.asarray([1.0, 0.3j, 0.5 - 0.2j, -0.4]))
PLACE = jnp.asarray([0.8, -0.3]), jnp.asarray([0.1, 0.9])
CASES = {
    "magnetic field": (lambda right: (ChargedParticle if right else Unmirrored)(field=1.5), PLACE),
    "PT-symmetric Kerr lattice": (lambda right: KerrLattice(RING, 0.1, 0.5, [1, 0, 3, 2] if right else None), WAVE),
}


@pytest.mark.parametrize(("make", "start"), CASES.values(), ids=CASES)
def test_the_mirror_makes_the_echo(make, start):
    def loss(system, gradient, throw):
        sol = eg.solve(system, eg.InitialValue(*start), dt=0.15, steps=12, gradient=gradient, throw=throw)
        return mixed((sol.q[6], sol.q[-1], sol.p[-1]))

    @eqx.filter_jit
    def gradients(right, wrong):
        right = [eqx.filter_grad(loss)(right, g, True) for g in (eg.Backprop(), eg.Echo())]
        return *right, eqx.filter_grad(loss)(wrong, eg.Echo(), False)

    expected, found, wrong = gradients(make(True), make(False))
    assert worst(found, expected) < 1e-9
    assert worst(eqx.tree_at(jax.tree.leaves, expected, jax.tree.leaves(wrong)), expected) > 0.1
    with pytest.raises(eqx.EquinoxRuntimeError, match="not time-reversible"):
        eqx.filter_grad(loss)(make(False), eg.Echo(), True)
