"""What `equilibrium` accepts, and what it says of the rest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import echograd as eg

pytestmark = [pytest.mark.fast, pytest.mark.least_effort]


def energy(s, u):
    return jnp.sum(jnp.cosh(s)) - jnp.sum(u * s)


U = np.array([0.3, -0.7])


@pytest.mark.parametrize(
    ("change", "error", "complaint"),
    [
        ({"gradient": eg.Echo()}, TypeError, "is not a gradient of states of rest"),
        ({"gradient": eg.EP}, TypeError, "Pass EP"),
        ({"solver": eg.Newton}, TypeError, "parentheses"),
        ({"energy": 1.0}, TypeError, "not a function"),
        ({"energy": lambda s, u: s}, ValueError, "must return one real number"),
        ({"energy": lambda s, u: jax.lax.complex(s[0], s[1])}, ValueError, "one real number"),
        ({"energy": lambda s, u: {"e": jnp.sum(s)}}, ValueError, "one real number"),
        ({"energy": lambda s, u: 1}, ValueError, "one real number"),
        ({"x0": jnp.zeros(2, complex)}, ValueError, "x0 is complex"),
        ({"x0": None}, ValueError, "nothing to relax"),
        ({"bounds": (1.0, 0.0)}, ValueError, "larger bound first"),
        ({"bounds": (0.0, np.nan)}, ValueError, "are numbers"),
    ],
)
def test_misuse(change, error, complaint):
    arguments = {"energy": energy, "x0": jnp.zeros(2), "inputs": jnp.asarray(U), **change}
    with pytest.raises(error, match=complaint):
        eg.equilibrium(**arguments)


def test_a_nudge_is_an_object():
    with pytest.raises(TypeError, match=r"nudge=0.1 is not a nudge"):
        eg.EP(0.1)


def test_a_trajectory_gradient_that_is_also_static():
    """Backprop is the oracle of both; Echo and EP are each at home in one."""
    with pytest.raises(TypeError, match="not a gradient object"):
        eg.solve(None, None, dt=0.1, steps=1, gradient=eg.EP())  # pyright: ignore


def test_a_nudge_below_the_tolerance_is_refused():
    def of(u, nudge):
        return jnp.sum(eg.equilibrium(energy, jnp.zeros(2), u, gradient=eg.EP(nudge)).state ** 2)

    u = jnp.asarray(U)
    tiny = float(jnp.finfo(u.dtype).eps)
    with pytest.raises(RuntimeError, match=r"lost in rounding|0.1 of the nudge"):
        jax.grad(of)(u, eg.Symmetric(tiny))
    exact = jax.grad(lambda u: jnp.sum(jnp.arcsinh(u) ** 2))(u)
    np.testing.assert_allclose(jax.grad(of)(u, eg.Symmetric()), exact, rtol=1e-7 if u.dtype == "float64" else 1e-2)


def test_saturated_units_have_no_gradient_and_no_complaint():
    def of(u, gradient):
        found = eg.equilibrium(energy, jnp.zeros(2), u, bounds=(0.0, 0.1), gradient=gradient)
        return jnp.sum(found.state**2)

    for gradient in (eg.EP(), eg.EP(eg.Symmetric(1e-2)), eg.EP(eg.Symmetric()), eg.Implicit()):
        np.testing.assert_allclose(jax.grad(of)(jnp.asarray(U), gradient), [0.0, 0.0], atol=1e-4)


def test_the_energy_of_rest_by_itself():
    """Its derivative by a field is minus the state: nothing needs nudging."""

    def of(u, gradient):
        return eg.equilibrium(energy, jnp.zeros(2), u, gradient=gradient).energy

    u = jnp.asarray(U)
    for gradient in (eg.EP(), eg.Implicit()):
        np.testing.assert_allclose(jax.grad(of)(u, gradient), -np.arcsinh(U), rtol=2e-5)
