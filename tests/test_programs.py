"""User functions are compared by what they compute. Gradients include the arrays that they close over."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import echograd as eg

pytestmark = pytest.mark.least_effort

START = eg.InitialValue(np.array([0.7, -0.4]), np.array([0.1, 0.3]))
STIFFNESS = 1.0
TABLE = np.array([1.0, 2.0])
COMPILED = []

jax.monitoring.register_event_duration_secs_listener(
    lambda event, duration, **_: COMPILED.append(event) if event.endswith("backend_compile_duration") else None
)


class Spring(eg.SeparableHamiltonian):
    """A spring whose stiffness comes from outside, in several ways."""

    energy: Any = None

    def kinetic(self, t, p):
        return 0.5 * jnp.sum(p**2)

    def potential(self, t, q, u):
        if self.energy is not None:
            return self.energy(q)
        return 0.5 * jnp.asarray(STIFFNESS, q.dtype) * jnp.sum(jnp.asarray(TABLE, q.dtype) * q**2)


def run(system, throw=False, **kwargs):
    return eg.solve(system, START, dt=0.1, steps=7, save=eg.FinalNode(), throw=throw, **kwargs)


def squares(t, q, p):
    return jnp.asarray(STIFFNESS, q.dtype) * jnp.sum(q**2)


@pytest.fixture
def _restored():
    yield
    globals()["STIFFNESS"] = 1.0
    TABLE[:] = 1.0, 2.0


@pytest.mark.usefixtures("_restored")
def test_a_changed_global_number_or_array_changes_the_path_and_the_cost():
    def by_hand():
        q, p, cost = *(np.asarray(x) for x in (START.q, START.p)), STIFFNESS * np.sum(np.asarray(START.q) ** 2)
        for _ in range(7):
            q = q + 0.05 * p
            p = p - 0.1 * STIFFNESS * TABLE * q
            q = q + 0.05 * p
            cost += STIFFNESS * np.sum(q**2)
        return q, cost

    for stiffness, entry in ((1.0, 2.0), (4.0, 2.0), (4.0, 3.0)):
        globals()["STIFFNESS"], TABLE[1] = stiffness, entry
        sol = run(Spring(), cost=squares)
        for found, expected in zip((sol.q, sol.cost), by_hand(), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.fast
def test_functions_that_compute_the_same_are_compiled_once():
    def loss(weight, slope):
        energy = lambda q: jnp.sum(0.5 * weight * q**2) + 0.1 * jnp.sum(q**4)  # noqa: E731
        return run(Spring(energy), cost=lambda t, q, p: slope * jnp.sum(q**2)).cost

    both = jax.value_and_grad(loss)
    first = both(jnp.asarray(1.0), jnp.asarray(2.0))
    COMPILED.clear()
    second = both(jnp.asarray(1.5), jnp.asarray(2.0))
    third = both(jnp.asarray(1.0), jnp.asarray(4.0))
    assert COMPILED == []
    assert second[0] != first[0]
    np.testing.assert_allclose(third, 2 * np.asarray(first), rtol=1e-5)
    jax.grad(lambda w: run(Spring(lambda q: jnp.sum(w * q**2)), cost=squares).cost)(jnp.asarray(1.0))
    assert COMPILED != []  # another function is


class Weighted(eqx.Module):
    weights: Array
    inner: Callable

    def __call__(self, *arguments):
        return jnp.sum(self.weights * self.inner(*arguments))


COSTS = {
    "a lambda": lambda k: lambda t, q, p: jnp.sum(k * q**2),
    "a module with arrays": lambda k: Weighted(jnp.ones(2), lambda t, q, p: k * q**2),
    "a Partial": lambda k: jax.tree_util.Partial(lambda w, t, q, p: jnp.sum(k * w * q**2), jnp.ones(2)),
    "a jitted function": lambda k: jax.jit(lambda t, q, p: jnp.sum(k * q**2)),
    "an object": lambda k: functools.partial(lambda t, q, p, *, c: jnp.sum(c["k"] * q**2), c={"k": k}),
}
GRADIENTS = {"echo": eg.Echo(), "complex": eg.Echo(eg.Holomorphic(1e-3, 2))}


@pytest.mark.parametrize("kind", COSTS)
def test_a_cost_may_close_over_what_is_differentiated(kind):
    def loss(k, cost, gradient):
        return run(Spring(), cost=cost(k), gradient=gradient).cost

    k = jnp.asarray([1.0, 2.0])
    expected = jax.grad(loss)(k, COSTS["a lambda"], eg.Backprop())
    for name, gradient in GRADIENTS.items():
        tolerance = 1e-4 if name == "complex" else 1e-5
        np.testing.assert_allclose(jax.grad(loss)(k, COSTS[kind], gradient), expected, rtol=tolerance, err_msg=name)


def _composed(k):
    def inner(q, k=k):
        return 0.5 * k * q**2

    def outer(q):
        return jnp.sum(inner(q))

    return outer


ENERGIES = {
    "a lambda": lambda k: lambda q: 0.5 * jnp.sum(k * q**2),
    "functions in functions, and defaults": _composed,
    "a module in a lambda": lambda k: (lambda net: lambda q: net(q))(Weighted(0.5 * k, lambda q: q**2)),
    "functools.partial": lambda k: functools.partial(lambda q, *, k: 0.5 * jnp.sum(k * q**2), k=k),
}


@pytest.mark.parametrize("kind", ENERGIES)
def test_a_system_may_hold_functions_that_close_over_what_is_differentiated(kind):
    """In eager mode and under `jit` the gradient equals that with respect to a field."""

    def loss(k, gradient, energy):
        return jnp.sum(run(Spring(energy(k)), gradient=gradient).q ** 2)

    def by_field(k):
        return Weighted(0.5 * k, lambda q: q**2)

    k = jnp.asarray([1.0, 2.0])
    expected = jax.grad(loss)(k, eg.Backprop(), by_field)
    for gradient, transform in ((eg.Echo(), lambda f: f), (eg.Glep(), jax.jit)):
        found = jax.grad(transform(lambda k, g=gradient: loss(k, g, ENERGIES[kind])))(k)
        np.testing.assert_allclose(found, expected, rtol=1e-5, err_msg=str(gradient))


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
def test_a_method_that_closes_over_what_is_differentiated_is_refused(transform):
    def loss(k, gradient, held):
        class Local(Spring):
            def potential(self, t, q, u):
                return 0.5 * (held if k is None else k) * jnp.sum(q**2)

        return jnp.sum(run(Local(), gradient=gradient).q ** 2)

    k = jnp.asarray(1.3)
    assert jnp.isfinite(jax.grad(loss)(k, eg.Backprop(), None))
    with pytest.raises(TypeError, match="being differentiated and is not a field of the system"):
        jax.grad(transform(lambda k: loss(k, eg.Echo(), None)))(k)
    # What is not differentiated may be closed over.
    assert jnp.isfinite(transform(lambda k: loss(None, eg.Echo(), k))(k))


@pytest.mark.parametrize(
    ("gradient", "save", "throw"),
    [(eg.Backprop(), eg.EveryNode(4), False), (eg.Echo(), eg.AllNodes(), False), (eg.Echo(), eg.FinalNode(), True)],
    ids=str,
)
def test_without_jit_the_numbers_are_the_same(gradient, save, throw):
    def loss(k):
        system = Spring(Weighted(0.5 * k, lambda q: q**2))
        sol = eg.solve(system, START, dt=0.1, steps=2, gradient=gradient, save=save, cost=squares, throw=throw)
        return jnp.sum(sol.q**2) + sol.cost

    k = jnp.asarray([1.0, 2.0])
    expected = jax.value_and_grad(loss)(k)
    with jax.disable_jit():
        found = jax.value_and_grad(loss)(k)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected)


def test_shard_map_is_right_or_refused():
    """With the checks of `shard_map`, JAX sums the force on a replicated state over the devices."""
    mesh, spec = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("b",)), jax.sharding.PartitionSpec("b")

    def loss(k, gradient):
        return jnp.sum(run(Spring(Weighted(0.5 * k, lambda q: q**2)), gradient=gradient).q ** 2)

    def spread(gradient, **kwargs):
        slope = jax.vmap(jax.grad(functools.partial(loss, gradient=gradient)))
        return jax.jit(jax.shard_map(slope, mesh=mesh, in_specs=spec, out_specs=spec, **kwargs))

    k = jnp.asarray([[1.0, 2.0], [3.0, 0.5]])
    for gradient in (eg.Backprop(), eg.Echo()):
        found = spread(gradient, check_vma=False)(k)
        for a, b in zip(found, k, strict=True):
            np.testing.assert_allclose(a, jax.grad(loss)(b, eg.Backprop()), rtol=1e-5)
        with pytest.raises(TypeError, match=r"along 'b'.*check_vma=False"):
            spread(gradient)(k)


@pytest.mark.skipif(
    not jax.config.jax_enable_x64, reason="the test needs float64 arrays, made before x64 is switched off"
)
def test_arrays_from_before_x64_was_switched_off_are_refused():
    weighted = Weighted(jnp.asarray([1.0, 2.0]), lambda q: q[0] ** 2)
    with jax.enable_x64(False), pytest.raises(TypeError, match="float64, but jax_enable_x64 is off"):
        run(Spring(weighted))


def test_one_bad_member_of_a_batch_raises():
    def last(k):
        return run(Spring(Weighted(k, lambda q: q**2)), throw=True).q

    with pytest.raises(RuntimeError, match="solve: the step is unstable"):
        jax.block_until_ready(jax.vmap(last)(jnp.asarray([[1.0, 1.0], [1e4, 1.0]])))
