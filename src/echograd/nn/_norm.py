"""Normalisation of sequences: over the features of a step, or over the batch and its valid steps."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Features = Float[Array, "*batch steps features"]
Mask = Bool[Array, "*batch steps"]
# Running mean and variance, and how much of the initial guess is still in them.
Running = tuple[Float[Array, " features"], Float[Array, " features"], Float[Array, ""]]

_EPSILON = 1e-5


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
        self.scale = jnp.ones(features)
        self.shift = jnp.zeros(features)

    def __call__(self, x: Features, state: Any = None, *, mask: Mask | None = None) -> tuple[Features, Any]:
        """Return the normalised sequence, and the state unchanged; a mask makes no difference."""
        del mask
        return self.rows(x), state

    def fit(self, x: Features, running: None, mask: Mask | None) -> tuple["LayerNorm", None]:
        """Return what normalises rows one by one: here the norm itself, which looks at no other rows."""
        del x, running, mask
        return self, None

    def rows(self, x: Features) -> Features:
        """Normalise rows."""
        x = x - jnp.mean(x, -1, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + _EPSILON)
        return x * _rowlike(self.scale, x) + _rowlike(self.shift, x)


class Standardised(eqx.Module):
    r"""What a `BatchNorm` does to a row once it has its statistics: $\gamma\,(x - \mu) / \sigma + \delta$."""

    mean: Float[Array, " features"]
    factor: Float[Array, " features"]
    shift: Float[Array, " features"]

    def rows(self, x: Features) -> Features:
        """Normalise rows."""
        return (x - _rowlike(self.mean, x)) * _rowlike(self.factor, x) + _rowlike(self.shift, x)


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
        self.scale = jnp.ones(features)
        self.shift = jnp.zeros(features)
        self.running = eqx.nn.StateIndex((jnp.zeros(features), jnp.zeros(features), jnp.ones(())))
        self.axis_name = axis_name
        self.momentum = momentum
        self.inference = inference

    def __call__(self, x: Features, state: eqx.nn.State, *, mask: Mask | None = None) -> tuple[Features, eqx.nn.State]:
        """Return the normalised sequence and the state with updated running statistics."""
        if x.ndim == 2:
            self.check_batch()
        standardised, running = self.fit(x, state.get(self.running), mask)
        return standardised.rows(x), state if self.inference else state.set(self.running, running)

    def fit(self, x: Features, running: Running, mask: Mask | None) -> tuple[Standardised, Running]:
        """Return what normalises rows one by one, and the updated running statistics."""
        mean, variance, guess = running
        if self.inference:
            # Statistics of at least one batch, freed of the initial zeros; before any batch: leave x as it is.
            seen = guess < 1
            weight = jnp.where(seen, 1 - guess, 1)
            mean = jnp.where(seen, mean / weight, jnp.zeros_like(mean))
            variance = jnp.where(seen, variance / weight, jnp.ones_like(variance))
        else:
            axes = tuple(range(x.ndim - 1))
            valid = jnp.ones((), x.dtype) if mask is None else mask.astype(x.dtype)[..., None]

            def average(x: Features) -> Float[Array, " features"]:
                return self._summed(jnp.sum(valid * x, axes)) / count

            steps = math.prod(x.shape[:-1]) * valid if mask is None else jnp.sum(valid)
            count = jnp.maximum(self._summed(steps), 1)
            mean = average(x)
            variance = average((x - _rowlike(mean, x)) ** 2)
            m = self.momentum
            old = jax.tree.map(lambda a: m * a, running)
            fresh = ((1 - m) * mean, (1 - m) * variance, jnp.zeros_like(guess))
            running = jax.tree.map(lambda a, b: jax.lax.stop_gradient(a + b), old, fresh)
        return Standardised(mean, self.scale * jax.lax.rsqrt(variance + _EPSILON), self.shift), running

    def check_batch(self) -> None:
        """Raise if a single sequence has no batch around it, and one is needed."""
        if self.inference:
            return
        try:
            jax.lax.psum(1, self.axis_name)
        except NameError as error:
            raise ValueError(
                "BatchNorm: there is no batch axis. Pass a batch, shape (batch, steps, features), or call the model "
                f'inside jax.vmap(..., axis_name="{self.axis_name}"), or in equinox.nn.inference_mode.'
            ) from error

    def _summed(self, x: Array) -> Array:
        """Add up over the examples that a `vmap` holds, where there is one."""
        try:
            return jax.lax.psum(x, self.axis_name)
        except NameError:
            return x


def _rowlike(x: Float[Array, " features"], rows: Features) -> Array:
    return jnp.expand_dims(x, tuple(range(rows.ndim - 1)))
