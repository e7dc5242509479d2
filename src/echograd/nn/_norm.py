"""Normalisation of sequences: over the features of a step, or over the batch and its valid steps."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


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

    def __call__(
        self, x: Float[Array, "steps features"], state: Any = None, *, mask: Bool[Array, " steps"] | None = None
    ) -> tuple[Float[Array, "steps features"], Any]:
        """Return the normalised sequence, and the state unchanged; a mask makes no difference."""
        del mask
        x = x - jnp.mean(x, 1, keepdims=True)
        x = x * jax.lax.rsqrt(jnp.mean(x**2, 1, keepdims=True) + 1e-5)
        return x * self.scale[None] + self.shift[None], state


class BatchNorm(eqx.nn.StatefulLayer):
    r"""Normalise every feature over the batch and its valid steps, with running statistics for inference.

    The batch is a `vmap` axis with a name. Make a model that holds one with `equinox.nn.make_with_state`.

    Args:
        features: number of features.
        axis_name: name of the batch axis.
        momentum: weight of the old statistics in the running ones.
        inference: whether to use the running statistics; `equinox.nn.inference_mode` sets it.

    Source: S. Ioffe and C. Szegedy, arXiv 1502.03167.

    Example:
        ```python
        norm, state = eqx.nn.make_with_state(eg.nn.BatchNorm)(8)
        apply = jax.vmap(norm, in_axes=(0, None), out_axes=(0, None), axis_name="batch")
        y, state = apply(x, state)  # x: (batch, steps, 8)
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
        # Mean, variance, and how much of the initial guess is still in them.
        self.running = eqx.nn.StateIndex((jnp.zeros(features), jnp.zeros(features), jnp.ones(())))
        self.axis_name = axis_name
        self.momentum = momentum
        self.inference = inference

    def __call__(
        self,
        x: Float[Array, "steps features"],
        state: eqx.nn.State,
        *,
        mask: Bool[Array, " steps"] | None = None,
    ) -> tuple[Float[Array, "steps features"], eqx.nn.State]:
        """Return the normalised sequence and the state with updated running statistics."""
        mean, variance, guess = state.get(self.running)
        if self.inference:
            # Statistics of at least one batch, freed of the initial zeros; before any batch: leave x as it is.
            seen = guess < 1
            weight = jnp.where(seen, 1 - guess, 1)
            mean = jnp.where(seen, mean / weight, jnp.zeros_like(mean))
            variance = jnp.where(seen, variance / weight, jnp.ones_like(variance))
        else:
            valid = jnp.ones(x.shape[0], x.dtype) if mask is None else mask.astype(x.dtype)
            try:
                count = jax.lax.psum(jnp.sum(valid), self.axis_name)
            except NameError as error:
                raise ValueError(
                    f'BatchNorm: there is no batch axis named "{self.axis_name}". Call the model inside '
                    f'jax.vmap(..., axis_name="{self.axis_name}"), or in equinox.nn.inference_mode.'
                ) from error
            count = jnp.maximum(count, 1)
            batch_mean = jax.lax.psum(valid @ x, self.axis_name) / count
            batch_variance = jax.lax.psum(valid @ (x - batch_mean[None]) ** 2, self.axis_name) / count
            m = self.momentum
            old = (m * mean, m * variance, m * guess)
            fresh = ((1 - m) * batch_mean, (1 - m) * batch_variance, jnp.zeros_like(guess))
            updated = jax.tree.map(lambda a, b: jax.lax.stop_gradient(a + b), old, fresh)
            state = state.set(self.running, updated)
            mean, variance = batch_mean, batch_variance
        x = (x - mean[None]) * jax.lax.rsqrt(variance + 1e-5)[None]
        return x * self.scale[None] + self.shift[None], state
