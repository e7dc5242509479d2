"""Hamiltonian state-space models: stacks of recurrent units trained by echoes."""

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from ..gradients import AbstractGradient
from ._norm import BatchNorm, LayerNorm
from ._units import AbstractHRU, LinearHRU, NonlinearHRU

_UNITS = {"linear": LinearHRU, "nonlinear": NonlinearHRU}
_NORMS = {"layer": LayerNorm, "batch": BatchNorm}

Features = Float[Array, "steps hidden"]


def _choice(name: str, value: Any, table: dict[str, Any]) -> Any:
    if value not in table:
        raise ValueError(f"HSSM({name}={value!r}): choose one of {', '.join(map(repr, table))}.")
    return table[value]


class HSSMBlock(eqx.Module):
    """One block: norm → unit → GELU → dropout → GLU → dropout → skip.

    What the backward pass needs of the feed-forward parts is computed again from their inputs instead of stored.
    """

    norm: LayerNorm | BatchNorm
    unit: AbstractHRU
    value: eqx.nn.Linear
    gate: eqx.nn.Linear
    dropout: eqx.nn.Dropout

    def __call__(
        self, x: Features, state: Any = None, *, mask: Bool[Array, " steps"] | None = None, key: Any = None
    ) -> tuple[Features, Any]:
        """Return the block's output sequence, and the state of its norm."""
        normed, state = eqx.filter_checkpoint(lambda norm, x, state: norm(x, state, mask=mask))(self.norm, x, state)
        y = self.unit(normed)
        return eqx.filter_checkpoint(HSSMBlock.mix)(self, x, y, key), state

    def mix(self, x: Features, y: Features, key: Any) -> Features:
        """Return the skip connection plus the gated output of the unit."""
        first, second = (None, None) if key is None else jax.random.split(key)
        y = self.dropout(jax.nn.gelu(y), key=first)
        y = _affine(self.value, y) * jax.nn.sigmoid(_affine(self.gate, y))
        return x + self.dropout(y, key=second)


def _affine(linear: eqx.nn.Linear, x: Float[Array, "steps inputs"]) -> Float[Array, "steps outputs"]:
    """Apply a linear layer to every step."""
    y = x @ linear.weight.T
    return y if linear.bias is None else y + linear.bias[None]


class Stream(eqx.Module):
    """What a model carries from one streamed input to the next; its size does not depend on their number."""

    units: tuple[Any, ...]
    pooled: Float[Array, " hidden"]
    count: Float[Array, ""]
    norms: Any


class HSSM(eqx.Module):
    r"""Hamiltonian state-space model: encoder, blocks of recurrent units, read-out.

    One example at a time; a batch comes from `vmap`. Differentiated with `jax.grad` like any Equinox module, where
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
        norm: `"layer"`, or `"batch"`, which needs `equinox.nn.make_with_state` and a `vmap` axis named `"batch"`.
        dropout: probability of dropping a feature, per step, in training.
        head: `"classification"` pools over the valid steps; `"regression"` reads out every `every`-th step.
        every: distance of the steps that the regression head reads out.
        angles: bounds of the initial rotation angles per step of the oscillators (angular frequency × sampling
        interval). gradient: `eg.Echo(...)` (default) or `eg.Backprop(...)` for every unit.
        key: random key.

    Raises:
        ValueError: for unknown choices and sizes below 1.

    Source: G. Pourcel and M. Ernoult, arXiv 2506.05259, section 4 and Theorem 3.3.

    Example:
        ```python
        model = eg.nn.HSSM(2, 3, hidden=16, units=8, key=jax.random.key(0))
        model = eqx.nn.inference_mode(model)
        logits = jax.vmap(model)(jnp.ones((4, 100, 2)))  # (4, 3)
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
        angles: tuple[float, float] = (0.01, 2.0),
        gradient: AbstractGradient | None = None,
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
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                raise ValueError(f"HSSM({name}={size!r}): sizes are integers of at least 1.")
        if not 0 <= dropout < 1:
            raise ValueError(f"HSSM(dropout={dropout!r}): a probability of at least 0 and below 1 is needed.")
        _choice("head", head, {"classification": None, "regression": None})
        make_unit, make_norm = _choice("unit", unit, _UNITS), _choice("norm", norm, _NORMS)

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
                        hidden, hidden, units=units, complex=complex, angles=angles, gradient=gradient, key=unit_key
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
        x: Float[Array, "steps inputs"],
        state: Any = None,
        *,
        mask: Bool[Array, " steps"] | None = None,
        key: PRNGKeyArray | None = None,
    ) -> Any:
        """Return the logits of one sequence; with a `state`, return `(logits, state)`.

        Args:
            x: the sequence, shape (steps, inputs).
            state: state of the batch norms, where there are any.
            mask: which steps are valid; the rest, at the end, does not count. `None`: all.
            key: random key for dropout, needed in training where dropout is not 0.

        Returns:
            Logits of shape (outputs,) for classification, (steps // every, outputs) for regression.
        """
        inputs = self.encoder.in_features
        if x.ndim != 2 or x.shape[1] != inputs:
            raise ValueError(
                f"HSSM: the input has shape {x.shape}, and (steps, {inputs}) is needed. For a batch wrap the call in "
                "jax.vmap."
            )
        if mask is not None and mask.shape != x.shape[:1]:
            raise ValueError(f"HSSM: the mask has shape {mask.shape}, and the sequence {x.shape[0]} steps.")
        if state is None and any(isinstance(b.norm, BatchNorm) for b in self.blocks):
            raise ValueError(
                'HSSM(norm="batch") needs its state: build it with '
                "`model, state = equinox.nn.make_with_state(HSSM)(...)` and call `logits, state = model(x, state)`."
            )
        with_state = state is not None
        keys = [None] * len(self.blocks) if key is None else jax.random.split(key, len(self.blocks))
        x = _affine(self.encoder, x)
        for block, block_key in zip(self.blocks, keys, strict=True):
            x, state = block(x, state, mask=mask, key=block_key)
        if self.head == "classification":
            logits = self.decoder(_mean(x, mask))
        else:
            logits = _affine(self.decoder, x[self.every - 1 :: self.every])
        return (logits, state) if with_state else logits

    def initial_state(self, state: Any = None) -> Stream:
        """Return the state to begin streaming with; `state` is that of the batch norms, where there are any."""
        dtype = self.decoder.weight.dtype
        return Stream(
            tuple(block.unit.initial_state() for block in self.blocks),
            jnp.zeros(self.decoder.in_features, dtype),
            jnp.zeros((), dtype),
            state,
        )

    def step(self, state: Stream, u: Float[Array, " inputs"]) -> tuple[Stream, Float[Array, " outputs"]]:
        """Take in one input and return the new state and the logits after it, in inference mode.

        For classification these are the logits of the sequence so far; for regression those of this step.
        """
        model = eqx.nn.inference_mode(self)
        x, units = model.encoder(u), []
        for block, unit_state in zip(model.blocks, state.units, strict=True):
            normed, _ = block.norm(x[None], state.norms)
            unit_state, y = block.unit.step(unit_state, normed[0])
            x = block.mix(x[None], y[None], None)[0]
            units.append(unit_state)
        stream = Stream(tuple(units), state.pooled + x, state.count + 1, state.norms)
        return stream, model.decoder(stream.pooled / stream.count if self.head == "classification" else x)


def _mean(x: Features, mask: Bool[Array, " steps"] | None) -> Float[Array, " hidden"]:
    """Return the mean over the valid steps."""
    if mask is None:
        return jnp.mean(x, 0)
    weights = mask.astype(x.dtype)
    # A sequence without any valid step (the padding of a batch) pools to zero instead of to NaN.
    return weights @ x / jnp.maximum(jnp.sum(weights), 1)
