"""Finite differences on a grid with walls: the energies of slopes, with gradients by the fast form of the stencil."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

# Second derivative on the nodes: the weights of the node and of its neighbours at distance 1, 2, ...
LAPLACIAN = {
    2: (-2.0, 1.0),
    4: (-5 / 2, 4 / 3, -1 / 12),
    8: (-205 / 72, 8 / 5, -1 / 5, 8 / 315, -1 / 560),
}
# First derivative between the nodes: the weights of the neighbours at distance 1/2, 3/2, ...
STAGGERED = {
    2: (1.0,),
    4: (9 / 8, -1 / 24),
    8: (1225 / 1024, -245 / 3072, 49 / 5120, -5 / 7168),
}


def largest_symbol(order: int, staggered: bool) -> float:
    """Return the largest eigenvalue of minus the second difference on one axis, in units of spacing^-2."""
    if staggered:
        return (2 * sum(abs(c) for c in STAGGERED[order])) ** 2
    middle, *others = LAPLACIAN[order]
    return -middle - 2 * sum((-1) ** j * c for j, c in enumerate(others, 1))


def laplacian(q: Array, spacing: float, order: int, surface: bool) -> Array:
    r"""Return $\nabla^2 q$, with $q = 0$ outside of the grid; with `surface` $q$ is odd about the wall at the top.

    The map is symmetric. Slices of one padded array are the form that XLA fuses into one pass.
    """
    middle, *others = LAPLACIAN[order]
    reach = len(others)
    wide = jnp.pad(q, reach)
    inner = [slice(reach, reach + n) for n in q.shape]

    def moved(axis: int, j: int) -> Array:
        return wide[tuple(slice(s.start + j, s.stop + j) if i == axis else s for i, s in enumerate(inner))]

    total = (middle * q.ndim / spacing**2) * q
    for j, c in enumerate(others, 1):
        ring = [moved(axis, s * j) for axis in range(q.ndim) for s in (-1, 1)]
        total = total + (c / spacing**2) * functools.reduce(jnp.add, ring)
    if surface and reach > 1:
        # The image of row i is minus row -2 - i: row r at distance j beyond the wall reads it at j - r - 2.
        for r in range(reach - 1):
            image = [(others[j - 1], j - r - 2) for j in range(r + 2, reach + 1)]
            total = total.at[r].add(-sum((c / spacing**2) * q[i] for c, i in image if i < q.shape[0]))
    return total


def slopes(q: Array, axis: int, spacing: float, order: int, surface: bool) -> Array:
    """Return the differences along an axis between the nodes, from the first wall to the last."""
    weights = STAGGERED[order]
    reach, n = len(weights), q.shape[axis]
    q = jnp.moveaxis(q, axis, 0)
    wide = jnp.pad(q, [(reach, reach)] + [(0, 0)] * (q.ndim - 1))
    if surface and axis == 0 and reach > 1:
        # The wall is one spacing outside of the grid, at row reach - 1 of the padded array.
        wide = wide.at[: reach - 1].set(-q[: reach - 1][::-1])
    parts = [
        (c / spacing) * (wide[reach + j : reach + j + n + 1] - wide[reach - 1 - j : reach - j + n])
        for j, c in enumerate(weights)
    ]
    return jnp.moveaxis(functools.reduce(jnp.add, parts), 0, axis)


def between(x: Array, axis: int) -> Array:
    """Return the means of neighbours along an axis, and the ends themselves: one more number along this axis."""
    x = jnp.moveaxis(x, axis, 0)
    return jnp.moveaxis(jnp.concatenate([x[:1], (x[1:] + x[:-1]) / 2, x[-1:]]), 0, axis)


def corners(position: Float[Array, "points axes"], shape: tuple[int, ...]) -> tuple[Array, Array]:
    """Return the cells around every point, and their weights: linear interpolation along every axis.

    Positions are in units of the spacing, node 0 being at 0.
    """
    last = jnp.asarray([n - 2 for n in shape], position.dtype)
    low = jnp.clip(jnp.floor(jax.lax.stop_gradient(position)), 0, jnp.maximum(last, 0)[None])
    part = position - low
    offsets = jnp.asarray([[(i >> axis) & 1 for axis in range(len(shape))] for i in range(2 ** len(shape))], jnp.int32)
    cells = low.astype(jnp.int32)[:, None] + offsets[None]
    weights = jnp.prod(jnp.where(offsets[None] == 1, part[:, None], 1 - part[:, None]), -1)
    return cells, weights


def sampled(q: Array, position: Float[Array, "points axes"]) -> Float[Array, " points"]:
    """Return a field at points between its nodes."""
    cells, weights = corners(position, q.shape)
    return jnp.sum(weights * q[_index(cells)], -1)


def courant_limit(order: int, axes: int, staggered: bool) -> float:
    r"""Return the largest $c h / a$ at which leapfrog is stable: $2 / \sqrt{\text{axes} \cdot \lambda}$."""
    return 2 / math.sqrt(axes * largest_symbol(order, staggered))


@functools.partial(jax.custom_jvp, nondiff_argnums=(3, 4, 5))
def stored_energy(q: Array, buoyancy: Any, loads: Any, spacing: float, order: int, surface: bool) -> Float[Array, ""]:
    r"""Return $\tfrac12 \int b\,|\nabla q|^2$ per cell, minus the work of point loads.

    Its gradient is computed in one pass, not by transposition of the stencil.

    Args:
        q: the field.
        buoyancy: $b$ between the nodes, an array for every axis, or `None` for 1.
        loads: cells `(points, corners, axes)` and amounts `(points, corners)`, or `None`.
        spacing: of the nodes.
        order: of the differences.
        surface: whether the field is odd about the wall before its first row.
    """
    return _energy_and_slope(q, buoyancy, loads, spacing, order, surface)[0]


@stored_energy.defjvp
def _stored_energy_jvp(spacing: float, order: int, surface: bool, primals: Any, tangents: Any) -> tuple[Array, Array]:
    (q, buoyancy, loads), (dq, db, dloads) = primals, tangents
    energy, slope, strains = _energy_and_slope(q, buoyancy, loads, spacing, order, surface)
    change = jnp.sum(dq * slope)
    if buoyancy is not None:
        change += sum(0.5 * jnp.sum(d * s**2) for d, s in zip(db, strains, strict=True))
    if loads is not None:
        change -= jnp.sum(dloads[1] * q[_index(loads[0])])
    return energy, change


def _energy_and_slope(q: Array, buoyancy: Any, loads: Any, spacing: float, order: int, surface: bool) -> Any:
    if buoyancy is None:
        strains, slope = [], -laplacian(q, spacing, order, surface)
        energy = 0.5 * jnp.sum(q * slope)
    else:
        strains = [slopes(q, axis, spacing, order, surface) for axis in range(q.ndim)]
        stresses = [b * s for b, s in zip(buoyancy, strains, strict=True)]
        energy = sum(0.5 * jnp.sum(a * b) for a, b in zip(strains, stresses, strict=True))
        parts = [transposed_slopes(s, axis, spacing, order, surface) for axis, s in enumerate(stresses)]
        slope = functools.reduce(jnp.add, parts)
    if loads is not None:
        cells, amounts = loads
        energy -= jnp.sum(amounts * q[_index(cells)])
        slope = slope.at[_index(cells)].add(-amounts)
    return energy, slope, strains


def _index(cells: Array) -> tuple[Array, ...]:
    return tuple(jnp.moveaxis(cells, -1, 0))


def transposed_slopes(y: Array, axis: int, spacing: float, order: int, surface: bool) -> Array:
    """Return the transpose of `slopes`, in the same form."""
    weights = STAGGERED[order]
    reach, n = len(weights), y.shape[axis] - 1
    y = jnp.moveaxis(y, axis, 0)
    wide = jnp.pad(y, [(reach - 1, reach - 1)] + [(0, 0)] * (y.ndim - 1))
    first = reach - 1
    parts = [
        (c / spacing) * (wide[first - j : first - j + n] - wide[first + 1 + j : first + 1 + j + n])
        for j, c in enumerate(weights)
    ]
    total = functools.reduce(jnp.add, parts)
    if surface and axis == 0:
        for row in range(min(reach - 1, n)):
            total = total.at[row].add(sum((weights[j] / spacing) * y[j - 1 - row] for j in range(row + 1, reach)))
    return jnp.moveaxis(total, 0, axis)
