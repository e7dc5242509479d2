"""Normalisation of sequences: over the features of a step, or over the batch and its valid steps."""

import functools
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

    def fit(
        self, x: Features, running: None, mask: Mask | None, steps: int | None = None
    ) -> tuple["LayerNorm", None]:
        """Return what normalises rows one by one: here the norm itself, which looks at no other rows."""
        del x, running, mask, steps
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

    def fit(
        self, x: Features, running: Running, mask: Mask | None, steps: int | None = None
    ) -> tuple[Standardised, Running]:
        """Return what normalises rows one by one, fitted to the first `steps`, and the updated running statistics."""
        mean, variance, guess = running
        if self.inference:
            # Statistics of at least one batch, freed of the initial zeros; before any batch: leave x as it is.
            seen = guess < 1
            weight = jnp.where(seen, 1 - guess, 1)
            mean = jnp.where(seen, mean / weight, jnp.zeros_like(mean))
            variance = jnp.where(seen, variance / weight, jnp.ones_like(variance))
        else:
            valid = None if mask is None else mask.astype(x.dtype)[..., None]
            mean, variance = _moments(x, valid, x.shape[-2] if steps is None else steps, self.axis_name)
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


def _summed(x: Array, axis_name: str) -> Array:
    """Add up over the examples that a `vmap` holds, where there is one."""
    try:
        return jax.lax.psum(x, axis_name)
    except NameError:
        return x


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _moments(x: Features, valid: Any, steps: int, axis_name: str) -> tuple[Array, Array]:
    """Return mean and variance over the first steps, or the valid ones; all that is kept of the rows is `x` itself."""
    return _moments_forward(x, valid, steps, axis_name)[0]


def _moments_forward(x: Features, valid: Any, steps: int, axis_name: str) -> tuple[tuple[Array, Array], Any]:
    rows, axes = x[..., :steps, :], tuple(range(x.ndim - 1))
    count = jnp.asarray(math.prod(rows.shape[:-1]), x.dtype) if valid is None else jnp.sum(valid)
    count = jnp.maximum(_summed(count, axis_name), 1)

    def average(x: Features) -> Float[Array, " features"]:
        return _summed(jnp.sum(x if valid is None else valid * x, axes), axis_name) / count

    mean = average(rows)
    return (mean, average((rows - _rowlike(mean, x)) ** 2)), (x, valid, mean, count)


def _moments_backward(steps: int, axis_name: str, kept: Any, bars: Any) -> tuple[Array, Any]:
    x, valid, mean, count = kept
    bar_mean, bar_variance = (_rowlike(_summed(bar, axis_name) / count, x) for bar in bars)
    bar = bar_mean + 2 * bar_variance * (x[..., :steps, :] - _rowlike(mean, x))
    bar = bar if valid is None else valid * bar
    bar_x = jnp.pad(bar, [(0, 0)] * (x.ndim - 2) + [(0, x.shape[-2] - steps), (0, 0)])
    return bar_x, None if valid is None else jnp.zeros_like(valid)


_moments.defvjp(_moments_forward, _moments_backward)


def _rowlike(x: Float[Array, " features"], rows: Features) -> Array:
    return jnp.expand_dims(x, tuple(range(rows.ndim - 1)))
