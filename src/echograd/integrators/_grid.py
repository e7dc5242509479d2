"""Fixed point: states and increments on a grid, so that additions are exact and a step is undone bit for bit.

A float holds a multiple of the grid spacing g, a power of two, exactly up to 2^24 g (2^53 g in float64), and adds and
subtracts such multiples without rounding. So the state stays what it is for everybody else, an array of floats, and
only increments are rounded. Integers in its place would hold 7 bits more in float32, at the price of conversions in
every substep and of a state that carries no tangent and cannot be seen. Where integers wrap around, a state that
outgrows the grid becomes NaN, which stays.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._internal import _tree
from ..systems import SeparableHamiltonian
from ._base import State, StepInputs

# Out of so many bits of a float one is kept free for growth: 4 of 24, 8 of 53.
_RESERVE = 6

# The largest coordinate or momentum at the start is at least so many units of the grid.
_COARSEST = 16


def rounded(x: PyTree, grid: PyTree) -> PyTree:
    """Return `x` rounded to the grid; `x` itself without one. Its derivative is that of `x`."""
    return x if grid is None else jax.tree.map(_round, x, grid)


@jax.custom_jvp
def _round(x: Array, spacing: Float[Array, ""]) -> Array:
    if jnp.iscomplexobj(x):
        return jax.lax.complex(_round(x.real, spacing), _round(x.imag, spacing))
    # Both products are exact, the spacing being a power of two.
    return spacing * jax.lax.round(x * (1 / spacing), jax.lax.RoundingMethod.TO_NEAREST_EVEN)


@_round.defjvp
def _round_jvp(primals: Any, tangents: Any) -> Any:
    return _round(*primals), tangents[0]


def within(z: PyTree, grid: PyTree) -> PyTree:
    """Return the state, with NaN in the place of what has outgrown the grid; the state itself without one."""
    return z if grid is None else jax.tree.map(_within, z, grid)


def _within(x: Array, spacing: Float[Array, ""]) -> Array:
    # Half of what a float can hold, so that what a substep adds before the next check is covered too.
    limit = spacing * jnp.asarray(2.0 ** (_digits(spacing.dtype) - 1), spacing.dtype)
    return jnp.where(jnp.abs(x) <= limit, x, jnp.nan)


def grid_of(given: StepInputs, z0: State, bits: int | None) -> State:
    """Return the spacing of the grid of every leaf of the state: 2^-bits, or what the initial state calls for."""
    if bits is not None:
        size = _tree.max_abs(jax.lax.stop_gradient(z0))
        return eqx.error_if(
            jax.tree.map(lambda x: jnp.asarray(2.0**-bits, x.dtype), z0),
            (size > 0) & (size < _COARSEST * 2.0**-bits),
            f"Leapfrog(exact=True): the initial state is smaller than {_COARSEST} units of the fixed-point grid, and "
            "rounding would change it beyond recognition. Pass more `bits`, or none to have them chosen.",
        )
    sizes = _sizes(jax.lax.stop_gradient(z0), *_motion(given, z0))
    flat = jnp.stack([x.astype(given.h.dtype) for x in jax.tree.leaves(sizes)])
    sizes = eqx.error_if(
        sizes,
        jnp.any(flat == 0),
        "Leapfrog(exact=True): the initial state is at rest in an equilibrium, so nothing tells how large coordinates "
        "and momenta will grow and how fine a grid they need. Pass bits, the number of binary digits after the point.",
    )
    return jax.tree.map(_spacing, sizes)


def _spacing(size: Float[Array, ""]) -> Float[Array, ""]:
    """Return a power of two: of the bits of a float, those above this size are the reserve."""
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
    assert isinstance(system, SeparableHamiltonian)  # narrowed by `check`

    def flow(z: State) -> State:
        force = jax.grad(system.potential, 1)(given.t0, z[0], u)
        return jax.grad(system.kinetic, 1)(given.t0, z[1]), _tree.negate(force)

    return jax.jvp(flow, ((q, p),), (flow((q, p)),))


def _sizes(z0: State, first: State, second: State) -> State:
    r"""Return how large every leaf will be about, from $x_0$ and from $\dot x \tau$, $\tau^2 = |x| / |\ddot x|$.

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
