"""The one verb of devices: run a machine, and differentiate what it did by echoes on itself."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, Int, PyTree

from .._internal import _checks, _tree
from .._internal._errors import ArgumentError, ArgumentTypeError
from .._solve import Cost, Save, Trajectory, initial_value_problem
from ..boundary import AbstractBoundary
from ..gradients._time_reversal import readings_are_even, reversible
from ..integrators import State, StepInputs, time_reversed
from ..nudge import AbstractFiniteNudge
from ..problem import Problem
from ..problem._save import SaveFunction
from ..systems import Dissipative
from ._machine import AbstractMachine, Kicks, Order, Sample, echo_kicks, mirrored, mirrored_reading, total_load


def run(
    machine: AbstractMachine,
    model: Any,
    boundary: AbstractBoundary,
    inputs: PyTree = None,
    *,
    dt: Any,
    steps: int | None = None,
    t0: Any = 0.0,
    nudge: AbstractFiniteNudge,
    save: Save | None = None,
    cost: Cost | None = None,
    experiment: Any = 0,
    retrace_tolerance: float = 0.5,
    probe: Any = 0.0,
    throw: bool = True,
) -> Trajectory:
    r"""Run a machine from its initial state; the result is differentiable, though the machine is not.

    The machine is set to the parameters of the model, prepared, and run: that is the trajectory. Differentiating it,
    with `jax.grad` or `equinox.filter_grad`, makes echoes on the machine: it is prepared in the state that it was last
    read in, reverses its motion, and runs once for every strength of the nudge, kicked at each node by
    $\beta\,\partial C/\partial z$. The gradient is the weighted difference of what is read, as in
    `solve(..., gradient=Echo(nudge))`, to which it is equal on a machine that is the model. It reaches the model's
    array leaves, the initial state and the inputs, in reverse mode; nothing of it is computed from the model but the
    mirror and the momentum of an initial velocity. One forward run and as many echoes as the nudge has strengths (two
    of them symmetric, say), whatever the number of parameters.

    On an imperfect machine it is, at best, the gradient of what that machine does (see `Mismatch`), and never better
    than the machine runs back: `retrace_error` and `probe` measure that, and `survey` what every imperfection costs.

    Args:
        machine: a `Simulated` or `Hosted` machine, or one of your own.
        model: what the owner takes the machine for, a Hamiltonian or a Lagrangian; its array leaves are the parameters
            as commanded.
        boundary: an `InitialValue`.
        inputs: PyTree of arrays with a leading axis of N steps, or `None`.
        dt: step length, that of the kicks and of the nodes that are read.
        steps: number of steps N, unless `inputs` tells it.
        t0: time of node 0.
        nudge: `Symmetric(beta)`, `OneSided(beta)` or `Richardson(beta, order)`. Choose the strength by the noise of
            the machine: what differs from run to run by itself is divided by $\beta$. `"auto"` knows of rounding only.
        save: which nodes are read: `AllNodes()` by default, `FinalNode()`, `EveryNode(k)`, or a function
            `(t, q, p) -> PyTree` of each node as it was read. Only nodes that are read are kicked. With `FinalNode()`
            the memory of a `Simulated` machine does not grow with N; others make and return all nodes.
        cost: running cost `(t, q, p) -> scalar`, summed over the nodes as they were read. For a function or a cost all
            nodes are kept.
        experiment: number of the experiment: a simulated machine draws its noise anew for each, and the same for the
            same. Count it up in a training loop.
        retrace_tolerance: largest accepted distance between where echoes end, in the mean of the nudges, and where the
            run began, relative to the largest coordinate (momentum) of the run. Default 0.5; beyond that no gradient is
            useful. A smaller one stops training on a machine that has broken. `float("inf")` accepts all.
        probe: any number. Its "gradient" is the retrace error as measured on the machine during the echoes, at no cost:
            `jax.grad(loss, (0, 1))(model, probe)`.
        throw: whether to raise at run time where the machine returned no finite numbers, did not run back or lost its
            nudge in rounding.

    Returns:
        `Trajectory(t, q, p, cost, saved, None, stride)` as from `solve`, of nodes as they were read.

    Raises:
        TypeError: for something that is no machine, a nudge that no machine can make (infinitesimal, complex), a
            boundary that is not an initial value, and gradients with respect to what is not read: `dt`, `t0` and the
            inside of the machine, or second ones.
        ValueError: for shapes and numbers that do not fit together.
        RuntimeError: (at run time) see `throw`; also if the model has no time reversal, or, on a machine that reads
            slopes in the reversed motion (any but `Simulated`), if a probe finds that the slope by what is
            differentiated has none. A probe looks at a few states and times; a slope that is odd in the momentum at
            others only would pass, and have the wrong sign.

    Source: G. Pourcel and M. Ernoult, arXiv 2506.05259; V. Lopez-Pastor and F. Marquardt, PRX 13 (2023) 031020.

    Example:
        ```python
        machine = eg.device.Simulated([eg.device.Mismatch(0.1, jax.random.key(0))])

        def loss(chain):
            start = eg.InitialValue(q, p)
            sol = eg.device.run(machine, chain, start, dt=0.05, steps=200, nudge=eg.Symmetric(1e-2))
            return jnp.sum(sol.q[-1] ** 2)

        gradient = eqx.filter_grad(loss)(chain)
        ```
    """
    if not isinstance(nudge, AbstractFiniteNudge) or any(isinstance(node, complex) for node in nudge.nodes):
        raise ArgumentTypeError(
            f"device.run(nudge={nudge!r}): a machine is kicked with finite, real strengths. Pass Symmetric(beta), "
            "OneSided(beta) or Richardson(beta, order). What a machine reads is noisy by itself, see ReadoutNoise."
        )
    if _checks.tolerance("device.run", "retrace_tolerance", retrace_tolerance) is None:
        raise ArgumentError("device.run: retrace_tolerance=None; give a positive number, or float('inf').")
    _checks.flag("device.run", "throw", throw)
    problem, z0 = _posed(machine, model, boundary, inputs, dt=dt, steps=steps, t0=t0, save=save, cost=cost)
    given, n = problem.given, problem.steps
    stride = problem.save.stride(n)
    whole = cost is not None or isinstance(problem.save, SaveFunction)
    task = _Task(_tree.fixed(nudge), _number(experiment), n, 1 if whole else stride, float(retrace_tolerance), throw)
    probe = _checks.number("device.run", "probe", probe, dtype=given.h.dtype)
    nodes, final = _run((given, z0, machine, probe), task)
    k = jnp.arange(n + 1, dtype=jnp.int32)
    total = jnp.zeros_like(given.h) if cost is None else jnp.sum(jax.vmap(problem.running_cost)(k, nodes))
    k = k[-1] if stride is None else k[::stride]
    t = given.t0 + k.astype(given.h.dtype) * given.h
    if isinstance(problem.save, SaveFunction):
        (q, p), saved = final, jax.vmap(problem.observe)(k, nodes)
        return Trajectory(t, q, p, total, saved, None, None)
    q, p = final if stride is None else jax.tree.map(lambda x: x[::stride], nodes) if whole else nodes
    return Trajectory(t, q, p, total, None, None, stride)


def retrace_error(
    machine: AbstractMachine,
    model: Any,
    boundary: AbstractBoundary,
    inputs: PyTree = None,
    *,
    dt: Any,
    steps: int | None = None,
    t0: Any = 0.0,
    experiment: Any = 0,
) -> Float[Array, ""]:
    r"""Measure on the machine how well it runs back along its path: one forward run and one echo that is not nudged.

    Args:
        machine: the machine.
        model: what it is set to.
        boundary: an `InitialValue`.
        inputs: inputs with a leading axis of steps, or `None`.
        dt: step length.
        steps: number of steps, unless `inputs` tells it.
        t0: time of node 0.
        experiment: number of the experiment.

    Returns:
        The largest distance of the state where the echo ends from the one where the run began, coordinates and momenta
        each relative to their largest value in the run.

    Raises:
        TypeError: as `run` does.
        ValueError: likewise.
        RuntimeError: (at run time) if the machine runs away, so that the distance is not a number.

    Example:
        ```python
        eg.device.retrace_error(machine, chain, eg.InitialValue(q, p), dt=0.05, steps=200)
        ```
    """
    problem, z0 = _posed(machine, model, boundary, inputs, dt=dt, steps=steps, t0=t0)
    return _retrace(machine, problem.given, z0, _number(experiment), problem.steps)


class _Task(eqx.Module):
    """How a run is to be differentiated."""

    nudge: AbstractFiniteNudge
    experiment: Int[Array, ""]
    steps: int = eqx.field(static=True)
    stride: int | None = eqx.field(static=True)
    tolerance: float = eqx.field(static=True)
    throw: bool = eqx.field(static=True)


def _posed(machine: Any, model: Any, boundary: Any, inputs: PyTree, **options: Any) -> tuple[Problem, State]:
    if not isinstance(machine, AbstractMachine):
        raise ArgumentTypeError(
            f"device.run: machine={machine!r} is not a machine. Pass Simulated(), Hosted(function), or an instance of "
            "a class of your own that derives from AbstractMachine."
        )
    if isinstance(model, Dissipative):
        raise ArgumentTypeError(
            f"device.run: the model is a {type(model).__name__}, given by its forces. There is no energy whose slope a "
            "sensor could read. Pass the Hamiltonian without the damping, and give that to the machine: "
            "Simulated([Friction(rate)])."
        )
    return initial_value_problem(model, boundary, inputs, **options)


def _number(experiment: Any) -> Int[Array, ""]:
    if isinstance(experiment, Tracer) and experiment.shape == () and jnp.issubdtype(experiment.dtype, jnp.integer):
        return experiment.astype(jnp.int32)
    least, what = -(2**31), "the number of an experiment"
    return jnp.asarray(_checks.integer("device.run", "experiment", experiment, least, what=what), jnp.int32)


def forward_order(given: StepInputs, z0: State, steps: int, experiment: Any = 0) -> Order:
    """Return the order of a forward run."""
    return _order(given, z0, None, 0, experiment, steps)


def _order(given: StepInputs, start: State, kicks: Any, run: Any, experiment: Any, steps: int) -> Order:
    run, experiment = jnp.asarray(run, jnp.int32), jnp.asarray(experiment, jnp.int32)
    inputs = given.u if kicks is None else mirrored(given.system, given.u)
    return Order(given.system, start, inputs, kicks, given.h, given.t0, run, experiment, steps)


@jax.custom_jvp
def _opaque(x: PyTree) -> PyTree:
    return x


@_opaque.defjvp
def _opaque_jvp(primals: Any, tangents: Any) -> Any:
    raise ArgumentTypeError(
        "device.run: a machine is not differentiable, and its gradient, which is read off it, is not either. Second "
        "derivatives and forward mode need the inside of the machine: take them of `solve`, on the model."
    )


def _carried_out(machine: AbstractMachine, order: Order, stride: int | None) -> Sample:
    """Return what is kept of a run, out of which no derivative comes."""
    dynamic, static = eqx.partition((machine, order), eqx.is_inexact_array)
    machine, order = eqx.combine(_opaque(dynamic), static)
    return machine.sampled(order, stride)


@eqx.filter_custom_vjp
def _run(arguments: Any, task: _Task) -> tuple[State | None, State]:
    sample = _forward(arguments, task)
    return sample.kept, sample.last


@_run.def_fwd
def _run_forward(perturbed: PyTree, arguments: Any, task: _Task) -> Any:
    given, _, machine, _ = perturbed = jax.tree.map(bool, perturbed)
    if given.h or given.t0 or any(jax.tree.leaves(machine)):
        raise ArgumentTypeError(
            "device.run: the loss is differentiated with respect to "
            f"{'the clock (dt or t0)' if given.h or given.t0 else 'the inside of the machine'}, which no echo reads. "
            "Differentiate with respect to the model, the initial state and the inputs, and wrap the rest in "
            "jax.lax.stop_gradient."
        )
    wanted, z0, device, probe = arguments
    if task.throw and not device.reads_in_forward_time:
        arguments = wanted, _readable(z0, *eqx.partition(wanted, given), task.steps), device, probe
    sample = _forward(arguments, task)
    return (sample.kept, sample.last), (sample.last, _sizes(sample))


@_run.def_bwd
def _run_backward(residuals: Any, bars: Any, perturbed: PyTree, arguments: Any, task: _Task) -> Any:
    del perturbed
    _, z0, machine, probe = arguments

    def completed(bars: Any, *lead: int) -> State | None:
        """Return cotangents with zeros where there are none, or `None` if there are none at all."""
        if not jax.tree.leaves(bars):
            return None
        full = jax.tree.map(lambda x: jnp.zeros((*lead, *x.shape), x.dtype), z0)
        return jax.tree.map(lambda bar, zero: zero if bar is None else bar, bars, full, is_leaf=lambda x: x is None)

    kept = None if task.stride is None else completed(bars[0], task.steps // task.stride + 1)
    final = completed(bars[1])
    if kept is None and final is None:
        final = _tree.zeros_like(z0)
    bars = kept, final
    parameters, du, z0, retrace = _echoes(arguments, residuals, bars, task)
    nothing = jax.tree.map(lambda _: None, eqx.filter(machine, eqx.is_inexact_array))
    return StepInputs(parameters, du, None, None), z0, nothing, retrace.astype(probe.dtype)  # pyright: ignore


@eqx.filter_jit
def _readable(z0: State, wanted: StepInputs, rest: StepInputs, steps: int) -> State:
    """Return `z0`, or raise at run time if echoes would read other slopes than the free run had."""
    return eqx.error_if(
        z0,
        ~readings_are_even(wanted, rest, steps, z0),
        "device.run: the model's energy is even in the momentum, but not its slope by a parameter or input that is "
        "differentiated: one whose part of the energy is odd (a wind, a magnetic field) and happens to be zero here. "
        "Echoes would read it with the wrong sign. Do not differentiate by it, or give the model the `mirror` under "
        "which its energy is even.",
    )


@eqx.filter_jit
def _forward(arguments: Any, task: _Task) -> Sample:
    given, z0, machine, _ = arguments
    if task.throw:
        z0 = eqx.error_if(
            z0,
            ~reversible(given, task.steps, z0),
            "device.run: the model is not time-reversible: its energy is not even in the momentum, H(t, q, -p, u) != "
            "H(t, q, p, u), under its mirror. No echo of such a machine retraces its path. Remove the part that is odd "
            "in p, or give the model the `mirror` under which it is even (an orthogonal involution).",
        )
    sample = _carried_out(machine, forward_order(given, z0, task.steps, task.experiment), task.stride)
    if not task.throw:
        return sample
    return eqx.error_if(
        sample,
        ~_tree.all_finite((sample.last, sample.sizes)),
        "device.run: the state that the machine was last read in is not finite. It may run away (an unbounded "
        "potential), dt may be too long for a simulated one, or the parameters already hold a NaN or an infinity.",
    )


@eqx.filter_jit
def _echoes(arguments: Any, residuals: Any, bars: Any, task: _Task) -> tuple[PyTree, PyTree, State, Float[Array, ""]]:
    """Return the cotangents of parameters, inputs and initial state, and the retrace error: the backward pass."""
    (given, z0, machine, _), (final, sizes), nudge = arguments, residuals, task.nudge
    system, unit = given.system, echo_kicks(given.system, bars[0], bars[1], task.steps, task.stride)
    stride = None if unit.kept is None else task.stride
    load = total_load(unit, sizes)
    if task.throw:
        final = eqx.error_if(
            final,
            ~jnp.isfinite(load),
            "device.run: the loss has a derivative that is NaN or infinite at a node of the run, so the machine cannot "
            "be kicked by it. A root or a logarithm of zero, or a division by it, is the usual cause.",
        )
    # The state in units of its sizes, of which the kicks are measured.
    beta = nudge.strength(jnp.ones_like(sizes[:1]), load, task.steps)

    def echo(x: tuple[Float[Array, ""], Int[Array, ""]]) -> tuple[PyTree, PyTree, State]:
        node, run = x
        order = _order(given, final, _tree.scale(beta * node, unit), run, task.experiment, task.steps)
        sample = _carried_out(machine, order, stride)
        return sample.parameters, sample.inputs, sample.last

    # One after the other: there is one machine.
    nodes = jnp.asarray(nudge.nodes, beta.dtype)
    records = jax.lax.map(echo, (nodes, jnp.arange(1, len(nudge.nodes) + 1, dtype=jnp.int32)))
    parameters, du, end = nudge.response(beta, records)
    dq, dp = time_reversed(system, end)
    found = parameters, mirrored_reading(system, given.u, du), (_tree.negate(dp), dq)

    *_, ends = records
    ended, about = nudge.retraced(ends)
    retrace = _distance(time_reversed(system, z0), ended, sizes)
    if task.throw:
        found = eqx.error_if(
            found,
            ~(retrace - _distance(ended, about, sizes) <= task.tolerance),
            "device.run: the machine did not run back along its path, so what its echoes read is no gradient. The "
            f"measured retrace error exceeds retrace_tolerance={task.tolerance:g}. Likely causes: (a) friction during "
            "a run; (b) an imperfect mirror; (c) noise that is not small; (d) chaos; (e) a nudge that is too strong. "
            "Shorten the run, or raise the tolerance to see what comes out.",
        )
        found = nudge.check(found, beta, ends, load, task.steps)
        found = eqx.error_if(
            found,
            ~_tree.all_finite(found),
            "device.run: the machine ran back along its path, but what its echoes read of parameters, inputs or the "
            "state holds a NaN or an infinity.",
        )
    parameters, du, z0 = found
    return parameters, du, z0, retrace


@eqx.filter_jit
def _retrace(machine: AbstractMachine, given: StepInputs, z0: State, experiment: Any, steps: int) -> Float[Array, ""]:
    out = _carried_out(machine, forward_order(given, z0, steps, experiment), None)
    still = Kicks(_tree.zeros_like(z0), None)
    back = _carried_out(machine, _order(given, out.last, still, 1, experiment, steps), None).last
    error = _distance(time_reversed(given.system, z0), back, _sizes(out))
    return eqx.error_if(
        error,
        ~jnp.isfinite(error),
        "device.retrace_error: the machine was read in states that are not finite, forward or in the echo. It may run "
        "away, dt may be too long for a simulated one, or parameters or the initial state already hold a NaN.",
    )


def _sizes(sample: Sample) -> Float[Array, "2"]:
    """Return the largest coordinate and the largest momentum of a run; of what stays zero, the other one."""
    sizes = sample.sizes
    largest = jnp.max(sizes)
    return jnp.where(sizes > 0, sizes, jnp.where(largest > 0, largest, 1))


def _distance(a: State, b: State, sizes: Float[Array, "2"]) -> Float[Array, ""]:
    """Return the largest distance of two states, coordinates and momenta each in units of their size."""
    return jnp.max(jnp.stack([_tree.max_abs(_tree.subtract(x, y)) for x, y in zip(a, b, strict=True)]) / sizes)
