"""Fixed point: states and increments on a grid, so that additions are exact and a step is undone bit for bit.

Floats represent multiples of the grid spacing g, a power of two, exactly up to 2^24 g (2^53 g in float64). They add and
subtract these multiples without rounding. So the state remains an array of floats, and only increments are rounded.
Integers would have 7 bits more in float32, but would need conversions in every substep and carry no tangent. An integer
that overflows wraps around; a state that outgrows the grid becomes NaN and stays NaN.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._internal import _tree
from ..friction import Damped
from ..systems import SeparableHamiltonian
from ._base import State, StepInputs

# One of so many bits of a float is reserved for growth: 4 of 24, 8 of 53.
_RESERVE = 6

# The largest coordinate or momentum of the initial state must be at least so many grid spacings.
_COARSEST = 16


def rounded(x: PyTree, grid: PyTree) -> PyTree:
    """Return `x` rounded to the grid, or `x` if there is no grid. Derivatives ignore the rounding."""
    return x if grid is None else jax.tree.map(_round, x, grid)


@jax.custom_jvp
def _round(x: Array, spacing: Float[Array, ""]) -> Array:
    if jnp.iscomplexobj(x):
        return jax.lax.complex(_round(x.real, spacing), _round(x.imag, spacing))
    # Both products are exact because the spacing is a power of two.
    return spacing * jax.lax.round(x * (1 / spacing), jax.lax.RoundingMethod.TO_NEAREST_EVEN)


@_round.defjvp
def _round_jvp(primals: Any, tangents: Any) -> Any:
    return _round(*primals), tangents[0]


def within(z: PyTree, grid: PyTree) -> PyTree:
    """Return the state with NaN for numbers that have outgrown the grid, or the state if there is no grid."""
    return z if grid is None else jax.tree.map(_within, z, grid)


def _within(x: Array, spacing: Float[Array, ""]) -> Array:
    # Half of the representable range, so that the increment of a substep before the next check fits, too.
    limit = spacing * jnp.asarray(2.0 ** (_digits(spacing.dtype) - 1), spacing.dtype)
    return jnp.where(jnp.abs(x) <= limit, x, jnp.nan)


def grid_of(given: StepInputs, z0: State, bits: int | None) -> State:
    """Return the grid spacing of every leaf of the state: 2^-bits, or a spacing that suits the initial state."""
    if bits is not None:
        size = _tree.max_abs(jax.lax.stop_gradient(z0))
        return eqx.error_if(
            jax.tree.map(lambda x: jnp.asarray(2.0**-bits, x.dtype), z0),
            (size > 0) & (size < _COARSEST * 2.0**-bits),
            f"Leapfrog(exact=True): the initial state is smaller than {_COARSEST} spacings of the fixed-point grid, so "
            "rounding would change it too much. Pass more `bits`, or bits=None to choose them automatically.",
        )
    sizes = _sizes(jax.lax.stop_gradient(z0), *_motion(given, z0))
    flat = jnp.stack([x.astype(given.h.dtype) for x in jax.tree.leaves(sizes)])
    sizes = eqx.error_if(
        sizes,
        jnp.any(flat == 0),
        "Leapfrog(exact=True): the initial state is at rest in an equilibrium, so the size of coordinates and momenta "
        "and the grid they need are unknown. Pass bits, the number of binary digits after the point.",
    )
    return jax.tree.map(_spacing, sizes)


def _spacing(size: Float[Array, ""]) -> Float[Array, ""]:
    """Return a power of two that leaves the reserved bits of a float above this size."""
    digits = _digits(size.dtype)
    _, exponent = jnp.frexp(size)
    return jnp.ldexp(jnp.ones_like(size), exponent + digits // _RESERVE - digits)


def _digits(dtype: Any) -> int:
    return jnp.finfo(dtype).nmant + 1


def _motion(given: StepInputs, z0: State) -> tuple[State, State]:
    """Return the first and the second time derivative of the state at the start."""
    dynamic, static = eqx.partition((given, z0), eqx.is_inexact_array)
    given, (q, p) = eqx.combine(jax.lax.stop_gradient(dynamic), static)
    system, u = given.system, _tree.take(given.u, 0)
    assert isinstance(system, SeparableHamiltonian | Damped)  # narrowed by `check`

    def flow(z: State) -> State:
        force = jax.grad(system.potential, 1)(given.t0, z[0], u)
        return jax.grad(system.kinetic, 1)(given.t0, z[1]), _tree.negate(force)

    return jax.jvp(flow, ((q, p),), (flow((q, p)),))


def _sizes(z0: State, first: State, second: State) -> State:
    r"""Estimate how large every leaf will become, from $x_0$ and from $\dot x \tau$, $\tau^2 = |x| / |\ddot x|$.

    For an oscillator this is its amplitude: from rest, $|\dot p| \tau = |F| \sqrt{|q| / |\ddot q|}$ is its largest
    momentum.
    """
    sizes = []
    for x, rate, other, acceleration in zip(z0, first, z0[::-1], second[::-1], strict=True):
        far, fast = _tree.max_abs(other), _tree.max_abs(acceleration)
        time = jnp.where(fast > 0, jnp.sqrt(far / jnp.where(fast > 0, fast, 1)), 0)
        leaves = jax.tree.map(
            lambda a, b, time=time: jnp.maximum(_largest(a), time.astype(b.dtype) * _largest(b)), x, rate
        )
        # A leaf at rest has the scale of the others.
        most = _tree.max_abs(leaves)
        sizes.append(jax.tree.map(lambda a, most=most: jnp.where(a > 0, a, most.astype(a.dtype)), leaves))
    return tuple(sizes)  # pyright: ignore[reportReturnType]


def _largest(x: Array) -> Float[Array, ""]:
    return jnp.max(jnp.abs(x), initial=0)
