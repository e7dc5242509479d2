"""Hamiltonian state-space models: stacks of recurrent units trained by echoes."""

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree

from .._internal import _checks, _tree
from .._internal._errors import ArgumentError
from ..gradients import AbstractGradient, Backprop
from ._arguments import check_sizes, checked_angles, checked_decays, checked_gradient, checked_input, checked_mask
from ._chain import pooled, run_chain
from ._dropout import dropout_seeds
from ._hssm_block import HSSMBlock
from ._layout import Rows, Valid, encode
from ._norm import BatchNorm, LayerNorm
from ._scannable import scannable
from ._sequence import block_length
from ._transduce import stream, transduce
from ._units import DampedHRU, LinearHRU, NonlinearHRU

_UNITS = {"linear": LinearHRU, "nonlinear": NonlinearHRU, "damped": DampedHRU}
_NORMS = {"layer": LayerNorm, "batch": BatchNorm}


def _affine(linear: eqx.nn.Linear, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
    """Apply a linear layer to the last axis."""
    y = x @ linear.weight.T
    return y if linear.bias is None else y + jnp.expand_dims(linear.bias, tuple(range(y.ndim - 1)))


@jax.custom_vjp
def _stack(rows: tuple[PyTree, ...]) -> PyTree:
    """Stack the leaves of all rows.

    The reverse rule unstacks with indices hidden from the compiler. So later operations on equal shapes, such as an
    optimiser's, are compiled once and not once per index.
    """
    return jax.tree.map(lambda *a: jnp.stack(a), *rows)


def _unstack(rows: int, bar: PyTree) -> tuple[tuple[PyTree, ...]]:
    bar, indices = jax.lax.optimization_barrier((bar, [jnp.asarray(i, jnp.int32) for i in range(rows)]))
    return (jax.lax.optimization_barrier(tuple(_tree.take(bar, i) for i in indices)),)


_stack.defvjp(lambda rows: (_stack(rows), len(rows)), _unstack)


class Stream(eqx.Module):
    """The state of a model between two streamed inputs. Its size does not grow with the number of inputs."""

    units: tuple[Any, ...]
    pooled: Float[Array, " hidden"]
    count: Float[Array, ""]
    norms: Any


class HSSM(eqx.Module):
    r"""Hamiltonian state-space model: encoder, blocks of recurrent units, read-out.

    Call it with one sequence, or with a batch on a leading axis. Differentiate it with `jax.grad` like any Equinox
    module. The gradient of every unit is an echo, or `Reciprocal()` with damping: exact, from two passes through the
    unit, for any length and number of parameters.

    Args:
        inputs: number of input channels.
        outputs: number of classes or of regression targets.
        hidden: width of the residual stream.
        units: oscillators in a block.
        blocks: number of blocks.
        unit: `"linear"`, `"nonlinear"` or `"damped"` oscillators; see `LinearHRU`, `NonlinearHRU` and `DampedHRU`.
        complex: complex read-in and read-out of the units.
        norm: `"layer"` or `"batch"`. A batch norm needs `equinox.nn.make_with_state`, and in training a batch: on a
            leading axis, or as a `vmap` axis named `"batch"`.
        dropout: probability of dropping a feature, per step, in training.
        head: `"classification"` pools over the valid steps; `"regression"` reads out every `every`-th step.
        every: number of steps between two outputs of the regression head.
        angles: bounds of the initial rotation angles of the oscillators per step (angular frequency × sampling
            interval, in radians); by default those of the unit.
        decays: for damped units, bounds of the initial decay rates of the oscillators per step; by default those of
            `DampedHRU`.
        gradient: `eg.Echo(...)` (default) or `eg.Backprop(...)` for every unit; of damped units, `eg.Reciprocal()`
            (default) or `eg.Backprop(...)`.
        kernel: for nonlinear units, run each loop over time as one GPU kernel; see `NonlinearHRU`.
        key: random key.

    Raises:
        ArgumentError: if a choice is unknown, or a number is out of range.
        ArgumentTypeError: if an argument has the wrong type.

    Source: G. Pourcel and M. Ernoult, arXiv 2506.05259, section 4 and Theorem 3.3.

    Example:
        ```python
        model = eg.nn.HSSM(2, 3, hidden=16, units=8, key=jax.random.key(0))
        model = eqx.nn.inference_mode(model)
        logits = model(jnp.ones((4, 100, 2)))  # (4, 3)
        ```
    """

    encoder: eqx.nn.Linear
    blocks: tuple[HSSMBlock, ...]
    decoder: eqx.nn.Linear
    head: Literal["classification", "regression"] = eqx.field(static=True)
    every: int = eqx.field(static=True)

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        hidden: int = 64,
        units: int = 64,
        blocks: int = 2,
        unit: Literal["linear", "nonlinear", "damped"] = "linear",
        complex: bool = True,
        norm: Literal["layer", "batch"] = "layer",
        dropout: float = 0.05,
        head: Literal["classification", "regression"] = "classification",
        every: int = 1,
        angles: tuple[float, float] | None = None,
        decays: tuple[float, float] | None = None,
        gradient: AbstractGradient | None = None,
        kernel: bool = False,
        key: PRNGKeyArray,
    ) -> None:
        check_sizes("HSSM", inputs=inputs, outputs=outputs, hidden=hidden, units=units, blocks=blocks, every=every)
        why = "a probability of at least 0 and below 1 is needed"
        dropout = _checks.constant("HSSM", "dropout", dropout, lambda x: 0 <= x < 1, why)
        _checks.choice("HSSM", "head", head, ("classification", "regression"))
        make_unit = _UNITS[_checks.choice("HSSM", "unit", unit, _UNITS)]
        make_norm = _NORMS[_checks.choice("HSSM", "norm", norm, _NORMS)]
        _checks.flag("HSSM", "complex", complex)
        _checks.key("HSSM", key)
        gradient = checked_gradient("HSSM", gradient, lossy=unit == "damped")

        chosen: dict[str, Any] = {} if angles is None else {"angles": checked_angles("HSSM", angles)}
        if decays is not None:
            if unit != "damped":
                raise ArgumentError(
                    f'HSSM(decays={decays!r}): only damped units have decay rates. Drop decays, or pass unit="damped".'
                )
            chosen["decays"] = checked_decays("HSSM", decays)
        if _checks.flag("HSSM", "kernel", kernel):
            if unit != "nonlinear":
                raise ArgumentError(
                    "HSSM(kernel=True): linear units need no kernel, as they are matrix products along time. Drop "
                    'kernel=True, or pass unit="nonlinear".'
                )
            chosen["kernel"] = True

        encoder_key, decoder_key, key = jax.random.split(key, 3)
        self.encoder = eqx.nn.Linear(inputs, hidden, key=encoder_key)
        self.decoder = eqx.nn.Linear(hidden, outputs, key=decoder_key)
        made = []
        for block_key in jax.random.split(key, blocks):
            unit_key, value_key, gate_key = jax.random.split(block_key, 3)
            made.append(
                HSSMBlock(
                    norm=make_norm(hidden),
                    unit=make_unit(
                        hidden, hidden, units=units, complex=complex, gradient=gradient, key=unit_key, **chosen
                    ),
                    value=eqx.nn.Linear(hidden, hidden, key=value_key),
                    gate=eqx.nn.Linear(hidden, hidden, key=gate_key),
                    dropout=eqx.nn.Dropout(dropout),
                )
            )
        self.blocks = tuple(made)
        self.head = head
        self.every = every

    def __call__(
        self,
        x: Float[Array, "*batch steps inputs"],
        state: Any = None,
        *,
        mask: Bool[Array, "*batch steps"] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> Any:
        """Return the logits of one sequence or of a batch; with a `state`, return `(logits, state)`.

        Args:
            x: the sequence, shape (steps, inputs), or a batch, shape (batch, steps, inputs).
            state: state of the batch norms, for `norm="batch"`.
            mask: true for valid steps, which come first in every sequence. Masked steps have no effect, even if they
                hold NaNs. By default all steps are valid.
            key: random key for dropout; needed in training unless `dropout=0`.

        Returns:
            Logits of shape (*batch, outputs) for classification, (*batch, steps // every, outputs) for regression.

        Raises:
            ArgumentError: for wrong shapes, or if a batch norm lacks its state or its batch.
            ArgumentTypeError: if the input does not have the dtype of the parameters, or the mask is not boolean.
            RuntimeError: if dropout lacks its key; at run time, if a masked step comes before a valid one.
        """
        dtype, inputs = self.encoder.weight.dtype, self.encoder.weight.shape[1]
        x = checked_input("HSSM", x, dtype, inputs, "batch", "steps", nan=mask is not None)
        mask = None if mask is None else checked_mask("HSSM", mask, x)
        self._check_state(state)
        if x.ndim == 2:
            for block in self.blocks:
                if isinstance(block.norm, BatchNorm):
                    block.norm.check_batch()
            outcome = self(x[None], state, mask=None if mask is None else mask[None], key=key)
            return outcome[0] if state is None else (outcome[0][0], outcome[1])

        if self.head == "regression" and x.shape[1] < self.every:
            raise ArgumentError(
                f"HSSM: {x.shape[1]} steps give no output, because every={self.every} reads step {self.every} first. "
                "Pass longer sequences, or build the model with a smaller `every`."
            )
        # Equinox invalidates a state when it is updated. With a copy, the caller's stays valid.
        state = jax.tree.map(lambda leaf: leaf, state)
        steps = x.shape[1]
        # Padded to whole blocks of steps once for all layers, while the rows are narrow.
        padding = -steps % block_length(steps, x.shape[0])
        valid = jnp.ones(x.shape[:2], x.dtype) if mask is None else mask.astype(x.dtype)
        valid = jnp.pad(valid, ((0, 0), (0, padding)))
        # Masked steps would drive the oscillators too, and large states cost the echo its precision.
        x = x if mask is None else jnp.where(mask[..., None], x, jnp.zeros_like(x))
        x = jnp.moveaxis(jnp.pad(x, ((0, 0), (0, padding), (0, 0))), -1, 0)
        x, state = self._through(x, state, valid, key)
        if self.head == "classification":
            # A sequence without valid steps (the padding of a batch) pools to zero instead of NaN.
            x = x.T / jnp.maximum(jnp.sum(valid, 1), 1)[:, None]
        else:
            x = jnp.moveaxis(x[..., self.every - 1 : steps : self.every], 0, -1)
        logits = _affine(self.decoder, x)
        return logits if state is None else (logits, state)

    def _through(self, x: Rows, state: Any, valid: Valid, key: Any) -> tuple[Rows, Any]:
        """Encode rows and run them through all blocks; for classification, return the sums over the valid steps.

        Blocks of equal structure run in one loop, so that only one of them is compiled.
        """
        pool = self.head == "classification"
        seeds = None if key is None else dropout_seeds(key, len(self.blocks))
        rows = []
        for block in self.blocks:
            running = block.statistics(state)
            # Every batch norm has its own state index. Without it, the blocks have equal structure.
            block = block if running is None else eqx.tree_at(lambda b: b.norm.running, block, None)
            rows.append((block, running))
        arrays, statics = zip(*(eqx.partition(row, eqx.is_array) for row in rows), strict=True)
        shapes = [jax.tree.map(lambda a: (a.shape, a.dtype), row) for row in arrays]
        if eqx.tree_equal(*shapes) and eqx.tree_equal(*statics) is True:
            static = []

            def cell_of(row: Any, seed: Any) -> Any:
                block, running = eqx.combine(row, statics[0])
                row, rest = eqx.partition((block.cell(seed), running), eqx.is_array)
                static.append(rest)
                return row

            numbers, others = zip(*(eqx.partition(row, eqx.is_inexact_array) for row in arrays), strict=True)
            stacked = eqx.combine(_stack(numbers), jax.tree.map(lambda *a: jnp.stack(a), *others))
            cells = jax.vmap(cell_of)(stacked, seeds)
            echo = not isinstance(self.blocks[0].unit.gradient, Backprop)
            if echo and not (isinstance(norm := self.blocks[0].norm, BatchNorm) and norm.shared):
                x, found = run_chain(self.encoder, eqx.combine(cells, static[0]), x, valid, pool=pool)
                pool = False
            else:
                # No chain: a custom reverse rule cannot sum statistics over the examples of a `vmap`.
                def body(x: Rows, row: Any) -> tuple[Rows, Any]:
                    cell, running = eqx.combine(row, static[0])
                    return cell(x, running, valid)

                # An echo stores little more than the input of a block. For backpropagation, checkpoint it.
                body = body if echo else jax.checkpoint(body, prevent_cse=False)
                x, found = jax.lax.scan(body, encode(self.encoder, x), cells)
            found = [jax.tree.map(lambda a, i=i: a[i], found) for i in range(len(rows))]
        else:
            x, found = encode(self.encoder, x), []
            for i, (block, running) in enumerate(rows):
                seed = None if seeds is None else seeds[i]
                x, running = block(x, running, valid=valid, seed=seed)
                found.append(running)
        for block, running in zip(self.blocks, found, strict=True):
            if isinstance(block.norm, BatchNorm) and not block.norm.inference:
                state = state.set(block.norm.running, running)
        return pooled(x, valid) if pool else x, state

    def _check_state(self, state: Any) -> None:
        if state is not None:
            _checks.instance("HSSM", "state", state, eqx.nn.State, "what equinox.nn.make_with_state returns")
        if state is None and any(isinstance(block.norm, BatchNorm) for block in self.blocks):
            raise ArgumentError(
                'HSSM(norm="batch") needs its state: build it with '
                "`model, state = equinox.nn.make_with_state(HSSM)(...)` and call `logits, state = model(x, state)`, "
                "or `model.initial_state(state)` to stream."
            )

    def initial_state(self, state: Any = None) -> Stream:
        """Return the state to begin streaming with; `state` is that of the batch norms, for `norm="batch"`."""
        self._check_state(state)
        dtype = self.decoder.weight.dtype
        return Stream(
            tuple(block.unit.initial_state() for block in self.blocks),
            jnp.zeros(self.decoder.in_features, dtype),
            jnp.zeros((), dtype),
            state,
        )

    @scannable
    def step(self, state: Stream, u: Float[Array, " inputs"]) -> tuple[Stream, Float[Array, " outputs"]]:
        """Advance by one input and return the new state and the logits, in inference mode.

        The logits are those of the sequence so far for classification, and of this step for regression.
        """
        u = checked_input("HSSM", u, self.encoder.weight.dtype, self.encoder.weight.shape[1])
        _checks.instance("HSSM", "state", state, Stream, "a streaming state. Begin with model.initial_state()")
        model = eqx.nn.inference_mode(self)
        x, units = model.encoder(u), []
        for block, unit_state in zip(model.blocks, state.units, strict=True):
            system, layer = block.around(block.statistics(state.norms))
            unit_state, x = stream(system, layer, unit_state, x)
            units.append(unit_state)
        stream_ = Stream(tuple(units), state.pooled + x, state.count + 1, state.norms)
        return stream_, model.decoder(stream_.pooled / stream_.count if self.head == "classification" else x)

    @scannable
    def chunk(self, state: Stream, x: Float[Array, "steps inputs"]) -> tuple[Stream, Float[Array, "steps outputs"]]:
        """Advance by several inputs at once: the result of `jax.lax.scan(model.step, state, x)`, faster.

        The layers work on blocks of steps, as they do on whole sequences. Chunks of any lengths and single steps can
        follow each other. Memory grows with the length of a chunk, not with the number of chunks.

        Args:
            state: the state of the stream. Begin with `initial_state()`.
            x: the next inputs, shape (steps, inputs).

        Returns:
            The new state, and the logits after every step, shape (steps, outputs), as from `step`. For a sequence from
            the beginning, a call of the model returns the last row of them for classification, and every `every`-th
            row for regression.

        Raises:
            ArgumentError: for a wrong shape.
            ArgumentTypeError: if the state is not a `Stream`, or for a dtype other than the parameters'.

        Example:
            ```python
            model = eg.nn.HSSM(2, 3, hidden=16, units=8, key=jax.random.key(0))
            stream, logits = model.chunk(model.initial_state(), jnp.ones((100, 2)))
            stream, logits = model.chunk(stream, jnp.ones((50, 2)))  # logits[-1]: of all 150 steps
            ```
        """
        x = checked_input("HSSM", x, self.encoder.weight.dtype, self.encoder.weight.shape[1], "steps")
        _checks.instance("HSSM", "state", state, Stream, "a streaming state. Begin with model.initial_state()")
        model = eqx.nn.inference_mode(self)
        rows, units = encode(model.encoder, x.T[:, None]), []
        for block, unit_state in zip(model.blocks, state.units, strict=True):
            system, layer = block.around(block.statistics(state.norms))
            wide = unit_state[0].T[..., None], unit_state[1].T[..., None]
            rows, wide = transduce(system, layer, rows, block.unit.gradient, wide)
            units.append(jax.tree.map(lambda z: z[..., 0].T, wide))
        rows = rows[:, 0].T
        pooled = state.pooled[None] + jnp.cumsum(rows, 0)
        count = state.count + jnp.arange(1, 1 + len(x)).astype(state.count.dtype)
        logits = _affine(model.decoder, pooled / count[:, None] if self.head == "classification" else rows)
        return Stream(tuple(units), pooled[-1], count[-1], state.norms), logits
