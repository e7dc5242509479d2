"""A layer of oscillators over whole sequences of its own, with its reverse rule, and one step at a time."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._internal import _tree
from ..gradients import AbstractGradient, Backprop
from ..gradients._backprop import checkpointed_scan
from ..integrators import State
from ._layer import AbstractLayer, echo_layer, run_layer, state_or_rest
from ._oscillators import AbstractBank
from ._sequence import Blocks, Outer, Sequence, block_length, cuts, pad


def transduce(
    oscillators: AbstractBank, layer: AbstractLayer, x: Outer, gradient: AbstractGradient, state: State | None = None
) -> tuple[Outer, State | None]:
    r"""Return the outputs of a layer for whole sequences, and the final state if an initial one is given.

    The sequence is processed block by block. Wide arrays (drives, positions, activations) live for one block only, in
    both passes. With an `Echo`, the backward pass keeps the input `x` and the final state, and gets the positions from
    the echo itself. With `Reciprocal` it keeps the states between the blocks.

    Without a state the oscillators start at rest, and the last block is padded. Padding comes after the end, so it
    changes nothing before it, but it would move the final state on. With a state the sequence is cut into pieces of
    whole blocks instead, and every piece hands its final state to the next. Blocks are numbered within a piece, so a
    layer with dropout would use its random numbers twice.

    Args:
        oscillators: the oscillators.
        layer: the layer around them.
        x: the inputs.
        gradient: the gradient.
        state: positions and momenta, of shape (units, channels, batch).
    """
    gradient = _tree.fixed(gradient)
    batch, steps = x.shape[layer.axis - 1 : layer.axis + 1]

    def run(x: Outer, state: State | None, length: int) -> tuple[Outer, State | None]:
        if isinstance(gradient, Backprop):
            return _backpropagated(oscillators, layer, x, state, length, gradient.checkpoints)
        return _echoed((oscillators, layer, x, state), length, gradient)

    if state is None:
        length = block_length(steps, batch)
        if not isinstance(gradient, Backprop):
            return run(x, None, length)
        y, _ = run(pad(x, layer.axis, length), None, length)
        return jax.lax.slice_in_dim(y, 0, steps, axis=layer.axis), None
    outputs, start = [], 0
    for size, length in cuts(steps, batch):
        y, state = run(jax.lax.slice_in_dim(x, start, start + size, axis=layer.axis), state, length)
        outputs.append(y)
        start += size
    return outputs[0] if len(outputs) == 1 else jnp.concatenate(outputs, layer.axis), state


def stream(
    oscillators: AbstractBank, layer: AbstractLayer, z: State, x: Float[Array, " features"]
) -> tuple[State, Float[Array, " outputs"]]:
    """Advance by one input row and return the new state and the output: the streaming form of `transduce`."""
    single = layer.axis - 1, layer.axis
    x = jnp.expand_dims(x, single)
    prepared = layer.prepare(x)
    z = oscillators.step(z, layer.drive(prepared)[:, :, 0, 0].T)
    return z, jnp.squeeze(layer.output(x, prepared, z[0].T[:, :, None, None], jnp.zeros((), jnp.int32)), single)


def _backpropagated(
    oscillators: AbstractBank,
    layer: AbstractLayer,
    x: Outer,
    state: State | None,
    length: int,
    checkpoints: int | None,
) -> tuple[Outer, State]:
    """Run the sequence step by step and let JAX differentiate it: the oracle, which shares no code with the echo."""

    def body(z: Any, row: Any) -> tuple[Any, Outer]:
        block, x = row
        prepared = layer.prepare(x)
        z, q = oscillators.stepwise(z, layer.drive(prepared))
        return z, layer.output(x, prepared, q, block)

    batch, steps = x.shape[layer.axis - 1 : layer.axis + 1]
    before, after = x.shape[: layer.axis], x.shape[layer.axis + 1 :]
    rows = jnp.moveaxis(x.reshape(*before, steps // length, length, *after), layer.axis, 0)
    blocks = jnp.arange(steps // length, dtype=jnp.int32)
    start = state_or_rest(state, oscillators, layer, batch)
    final, y = checkpointed_scan(body, start, (blocks, rows), checkpoints)
    y = jnp.moveaxis(y, 0, layer.axis)
    return y.reshape(*y.shape[: layer.axis], steps, *y.shape[layer.axis + 2 :]), final


# Compiled as one function: the primal function and its forward rule both call it, and it is traced once.
@eqx.filter_jit
def _run(arguments: Any, length: int, gradient: AbstractGradient) -> tuple[Any, tuple[Outer, State | None]]:
    """Return what the backward pass needs of the run, the outputs, and the final state if an initial one is given."""
    oscillators, layer, x, state = arguments
    blocks = _blocks(x, length, layer.axis)
    batch, steps, outputs = blocks.batch, x.shape[layer.axis], layer.sizes[2]
    y = jnp.zeros((batch, steps, outputs) if layer.axis == 1 else (outputs, batch, steps), x.dtype)
    y = Sequence.of(y, length, layer.axis)
    record, final, y = run_layer(oscillators, layer, gradient, blocks, y, state)
    return record, (y.whole(), None if state is None else final)


def _blocks(x: Outer, length: int, axis: int) -> Blocks:
    """Return blocks that read from `x` and write into a sequence of other rows."""
    inputs = Sequence.of(x, length, axis)
    return Blocks(
        inputs.number,
        length,
        x.shape[axis - 1],
        lambda store, block: inputs.take(block),
        lambda store, rows, block: store.put(rows, block),
    )


@eqx.filter_custom_vjp
def _echoed(arguments: Any, length: int, gradient: AbstractGradient) -> tuple[Outer, State | None]:
    return _run(arguments, length, gradient)[1]


@_echoed.def_fwd
def _echoed_forward(perturbed: Any, arguments: Any, length: int, gradient: AbstractGradient) -> tuple[Any, Any]:
    del perturbed
    record, (y, final) = _run(arguments, length, gradient)
    return (y, final), (record, final)


@_echoed.def_bwd
def _echoed_backward(
    residuals: Any, bar: Any, perturbed: Any, arguments: Any, length: int, gradient: AbstractGradient
) -> Any:
    del perturbed
    oscillators, layer, x, state = arguments
    (record, final), (bar_y, bar_final), axis = residuals, bar, layer.axis
    # A cotangent of zero is `None`.
    if bar_y is not None:
        bar_y = Sequence.of(bar_y, length, axis)
    if state is not None:
        bar_final = jax.tree.map(lambda x, bar: jnp.zeros_like(x) if bar is None else bar, final, bar_final)
    (bar_oscillators, bar_layer, bar_state), bar_x, check = echo_layer(
        oscillators,
        layer,
        gradient,
        _blocks(x, length, axis),
        lambda store, outputs, block: jnp.zeros_like(outputs) if bar_y is None else bar_y.take(block),
        record,
        Sequence.of(jnp.zeros_like(x), length, axis),
        None if state is None else (state, final, bar_final),
    )
    return _tree.check_heads(check, (bar_oscillators, bar_layer, bar_x.whole(), bar_state))
