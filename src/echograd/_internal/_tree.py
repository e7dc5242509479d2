"""Algebra on PyTrees of arrays: the vector-space operations that states and readings need."""

import functools
import operator
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Inexact, Integer, PyTree, Shaped

from ._errors import ArgumentError, ArgumentTypeError

# XLA's maximum of so few numbers sees every NaN.
_SMALL = 256


def add(a: PyTree, b: PyTree) -> PyTree:
    """Return `a + b`, leaf by leaf."""
    return jax.tree.map(operator.add, a, b)


def subtract(a: PyTree, b: PyTree) -> PyTree:
    """Return `a - b`, leaf by leaf."""
    return jax.tree.map(operator.sub, a, b)


def scale(s: Any, a: PyTree) -> PyTree:
    """Return `s * a`, leaf by leaf, in the dtype of each leaf of `a`."""
    return jax.tree.map(lambda x: jnp.asarray(s, x.dtype) * x, a)


def negate(a: PyTree) -> PyTree:
    """Return `-a`, leaf by leaf."""
    return jax.tree.map(operator.neg, a)


def zeros_like(a: PyTree) -> PyTree:
    """Return zeros shaped like `a`, a tree of arrays or of `jax.ShapeDtypeStruct`s."""
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), a)


def fixed(a: PyTree) -> PyTree:
    """Return `a` with its arrays as constants: no derivative goes through them."""
    arrays, static = eqx.partition(a, eqx.is_array)
    return eqx.combine(jax.lax.stop_gradient(arrays), static)


def isolated(function: Callable[..., PyTree], *x: PyTree) -> PyTree:
    """Return `function(*x)`, compiled by itself.

    Between the barriers XLA compiles the same program wherever the function is used. Otherwise the rounding of a number
    depends on what it is fused with, by fused multiplications and additions.
    """
    return jax.lax.optimization_barrier(function(*jax.lax.optimization_barrier(x)))


def check_heads(check: Callable[[PyTree], PyTree], a: PyTree) -> PyTree:
    """Return `a` after a check that may raise at run time, which sees only the first number of every array.

    XLA copies arrays that pass through a check, so only short ones should.
    """

    def first(x: Array) -> tuple[slice, ...]:
        return (slice(1),) * x.ndim

    heads = check(jax.tree.map(lambda x: x[first(x)], a))
    # The barrier lets XLA write in place; it would copy if the result were reshaped at once.
    put = jax.tree.map(lambda x, head: jax.lax.dynamic_update_slice(x, head, (0,) * x.ndim), a, heads)
    return jax.lax.optimization_barrier(put)


def flat(a: PyTree) -> Shaped[Array, " size"]:
    """Return all numbers of a tree as one vector."""
    return jax.flatten_util.ravel_pytree(a)[0]


def dot(a: PyTree, b: PyTree) -> Inexact[Array, ""]:
    """Return the Euclidean inner product of two trees of real arrays."""
    return sum_of(jax.tree.map(lambda x, y: jnp.sum(x * y), a, b))


def sum_of(a: PyTree) -> Any:
    """Return the sum of the (scalar) leaves of `a`."""
    leaves = jax.tree.leaves(a)
    return functools.reduce(operator.add, leaves) if leaves else jnp.zeros(())


def norm(a: PyTree) -> Float[Array, ""]:
    """Return the Euclidean norm of a tree of arrays; no square overflows or underflows."""
    largest = max_abs(a)
    unit = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    shrunk = jax.tree.map(lambda x: jnp.sum(jnp.abs(x / unit.astype(x.dtype)) ** 2), a)
    return unit * jnp.sqrt(sum_of(shrunk))


def max_abs(a: PyTree) -> Float[Array, ""]:
    """Return the largest absolute value in a tree of arrays."""
    leaves = [_largest(x) for x in jax.tree.leaves(a)]
    return functools.reduce(jnp.maximum, leaves) if leaves else jnp.zeros(())


def _largest(x: Shaped[Array, "..."]) -> Float[Array, ""]:
    """Return the largest absolute value, or NaN if there is one: on CPU, XLA's maximum of many numbers ignores NaNs."""
    largest = jnp.max(jnp.abs(x), initial=0)
    if x.size < _SMALL or not jnp.issubdtype(x.dtype, jnp.inexact):
        return largest
    return jnp.where(_is_finite(x) | jnp.isinf(largest), largest, jnp.asarray(jnp.nan, largest.dtype))


def _is_finite(x: Inexact[Array, "..."]) -> Bool[Array, ""]:
    """Return whether all entries are finite; an array of booleans would need memory."""

    def both(a: Array, b: Array) -> Array:
        """Return 0 if both numbers are finite, else NaN."""
        return jnp.where(jnp.isfinite(a) & jnp.isfinite(b), jnp.zeros_like(a), jnp.full_like(a, jnp.nan))

    # JAX has no derivative of such a reduction.
    x = jax.lax.stop_gradient(x)
    return jnp.isfinite(jax.lax.reduce(x, jnp.zeros((), x.dtype), both, tuple(range(x.ndim))))


def power_of_two(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Return the power of two in (x, 2x], or the nearest normal number; 1 where `x` is not positive or not finite."""
    sound, largest = (x > 0) & jnp.isfinite(x), int(jnp.finfo(x.dtype).maxexp) - 2
    exponent = jnp.clip(jnp.frexp(jnp.where(sound, x, 1))[1], -largest, largest)
    return jnp.ldexp(jnp.ones_like(x), jnp.where(sound, exponent, 0))


def rounding(a: PyTree) -> float:
    """Return the rounding unit of the coarsest floating-point numbers in a tree."""
    return max(float(jnp.finfo(x.dtype).eps) for x in jax.tree.leaves(eqx.filter(a, eqx.is_inexact_array)))


def all_finite(a: PyTree) -> Bool[Array, ""]:
    """Return whether no leaf of `a` holds a NaN or an infinity."""
    leaves = [_is_finite(jnp.asarray(x)) for x in jax.tree.leaves(eqx.filter(a, eqx.is_inexact_array))]
    return functools.reduce(jnp.logical_and, leaves) if leaves else jnp.asarray(True)


def take(a: PyTree, index: Any) -> PyTree:
    """Return entry `index` of the leading axis of every leaf."""
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, index, keepdims=False), a)


def put(a: PyTree, index: Any, value: PyTree) -> PyTree:
    """Return `a` with entry `index` of the leading axis of every leaf replaced, in place where possible."""
    return jax.tree.map(lambda x, y: jax.lax.dynamic_update_index_in_dim(x, y, index, 0), a, value)


def spread(a: PyTree, seed: int = 0) -> PyTree:
    """Return fixed pseudo-random numbers of variance 1 shaped like `a`: a probe direction without symmetry."""
    leaves, treedef = jax.tree.flatten(a)
    # Every leaf has its own range of indices. JAX's random numbers would dominate the compilation of small programs.
    first = [np.uint32((1_000_003 * i + 7_919 * seed) * 65_537 % 2**32) for i in range(len(leaves))]
    draws = [hashed(jax.lax.iota(jnp.uint32, x.size) + k, x.dtype) for x, k in zip(leaves, first, strict=True)]
    draws = [(12**0.5 * (x - 0.5)).reshape(leaf.shape) for x, leaf in zip(draws, leaves, strict=True)]
    return jax.tree.unflatten(treedef, draws)


def hashed(k: Integer[Array, "*shape"], dtype: Any) -> Float[Array, "*shape"]:
    """Return a pseudo-random number between 0 and 1 for every index."""
    x = k.astype(jnp.uint32) + jnp.uint32(1)
    for _ in range(2):
        x = (x ^ (x >> jnp.uint32(16))) * jnp.uint32(0x45D9F3B)
    return (x ^ (x >> jnp.uint32(16))).astype(dtype) / 2.0**32


def check_differentiable(owner: str, what: str, a: PyTree) -> None:
    """Raise unless a tree holds arrays that can be differentiated."""
    if not jax.tree.leaves(eqx.filter(a, eqx.is_inexact_array)):
        raise ArgumentError(
            f"{owner}: {what} holds no floating-point arrays, so there is nothing to differentiate. Wrap numbers in "
            "jnp.asarray."
        )


def check_digits(owner: str, what: str, a: PyTree) -> None:
    """Raise if a tree holds numbers of less than single precision: no trajectory retraces in three digits."""
    for path, x in jax.tree_util.tree_leaves_with_path(a):
        if jnp.issubdtype(x.dtype, jnp.floating) and jnp.finfo(x.dtype).bits < 32:
            raise ArgumentTypeError(
                f"{owner}: {what}{jax.tree_util.keystr(path)} is {x.dtype}, whose two or three digits are lost within "
                "some hundred steps. Convert it to float32 or float64; you can cast the result back."
            )


def check_usable(owner: str, what: str, a: PyTree) -> None:
    """Raise if a tree holds arrays of another precision setting, or sharded so that loops would depend on it."""
    for path, x in jax.tree_util.tree_leaves_with_path(eqx.filter(a, eqx.is_array)):
        name, kind = f"{owner}: {what}{jax.tree_util.keystr(path)}", jax.typeof(x)
        if jnp.issubdtype(x.dtype, jnp.inexact) and jax.dtypes.canonicalize_dtype(x.dtype) != x.dtype:
            raise ArgumentTypeError(
                f"{name} is {x.dtype}, but jax_enable_x64 is off: the array was made before, and JAX now computes in "
                "single precision. Cast the array to float32, or switch jax_enable_x64 on again."
            )
        if any(axis is not None for axis in kind.sharding.spec):
            raise ArgumentTypeError(
                f"{name} is sharded over an explicit mesh, {kind}. Leave "
                "the layout of loops to the compiler: make the mesh with axis_types=(jax.sharding.AxisType.Auto,); "
                "or map over the sharded axis with jax.vmap; or call this inside jax.sharding.auto_axes, with "
                "all arrays as arguments."
            )
        if axes := varying(kind):
            raise ArgumentTypeError(
                f"{name} differs between the devices along {', '.join(map(repr, sorted(axes)))}, in a jax.shard_map "
                "with check_vma=True, the default. JAX would sum derivatives with respect to replicated arrays over "
                "the devices, so forces would be wrong. Pass check_vma=False to jax.shard_map."
            )


def varying(kind: Any) -> frozenset[str]:
    """Return the axes of a `jax.shard_map` along which arrays of this type differ."""
    found = getattr(kind, "vma", None)  # before jax 0.12
    return getattr(getattr(kind, "manual_axis_type", None), "varying", frozenset()) if found is None else found


def complexified(dtype: Any) -> np.dtype:
    """Return the complex dtype of the precision of a floating-point one."""
    return np.result_type(dtype, np.complex64)


def as_complex(a: PyTree) -> PyTree:
    """Return a tree of real arrays as complex ones of the same precision."""
    return jax.tree.map(lambda x: x.astype(complexified(x.dtype)), a)
