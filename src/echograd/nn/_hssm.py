"""Hamiltonian state-space models: stacks of recurrent units trained by echoes."""

from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, PRNGKeyArray, PyTree, UInt32

from .._internal import _checks, _tree
from .._internal._errors import ArgumentError, RunError
from ..gradients import AbstractGradient, Echo
from ._chain import AbstractCell, chained, pooled
from ._norm import BatchNorm, LayerNorm, Moments, Standardised
from ._oscillators import AbstractOscillators, Wide
from ._rows import Rows, Valid, checked, checked_mask, encoded, halves, mixed
from ._scannable import scannable
from ._sequence import AbstractLayer, block_length, stream, transduce
from ._units import AbstractHRU, LinearHRU, NonlinearHRU, Projections, checked_angles, checked_gradient

_UNITS = {"linear": LinearHRU, "nonlinear": NonlinearHRU}
_NORMS = {"layer": LayerNorm, "batch": BatchNorm}


class HSSMBlock(eqx.Module):
    """One block: norm → unit → GELU → dropout → GLU → dropout → skip.

    The whole block is one layer around the oscillators, so that of all its activations only its input is kept for the
    backward pass: everything else is computed again while the echo passes by.
    """

    norm: LayerNorm | BatchNorm
    unit: AbstractHRU
    value: eqx.nn.Linear
    gate: eqx.nn.Linear
    dropout: eqx.nn.Dropout

    def __call__(
        self, x: Rows, running: Any = None, *, valid: Valid | None = None, seed: Any = None
    ) -> tuple[Rows, Any]:
        """Return the block's output sequences, and the running statistics of its norm.

        Args:
            x: sequences, shape (hidden, batch, steps).
            running: running statistics of a batch norm.
            valid: which rows count, 1 or 0, shape (batch, steps); by default all of them.
            seed: two random words for dropout.
        """
        valid = jnp.ones(x.shape[1:], x.dtype) if valid is None else valid
        return self.arranged(seed)(x, running, valid)

    def statistics(self, state: Any) -> Any:
        """Return the running statistics that a state holds for the norm of this block; `None` where it needs none."""
        return state.get(self.norm.running) if isinstance(self.norm, BatchNorm) else None

    def around(self, running: Any) -> tuple[AbstractOscillators, "GatedLayer"]:
        """Return the oscillators and what surrounds them, in inference mode."""
        return self.arranged(None).fit(None, running)[0]

    def arranged(self, seed: Any) -> "Cell":
        """Return the block with its parameters in the form in which sequences need them."""
        dropping = self.dropout.p > 0 and not self.dropout.inference
        if dropping and seed is None:
            raise RunError(
                "HSSM: dropout needs a random key in training. Pass key=..., or use equinox.nn.inference_mode."
            )
        return Cell(
            self.norm,
            self.unit.system,
            self.unit.projections,
            jax.tree.map(lambda *both: jnp.concatenate(both), self.value, self.gate),
            seed if dropping else None,
            float(self.dropout.p),
            self.unit.gradient,
        )


class Cell(AbstractCell):
    """A block whose parameters have been made of the trained ones, once for all its steps."""

    norm: LayerNorm | BatchNorm
    oscillators: AbstractOscillators
    projections: Projections
    gates: eqx.nn.Linear  # the value and the gate in one
    seed: UInt32[Array, "2"] | None
    dropout: float = eqx.field(static=True)
    gradient: AbstractGradient

    def __call__(self, x: Rows, running: Any, valid: Valid) -> tuple[Rows, Any]:
        (oscillators, layer), running = self.fit(self.moments(x, valid), running)
        return transduce(oscillators, layer, x, self.gradient), running

    @property
    def echo(self) -> Echo:
        assert isinstance(self.gradient, Echo)
        return _tree.fixed(self.gradient)

    def moments(self, x: Rows, valid: Valid) -> Moments | None:
        return self.norm.moments(x, valid)

    def fit(self, moments: Any, running: Any) -> tuple[tuple[AbstractOscillators, "GatedLayer"], Any]:
        norm, running = self.norm.fit(moments, running)
        layer = GatedLayer(norm, self.projections, self.gates, self.seed, self.dropout)
        return (self.oscillators, layer), running


class GatedLayer(AbstractLayer):
    """What surrounds the oscillators of a block."""

    axis: ClassVar[int] = 2
    norm: LayerNorm | Standardised
    projections: Projections
    gates: eqx.nn.Linear  # the value and the gate in one
    seed: UInt32[Array, "2"] | None
    dropout: float = eqx.field(static=True)

    @property
    def sizes(self) -> tuple[int, int, int]:
        return self.projections.sizes

    def prepare(self, x: Rows) -> Rows:
        return self.norm.rows(x)

    def drive(self, prepared: Rows) -> Wide:
        return self.projections.drive(prepared)

    def output(self, x: Rows, prepared: Rows, q: Wide, block: Any) -> Rows:
        y = jax.nn.gelu(self.projections.output(x, prepared, q))
        keep = (lambda y, half: y) if self.seed is None else dropped(self.seed, self.dropout, y.shape, block)
        value, gate = halves(mixed(self.gates, keep(y, 0)))
        return x + keep(value * jax.nn.sigmoid(gate), 1)


_STRIDE = np.uint32(0x9E3779B9)


def _hashed(word: UInt32[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    """Return words that look random. Source: C. Wellons, hash-prospector."""
    for shift, factor in ((16, 0x21F0AAAD), (15, 0x735A2D97), (15, 1)):
        word = (word ^ (word >> jnp.uint32(shift))) * jnp.uint32(factor)
    return word


def _seeds(key: PRNGKeyArray, blocks: int) -> UInt32[Array, "blocks 2"]:
    """Return two random words for every block."""
    key = _checks.key("HSSM", key)  # one for a batch too, whose examples it tells apart
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.key_data(key)
    return _hashed(key.reshape(1, -1)[:, -2:] + np.arange(1, blocks + 1, dtype=np.uint32)[:, None] * _STRIDE)


def dropped(seed: UInt32[Array, "2"], probability: float, shape: tuple[int, ...], block: Any) -> Any:
    """Return a function that drops entries of an array, by the lower (0) or the upper (1) halves of random words.

    One word serves two coins, and it is the hash of a sum: of a random word for the row, and one for the step, so that
    it does not depend on how steps are cut into blocks. Dropout needs fair coins, not unpredictable ones, and these
    take less than a sixth of the time of `jax.random`'s. The probability is rounded to 16 bits, and what is kept is
    scaled by the rounded one.
    """
    features, batch, steps = shape
    rows = _hashed(jax.lax.iota(jnp.uint32, features * batch).reshape(features, batch, 1) * _STRIDE + seed[0])
    first = jnp.asarray(block).astype(jnp.uint32) * jnp.uint32(steps)
    times = _hashed((jax.lax.iota(jnp.uint32, steps) + first) * _STRIDE + seed[1])
    rows, times = jax.lax.optimization_barrier((rows, times))
    word = _hashed(rows + times[None, None])
    # Hashed once, and not again wherever a coin is needed.
    word = jax.lax.optimization_barrier(word)
    threshold = round(probability * 2**16)
    scale = 1 / (1 - threshold / 2**16)

    def keep(y: Array, half: int) -> Array:
        coin = (word >> jnp.uint32(16 * half)) & jnp.uint32(0xFFFF)
        return y * (scale * (coin >= jnp.uint32(threshold)).astype(y.dtype))

    return keep


def _affine(linear: eqx.nn.Linear, x: Float[Array, "*batch inputs"]) -> Float[Array, "*batch outputs"]:
    """Apply a linear layer to the features, which come last."""
    y = x @ linear.weight.T
    return y if linear.bias is None else y + jnp.expand_dims(linear.bias, tuple(range(y.ndim - 1)))


@jax.custom_vjp
def _stacked(rows: tuple[PyTree, ...]) -> PyTree:
    """Return the leaves of all rows on top of each other.

    The cotangents are taken off the stack by places that the compiler does not know, and become arrays of their own. So
    whatever is done with those that are alike, by an optimiser say, is compiled once, and not for every place.
    """
    return jax.tree.map(lambda *a: jnp.stack(a), *rows)


def _unstacked(rows: int, bar: PyTree) -> tuple[tuple[PyTree, ...]]:
    known = bar, [jnp.asarray(i, jnp.int32) for i in range(rows)]
    bar, places = jax.lax.optimization_barrier(known)
    return (jax.lax.optimization_barrier(tuple(_tree.take(bar, place) for place in places)),)


_stacked.defvjp(lambda rows: (_stacked(rows), len(rows)), _unstacked)


class Stream(eqx.Module):
    """What a model carries from one streamed input to the next; its size does not depend on their number."""

    units: tuple[Any, ...]
    pooled: Float[Array, " hidden"]
    count: Float[Array, ""]
    norms: Any


class HSSM(eqx.Module):
    r"""Hamiltonian state-space model: encoder, blocks of recurrent units, read-out.

    One example, or a batch of them on a leading axis. Differentiated with `jax.grad` like any Equinox module, where
    every unit's gradient is an echo: exact, from two passes through it, whatever the length and the number of
    parameters.

    Args:
        inputs: number of input channels.
        outputs: number of classes or of regression targets.
        hidden: width of the residual stream.
        units: oscillators in a block.
        blocks: number of blocks.
        unit: `"linear"` or `"nonlinear"` oscillators.
        complex: complex read-in and read-out of the units.
        norm: `"layer"`, or `"batch"`, which needs `equinox.nn.make_with_state`, and in training a batch: on a leading
            axis, or as a `vmap` axis named `"batch"`.
        dropout: probability of dropping a feature, per step, in training.
        head: `"classification"` pools over the valid steps; `"regression"` reads out every `every`-th step.
        every: distance of the steps that the regression head reads out.
        angles: bounds of the initial rotation angles per step of the oscillators (angular frequency × sampling
            interval); by default those of the unit.
        gradient: `eg.Echo(...)` (default) or `eg.Backprop(...)` for every unit.
        kernel: for nonlinear units, run their loops over time as single GPU kernels; see `NonlinearHRU`.
        key: random key.

    Raises:
        ValueError: for unknown choices and sizes below 1.

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
        unit: Literal["linear", "nonlinear"] = "linear",
        complex: bool = True,
        norm: Literal["layer", "batch"] = "layer",
        dropout: float = 0.05,
        head: Literal["classification", "regression"] = "classification",
        every: int = 1,
        angles: tuple[float, float] | None = None,
        gradient: AbstractGradient | None = None,
        kernel: bool = False,
        key: PRNGKeyArray,
    ) -> None:
        for name, size in {
            "inputs": inputs,
            "outputs": outputs,
            "hidden": hidden,
            "units": units,
            "blocks": blocks,
            "every": every,
        }.items():
            _checks.integer("HSSM", name, size, what="a size")
        why = "a probability of at least 0 and below 1 is needed"
        dropout = _checks.constant("HSSM", "dropout", dropout, lambda x: 0 <= x < 1, why)
        _checks.choice("HSSM", "head", head, ("classification", "regression"))
        make_unit = _UNITS[_checks.choice("HSSM", "unit", unit, _UNITS)]
        make_norm = _NORMS[_checks.choice("HSSM", "norm", norm, _NORMS)]
        _checks.flag("HSSM", "complex", complex)
        _checks.key("HSSM", key)
        gradient = checked_gradient("HSSM", gradient)

        chosen: dict[str, Any] = {} if angles is None else {"angles": checked_angles("HSSM", angles)}
        if _checks.flag("HSSM", "kernel", kernel):
            if unit != "nonlinear":
                raise ArgumentError("HSSM(kernel=True): linear units need no kernel, being products along time.")
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
            state: state of the batch norms, where there are any.
            mask: which steps are valid, the first ones of every sequence; the rest does not count, whatever is in it.
                `None`: all.
            key: random key for dropout, needed in training where dropout is not 0.

        Returns:
            Logits of shape (*batch, outputs) for classification, (*batch, steps // every, outputs) for regression.

        Raises:
            ValueError: for wrong shapes, and where a batch norm lacks its state or its batch.
            TypeError: if the input has not the dtype of the parameters, or the mask is not of booleans.
            RuntimeError: if dropout lacks its key; at run time if a mask has a step that does not count before one
                that does.
        """
        dtype, inputs = self.encoder.weight.dtype, self.encoder.weight.shape[1]
        x = checked("HSSM", x, dtype, inputs, "batch", "steps", nan=mask is not None)
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
                f"HSSM: of {x.shape[1]} steps no output is left, for every={self.every} reads out the {self.every}th "
                "first. Pass longer sequences, or build the model with a smaller `every`."
            )
        # A state refuses to be used twice; this copy leaves the caller's as it is.
        state = jax.tree.map(lambda leaf: leaf, state)
        steps = x.shape[1]
        # Padded once, while the rows are narrow, so that the blocks of steps come out even in every layer.
        padding = -steps % block_length(steps, x.shape[0])
        valid = jnp.ones(x.shape[:2], x.dtype) if mask is None else mask.astype(x.dtype)
        valid = jnp.pad(valid, ((0, 0), (0, padding)))
        # What does not count would still drive the oscillators to where an echo loses its digits.
        x = x if mask is None else jnp.where(mask[..., None], x, jnp.zeros_like(x))
        x = jnp.moveaxis(jnp.pad(x, ((0, 0), (0, padding), (0, 0))), -1, 0)
        x, state = self._through(x, state, valid, key)
        if self.head == "classification":
            # A sequence without any valid step (the padding of a batch) pools to zero instead of to NaN.
            x = x.T / jnp.maximum(jnp.sum(valid, 1), 1)[:, None]
        else:
            x = jnp.moveaxis(x[..., self.every - 1 : steps : self.every], 0, -1)
        logits = _affine(self.decoder, x)
        return logits if state is None else (logits, state)

    def _through(self, x: Rows, state: Any, valid: Valid, key: Any) -> tuple[Rows, Any]:
        """Encode rows and take them through all blocks: in a loop, so that one is compiled, whatever their number.

        For classification the outputs are pooled.
        """
        pool = self.head == "classification"
        seeds = None if key is None else _seeds(key, len(self.blocks))
        rows = []
        for block in self.blocks:
            running = block.statistics(state)
            # Which statistics are a norm's is told by an object of its own; without it blocks are alike.
            block = block if running is None else eqx.tree_at(lambda b: b.norm.running, block, None)
            rows.append((block, running))
        arrays, statics = zip(*(eqx.partition(row, eqx.is_array) for row in rows), strict=True)
        shapes = [jax.tree.map(lambda a: (a.shape, a.dtype), row) for row in arrays]
        if eqx.tree_equal(*shapes) and eqx.tree_equal(*statics) is True:
            static = []

            def arranged(row: Any, seed: Any) -> Any:
                block, running = eqx.combine(row, statics[0])
                row, rest = eqx.partition((block.arranged(seed), running), eqx.is_array)
                static.append(rest)
                return row

            numbers, others = zip(*(eqx.partition(row, eqx.is_inexact_array) for row in arrays), strict=True)
            stacked = eqx.combine(_stacked(numbers), jax.tree.map(lambda *a: jnp.stack(a), *others))
            cells = jax.vmap(arranged)(stacked, seeds)
            echo = isinstance(self.blocks[0].unit.gradient, Echo)
            if echo and not (isinstance(norm := self.blocks[0].norm, BatchNorm) and norm.shared):
                x, found = chained(self.encoder, eqx.combine(cells, static[0]), x, valid, pool=pool)
                pool = False
            else:
                # On its way back, a rule of our own could not ask the other examples of a `vmap` for their statistics.
                def body(x: Rows, row: Any) -> tuple[Rows, Any]:
                    cell, running = eqx.combine(row, static[0])
                    return cell(x, running, valid)

                # Of a block an echo keeps its input and little else; backpropagation has to be told so.
                body = body if echo else jax.checkpoint(body, prevent_cse=False)
                x, found = jax.lax.scan(body, encoded(self.encoder, x), cells)
            found = [jax.tree.map(lambda a, i=i: a[i], found) for i in range(len(rows))]
        else:
            x, found = encoded(self.encoder, x), []
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
        """Return the state to begin streaming with; `state` is that of the batch norms, where there are any."""
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
        """Take in one input and return the new state and the logits after it, in inference mode.

        For classification these are the logits of the sequence so far; for regression those of this step.
        """
        u = checked("HSSM", u, self.encoder.weight.dtype, self.encoder.weight.shape[1])
        _checks.instance("HSSM", "state", state, Stream, "the state of a stream; model.initial_state() makes the first")
        model = eqx.nn.inference_mode(self)
        x, units = model.encoder(u), []
        for block, unit_state in zip(model.blocks, state.units, strict=True):
            system, layer = block.around(block.statistics(state.norms))
            unit_state, x = stream(system, layer, unit_state, x)
            units.append(unit_state)
        stream_ = Stream(tuple(units), state.pooled + x, state.count + 1, state.norms)
        return stream_, model.decoder(stream_.pooled / stream_.count if self.head == "classification" else x)
