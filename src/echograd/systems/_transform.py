"""Fast sine and Fourier transforms, and operators that are diagonal in them."""

from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

Ends = Literal["open", "periodic"]


def transformed(x: Array, symbol: Array, ends: Ends) -> Array:
    """Return `x` with its modes multiplied by an even `symbol`; the result is real if both are."""
    if ends == "periodic":
        modes = jnp.fft.fftn(x)
        y = jnp.fft.ifftn(modes * symbol.astype(modes.dtype))
        return y if jnp.iscomplexobj(x) else y.real
    modes = _sine(x)
    return _sine(modes * symbol.astype(modes.dtype))


def real_modes(x: Array, ends: Ends) -> Array:
    """Return the amplitudes of `x` in real modes, the sines of open ends and cos + sin of periodic ones; an involution.

    In real arithmetic, with dense matrices: this keeps real and imaginary parts of different magnitude apart.
    """
    for axis, n in enumerate(x.shape):
        j = np.arange(n)
        if ends == "open":
            matrix = (2 / (n + 1)) ** 0.5 * np.sin(np.pi * np.outer(j + 1, j + 1) / (n + 1))
        else:
            angle = 2 * np.pi * np.outer(j, j) / n
            matrix = (np.cos(angle) + np.sin(angle)) / n**0.5
        x = jnp.moveaxis(jnp.tensordot(jnp.asarray(matrix, x.dtype), x, (1, axis)), 0, axis)
    return x


def _sine(x: Array) -> Array:
    """Return the orthonormal sine transform (DST-I) along every axis: its own inverse."""
    for axis, n in enumerate(x.shape):
        zero = jnp.zeros_like(jnp.take(x, jnp.asarray([0]), axis))
        odd = jnp.concatenate([zero, x, zero, -jnp.flip(x, axis)], axis)
        y = jnp.take(jnp.fft.fft(odd, axis=axis), jnp.arange(1, n + 1), axis)
        y = 1j * y if jnp.iscomplexobj(x) else -y.imag
        x = jnp.asarray((2 * (n + 1)) ** -0.5, y.dtype) * y
    return x
