"""The loop over time inside one GPU kernel, for uncoupled oscillators."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

# Oscillators per program of the grid: one warp. The threads are independent, so small programs spread a few oscillators
# over many multiprocessors.
_BLOCK = 32

# Steps whose rows are prefetched while the same number of earlier steps is computed.
_AHEAD = 8

# An elementwise step of many oscillators: (constants, state, row, push) -> (state, output).
Step = Callable[[PyTree, PyTree, PyTree, PyTree], tuple[PyTree, PyTree]]


def scan(
    step: Step, constants: PyTree, z: PyTree, rows: PyTree, pushes: PyTree, *, reverse: bool = False
) -> tuple[PyTree, PyTree]:
    """Return the result of `jax.lax.scan` for an elementwise step, with the whole loop in one kernel.

    A scan launches at least one kernel per step, which reads and writes the state. Here a thread runs its oscillator
    through all steps: the state stays in registers, and only rows and outputs use memory. The derivative with respect
    to state and pushes is one kernel too, which advances the tangent with the state. Triton compiles the kernel for a
    GPU; other devices interpret it, for tests.

    Args:
        step: an elementwise function (constants, state, row, push) -> (state, output).
        constants: arrays of the shape of an array of the state.
        z: the state, arrays of one shape.
        rows: inputs of the steps that are not differentiated: arrays of that shape behind an axis of time.
        pushes: inputs of the steps that are differentiated, shaped like the rows.
        reverse: whether to begin with the last row.
    """
    shape = jax.tree.leaves(z)[0].shape
    size = jax.tree.leaves(z)[0].size
    block = min(_BLOCK, 1 << (size - 1).bit_length())
    padding = -size % block

    def flat(x: Any) -> Any:
        x = x.reshape(*x.shape[: x.ndim - len(shape)], size)
        # Pad with ones, because a step may divide by a constant. The padding is cut off later.
        return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, padding)], constant_values=1) if padding else x

    def unflat(x: Any) -> Any:
        return x[..., :size].reshape(*x.shape[:-1], *shape)

    constants, rows = jax.tree.map(flat, (constants, rows))

    @jax.custom_jvp
    def run(z: PyTree, pushes: PyTree) -> Any:
        return _launched(lambda c, z, rows: step(c, z, *rows), constants, z, (rows, pushes), block, reverse)

    @run.defjvp
    def _(primals: Any, tangents: Any) -> Any:
        def both(constants: PyTree, z: Any, rows: Any) -> Any:
            row, *pushed = rows
            primals, tangents = zip(z, pushed, strict=True)
            (z, output), (dz, change) = jax.jvp(lambda z, push: step(constants, z, row, push), primals, tangents)
            return (z, dz), (output, change)

        (z, pushes), (dz, changes) = primals, tangents
        (z, dz), outputs = _launched(both, constants, (z, dz), (rows, pushes, changes), block, reverse)
        return (z, outputs[0]), (dz, outputs[1])

    return jax.tree.map(unflat, run(*jax.tree.map(flat, (z, pushes))))


def _launched(step: Any, constants: PyTree, z: PyTree, rows: PyTree, block: int, reverse: bool) -> Any:
    """Return final state and outputs of (constants, state, row) -> (state, output) on vectors."""
    # Imported here because only kernels need Pallas, and JAX has deprecated its Triton backend.
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton

    steps, size = jax.tree.leaves(rows)[0].shape
    given = jax.tree.map(lambda x: jax.ShapeDtypeStruct((size,), x.dtype), (constants, z, rows))
    shapes = jax.eval_shape(step, *given)
    shapes = shapes[0], jax.tree.map(lambda x: jax.ShapeDtypeStruct((steps, size), x.dtype), shapes[1])
    inputs, tree = jax.tree.flatten((constants, z, rows))
    results, result_tree = jax.tree.flatten(shapes)

    def kernel(*references: Any) -> None:
        constants, z, rows = tree.unflatten(references[: len(inputs)])
        final, outputs = result_tree.unflatten(references[len(inputs) :])
        constants, z = jax.tree.map(lambda x: x[...], (constants, z))

        def place(i: Any) -> Any:
            return steps - 1 - i if reverse else i

        def fetched(first: Any) -> list[PyTree]:
            """Return the rows of the next steps. These loads do not depend on earlier steps."""
            last = jnp.int32(steps - 1)
            places = [place(jnp.minimum(first + j, last)) for j in range(_AHEAD)]
            return [jax.tree.map(lambda x, k=k: x[k, :], rows) for k in places]

        def taken(first: Any, z: PyTree, rows: list[PyTree]) -> PyTree:
            for j, row in enumerate(rows):
                z, output = step(constants, z, row)
                k = place(first + j)
                jax.tree.map(lambda to, x, k=k: to.__setitem__((k, slice(None)), x), outputs, output)
            return z

        def body(i: Any, carry: Any) -> Any:
            z, rows = carry
            following = fetched((i + 1) * _AHEAD)
            return taken(i * _AHEAD, z, rows), following

        rounds = jnp.int32(steps // _AHEAD)
        z, rows_left = jax.lax.fori_loop(jnp.int32(0), rounds, body, (z, fetched(jnp.int32(0))))
        z = taken(rounds * _AHEAD, z, rows_left[: steps % _AHEAD])
        jax.tree.map(lambda to, x: to.__setitem__(..., x), final, z)

    def part(x: Any) -> Any:
        if len(x.shape) == 1:
            return pl.BlockSpec((block,), lambda i: (i,))
        return pl.BlockSpec((steps, block), lambda i: (0, i))

    call = functools.partial(
        pl.pallas_call,
        kernel,
        grid=(size // block,),
        in_specs=[part(x) for x in inputs],
        out_specs=[part(x) for x in results],
        out_shape=results,
        name="oscillators_through_time",
    )
    on_gpu = call(compiler_params=triton.CompilerParams(num_warps=max(1, block // 32)))
    return result_tree.unflatten(jax.lax.platform_dependent(*inputs, cuda=on_gpu, default=call(interpret=True)))
