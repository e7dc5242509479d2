"""Normalisation of sequences: over the features of a step, or over the batch and its valid steps."""

import functools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

Features = Float[Array, "*batch steps features"]
# As it is inside a model.
Rows = Float[Array, "features *batch steps"]
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
        return jnp.moveaxis(self.rows(jnp.moveaxis(x, -1, 0)), 0, -1), state

    def fit(self, x: Rows, running: None, mask: Mask | None, steps: int | None = None) -> tuple["LayerNorm", None]:
        """Return what normalises rows one by one: here the norm itself, which looks at no other rows."""
        del x, running, mask, steps
        return self, None

    def rows(self, x: Rows) -> Rows:
        """Normalise rows."""
        x = x - jnp.mean(x, 0, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.mean(x**2, 0, keepdims=True) + _EPSILON)
        return x * _rowlike(self.scale, x) + _rowlike(self.shift, x)


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
        return (x - _rowlike(jax.lax.stop_gradient(self.centre), x)) * _rowlike(self.factor, x) + _rowlike(
            self.shift, x
        )


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
        x = jnp.moveaxis(x, -1, 0)
        standardised, running = self.fit(x, state.get(self.running), mask)
        return jnp.moveaxis(standardised.rows(x), 0, -1), state if self.inference else state.set(self.running, running)

    def fit(
        self, x: Rows, running: Running, mask: Mask | None, steps: int | None = None
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
            steps = x.shape[-1] if steps is None else steps
            valid = jnp.ones((1, *(1,) * (x.ndim - 1)), x.dtype) if mask is None else mask.astype(x.dtype)[None]
            count = math.prod(x.shape[1:-1]) * steps if mask is None else jnp.sum(valid)
            count = jnp.maximum(self._summed(jnp.asarray(count, x.dtype)), 1)
            mean = self._summed(jnp.sum(valid * x[..., :steps], tuple(range(1, x.ndim)))) / count
            variance = self._summed(_squares(x, mean, valid, steps)) / count
            m = self.momentum
            old = jax.tree.map(lambda a: m * a, running)
            fresh = ((1 - m) * mean, (1 - m) * variance, jnp.zeros_like(guess))
            running = jax.tree.map(lambda a, b: jax.lax.stop_gradient(a + b), old, fresh)
        factor, centre = self.scale * jax.lax.rsqrt(variance + _EPSILON), jax.lax.stop_gradient(mean)
        return Standardised(centre, factor, self.shift - factor * (mean - centre)), running

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


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _squares(x: Rows, mean: Array, valid: Array, steps: int) -> Array:
    """Return the sums of squared distances from the mean; the backward pass needs no rows but `x` itself."""
    return jnp.sum(valid * (x[..., :steps] - _rowlike(mean, x)) ** 2, tuple(range(1, x.ndim)))


def _squares_forward(x: Rows, mean: Array, valid: Array, steps: int) -> tuple[Array, Any]:
    return _squares(x, mean, valid, steps), (x, mean, valid)


def _squares_backward(steps: int, kept: Any, bar: Array) -> tuple[Array, Array, Array]:
    x, mean, valid = kept
    bar_x = 2 * valid * _rowlike(bar, x) * (x[..., :steps] - _rowlike(mean, x))
    bar_x = jnp.pad(bar_x, [(0, 0)] * (x.ndim - 1) + [(0, x.shape[-1] - steps)])
    # The mean is where the sum of squares is smallest.
    return bar_x, jnp.zeros_like(mean), jnp.zeros_like(valid)


_squares.defvjp(_squares_forward, _squares_backward)


def _rowlike(x: Float[Array, " features"], rows: Rows) -> Array:
    return jnp.expand_dims(x, tuple(range(1, rows.ndim)))
