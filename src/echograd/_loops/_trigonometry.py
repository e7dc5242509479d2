"""Sines and cosines for inner loops on a CPU, where XLA would call the C library for each number."""

import math
from fractions import Fraction
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# A quarter of a turn, pi / 2, to 2^-164.
_QUARTER = Fraction(0x1921FB54442D18469898CC51701B839A252049C111, 1 << 164)


class _Format(NamedTuple):
    r"""Constants for one precision.

    A quarter turn is a sum of three parts. The first two have few bits, so that their products with the number of
    quarter turns are exact. The polynomials are $\sin y = y + \sum_k s_k y^{2k+3}$ and $\cos y = 1 - y^2/2 + \sum_k c_k
    y^{2k+4}$, best for $|y| \le \pi/4$.
    """

    parts: tuple[float, float, float]
    sine: tuple[float, ...]
    cosine: tuple[float, ...]


def _parts(dtype: Any, bits: int) -> tuple[float, float, float]:
    """Return a quarter turn in three parts, the first two with `bits` bits."""
    rest, parts = _QUARTER, []
    for _ in range(2):
        unit = Fraction(2) ** (math.frexp(rest)[1] - bits)
        parts.append(rest // unit * unit)
        rest -= parts[-1]
    return float(parts[0]), float(parts[1]), float(dtype(float(rest)))


# Coefficients: fdlibm (Sun Microsystems, 1993), k_sin.c and k_cos.c; FreeBSD, k_sinf.c and k_cosf.c.
_FORMATS = {
    np.dtype(np.float64): _Format(
        _parts(np.float64, 33),
        (
            *(-1.66666666666666324348e-01, 8.33333333332248946124e-03, -1.98412698298579493134e-04),
            *(2.75573137070700676789e-06, -2.50507602534068634195e-08, 1.58969099521155010221e-10),
        ),
        (
            *(4.16666666666666019037e-02, -1.38888888888741095749e-03, 2.48015872894767294178e-05),
            *(-2.75573143513906633035e-07, 2.08757232129817482790e-09, -1.13596475577881948265e-11),
        ),
    ),
    np.dtype(np.float32): _Format(
        _parts(np.float32, 12),
        (-0.166666666416265235595, 0.0083333293858894631756, -0.000198393348360966317347, 0.0000027183114939898219064),
        (0.0416666233237390631894, -0.00138867637746099294692, 0.0000243904487962774090654),
    ),
}


def is_served(dtype: Any) -> bool:
    """Return whether `sine_and_cosine` takes this dtype."""
    return np.dtype(dtype) in _FORMATS


@jax.custom_jvp
def sine_and_cosine(x: Float[Array, "*shape"]) -> tuple[Float[Array, "*shape"], Float[Array, "*shape"]]:
    r"""Return $\sin x$ and $\cos x$ by additions and multiplications, to within one unit in the last place.

    With $x = n \pi/2 + y$, $|y| \le \pi/4$, they are those of $y$, by polynomials. Beyond about $10^6$ ($10^3$ in
    float32) the error grows to that of changing $x$ by one unit in its last place. From $2^{49}$ ($2^{20}$ in float32)
    on, where that unit is an eighth of a radian, the result is NaN.
    """
    form = _FORMATS[np.dtype(x.dtype)]
    largest = 2.0 ** (jnp.finfo(x.dtype).nmant - 3)

    def number(value: float | int) -> Array:
        return jnp.asarray(value, x.dtype)

    def polynomial(coefficients: tuple[float, ...]) -> Array:
        total = number(coefficients[-1])
        for c in coefficients[-2::-1]:
            total = number(c) + square * total
        return total

    x = jnp.where(jnp.abs(x) < largest, x, jnp.nan)
    # The number of quarter turns, and that modulo 4. (Adding and subtracting a large constant would round as well, but
    # compilers before jax 0.12 cancel the two constants.)
    n = jax.lax.round(x * number(float(1 / _QUARTER)), jax.lax.RoundingMethod.TO_NEAREST_EVEN)
    quarters = n - number(4) * jnp.floor(number(0.25) * n)
    # Reduce x to y, and to the rest below the last place of y.
    coarse, step = x - n * number(form.parts[0]), n * number(form.parts[1])
    fine = coarse - step
    step = n * number(form.parts[2]) - ((coarse - fine) - step)
    y = fine - step
    rest = (fine - y) - step

    square = y * y
    cube, half = square * y, number(0.5) * square
    first, *others = form.sine
    sine = y - ((square * (number(0.5) * rest - cube * polynomial(tuple(others))) - rest) - cube * number(first))
    high = number(1) - half
    cosine = high + (((number(1) - high) - half) + (square * (square * polynomial(form.cosine)) - y * rest))

    odd = (quarters == number(1)) | (quarters == number(3))
    sine, cosine = jnp.where(odd, cosine, sine), jnp.where(odd, sine, cosine)
    lower, left = quarters >= number(2), (quarters == number(1)) | (quarters == number(2))
    return jnp.where(lower, -sine, sine), jnp.where(left, -cosine, cosine)


@sine_and_cosine.defjvp
def _slope(primals: Any, tangents: Any) -> Any:
    sine, cosine = sine_and_cosine(*primals)
    # Not through the formula above, in which the number of quarter turns is a step function.
    return (sine, cosine), (cosine * tangents[0], -sine * tangents[0])
