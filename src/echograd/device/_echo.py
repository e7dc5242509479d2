"""A machine with a reverse rule: its forward run, and the echoes that give its gradient."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from .._internal import _tree
from .._internal._errors import ArgumentTypeError, refuse_if
from ..gradients._time_reversal import check_time_reversal, readings_are_even
from ..integrators import State, StepInputs
from ..integrators._base import time_reversed
from ..nudge import AbstractFiniteNudge
from ._machine import AbstractMachine, Kicks, Order, Sample, echo_kicks, mirrored, mirrored_reading, total_load


class EchoPlan(eqx.Module):
    """The settings of the echoes of a run. Every `stride`-th node is kept, or for `None` only the last one."""

    nudge: AbstractFiniteNudge
    experiment: Int[Array, ""]
    steps: int = eqx.field(static=True)
    stride: int | None = eqx.field(static=True)
    tolerance: float = eqx.field(static=True)
    throw: bool = eqx.field(static=True)


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
        "device.run: a machine is not differentiable, and neither is its gradient, which is measured. For second "
        "derivatives and forward mode use `solve` on the model."
    )


def _execute(machine: AbstractMachine, order: Order, stride: int | None) -> Sample:
    """Carry out an order. JAX cannot differentiate through the result."""
    dynamic, static = eqx.partition((machine, order), eqx.is_inexact_array)
    machine, order = eqx.combine(_opaque(dynamic), static)
    return machine.sampled(order, stride)


@eqx.filter_custom_vjp
def run_machine(arguments: Any, plan: EchoPlan) -> tuple[State | None, State]:
    sample = _forward(arguments, plan)
    return sample.kept, sample.last


@run_machine.def_fwd
def _machine_forward(perturbed: PyTree, arguments: Any, plan: EchoPlan) -> Any:
    given, _, machine, _ = perturbed = jax.tree.map(bool, perturbed)
    if given.h or given.t0 or any(jax.tree.leaves(machine)):
        raise ArgumentTypeError(
            "device.run: the loss is differentiated with respect to "
            f"{'the clock (dt or t0)' if given.h or given.t0 else 'the inside of the machine'}, which no echo reads. "
            "Differentiate with respect to the model, the initial state and the inputs only; wrap everything else in "
            "jax.lax.stop_gradient."
        )
    wanted, z0, device, probe = arguments
    if plan.throw and not device.reads_in_forward_time:
        arguments = wanted, _readable(z0, *eqx.partition(wanted, given), plan.steps), device, probe
    sample = _forward(arguments, plan)
    return (sample.kept, sample.last), (sample.last, _sizes(sample))


@run_machine.def_bwd
def _machine_backward(residuals: Any, bars: Any, perturbed: PyTree, arguments: Any, plan: EchoPlan) -> Any:
    del perturbed
    _, z0, machine, probe = arguments

    def completed(bars: Any, *lead: int) -> State | None:
        """Return cotangents with zeros for missing ones, or `None` if all are missing."""
        if not jax.tree.leaves(bars):
            return None
        full = jax.tree.map(lambda x: jnp.zeros((*lead, *x.shape), x.dtype), z0)
        return jax.tree.map(lambda bar, zero: zero if bar is None else bar, bars, full, is_leaf=lambda x: x is None)

    kept = None if plan.stride is None else completed(bars[0], plan.steps // plan.stride + 1)
    final = completed(bars[1])
    if kept is None and final is None:
        final = _tree.zeros_like(z0)
    bars = kept, final
    parameters, du, z0, retrace = _echoes(arguments, residuals, bars, plan)
    nothing = jax.tree.map(lambda _: None, eqx.filter(machine, eqx.is_inexact_array))
    return StepInputs(parameters, du, None, None), z0, nothing, retrace.astype(probe.dtype)  # pyright: ignore


@eqx.filter_jit
def _readable(z0: State, wanted: StepInputs, rest: StepInputs, steps: int) -> State:
    """Return `z0`, or raise at run time if the slopes that echoes read are not those of the forward run."""
    return eqx.error_if(
        z0,
        ~readings_are_even(wanted, rest, steps, z0),
        "device.run: the model's energy is even in the momentum, but its slope by a differentiated parameter or input "
        "is not. The odd part of the energy (a wind, a magnetic field) happens to be zero here. Echoes would read the "
        "slope with the wrong sign. Do not differentiate by this parameter, or give the model the `mirror` under which "
        "its energy is even.",
    )


@eqx.filter_jit
def _forward(arguments: Any, plan: EchoPlan) -> Sample:
    given, z0, machine, _ = arguments
    if plan.throw:
        z0 = check_time_reversal(given, plan.steps, z0, what="device.run: the model", or_else="")
    sample = _execute(machine, forward_order(given, z0, plan.steps, plan.experiment), plan.stride)
    if not plan.throw:
        return sample
    return eqx.error_if(
        sample,
        ~_tree.all_finite((sample.last, sample.sizes)),
        "device.run: a state read from the machine is not finite. Likely causes: (a) the machine runs away (an "
        "unbounded potential); (b) dt is too long for a simulated machine; (c) the parameters hold a NaN or an "
        "infinity.",
    )


@eqx.filter_jit
def _echoes(
    arguments: Any, residuals: Any, bars: Any, plan: EchoPlan
) -> tuple[PyTree, PyTree, State, Float[Array, ""]]:
    """Return the cotangents of parameters, inputs and initial state, and the retrace error: the backward pass."""
    (given, z0, machine, _), (final, sizes), nudge = arguments, residuals, plan.nudge
    system, unit = given.system, echo_kicks(given.system, bars[0], bars[1], plan.steps, plan.stride)
    stride = None if unit.kept is None else plan.stride
    load = total_load(unit, sizes)
    if plan.throw:
        final = eqx.error_if(
            final,
            ~jnp.isfinite(load),
            "device.run: the loss has a derivative that is NaN or infinite at a node of the run, so the machine cannot "
            "be kicked by it. The usual cause is a square root or logarithm of zero, or a division by zero.",
        )
    # The load is relative to the sizes of the state, so the state has size 1.
    beta = nudge.strength(jnp.ones_like(sizes[:1]), load, plan.steps)

    def echo(x: tuple[Float[Array, ""], Int[Array, ""]]) -> tuple[PyTree, PyTree, State]:
        node, run = x
        order = _order(given, final, _tree.scale(beta * node, unit), run, plan.experiment, plan.steps)
        sample = _execute(machine, order, stride)
        return sample.parameters, sample.inputs, sample.last

    # One echo after the other, as there is only one machine.
    nodes = jnp.asarray(nudge.nodes, beta.dtype)
    records = jax.lax.map(echo, (nodes, jnp.arange(1, len(nudge.nodes) + 1, dtype=jnp.int32)))
    parameters, du, end = nudge.response(beta, records)
    dq, dp = time_reversed(system, end)
    found = parameters, mirrored_reading(system, given.u, du), (_tree.negate(dp), dq)

    *_, ends = records
    ended, about = nudge.retraced(ends)
    retrace = _distance(time_reversed(system, z0), ended, sizes)
    if plan.throw:
        error = retrace - _distance(ended, about, sizes)
        found = refuse_if(
            found,
            ~(error <= plan.tolerance),
            "device.run: the machine did not run back along its path, so its readings are not a gradient. The measured "
            f"retrace error is {{}}, more than retrace_tolerance={plan.tolerance:g}. Likely causes: (a) friction "
            "during a run; (b) an imperfect mirror; (c) noise that is not small; (d) chaos; (e) a nudge that is too "
            "strong. Shorten the run, or raise the tolerance to see the result.",
            error,
        )
        found = nudge.check(found, beta, ends, load, plan.steps)
        found = eqx.error_if(
            found,
            ~_tree.all_finite(found),
            "device.run: the machine ran back along its path, but its readings of parameters, inputs or the state hold "
            "a NaN or an infinity.",
        )
    parameters, du, z0 = found
    return parameters, du, z0, retrace


@eqx.filter_jit
def measure_retrace(
    machine: AbstractMachine, given: StepInputs, z0: State, experiment: Any, steps: int
) -> Float[Array, ""]:
    out = _execute(machine, forward_order(given, z0, steps, experiment), None)
    still = Kicks(_tree.zeros_like(z0), None)
    back = _execute(machine, _order(given, out.last, still, 1, experiment, steps), None).last
    error = _distance(time_reversed(given.system, z0), back, _sizes(out))
    return eqx.error_if(
        error,
        ~jnp.isfinite(error),
        "device.retrace_error: a state read from the machine, in the forward run or in the echo, is not finite. Likely "
        "causes: (a) the machine runs away; (b) dt is too long for a simulated machine; (c) the parameters or the "
        "initial state hold a NaN or an infinity.",
    )


def _sizes(sample: Sample) -> Float[Array, "2"]:
    """Return the largest coordinate and the largest momentum of a run; where one is zero, the other one twice."""
    sizes = sample.sizes
    largest = jnp.max(sizes)
    return jnp.where(sizes > 0, sizes, jnp.where(largest > 0, largest, 1))


def _distance(a: State, b: State, sizes: Float[Array, "2"]) -> Float[Array, ""]:
    """Return the largest distance of two states, with coordinates and momenta each in units of their size."""
    return jnp.max(jnp.stack([_tree.max_abs(_tree.subtract(x, y)) for x, y in zip(a, b, strict=True)]) / sizes)
