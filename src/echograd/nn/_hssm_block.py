"""One block of a Hamiltonian state-space model."""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, UInt32

from .._internal import _tree
from .._internal._errors import RunError
from ..gradients import AbstractGradient
from ._dropout import make_dropout
from ._hru import AbstractHRU, Projections
from ._layer import AbstractLayer
from ._layout import Rows, Valid, apply_linear, halves
from ._norm import BatchNorm, LayerNorm, Moments, Standardised
from ._oscillators import AbstractBank, Wide
from ._transduce import transduce


class HSSMBlock(eqx.Module):
    """One block: norm → unit → GELU → dropout → GLU → dropout → skip.

    The whole block is one layer around the oscillators, so the backward pass keeps only its input. All other
    activations are computed again during the echo.
    """

    norm: LayerNorm | BatchNorm
    unit: AbstractHRU
    value: eqx.nn.Linear
    gate: eqx.nn.Linear
    dropout: eqx.nn.Dropout

    def __call__(
        self, x: Rows, running: Any = None, *, valid: Valid | None = None, seed: Any = None
    ) -> tuple[Rows, Any]:
        """Return the output sequences, and the running statistics of the norm.

        Args:
            x: sequences, shape (hidden, batch, steps).
            running: running statistics of a batch norm.
            valid: 1 for valid steps, 0 for masked ones, shape (batch, steps); by default all are valid.
            seed: two random words for dropout.
        """
        valid = jnp.ones(x.shape[1:], x.dtype) if valid is None else valid
        return self.cell(seed)(x, running, valid)

    def statistics(self, state: Any) -> Any:
        """Return the running statistics of the norm from an Equinox state; `None` for a norm without any."""
        return state.get(self.norm.running) if isinstance(self.norm, BatchNorm) else None

    def around(self, running: Any) -> tuple[AbstractBank, "GatedLayer"]:
        """Return the oscillators and the layer around them, in inference mode."""
        return self.cell(None).fit(None, running)[0]

    def cell(self, seed: Any) -> "Cell":
        """Return the block with its parameters in the form that the sequence code needs."""
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


class Cell(eqx.Module):
    """A block with parameters derived from the trained ones, once for all steps."""

    norm: LayerNorm | BatchNorm
    oscillators: AbstractBank
    projections: Projections
    gates: eqx.nn.Linear  # value and gate, concatenated
    seed: UInt32[Array, "2"] | None
    dropout: float = eqx.field(static=True)
    gradient: AbstractGradient

    def __call__(self, x: Rows, running: Any, valid: Valid) -> tuple[Rows, Any]:
        (oscillators, layer), running = self.fit(self.moments(x, valid), running)
        return transduce(oscillators, layer, x, self.gradient)[0], running

    @property
    def fixed_gradient(self) -> AbstractGradient:
        """The gradient, whose own arrays are not differentiated."""
        return _tree.fixed(self.gradient)

    def moments(self, x: Rows, valid: Valid) -> Moments | None:
        """Return the statistics that `fit` needs; those of several blocks of rows are added."""
        return self.norm.moments(x, valid)

    def fit(self, moments: Any, running: Any) -> tuple[tuple[AbstractBank, "GatedLayer"], Any]:
        """Return the oscillators and the layer around them, fitted to the rows, and the updated running statistics."""
        norm, running = self.norm.fit(moments, running)
        layer = GatedLayer(norm, self.projections, self.gates, self.seed, self.dropout)
        return (self.oscillators, layer), running


class GatedLayer(AbstractLayer):
    """The part of a block around its oscillators."""

    axis: ClassVar[int] = 2
    norm: LayerNorm | Standardised
    projections: Projections
    gates: eqx.nn.Linear  # value and gate, concatenated
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
        keep = (lambda y, half: y) if self.seed is None else make_dropout(self.seed, self.dropout, y.shape, block)
        value, gate = halves(apply_linear(self.gates, keep(y, 0)))
        return x + keep(value * jax.nn.sigmoid(gate), 1)
