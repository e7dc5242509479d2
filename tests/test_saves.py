"""Kept nodes and times, the end of a run by its time, progress, restarts and batches."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import echograd as eg
from cases import STEPS, Oscillator, chain, machine, mixed

pytestmark = [pytest.mark.least_effort]

X64 = jax.config.jax_enable_x64
NODES = [0, 3, 4, 9]
# Between nodes, at a node, twice in one step, out of order, and at both ends.
PARTS = np.array([2.5, 0.0, 2.25, 7.0, 11.9, STEPS])
SYSTEM = Oscillator(jnp.asarray([1.0, 2.0]))
START = eg.InitialValue(jnp.asarray([0.3, -1.0]), jnp.asarray([0.5, 0.2]))


def saved(point, between):
    """Times that depend on the parameters are differentiated, too."""
    return eg.AtTimes(point.t0 + point.dt * PARTS * point.closed_over) if between else eg.AtNodes(NODES)


def loss(point, gradient, between, integrator=None, boundary=None):
    boundary = eg.InitialValue(point.q, point.p) if boundary is None else boundary
    sol = eg.solve(
        point.system, boundary, point.inputs, dt=point.dt, t0=point.t0, integrator=integrator, gradient=gradient,
        save=saved(point, between),
    )  # fmt: skip
    return mixed((sol.q, sol.p, sol.t))


def agree(found, expected, tolerance=1e-9):
    pairs = list(zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True))
    assert all(np.any(np.asarray(b) != 0) for _, b in pairs)
    return all(np.linalg.norm(a - b) <= tolerance * np.linalg.norm(b) for a, b in pairs)


@pytest.mark.float64_only
@pytest.mark.parametrize("between", [False, True], ids=["nodes", "times"])
@pytest.mark.parametrize("name", ["machine", "chain"])
def test_every_leaf(name, between):
    point, integrator = (machine(), eg.Leapfrog()) if name == "machine" else (chain(), eg.VelocityVerlet())
    point = point._replace(cost=None, closed_over=jnp.ones(()) if between else None)
    rules = eg.Backprop(checkpoints=3), eg.Echo()

    @eqx.filter_jit
    def gradients(point):
        return [eqx.filter_grad(loss)(point, rule, between, integrator) for rule in rules]

    expected, found = gradients(point)
    assert len(jax.tree.leaves(expected)) >= 6
    assert agree(found, expected)
    if name == "chain":
        pair = jax.tree.map(lambda x: jnp.stack([x, 1.05 * x]), eqx.filter(point, eqx.is_inexact_array))
        pair = pair._replace(closed_over=jnp.asarray([1.0, 0.9])) if between else pair
        expected, found = eqx.filter_vmap(gradients)(pair)
        assert agree(found, expected)


@pytest.mark.float64_only
def test_glep_on_both_ends():
    point = chain()._replace(cost=None, closed_over=jnp.ones(()), p=None)
    gradients = [
        eqx.filter_grad(lambda x, rule: loss(x, rule, True, boundary=eg.FixedEnds(x.q, -0.3 * x.q)))(point, rule)
        for rule in (eg.Glep(), eg.Backprop())
    ]
    assert agree(*gradients)


@pytest.mark.float64_only
@pytest.mark.parametrize("save", [eg.AtNodes([1, 2, 30]), eg.AtTimes([0.03, 0.9, 0.0, 1.6])], ids=["nodes", "times"])
@pytest.mark.parametrize("name", ["rewind", "rewind in parts", "reciprocal"])
def test_systems_with_loss(name, save):
    mass = jnp.asarray([1.0, 2.0])
    damping = jnp.asarray([0.3, 0.1])
    if name == "reciprocal":
        rule, system = eg.Reciprocal(), eg.LinearDamped(jnp.diag(mass), jnp.diag(damping), jnp.eye(2))
    else:
        rule = eg.Rewind() if name == "rewind" else eg.Rewind(checkpoints=3)
        system = eg.Damped(SYSTEM, damping)

    def value(arguments, rule):
        system, q, dt = arguments
        start = eg.InitialValue(q, jnp.asarray([0.5, 0.2]))
        sol = eg.solve(system, start, dt=dt, steps=32, save=save, gradient=rule)
        return mixed((sol.q, sol.p))

    arguments = system, START.q, jnp.asarray(0.05)
    assert agree(*(eqx.filter_jit(eqx.filter_grad(value))(arguments, r) for r in (rule, eg.Backprop())), 1e-9)


def test_what_is_kept():
    every = eg.solve(SYSTEM, START, dt=0.1, steps=12)
    nodes = eg.solve(SYSTEM, START, dt=0.1, steps=12, save=eg.AtNodes([1, 2, 12]))
    assert jnp.array_equal(nodes.q, every.q[jnp.asarray([1, 2, 12])])
    assert jnp.array_equal(nodes.t, every.t[jnp.asarray([1, 2, 12])])
    assert jnp.array_equal(eg.energy(SYSTEM, nodes), eg.energy(SYSTEM, every)[jnp.asarray([1, 2, 12])])
    close = 1e-12 if X64 else 1e-5
    times = eg.solve(SYSTEM, START, dt=0.1, steps=12, save=eg.AtTimes([0.3, 1.2, 0.25]))
    assert jnp.max(jnp.abs(times.q[:2] - every.q[jnp.asarray([3, 12])])) < close
    half = eg.solve(SYSTEM, eg.InitialValue(every.q[2], every.p[2]), dt=0.05, steps=1)
    assert jnp.max(jnp.abs(times.p[2] - half.p[1])) < close
    assert eg.energy(SYSTEM, times).shape == (3,)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"save": eg.AtNodes([3, 13]), "steps": 12}, "nodes\\[1\\]=13, and the last node of 12 steps is 12"),
        ({"save": eg.AtTimes([0.5, 1.3]), "steps": 12}, "the times are from 0.5 to 1.3, and the run is from 0 to 1.2"),
        ({"t1": 1.25}, "t1=1.25 is 12.5 steps of dt=0.1 after t0=0, not a whole number. Pass dt="),
        ({"t1": 1.2, "steps": 12}, "steps and t1 both give"),
        ({"t1": -1.0}, "t1 must be after t0"),
        ({"steps": 12, "progress": 3}, "progress=3 is not a function"),
    ],
)
def test_refusals(arguments, says):
    with pytest.raises(eg.EchogradError, match=says):
        eg.solve(SYSTEM, START, dt=0.1, **arguments)


@pytest.mark.parametrize("nodes", [[], [3, 3], [4, 1], [-1], [0.5], 3])
def test_lists_that_are_no_nodes(nodes):
    with pytest.raises(eg.ArgumentError, match="AtNodes: nodes"):
        eg.AtNodes(nodes)


def test_traced_times_outside_of_the_run_are_refused_at_run_time():
    run = jax.jit(lambda ts: eg.solve(SYSTEM, START, dt=0.1, steps=12, save=eg.AtTimes(ts)).q)
    with pytest.raises(eg.RunError, match="outside of the run"), eg.plain_errors():
        run(jnp.asarray([0.5, 1.3]))


def test_langevin_friction_has_no_state_between_nodes():
    damped = eg.Damped(SYSTEM, eg.friction.Langevin(0.1, 0.5, jax.random.key(0)))
    with pytest.raises(eg.ArgumentTypeError, match="no state between the nodes"):
        eg.solve(damped, START, dt=0.1, steps=4, save=eg.AtTimes([0.15]))


@pytest.mark.parametrize("dt", [0.1, jnp.asarray(0.1), np.float32(0.1)])
def test_the_end_by_its_time(dt):
    assert eg.solve(SYSTEM, START, dt=dt, t0=2.0, t1=3.2).q.shape == (13, 2)


def test_t1_must_be_known():
    with pytest.raises(eg.ArgumentTypeError, match="dt is traced"):
        jax.jit(lambda dt: eg.solve(SYSTEM, START, dt=dt, t1=1.0).q)(0.1)


RULES = [
    eg.Echo(),
    # The rounding of float32 hides so small a nudge.
    pytest.param(eg.Echo(eg.Symmetric(1e-3)), marks=pytest.mark.float64_only),
    eg.Backprop(),
    eg.Rewind(),
]


@pytest.mark.parametrize("rule", RULES, ids=["echo", "finite nudge", "backprop", "rewind"])
def test_progress(rule):
    reports = []

    def report(step, of, phase):
        reports.append((step, of, phase))

    exact = eg.Leapfrog(exact=True) if isinstance(rule, eg.Rewind) else None

    def value(system, progress, save):
        sol = eg.solve(system, START, dt=0.05, steps=160, gradient=rule, integrator=exact, save=save, progress=progress)
        return jnp.sum(sol.q[-1] ** 2)

    plain = eqx.filter_grad(value)(SYSTEM, False, eg.AllNodes())
    jax.effects_barrier()
    assert not reports
    for save in (eg.AllNodes(), eg.AtNodes([3, 160])):
        reports.clear()
        found = eqx.filter_grad(value)(SYSTEM, report, save)
        jax.effects_barrier()
        assert jnp.allclose(found.k, plain.k, rtol=1e-6 if X64 else 1e-2)
        phases = {"forward"} if isinstance(rule, eg.Backprop) else {"forward", "echo"}
        assert {phase for _, _, phase in reports} == phases
        assert {of for _, of, _ in reports} == {160}
        for phase in phases:
            steps = [step for step, _, name in reports if name == phase]
            assert 8 <= len(steps) <= 24
            assert min(steps) <= 10
            assert max(steps) >= 140


def test_progress_costs_nothing_when_it_is_off_and_maps():
    def text(**more):
        run = jax.jit(lambda k: eg.solve(Oscillator(k), START, dt=0.05, steps=8, throw=False, **more).q)
        return run.lower(SYSTEM.k).as_text()

    assert text() == text(progress=False)
    assert "callback" not in text()
    assert "callback" in text(progress=True)
    reports = []
    ks = jnp.asarray([1.0, 2.0])

    def run(k):
        return eg.solve(Oscillator(k), START, dt=0.05, steps=8, progress=lambda *x: reports.append(x)).q

    assert jax.vmap(run)(ks).shape == (2, 9, 2)
    jax.effects_barrier()
    assert reports
    assert len(reports) <= 9


def test_progress_is_of_runs():
    with pytest.raises(eg.ArgumentError, match="progress reports a run from an InitialValue"):
        eg.solve(SYSTEM, eg.FixedEnds(START.q, START.q), dt=0.1, steps=4, progress=True)


@pytest.mark.parametrize("kind", ["floats", "fixed point", "friction"])
def test_a_restart_is_the_unbroken_run_bit_for_bit(kind):
    system = eg.Damped(SYSTEM, 0.1) if kind == "friction" else SYSTEM
    integrator = eg.Leapfrog() if kind == "floats" else eg.Leapfrog(exact=True, bits=16)
    options = {"dt": 0.0625, "integrator": integrator}
    unbroken = eg.solve(system, START, steps=90, **options)
    first = eg.solve(system, START, steps=40, save=eg.FinalNode(), **options)
    assert jnp.array_equal(first.q, unbroken.q[40])
    rest = eg.solve(system, eg.InitialValue(first.q, first.p), t0=first.t, steps=50, **options)
    for found, expected in ((rest.q, unbroken.q), (rest.p, unbroken.p), (rest.t, unbroken.t)):
        assert jnp.array_equal(found, expected[40:])


def test_several_systems_and_starts_at_once():
    ks, qs = jnp.asarray([[1.0, 2.0], [1.5, 0.5]]), jnp.asarray([[1.0, 0.0], [0.0, 1.0], [0.3, 0.4]])

    def run(k, q):
        return eg.solve(Oscillator(k), eg.InitialValue(q, jnp.zeros(2)), dt=0.1, steps=10, save=eg.FinalNode()).q

    grid = jax.vmap(jax.vmap(run, (None, 0)), (0, None))(ks, qs)
    assert grid.shape == (2, 3, 2)
    assert jnp.allclose(grid[1, 2], run(ks[1], qs[2]), atol=1e-12 if X64 else 1e-6)
