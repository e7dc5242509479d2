"""Normalisation of sequences: over the features of a step, or over the batch and its valid steps."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._internal import _checks
from .._internal._errors import ArgumentError
from ._arguments import checked_input, checked_mask
from ._layout import Rows, Valid, per_feature

Features = Float[Array, "*batch steps features"]
Mask = Bool[Array, "*batch steps"]
# Running mean and variance, and the remaining weight of their initial zeros.
Running = tuple[Float[Array, " features"], Float[Array, " features"], Float[Array, ""]]

_EPSILON = 1e-5


class Moments(eqx.Module):
    """The number of rows, their mean, and the sums of their squared deviations from it."""

    count: Float[Array, ""]
    mean: Float[Array, " features"]
    squares: Float[Array, " features"]

    @staticmethod
    def of(x: Rows, valid: Valid) -> "Moments":
        """Return the moments of the valid rows."""
        others = tuple(range(1, x.ndim))
        count = jnp.sum(valid)
        mean = jnp.sum(valid[None] * x, others) / jnp.maximum(count, 1)
        return Moments(count, mean, jnp.sum(valid[None] * (x - per_feature(mean, x)) ** 2, others))

    def __add__(self, other: "Moments") -> "Moments":
        """Return the moments of both sets of rows together. Source: T. F. Chan et al., Stanford STAN-CS-79-773."""
        count, apart = self.count + other.count, other.mean - self.mean
        share = other.count / jnp.maximum(count, 1)
        squares = self.squares + other.squares + self.count * share * apart**2
        return Moments(count, self.mean + share * apart, squares)

    def pull(self, bar: "Moments", x: Rows, valid: Valid) -> Rows:
        """Return the cotangents of some of these rows from those of the moments."""
        # The sum of squares is smallest at the mean, so its slope in the mean is zero.
        shift, slope = bar.mean / jnp.maximum(self.count, 1), 2 * bar.squares
        return valid[None] * (per_feature(shift, x) + per_feature(slope, x) * (x - per_feature(self.mean, x)))


class LayerNorm(eqx.Module):
    r"""Normalise every step over its features: $\gamma\,(x - \mu) / \sqrt{\sigma^2 + \epsilon} + \delta$.

    Args:
        features: number of features.

    Source: J. L. Ba et al., arXiv 1607.06450.

    Example:
        ```python
        y, _ = eg.nn.LayerNorm(8)(jnp.ones((100, 8)))  # (steps, features)
        ```
    """

    scale: Float[Array, " features"]
    shift: Float[Array, " features"]

    def __init__(self, features: int) -> None:
        _checks.integer("LayerNorm", "features", features, what="the number of features")
        self.scale = jnp.ones(features)
        self.shift = jnp.zeros(features)

    def __call__(self, x: Features, state: Any = None, *, mask: Mask | None = None) -> tuple[Features, Any]:
        """Return the normalised sequence and the unchanged state. The mask has no effect."""
        x = checked_input("LayerNorm", x, self.scale.dtype, self.scale.size, "batch", "steps", nan=mask is not None)
        return jnp.moveaxis(self.rows(jnp.moveaxis(x, -1, 0)), 0, -1), state

    def moments(self, x: Rows, valid: Valid) -> None:
        """Return `None`: a layer norm needs no statistics of other rows."""
        del x, valid

    def fit(self, moments: None, running: None) -> tuple["LayerNorm", None]:
        """Return the norm itself, which needs no fitting."""
        del moments, running
        return self, None

    def rows(self, x: Rows) -> Rows:
        """Normalise rows."""
        x = x - jnp.mean(x, 0, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.mean(x**2, 0, keepdims=True) + _EPSILON)
        return x * per_feature(self.scale, x) + per_feature(self.shift, x)


class Standardised(eqx.Module):
    r"""A `BatchNorm` with given statistics: $\gamma\,(x - \mu) / \sigma + \delta$.

    The centre is a constant. The shift carries the dependence of the mean on the rows, so one sum over all rows is the
    cotangent of both.
    """

    centre: Float[Array, " features"]
    factor: Float[Array, " features"]
    shift: Float[Array, " features"]

    def rows(self, x: Rows) -> Rows:
        """Normalise rows."""
        centre = jax.lax.stop_gradient(self.centre)
        return (x - per_feature(centre, x)) * per_feature(self.factor, x) + per_feature(self.shift, x)


class BatchNorm(eqx.nn.StatefulLayer):
    r"""Normalise every feature over the batch and its valid steps, with running statistics for inference.

    The batch is the first axis, or a named `vmap` axis, or both. Build models that contain a batch norm with
    `equinox.nn.make_with_state`.

    Args:
        features: number of features.
        axis_name: name of the `vmap` axis of the batch, if the batch is mapped.
        momentum: weight of the old statistics in the running ones, at least 0 and below 1.
        inference: whether to use the running statistics; `equinox.nn.inference_mode` sets it.

    Raises:
        ArgumentError: if a number is out of range; when called, for wrong shapes or without a batch axis in training.
        ArgumentTypeError: if an argument has the wrong type.

    Source: S. Ioffe and C. Szegedy, arXiv 1502.03167.

    Example:
        ```python
        norm, state = eqx.nn.make_with_state(eg.nn.BatchNorm)(8)
        y, state = norm(jnp.ones((4, 100, 8)), state)  # (batch, steps, features)
        ```
    """

    scale: Float[Array, " features"]
    shift: Float[Array, " features"]
    running: eqx.nn.StateIndex
    axis_name: str = eqx.field(static=True)
    momentum: float = eqx.field(static=True)
    inference: bool

    def __init__(
        self, features: int, *, axis_name: str = "batch", momentum: float = 0.9, inference: bool = False
    ) -> None:
        _checks.integer("BatchNorm", "features", features, what="the number of features")
        self.scale = jnp.ones(features)
        self.shift = jnp.zeros(features)
        self.running = eqx.nn.StateIndex((jnp.zeros(features), jnp.zeros(features), jnp.ones(())))
        self.axis_name = _checks.instance("BatchNorm", "axis_name", axis_name, str, "the name of an axis, a string")
        why = "the weight of the old statistics is at least 0 and below 1"
        self.momentum = _checks.constant("BatchNorm", "momentum", momentum, lambda x: 0 <= x < 1, why)
        self.inference = _checks.flag("BatchNorm", "inference", inference)

    def __call__(self, x: Features, state: eqx.nn.State, *, mask: Mask | None = None) -> tuple[Features, eqx.nn.State]:
        """Return the normalised sequence and the state with updated running statistics."""
        x = checked_input("BatchNorm", x, self.scale.dtype, self.scale.size, "batch", "steps", nan=mask is not None)
        _checks.instance("BatchNorm", "state", state, eqx.nn.State, "what equinox.nn.make_with_state returns")
        mask = None if mask is None else checked_mask("BatchNorm", mask, x)
        if x.ndim == 2:
            self.check_batch()
        x = jnp.moveaxis(x, -1, 0)
        valid = jnp.ones(x.shape[1:], x.dtype) if mask is None else mask.astype(x.dtype)
        standardised, running = self.fit(self.moments(x, valid), state.get(self.running))
        return jnp.moveaxis(standardised.rows(x), 0, -1), state if self.inference else state.set(self.running, running)

    def moments(self, x: Rows, valid: Valid) -> Moments | None:
        """Return the moments of the valid rows in training, and `None` in inference."""
        return None if self.inference else Moments.of(x, valid)

    def fit(self, moments: Moments | None, running: Running) -> tuple[Standardised, Running]:
        """Return the norm with its statistics, and the updated running statistics."""
        mean, variance, guess = running
        if moments is None:
            # Remove the weight of the initial zeros. Before the first batch, leave x unchanged.
            seen = guess < 1
            weight = jnp.where(seen, 1 - guess, 1)
            mean = jnp.where(seen, mean / weight, jnp.zeros_like(mean))
            variance = jnp.where(seen, variance / weight, jnp.ones_like(variance))
        else:
            count = jnp.maximum(self._summed(moments.count), 1)
            mean = self._summed(moments.count * moments.mean) / count
            variance = self._summed(moments.squares + moments.count * (moments.mean - mean) ** 2) / count
            m = self.momentum
            old = jax.tree.map(lambda a: m * a, running)
            fresh = ((1 - m) * mean, (1 - m) * variance, jnp.zeros_like(guess))
            running = jax.tree.map(lambda a, b: jax.lax.stop_gradient(a + b), old, fresh)
        factor, centre = self.scale * jax.lax.rsqrt(variance + _EPSILON), jax.lax.stop_gradient(mean)
        return Standardised(centre, factor, self.shift - factor * (mean - centre)), running

    @property
    def shared(self) -> bool:
        """Whether statistics are summed over a `vmap` axis."""
        try:
            jax.lax.psum(1, self.axis_name)
        except NameError:
            return False
        return not self.inference

    def check_batch(self) -> None:
        """Raise for a single sequence in training outside of a `vmap` over the batch."""
        if not self.inference and not self.shared:
            raise ArgumentError(
                "BatchNorm: there is no batch axis. Pass a batch, shape (batch, steps, features), or call the model "
                f'inside jax.vmap(..., axis_name="{self.axis_name}"), or in equinox.nn.inference_mode.'
            )

    def _summed(self, x: Array) -> Array:
        """Return the sum over the examples of the `vmap`, if there is one."""
        return jax.lax.psum(x, self.axis_name) if self.shared else x
