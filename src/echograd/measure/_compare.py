"""Gradients of a loss, and the comparison of two of them: whole, and parameter by parameter."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from ..gradients import AbstractGradient

Loss = Callable[[Any, AbstractGradient], Float[Array, ""]]


class Agreement(NamedTuple):
    """How well a gradient agrees with its reference. All numbers are NaN if either gradient is not finite."""

    relative_error: float
    cosine: float
    norm_ratio: float


@eqx.filter_jit
def value_and_grad(loss: Loss, params: PyTree, gradient: AbstractGradient) -> tuple[Array, PyTree]:
    """Return a loss and its gradient with respect to `params`, as a gradient object takes it."""
    return eqx.filter_value_and_grad(loss)(params, gradient)


def norm(x: ArrayLike) -> float:
    """Return the Euclidean norm of an array of any shape."""
    return float(np.linalg.norm(np.asarray(x).ravel()))


def rate_along(gradient: ArrayLike, direction: ArrayLike) -> float:
    """Return Re ∑ g v. For a gradient as JAX gives it this is the rate of change along v."""
    return float(np.real(np.sum(np.asarray(gradient) * np.asarray(direction))))


def compare(found: ArrayLike, reference: ArrayLike, zero: float = 0.0) -> Agreement:
    """Compare a gradient with its reference.

    If both norms are at most `zero`, the two agree. If only the reference is zero, error and norm ratio are infinite.
    """
    found, reference = np.asarray(found), np.asarray(reference)
    a, b = norm(reference), norm(found)
    if not (math.isfinite(a) and math.isfinite(b)):
        return Agreement(math.nan, math.nan, math.nan)
    if max(a, b) <= zero:
        return Agreement(0.0, 1.0, 1.0)
    if a == 0:
        return Agreement(math.inf, 0.0, math.inf)
    if b == 0:
        return Agreement(1.0, 0.0, 0.0)
    return Agreement(norm(found - reference) / a, rate_along(np.conj(reference) / a, found / b), b / a)


def compare_parameters(
    found: PyTree, reference: PyTree, rounding: float = 0.0
) -> Iterator[tuple[str, float, Agreement]]:
    """Yield the name, the norm of the reference and the agreement of every parameter array.

    Norms below `rounding`, a fraction of the norm of the whole finite reference, count as zero.
    """
    named = jax.tree_util.tree_leaves_with_path(reference)
    norms = [norm(x) for _, x in named]
    zero = rounding * math.hypot(*filter(math.isfinite, norms))
    for (path, x), y, size in zip(named, jax.tree.leaves(found), norms, strict=True):
        yield jax.tree_util.keystr(path).lstrip(".") or "params", size, compare(y, x, zero)


def flatten(gradient: PyTree, axes: int = 0) -> np.ndarray:
    """Return all numbers of a gradient as real float64 numbers in one row, behind `axes` leading axes."""
    leaves = [np.asarray(x) for x in jax.tree.leaves(gradient)]
    parts = [part for x in leaves for part in ((x.real, x.imag) if np.iscomplexobj(x) else (x,))]
    return np.concatenate([x.reshape(*x.shape[:axes], -1).astype(float) for x in parts], -1)
