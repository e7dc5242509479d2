"""Normalisation of sequences: over the features of a step, or over the batch and its valid steps."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._internal import _checks
from .._internal._errors import ArgumentError
from ._rows import Rows, Valid, checked, checked_mask, rowlike

Features = Float[Array, "*batch steps features"]
Mask = Bool[Array, "*batch steps"]
# Running mean and variance, and how much of the initial guess is still in them.
Running = tuple[Float[Array, " features"], Float[Array, " features"], Float[Array, ""]]

_EPSILON = 1e-5


class Moments(eqx.Module):
    """The number of rows, their mean, and the sums of their squared distances from it."""

    count: Float[Array, ""]
    mean: Float[Array, " features"]
    squares: Float[Array, " features"]

    @staticmethod
    def of(x: Rows, valid: Valid) -> "Moments":
        """Return the moments of the valid rows."""
        others = tuple(range(1, x.ndim))
        count = jnp.sum(valid)
        mean = jnp.sum(valid[None] * x, others) / jnp.maximum(count, 1)
        return Moments(count, mean, jnp.sum(valid[None] * (x - rowlike(mean, x)) ** 2, others))

    @staticmethod
    def none(features: int, dtype: Any) -> "Moments":
        """Return the moments of no rows."""
        zero = jnp.zeros(features, dtype)
        return Moments(jnp.zeros((), dtype), zero, zero)

    def __add__(self, other: "Moments") -> "Moments":
        """Return the moments of both together. Source: T. F. Chan et al., Stanford STAN-CS-79-773."""
        count, apart = self.count + other.count, other.mean - self.mean
        share = other.count / jnp.maximum(count, 1)
        squares = self.squares + other.squares + self.count * share * apart**2
        return Moments(count, self.mean + share * apart, squares)

    def pull(self, bar: "Moments", x: Rows, valid: Valid) -> Rows:
        """Return the cotangent of rows among those that these are the moments of."""
        # The mean is where the sum of squares is smallest.
        shift, slope = bar.mean / jnp.maximum(self.count, 1), 2 * bar.squares
        return valid[None] * (rowlike(shift, x) + rowlike(slope, x) * (x - rowlike(self.mean, x)))


class LayerNorm(eqx.Module):
    r"""Normalise every step over its features: $\gamma\,(x - \mu) / \sqrt{\sigma^2 + \epsilon} + \delta$.

    Args:
        features: number of features.

    Source: J. L. Ba et al., arXiv 1607.06450.

    Example:
        ```python
        y, _ = eg.nn.LayerNorm(8)(x)  # x: (steps, 8)
        ```
    """

    scale: Float[Array, " features"]
    shift: Float[Array, " features"]

    def __init__(self, features: int) -> None:
        _checks.integer("LayerNorm", "features", features, what="the number of features")
        self.scale = jnp.ones(features)
        self.shift = jnp.zeros(features)

    def __call__(self, x: Features, state: Any = None, *, mask: Mask | None = None) -> tuple[Features, Any]:
        """Return the normalised sequence, and the state unchanged; a mask makes no difference."""
        x = checked("LayerNorm", x, self.scale.dtype, self.scale.size, "batch", "steps", nan=mask is not None)
        return jnp.moveaxis(self.rows(jnp.moveaxis(x, -1, 0)), 0, -1), state

    def moments(self, x: Rows, valid: Valid) -> None:
        """Return what there is to know of all rows: nothing."""
        del x, valid

    def fit(self, moments: None, running: None) -> tuple["LayerNorm", None]:
        """Return what normalises rows one by one: here the norm itself, which looks at no other rows."""
        del moments, running
        return self, None

    def rows(self, x: Rows) -> Rows:
        """Normalise rows."""
        x = x - jnp.mean(x, 0, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.mean(x**2, 0, keepdims=True) + _EPSILON)
        return x * rowlike(self.scale, x) + rowlike(self.shift, x)


class Standardised(eqx.Module):
    r"""What a `BatchNorm` does to a row once it has its statistics: $\gamma\,(x - \mu) / \sigma + \delta$.

    The centre is a constant; that the mean depends on the rows is left to the shift, so that one sum over all rows is
    the cotangent of both.
    """

    centre: Float[Array, " features"]
    factor: Float[Array, " features"]
    shift: Float[Array, " features"]

    def rows(self, x: Rows) -> Rows:
        """Normalise rows."""
        return (x - rowlike(jax.lax.stop_gradient(self.centre), x)) * rowlike(self.factor, x) + rowlike(self.shift, x)


class BatchNorm(eqx.nn.StatefulLayer):
    r"""Normalise every feature over the batch and its valid steps, with running statistics for inference.

    The batch is the first axis, or a `vmap` axis with a name, or both. Make a model that holds one with
    `equinox.nn.make_with_state`.

    Args:
        features: number of features.
        axis_name: name of the `vmap` axis of the batch, where there is one.
        momentum: weight of the old statistics in the running ones.
        inference: whether to use the running statistics; `equinox.nn.inference_mode` sets it.

    Source: S. Ioffe and C. Szegedy, arXiv 1502.03167.

    Example:
        ```python
        norm, state = eqx.nn.make_with_state(eg.nn.BatchNorm)(8)
        y, state = norm(x, state)  # x: (batch, steps, 8)
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
        x = checked("BatchNorm", x, self.scale.dtype, self.scale.size, "batch", "steps", nan=mask is not None)
        _checks.instance("BatchNorm", "state", state, eqx.nn.State, "what equinox.nn.make_with_state returns")
        mask = None if mask is None else checked_mask("BatchNorm", mask, x)
        if x.ndim == 2:
            self.check_batch()
        x = jnp.moveaxis(x, -1, 0)
        valid = jnp.ones(x.shape[1:], x.dtype) if mask is None else mask.astype(x.dtype)
        standardised, running = self.fit(self.moments(x, valid), state.get(self.running))
        return jnp.moveaxis(standardised.rows(x), 0, -1), state if self.inference else state.set(self.running, running)

    def moments(self, x: Rows, valid: Valid) -> Moments | None:
        """Return what there is to know of all rows in training; in inference nothing."""
        return None if self.inference else Moments.of(x, valid)

    def fit(self, moments: Moments | None, running: Running) -> tuple[Standardised, Running]:
        """Return what normalises rows one by one, fitted to all of them, and the updated running statistics."""
        mean, variance, guess = running
        if moments is None:
            # Statistics of at least one batch, freed of the initial zeros; before any batch: leave x as it is.
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
        """Whether statistics are those of all examples of a `vmap`."""
        try:
            jax.lax.psum(1, self.axis_name)
        except NameError:
            return False
        return not self.inference

    def check_batch(self) -> None:
        """Raise if a single sequence has no batch around it, and one is needed."""
        if not self.inference and not self.shared:
            raise ArgumentError(
                "BatchNorm: there is no batch axis. Pass a batch, shape (batch, steps, features), or call the model "
                f'inside jax.vmap(..., axis_name="{self.axis_name}"), or in equinox.nn.inference_mode.'
            )

    def _summed(self, x: Array) -> Array:
        """Add up over the examples that a `vmap` holds, where there is one."""
        return jax.lax.psum(x, self.axis_name) if self.shared else x
