"""The units of a two-point problem: powers of two in which its path is of order 1, in any units of the user."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._internal import _tree

Step = Callable[[Int[Array, ""], Float[Array, " 2n"]], Float[Array, " 2n"]]

# The exponent of numbers that are zero or not finite, and so give no unit.
_NONE = -(2**20)


class Units(eqx.Module):
    r"""One unit for all coordinates and one for all momenta, so that the symplectic form only gets a factor.

    Both are powers of two, so a change of units changes no digit.
    """

    q: Float[Array, ""]
    p: Float[Array, ""]

    def each(self, n: int) -> Float[Array, " 2n"]:
        """Return the unit of every number of a state with `n` coordinates."""
        return jnp.repeat(jnp.stack([self.q, self.p]), n, total_repeat_length=2 * n)


def units_of_path(step: Step, x: Float[Array, "N+1 2n"]) -> Units:
    r"""Return units for a path: the sizes of its coordinates and momenta.

    Momenta may be too small to carry the coordinates by their own size during the run. Their unit is then the momentum
    that would, or that of a vibration as large as the coordinates, whichever is larger. The unit of coordinates or
    momenta that are all zero is the change that the other part would cause in them.
    """
    steps, n = x.shape[0] - 1, x.shape[1] // 2
    probe = _tree.spread(x[0, :n])
    probe, still = probe / jnp.max(jnp.abs(probe)), jnp.zeros_like(probe)

    probes = jnp.stack([jnp.concatenate([probe, still]), jnp.concatenate([still, probe])])

    def one(k: Int[Array, ""], x: Float[Array, " 2n"]) -> tuple[Array, Array, Array]:
        moved, (by_q, by_p) = jax.vmap(lambda dx: jax.jvp(lambda x: step(k, x), (x,), (dx,)))(probes)
        return _tree.max_abs((moved[0] - x)[n:]), _tree.max_abs(by_q[n:]), _tree.max_abs(by_p[:n])

    def usual(x: Float[Array, " N"]) -> Int[Array, ""]:
        e = _exponent(x)
        count = jnp.sum(e != _NONE, dtype=e.dtype)
        return jnp.where(count > 0, jnp.sum(jnp.where(e == _NONE, 0, e), dtype=e.dtype) // jnp.maximum(count, 1), _NONE)

    # In a loop, which compiles faster than a batch.
    nodes = jnp.arange(steps, dtype=jnp.int32), x[:-1]
    kick, stiffness, mobility = map(usual, jax.lax.map(lambda node: one(*node), nodes))
    sizes = jnp.max(jnp.where(jnp.isfinite(x), jnp.abs(x), 0), 0)
    q, p = _exponent(jnp.max(sizes[:n])), _exponent(jnp.max(sizes[n:]))

    in_all = steps.bit_length() - 1
    p_known = jnp.where(p == _NONE, jnp.where(kick == _NONE, kick, kick + in_all), p)
    # Without a mobility, take the ratio of the sizes.
    unknown = jnp.where((q == _NONE) | (p_known == _NONE), 0, q - p_known)
    reach = jnp.where(mobility == _NONE, unknown, mobility + in_all)
    q = jnp.where(q == _NONE, jnp.where(p_known == _NONE, 0, p_known + reach), q)
    carrying = q - reach
    swinging = q + jnp.where((stiffness == _NONE) | (mobility == _NONE), -reach, (stiffness - mobility) >> 1)
    p = jnp.where(p < carrying, jnp.maximum(carrying, swinging), p)
    return Units(_power(q, x), _power(p, x))


def units_of_rows(rows: Float[Array, "2n 4n"]) -> Units:
    """Return units in which rows that tie momenta to coordinates have entries of one size for both."""
    q, p = (_exponent(jnp.max(jnp.abs(x), (1, 2, 3))) for x in jnp.split(rows.reshape(len(rows), 2, 2, -1), 2, 2))
    ratio = jnp.max(jnp.where((q == _NONE) | (p == _NONE), _NONE, q - p))
    ratio = jnp.where(ratio == _NONE, 0, ratio)
    return Units(jnp.ones((), rows.dtype), _power(ratio, rows))


def _exponent(x: Float[Array, "*shape"]) -> Int[Array, "*shape"]:
    return jnp.where(jnp.isfinite(x) & (x > 0), jnp.frexp(x)[1], _NONE)


def _power(exponent: Int[Array, "*shape"], like: Array) -> Float[Array, "*shape"]:
    """Return two to this power, clipped so that squares and products of two such numbers stay in range."""
    largest = int(jnp.finfo(like.dtype).maxexp) // 2 - 2
    return jnp.ldexp(jnp.ones((), like.dtype), jnp.clip(exponent, -largest, largest))
