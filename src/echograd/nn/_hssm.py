"""Hamiltonian state-space models: stacks of recurrent units trained by echoes."""

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from .._internal import _checks
from .._internal._errors import ArgumentError
from ..gradients import AbstractGradient
from ._arguments import check_sizes, checked_angles, checked_decays, checked_gradient, checked_input, checked_mask
from ._hssm_block import HSSMBlock
from ._hssm_stack import run_stack
from ._layout import Rows, Valid, encode
from ._norm import BatchNorm, LayerNorm
from ._patches import backward, patches, valid_patches
from ._pooling import KINDS, Pool, Pooling, mean, pool, width
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


class Stream(eqx.Module):
    """The state of a model between two streamed inputs. Its size does not grow with the number of inputs."""

    units: tuple[Any, ...]
    patches: Float[Array, "taps patch_inputs"]
    pool: Pool
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
        pooling: features of a whole sequence, for classification: the `"mean"` over the steps of every feature;
            `"mean_max_deviation"`, its mean, maximum and standard deviation; or the `"last"` step.
        every: number of steps between two outputs of the regression head, a multiple of `patch`.
        patch: number of samples that make one step of the oscillators. The model then has as many times fewer steps.
        taps: number of patches that the encoder reads for a step: the newest and those before it. The encoder is a
            causal convolution of length patch × taps at stride patch.
        bidirectional: run a second stack of blocks over the sequence in reverse order, and pool or read out both. Such
            a model is not causal and cannot stream.
        angles: bounds of the initial rotation angles of the oscillators per step (angular frequency × sampling
            interval × patch, in radians); by default those of the unit.
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
    reversed_blocks: tuple[HSSMBlock, ...]
    decoder: eqx.nn.Linear
    head: Literal["classification", "regression"] = eqx.field(static=True)
    pooling: Pooling = eqx.field(static=True)
    every: int = eqx.field(static=True)
    patch: int = eqx.field(static=True)
    taps: int = eqx.field(static=True)

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
        pooling: Pooling = "mean",
        every: int | None = None,
        patch: int = 1,
        taps: int = 1,
        bidirectional: bool = False,
        angles: tuple[float, float] | None = None,
        decays: tuple[float, float] | None = None,
        gradient: AbstractGradient | None = None,
        kernel: bool = False,
        key: PRNGKeyArray,
    ) -> None:
        sizes = {"hidden": hidden, "units": units, "blocks": blocks, "patch": patch, "taps": taps}
        check_sizes("HSSM", inputs=inputs, outputs=outputs, **sizes)
        every = patch if every is None else _checks.integer("HSSM", "every", every, what="a size")
        if every % patch:
            raise ArgumentError(
                f"HSSM(every={every}, patch={patch}): the model has one step for every {patch} samples, so the number "
                f"of samples between two outputs must be a multiple of {patch}."
            )
        why = "a probability of at least 0 and below 1 is needed"
        dropout = _checks.constant("HSSM", "dropout", dropout, lambda x: 0 <= x < 1, why)
        _checks.choice("HSSM", "head", head, ("classification", "regression"))
        make_unit = _UNITS[_checks.choice("HSSM", "unit", unit, _UNITS)]
        make_norm = _NORMS[_checks.choice("HSSM", "norm", norm, _NORMS)]
        _checks.choice("HSSM", "pooling", pooling, KINDS)
        _checks.flag("HSSM", "complex", complex)
        _checks.key("HSSM", key)
        directions = 1 + _checks.flag("HSSM", "bidirectional", bidirectional)
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

        def block_of(key: PRNGKeyArray) -> HSSMBlock:
            unit_key, value_key, gate_key = jax.random.split(key, 3)
            return HSSMBlock(
                norm=make_norm(hidden),
                unit=make_unit(hidden, hidden, units=units, complex=complex, gradient=gradient, key=unit_key, **chosen),
                value=eqx.nn.Linear(hidden, hidden, key=value_key),
                gate=eqx.nn.Linear(hidden, hidden, key=gate_key),
                dropout=eqx.nn.Dropout(dropout),
            )

        encoder_key, decoder_key, key = jax.random.split(key, 3)
        read = directions * hidden * (width(pooling) if head == "classification" else 1)
        self.encoder = eqx.nn.Linear(inputs * patch * taps, hidden, key=encoder_key)
        self.decoder = eqx.nn.Linear(read, outputs, key=decoder_key)
        made = tuple(map(block_of, jax.random.split(key, directions * blocks)))
        self.blocks, self.reversed_blocks = made[:blocks], made[blocks:]
        self.head, self.pooling, self.every, self.patch, self.taps = head, pooling, every, patch, taps

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
        x = checked_input("HSSM", x, self.encoder.weight.dtype, self.inputs, "batch", "steps", nan=mask is not None)
        mask = None if mask is None else checked_mask("HSSM", mask, x)
        self._check_state(state)
        if x.ndim == 2:
            for norm in self._batch_norms():
                norm.check_batch()
            outcome = self(x[None], state, mask=None if mask is None else mask[None], key=key)
            return outcome[0] if state is None else (outcome[0][0], outcome[1])

        if self.head == "regression" and x.shape[1] < self.every:
            raise ArgumentError(
                f"HSSM: {x.shape[1]} steps give no output, because every={self.every} reads step {self.every} first. "
                "Pass longer sequences, or build the model with a smaller `every`."
            )
        # Equinox invalidates a state when it is updated. With a copy, the caller's stays valid.
        state = jax.tree.map(lambda leaf: leaf, state)
        valid = jnp.ones(x.shape[:2], x.dtype) if mask is None else mask.astype(x.dtype)
        # Masked steps would drive the oscillators too, and large states cost the echo its precision.
        x = x if mask is None else jnp.where(mask[..., None], x, jnp.zeros_like(x))
        rows, valid = patches(x, self.patch, self.taps), valid_patches(valid, self.patch)
        # Padded to whole blocks of steps once for all layers, while the rows are narrow.
        padding = -valid.shape[1] % block_length(valid.shape[1], x.shape[0])
        rows, valid = (jnp.pad(a, ((0, 0),) * (a.ndim - 1) + ((0, padding),)) for a in (rows, valid))
        found, state = self._read(self.blocks, rows, state, valid, key)
        if self.reversed_blocks:
            key = None if key is None else jax.random.fold_in(key, 1)
            more, state = self._read(self.reversed_blocks, backward(rows, valid), state, valid, key)
            if self.head == "regression":
                more = jnp.moveaxis(backward(jnp.moveaxis(more, -1, 0), valid), 0, -1)
            found = jnp.concatenate([found, more], -1)
        logits = self._logits(found, x.shape[1] // self.patch)
        return logits if state is None else (logits, state)

    def encode(self, x: Float[Array, "batch steps inputs"]) -> Float[Array, "hidden batch patches"]:
        """Return the input of the first block for whole sequences."""
        return encode(self.encoder, patches(x, self.patch, self.taps))

    def decode(self, rows: Float[Array, "hidden batch patches"]) -> Float[Array, "batch ..."]:
        """Return the logits from the output of the last block, for sequences without masked steps.

        A bidirectional model reads the outputs of two stacks of blocks, so it has no such function.
        """
        assert not self.reversed_blocks
        return self._logits(self._pooled(rows, jnp.ones(rows.shape[1:], rows.dtype)), rows.shape[-1])

    def _logits(self, found: Array, steps: int) -> Array:
        """Return the logits from the features that the decoder reads."""
        if self.head == "regression":
            every = self.every // self.patch
            found = found[:, every - 1 : steps : every]
        return _affine(self.decoder, found)

    def _pooled(self, x: Rows, valid: Valid) -> Array:
        """Return the features that the decoder reads, from the output of the last block."""
        return jnp.moveaxis(x, 0, -1) if self.head == "regression" else pool(self.pooling, x, valid)

    def _read(self, blocks: tuple[HSSMBlock, ...], x: Rows, state: Any, valid: Valid, key: Any) -> tuple[Array, Any]:
        """Run rows through blocks; return the features that the decoder reads, and the state of the norms."""
        summed = self.head == "classification" and self.pooling == "mean"
        x, state = run_stack(self.encoder, blocks, x, state, valid, key, pool=summed)
        return mean(x, valid) if summed else self._pooled(x, valid), state

    @property
    def inputs(self) -> int:
        """Number of input channels."""
        return self.encoder.weight.shape[1] // (self.patch * self.taps)

    def _batch_norms(self) -> list[BatchNorm]:
        norms = [block.norm for block in (*self.blocks, *self.reversed_blocks)]
        return [norm for norm in norms if isinstance(norm, BatchNorm)]

    def _check_state(self, state: Any) -> None:
        if state is not None:
            _checks.instance("HSSM", "state", state, eqx.nn.State, "what equinox.nn.make_with_state returns")
        if state is None and self._batch_norms():
            raise ArgumentError(
                'HSSM(norm="batch") needs its state: build it with '
                "`model, state = equinox.nn.make_with_state(HSSM)(...)` and call `logits, state = model(x, state)`, "
                "or `model.initial_state(state)` to stream."
            )

    def initial_state(self, state: Any = None) -> Stream:
        """Return the state to begin streaming with; `state` is that of the batch norms, for `norm="batch"`."""
        self._check_state(state)
        if self.reversed_blocks:
            raise ArgumentError(
                "HSSM(bidirectional=True) reads a sequence from its end, too, so it cannot stream. Pass whole "
                "sequences, or build the model with bidirectional=False."
            )
        dtype = self.decoder.weight.dtype
        return Stream(
            tuple(block.unit.initial_state() for block in self.blocks),
            jnp.zeros((self.taps, self.patch * self.inputs), dtype),
            Pool.empty(self.blocks[0].value.in_features, dtype),  # pyright: ignore[reportArgumentType]
            state,
        )

    @scannable
    def step(self, state: Stream, u: Float[Array, "*patch inputs"]) -> tuple[Stream, Float[Array, " outputs"]]:
        """Advance by one step and return the new state and the logits, in inference mode.

        The logits are those of the sequence so far for classification, and of this step for regression.

        Args:
            state: what `initial_state` or the previous step returned.
            u: the next input, shape (inputs,); with patches, the next samples, shape (patch, inputs).
        """
        axes = () if self.patch == 1 else ("patch",)
        u = checked_input("HSSM", u, self.encoder.weight.dtype, self.inputs, *axes)
        if self.patch > 1 and u.shape[0] != self.patch:
            raise ArgumentError(f"HSSM.step: {u.shape[0]} samples are given, and one step takes patch={self.patch}.")
        _checks.instance("HSSM", "state", state, Stream, "a streaming state. Begin with model.initial_state()")
        model = eqx.nn.inference_mode(self)
        recent = jnp.concatenate([u.reshape(1, -1), state.patches[:-1]])
        x, units = model.encoder(recent.reshape(-1)), []
        for block, unit_state in zip(model.blocks, state.units, strict=True):
            system, layer = block.around(block.statistics(state.norms))
            unit_state, x = stream(system, layer, unit_state, x)
            units.append(unit_state)
        pooled = state.pool.add(x)
        read = pooled.read(self.pooling) if self.head == "classification" else x
        return Stream(tuple(units), recent, pooled, state.norms), model.decoder(read)

    @scannable
    def chunk(self, state: Stream, x: Float[Array, "steps inputs"]) -> tuple[Stream, Float[Array, "steps_ outputs"]]:
        """Advance by several inputs at once: the result of `jax.lax.scan(model.step, state, x)`, faster.

        The layers work on blocks of steps, as they do on whole sequences. Chunks of any lengths and single steps can
        follow each other. Memory grows with the length of a chunk, not with the number of chunks.

        Args:
            state: the state of the stream. Begin with `initial_state()`.
            x: the next inputs, shape (steps, inputs); with patches, a multiple of `patch` samples.

        Returns:
            The new state, and the logits after every step, shape (steps // patch, outputs), as from `step`. For a
            sequence from the beginning, a call of the model returns the last row of them for classification, and
            every `every`-th sample's row for regression.

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
        x = checked_input("HSSM", x, self.encoder.weight.dtype, self.inputs, "steps")
        if x.shape[0] % self.patch:
            raise ArgumentError(
                f"HSSM.chunk: {x.shape[0]} samples are given, and a step takes patch={self.patch}. Pass a multiple of "
                "it, and keep the rest for the next chunk."
            )
        _checks.instance("HSSM", "state", state, Stream, "a streaming state. Begin with model.initial_state()")
        model = eqx.nn.inference_mode(self)
        # The newest patch comes first in a state.
        recent = jnp.concatenate([state.patches[-2::-1], x.reshape(-1, self.patch * self.inputs)])
        steps = x.shape[0] // self.patch
        late = [recent[self.taps - 1 - i :][:steps] for i in range(self.taps)]
        rows, units = encode(model.encoder, jnp.concatenate(late, -1).T[:, None]), []
        for block, unit_state in zip(model.blocks, state.units, strict=True):
            system, layer = block.around(block.statistics(state.norms))
            wide = unit_state[0].T[..., None], unit_state[1].T[..., None]
            rows, wide = transduce(system, layer, rows, block.unit.gradient, wide)
            units.append(jax.tree.map(lambda z: z[..., 0].T, wide))

        def add(pooled: Pool, row: Array) -> tuple[Pool, Array]:
            pooled = pooled.add(row)
            return pooled, pooled.read(self.pooling) if self.head == "classification" else row

        pooled, read = jax.lax.scan(add, state.pool, rows[:, 0].T)
        return Stream(tuple(units), recent[-self.taps :][::-1], pooled, state.norms), _affine(model.decoder, read)
