"""The echo equals backpropagation through the same discrete map, in everything, wherever it is used."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import echograd as eg
from cases import Oscillator, chain, machine, mixed, solve, worst

pytestmark = [pytest.mark.float64_only, pytest.mark.least_effort]

SAVES = {
    "all": lambda point: eg.AllNodes(),
    "final": lambda point: eg.FinalNode(),
    "every 4th of 13": lambda point: eg.EveryNode(4),
    "function": lambda point: (
        lambda t, q, p: {
            "x": jnp.sin(q["a"]) * t,
            "y": point.closed_over * p["b"] ** 2,
            "z": jnp.tanh(point.cost.weight * p["a"]),
        }
    ),
}


def loss(point, gradient, save="all", integrator=None, velocity=False, throw=None):
    def cost(t, q, p):
        return point.cost(t, q, p) + jnp.sum(point.closed_over * jnp.cos(p["b"] * q["b"]))

    start = eg.InitialValue(point.q, v=point.p) if velocity else eg.InitialValue(point.q, point.p)
    sol = solve(
        point.system,
        start,
        point.inputs,
        dt=point.dt,
        t0=point.t0,
        integrator=integrator,
        gradient=gradient,
        save=SAVES[save](point),
        cost=cost,
        throw=throw,
    )
    return mixed((sol.q, sol.p, sol.saved, sol.t)) + sol.cost**2


def compare(f, point, *gradients):
    """Return the worst error of each gradient, from one compiled function."""

    @eqx.filter_jit
    def all_of(point):
        return [eqx.filter_grad(f)(point, gradient) for gradient in (eg.Backprop(), *gradients)]

    expected, *found = all_of(point)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(expected))
    return [worst(x, expected) for x in found]


@pytest.mark.parametrize(
    ("save", "integrator", "velocity", "checkpoints"),
    [
        ("all", eg.Leapfrog(), False, True),
        ("final", eg.VelocityVerlet(), False, False),
        ("every 4th of 13", eg.Yoshida(4), False, False),
        ("function", eg.Leapfrog(), True, False),
        pytest.param("every 4th of 13", eg.Yoshida(6), False, True, marks=pytest.mark.exhaustive),
    ],
    ids=str,
)
def test_every_leaf(save, integrator, velocity, checkpoints):
    """Checkpoints store whole states, whatever the order of a step."""
    point = machine()
    if velocity:  # below the speed of light of the relativistic half
        point = point._replace(p={"a": point.p["a"], "b": 0.4 * point.p["b"]})
    arguments = {"save": save, "integrator": integrator, "velocity": velocity}
    rules = eg.Echo(), *((eg.Backprop(checkpoints=3),) if checkpoints else ())
    found = compare(lambda x, g: loss(x, g, **arguments), point, *rules)
    assert max(found) < 1e-9


def test_checks_change_no_number():
    """They raise or do nothing. So comparisons may leave them out, as `cases.solve` does for the oracle."""
    point = chain(6)

    def f(point, gradient, throw):
        start, inputs = eg.InitialValue(point.q, point.p), point.inputs
        options = {"gradient": gradient, "throw": throw, "save": eg.EveryNode(2)}
        sol = eg.solve(point.system, start, inputs, dt=point.dt, **options)
        return mixed((sol.q, sol.p))

    @eqx.filter_jit
    def all_of(point):
        of = eqx.filter_grad(f)
        return [[of(point, gradient, throw) for gradient in (eg.Backprop(), eg.Echo())] for throw in (True, False)]

    checked, unchecked = all_of(point._replace(t0=None))
    assert worst(unchecked, checked) < 1e-14


def test_a_running_cost_alone():
    def of_cost(point, gradient):
        sol = solve(
            point.system,
            eg.InitialValue(point.q, point.p),
            point.inputs,
            dt=point.dt,
            t0=point.t0,
            gradient=gradient,
            save=eg.FinalNode(),
            cost=point.cost,
        )
        return sol.cost

    assert compare(of_cost, machine()._replace(closed_over=None), eg.Echo())[0] < 1e-9


def test_batches_either_way_round():
    """vmap of grad and grad of vmap, over inputs, initial states, parameters and steps at once."""
    points = [machine(seed=i)._replace(dt=jnp.asarray(0.1 + 0.02 * i)) for i in range(3)]
    batch = jax.tree.map(lambda *x: jnp.stack(x), *points)

    def total(batch, gradient):
        return jnp.sum(jax.vmap(lambda point: loss(point, gradient, "final"))(batch))

    @eqx.filter_jit
    def gradients(batch):
        return (
            jax.grad(total)(batch, eg.Echo()),
            jax.vmap(lambda point: jax.grad(lambda x: loss(x, eg.Echo(), "final", throw=False))(point))(batch),
            jax.vmap(lambda point: jax.grad(loss)(point, eg.Backprop(), "final"))(batch),
        )

    outside, inside, expected = gradients(batch)
    assert worst(outside, expected) < 1e-9
    assert worst(inside, expected) < 1e-9


@pytest.mark.fast
def test_shared_parameters_in_a_batch():
    """vmap over states alone: the parameters' gradient is summed over the batch."""
    point = chain()
    starts = jnp.stack([point.q, 2 * point.q, -point.p])

    def total(arguments, gradient):
        system, starts, dt = arguments

        def one(q):
            sol = solve(system, eg.InitialValue(q, point.p), point.inputs, dt=dt, gradient=gradient)
            return mixed(sol.q)

        return jnp.sum(jax.vmap(one)(starts))

    assert compare(total, (point.system, starts, point.dt), eg.Echo())[0] < 1e-9


def test_inside_a_network_two_solves_deep():
    point = chain()
    rng = np.random.default_rng(3)
    read_in, read_out = jnp.asarray(rng.normal(size=3)), jnp.asarray(rng.normal(size=(4, 3)))

    def network(arguments, gradient):
        point, read_in, read_out = arguments
        drive = jnp.tanh(point.inputs * read_in[0])
        options = {"dt": point.dt, "gradient": gradient, "throw": False}
        lower = solve(point.system, eg.InitialValue(point.q, point.p), drive, **options)
        drive = jnp.tanh(lower.q[1:] @ read_in)
        upper = solve(
            point.system,
            eg.InitialValue(lower.p[-1], v=lower.q[-1]),
            drive,
            save=lambda t, q, p: read_out @ q,
            **options,
        )
        return jax.nn.logsumexp(jnp.sum(upper.saved, 0)) + jnp.sum(upper.p**2)

    arguments = (point._replace(t0=None), read_in, read_out)
    assert compare(network, arguments, eg.Echo())[0] < 1e-9


@pytest.mark.fast
@pytest.mark.parametrize("where", ["scan", "checkpoint", "cond", "while_free_map"])
def test_inside_control_flow(where):
    point = chain(5)

    def step(point, gradient, q):
        sol = solve(
            point.system,
            eg.InitialValue(q, point.p),
            point.inputs,
            dt=point.dt,
            gradient=gradient,
            cost=lambda t, q, p: jnp.sum(point.p * q**2),
            save=eg.FinalNode(),
            throw=None if where in ("scan", "cond") else False,
        )
        return sol.q + 0.1 * sol.cost

    def f(point, gradient):
        if where == "scan":
            q, _ = jax.lax.scan(lambda q, _: (step(point, gradient, q), None), point.q, None, length=3)
        elif where == "checkpoint":
            q = jax.checkpoint(lambda point, q: step(point, gradient, q))(point, point.q)
        elif where == "cond":
            q = jax.lax.cond(point.q[0] < 100, lambda q: step(point, gradient, q), lambda q: q, point.q)
        else:
            q = jnp.sum(jax.lax.map(lambda q: step(point, gradient, q), jnp.stack([point.q, point.p])), 0)
        return mixed(q)

    point = point._replace(t0=None)
    assert compare(f, point, eg.Echo())[0] < 1e-9


def test_without_jit():
    point = chain(4)._replace(t0=None)

    def f(point, gradient):
        sol = solve(
            point.system,
            eg.InitialValue(point.q, point.p),
            point.inputs,
            dt=point.dt,
            gradient=gradient,
            cost=lambda t, q, p: jnp.sum(point.p * q**2),
        )
        return mixed(sol.q) + sol.cost

    expected, found = (eqx.filter_grad(f)(point, gradient) for gradient in (eg.Backprop(), eg.Echo()))
    assert worst(found, expected) < 1e-9


def test_one_step_and_leaves_that_nothing_depends_on():
    point = machine(1)
    extra = point._replace(inputs={**point.inputs, "unused": jnp.ones((1, 2))})

    def f(point, gradient):
        sol = solve(point.system, eg.InitialValue(point.q, point.p), point.inputs, dt=point.dt, gradient=gradient)
        return mixed(sol.q)

    @eqx.filter_jit
    def both(point):
        return [eqx.filter_grad(f)(point, gradient) for gradient in (eg.Backprop(), eg.Echo())]

    expected, found = both(extra)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(expected), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-9, atol=1e-14, err_msg=jax.tree_util.keystr(path))


@pytest.mark.fast
def test_against_a_loop_written_by_hand():
    """Leapfrog in numpy, its own force, and central differences: nothing of echograd is in the oracle."""
    point = chain(9)

    def by_hand(mass, stiffness, q, p, u, h):
        total = 0.0
        for uk in u:
            q = q + 0.5 * h * p / mass
            stretch = np.diff(q)
            force = -stiffness * q
            force[:-1] += 0.6 * stretch
            force[1:] -= 0.6 * stretch
            force[0] += uk
            p = p + h * force
            q = q + 0.5 * h * p / mass
            total += np.sum(np.sin(q) * p)
        return total

    def f(arguments, gradient=None):
        mass, stiffness, q, p, u, h = arguments
        system = eqx.tree_at(lambda s: (s.mass, s.stiffness), point.system, (mass, stiffness))
        sol = eg.solve(system, eg.InitialValue(q, p), u, dt=h)
        return jnp.sum((jnp.sin(sol.q) * sol.p)[1:])

    arguments = [point.system.mass, point.system.stiffness, point.q, point.p, point.inputs, point.dt]
    value, found = jax.value_and_grad(f)(arguments)
    numbers = [np.asarray(x, float) for x in arguments]
    np.testing.assert_allclose(value, by_hand(*numbers), rtol=1e-13)
    eps = 1e-5
    for i, x in enumerate(numbers):
        for j in np.ndindex(x.shape):
            up, down = x.copy(), x.copy()
            up[j] += eps
            down[j] -= eps
            there = [by_hand(*numbers[:i], y, *numbers[i + 1 :]) for y in (up, down)]
            slope = (there[0] - there[1]) / (2 * eps)
            np.testing.assert_allclose(found[i][j], slope, rtol=1e-7, atol=1e-8)


def _run(rule, stiffness, q):
    start = eg.InitialValue(q, jnp.zeros_like(q))
    return solve(Oscillator(stiffness), start, dt=0.1, steps=3, gradient=rule, save=eg.FinalNode()).q


def _path(rule, stiffness, q):
    ends = eg.FixedEnds(q, jnp.zeros_like(q))
    return solve(Oscillator(stiffness), ends, dt=0.1, steps=2, gradient=rule).q[1]


def _damped(rule, stiffness, q):
    system = eg.systems.LinearDamped(jnp.eye(2), 0.1 * jnp.eye(2), jnp.diag(stiffness))
    start = eg.InitialValue(q, jnp.zeros_like(q))
    return solve(system, start, dt=0.1, steps=2, gradient=rule, save=eg.FinalNode()).q


class Well(eqx.Module):
    stiffness: jax.Array

    def __call__(self, s, u):
        return 0.5 * jnp.sum(self.stiffness * s**2) + 0.1 * jnp.sum(s**4) - u @ s


def _rest(rule, stiffness, field):
    return eg.equilibrium(Well(stiffness), jnp.zeros(2), field, gradient=rule, solver=eg.Newton()).state


@pytest.mark.parametrize(
    ("run", "rule", "oracle"),
    [
        (_run, eg.Echo(), eg.Backprop()),
        (_path, eg.Glep(), eg.Backprop()),
        (_damped, eg.Reciprocal(), eg.Backprop()),
        (_rest, eg.EP(), eg.Implicit()),
    ],
    ids=["echo", "path", "reciprocal", "rest"],
)
def test_one_program_differentiated_by_other_things_each_time_it_runs(run, rule, oracle):
    """It is traced once for both runs, and each must read what was wanted of it, not of the run that came last."""
    fixed = jnp.asarray([1.0, 2.0])

    def twice(x, rule):
        first = run(rule, jnp.exp(x), fixed)  # by the parameter alone
        return jnp.sum(jnp.sin(run(rule, fixed, first)))  # by what it starts from alone

    gradient = jax.grad(twice)
    x = jnp.asarray([0.3, -0.4])
    np.testing.assert_allclose(gradient(x, rule), jax.jit(gradient, static_argnums=1)(x, oracle), rtol=1e-9)
