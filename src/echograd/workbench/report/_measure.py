"""Measurements for a report: gradients, and an echo that retraces."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from echograd import (
    Backprop,
    Echo,
    GradientReport,
    Reciprocal,
    SeparableHamiltonian,
    check_gradients,
)
from echograd.gradients import AbstractGradient
from echograd.integrators import State
from echograd.nn import HSSM, DampedHRU

from ..data import Split
from ..training._learner import costs

Oscillations = Float[Array, "steps channels units"]


class Subject(eqx.Module):
    """A model, and the cases of its loss.

    Args:
        model: the model.
        state: state of its batch norms.
        inputs: inputs of the model, shape (cases, steps, channels).
        mask: True at valid steps; `None` if all are valid.
        targets: class indices, or real numbers.
    """

    model: HSSM
    state: Any
    inputs: Float[Array, "cases steps channels"]
    mask: Any
    targets: Any

    @staticmethod
    def of(model: HSSM, state: Any, split: Split, cases: int, steps: int | None = None) -> "Subject":
        """Take cases at even distances in a split, and their first steps."""
        index = np.unique(np.linspace(0, len(split) - 1, cases).round().astype(int))
        few = split.take(index)
        mask = None if few.equal_length else jnp.asarray(few.mask[:, :steps])
        dtype = model.decoder.weight.dtype
        targets = few.targets if few.targets.dtype == np.int32 else few.targets.astype(dtype)
        inputs = jnp.asarray(few.inputs[:, :steps].astype(dtype))
        if inputs.shape[1] < few.inputs.shape[1] and targets.ndim > 1:
            targets = targets[:, : inputs.shape[1] // model.every]
        return Subject(eqx.nn.inference_mode(model), state, inputs, mask, jnp.asarray(targets))

    def stretched(self, steps: int) -> "Subject":
        """Return the same cases with another number of steps, truncated or repeated."""
        times = -(-steps // self.inputs.shape[1])

        def stretch(x: Array) -> Array:
            return jnp.tile(x, (1, times, *[1] * (x.ndim - 2)))[:, :steps]

        targets = self.targets
        if self.model.head == "regression":
            targets = jnp.tile(targets, (1, times, 1))[:, : steps // self.model.every]
        mask = self.mask
        if mask is not None:
            # Keep the number of valid steps, but move them to the beginning.
            mask = jnp.arange(steps)[None] < jnp.sum(stretch(mask), 1, keepdims=True)
        return Subject(self.model, self.state, stretch(self.inputs), mask, targets)

    def in_double_precision(self) -> "Subject":
        """Return the subject in float64; call it with float64 enabled."""
        return jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float64) if eqx.is_inexact_array(x) else x, self)

    @property
    def rule(self) -> str:
        """The name of the gradient of the model: "echo", or "reciprocal" for oscillators that lose energy."""
        return "reciprocal" if isinstance(self.model.blocks[0].unit, DampedHRU) else "echo"

    @property
    def gradients(self) -> dict[str, AbstractGradient]:
        """The exact gradient of the model, and backpropagation, by name."""
        return {self.rule: Reciprocal() if self.rule == "reciprocal" else Echo(), "backprop": Backprop()}

    def loss(self, model: HSSM, gradient: AbstractGradient) -> Float[Array, ""]:
        """Return the mean loss of the cases; all units of the model use `gradient`."""
        model = eqx.tree_at(lambda m: [b.unit.gradient for b in m.blocks], model, [gradient] * len(model.blocks))

        outputs = model(self.inputs, self.state, mask=self.mask)
        return jnp.mean(costs(outputs if self.state is None else outputs[0], self.targets))


def check_model(subject: Subject) -> GradientReport:
    """Compare the gradient of the model with backprop, in float64."""
    with jax.enable_x64(True):
        subject = subject.in_double_precision()
        return check_gradients(subject.loss, subject.model, {subject.rule: subject.gradients[subject.rule]})


@dataclasses.dataclass(frozen=True)
class Retrace:
    """One oscillator of a model on one case: the free run, its echo, and a nudged echo, all in the order of time.

    Attributes:
        steps: node indices 0..N.
        unit: index of the oscillator.
        forward: position and momentum of the free run, shape (nodes, 2).
        echo: the same of the echo, with its momentum flipped back.
        nudged: the same of an echo with a nudge large enough to be visible.
        echo_error: distance of the echo from the free run over all oscillators, relative to the norm of the run.
        nudged_error: the same of the nudged echo.
        beta: strength of the nudge.
    """

    steps: np.ndarray
    unit: int
    forward: np.ndarray
    echo: np.ndarray
    nudged: np.ndarray
    echo_error: np.ndarray
    nudged_error: np.ndarray
    beta: float


def undamped(model: HSSM) -> SeparableHamiltonian:
    """Return the oscillators of the first block, which must have an echo."""
    system = model.blocks[0].unit.system
    assert isinstance(system, SeparableHamiltonian)
    return system


def retrace(subject: Subject, case: int = 0, shift: float = 0.6) -> Retrace:
    """Run the oscillators of the first block on one case, then a free echo and an echo nudged by the loss.

    Args:
        subject: the model and its cases.
        case: index of the case.
        shift: largest displacement of the shown oscillator by the nudge, in units of its standard deviation.
    """
    model = subject.model
    valid = subject.inputs.shape[1] if subject.mask is None else int(subject.mask[case].sum())
    unit, system = model.blocks[0].unit, undamped(model)
    drive, force = _drive_and_force(model, subject.state, subject.inputs[case, :valid], subject.targets[case])
    forward = _free_nodes(system, drive)
    echo, response = _echo_and_response(system, drive, force, forward)

    # Show an oscillator with a large relative displacement by the loss, a large weight in the output, and few swings.
    q = np.asarray(forward[0][:, 0])
    spread = q.std(0)
    moved = np.abs(np.asarray(response[0][:, 0])).max(0) / np.maximum(spread, np.finfo(q.dtype).tiny)
    say = spread * np.linalg.norm(np.asarray(unit.read_out[:, 0]), axis=0)
    swings = np.count_nonzero(np.diff(np.signbit(q - q.mean(0)), axis=0), axis=0)
    eligible = (say >= np.median(say)) & (swings <= max(40, swings.min()))
    chosen = int(np.argmax(np.where(eligible if eligible.any() else True, moved, -1)))
    beta = shift / moved[chosen] if moved[chosen] > 0 else 0.0
    nudged = _echo_nodes(system, drive, force, forward, jnp.asarray(beta, drive.dtype))

    def shown(z: State) -> np.ndarray:
        return np.stack([np.asarray(x[:, 0, chosen]) for x in z], 1)

    def distance(z: State) -> np.ndarray:
        rows = [np.sum(np.asarray(a - b) ** 2, (1, 2)) for a, b in zip(z, forward, strict=True)]
        size = [np.sum(np.asarray(b) ** 2, (1, 2)).mean() for b in forward]
        return np.sqrt(sum(rows) / sum(size))

    return Retrace(
        steps=np.arange(len(forward[0])) * model.patch,
        unit=chosen,
        forward=shown(forward),
        echo=shown(echo),
        nudged=shown(nudged),
        echo_error=distance(echo),
        nudged_error=distance(nudged),
        beta=float(beta),
    )


@eqx.filter_jit
def _drive_and_force(
    model: HSSM, state: Any, x: Float[Array, "steps channels"], target: Array
) -> tuple[Oscillations, Oscillations]:
    """Return the drive of the oscillators of the first block, and the gradient of the loss in their positions."""
    features = model.encode(x[None])
    running = [block.statistics(state) for block in model.blocks]
    system, layer = model.blocks[0].around(running[0])
    prepared = layer.prepare(features)
    drive = layer.drive(prepared)
    rest = jnp.zeros(drive.shape[:-1], drive.dtype)
    _, q = system.stepwise((rest, rest), drive)

    def loss(q: Array) -> Array:
        x = layer.output(features, prepared, q, jnp.zeros((), jnp.int32))
        for other, known in zip(model.blocks[1:], running[1:], strict=True):
            x, _ = other(x, known)
        outputs = model.decode(x)[0]
        truth = target if target.ndim == 0 else target.ravel()[: outputs.size]
        return jnp.mean(costs(outputs[None], truth[None]))

    return drive[:, :, 0].T, jax.grad(loss)(q)[:, :, 0].T


@eqx.filter_jit
def _free_nodes(system: Any, drive: Oscillations) -> State:
    """Return all nodes of the free run, which starts at rest."""

    def advance(z: State, u: Array) -> tuple[State, State]:
        z = system.step(z, u)
        return z, z

    rest = jnp.zeros(drive.shape[1:], drive.dtype), jnp.zeros(drive.shape[1:], drive.dtype)
    _, later = jax.lax.scan(advance, rest, drive)
    return jax.tree.map(lambda first, later: jnp.concatenate([first[None], later]), rest, later)


@eqx.filter_jit
def _echo_nodes(system: Any, drive: Oscillations, force: Oscillations, forward: State, beta: Float[Array, ""]) -> State:
    """Return all nodes of an echo from the end of the free run, with momenta flipped back for comparison."""

    def advance(z: State, row: tuple[Array, Array]) -> tuple[State, State]:
        u, push = row
        z = system.step((z[0], z[1] + beta * push), u)
        return z, z

    end = forward[0][-1], -forward[1][-1]
    _, earlier = jax.lax.scan(advance, end, (drive, force), reverse=True)
    q, p = jax.tree.map(lambda earlier, end: jnp.concatenate([earlier, end[None]]), earlier, end)
    return q, -p


@eqx.filter_jit
def _echo_and_response(system: Any, drive: Oscillations, force: Oscillations, forward: State) -> tuple[State, State]:
    """Return the un-nudged echo, and how it changes with the strength of the nudge."""
    zero, one = jnp.zeros((), drive.dtype), jnp.ones((), drive.dtype)
    return jax.jvp(lambda beta: _echo_nodes(system, drive, force, forward, beta), (zero,), (one,))
