"""Measure the reach of readings: how many coordinates the reading of one parameter takes together."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._internal import _tree
from ..gradients._reciprocity import twist_of
from ..systems import Dissipative

# The largest neighbourhood: more than the bonds of an atom make, fewer than the coordinates of a system.
_NEIGHBOURS = 12
# So many coordinates at most are compared with all others.
_COORDINATES = 32
# So many elements at most of one parameter array are read.
_ELEMENTS = 256
_STATES = 3


class Reach(NamedTuple):
    """The most coordinates that one reading takes together, the number of all coordinates, and the parameter."""

    touched: int
    coordinates: int
    parameter: str

    @property
    def is_local(self) -> bool:
        """Whether the touched coordinates are a neighbourhood."""
        return self.touched <= 2 or self.touched < min(self.coordinates, _NEIGHBOURS + 1)


def measure_reach(system: Any, inputs: PyTree, t0: Any, like: PyTree) -> Reach:
    r"""Measure the second derivatives of all readings at three states without symmetry.

    Two coordinates are taken together by a reading $r$ if $\partial^2 r/\partial z_i\,\partial z_k \ne 0$ for
    them or their momenta; see `audit`.

    The probes are at time `t0`, with inputs near the first ones, at states with coordinates shaped like `like`.
    """
    wanted, rest = eqx.partition(system, eqx.is_inexact_array)
    # The reading of a dissipative system pairs two records, those of the driven machine and of the path.
    records = 2 if isinstance(system, Dissipative) else 1
    flat, unravel = jax.flatten_util.ravel_pytree([(like, like)] * records)
    count, dtype = _tree.flat(like).size, flat.dtype
    t = jnp.asarray(t0, dtype)
    twist = twist_of(system, like) if isinstance(system, Dissipative) else None

    def readings(z: Array, u: Any) -> Float[Array, " parameters"]:
        def energy(wanted: Any) -> Float[Array, ""]:
            system = eqx.combine(wanted, rest)
            if twist is None:
                return system(t, *unravel(z)[0], u)
            (a, da), (q, dq) = unravel(z)
            push = _tree.subtract(system.force(t, q, u), system.friction(dq))
            return _tree.dot(twist.undone(a), push) - _tree.dot(twist.undone(da), system.inertia(dq))

        found = jax.grad(energy)(wanted)
        return jnp.concatenate([part for _, x in _elements(found) for part in _real_parts(x)])

    def coupling(probe: tuple[Array, Array, Any]) -> Float[Array, "parameters coordinates"]:
        """Return how strongly every reading takes coordinate k together with each coordinate."""
        k, z, u = probe
        entries = k + count * np.arange(2 * records, dtype=np.int32)
        directions = (jnp.arange(flat.size, dtype=jnp.int32)[None] == entries[:, None]).astype(dtype)

        def along(e: Array) -> Array:
            return jax.jacrev(lambda z: jax.jvp(lambda z: readings(z, u), (z,), (e,))[1])(z)

        found = jnp.abs(jax.vmap(along)(directions))
        return jnp.max(found.reshape(2 * records, -1, 2 * records, count), (0, 2))

    sites = np.unique(np.linspace(0, count - 1, _COORDINATES).astype(np.int32))
    probes = [(jnp.asarray(k), *_probe(flat, inputs, seed)) for seed in range(_STATES) for k in sites]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *probes)
    found = np.asarray(jax.jit(lambda x: jax.lax.map(coupling, x))(stacked))
    # A probe outside the domain of the energy gives NaN. Ignore it.
    found = np.nan_to_num(found).reshape(_STATES, len(sites), -1, count).max(0)
    together = found > 100 * float(jnp.finfo(dtype).eps) * found.max((0, 2))[:, None]
    together[np.arange(len(sites)), :, sites] = False
    touched = 1 + together.sum(2).max(0)
    names = [name for name, x in _elements(wanted) for _ in _real_parts(x) for _ in range(x.size)]
    return Reach(int(touched.max()), count, names[int(touched.argmax())])


def _probe(flat: Array, inputs: PyTree, seed: int) -> tuple[Array, Any]:
    """Return a flattened state and inputs near the first ones, both without symmetry."""
    numbers, rest = eqx.partition(jax.tree.map(lambda u: u[0], inputs), eqx.is_inexact_array)
    numbers = _tree.add(numbers, _tree.scale(0.5, _tree.spread(numbers, seed)))
    return flat + 0.5 * _tree.spread(flat, seed), eqx.combine(numbers, rest)


def _elements(tree: PyTree) -> list[tuple[str, Array]]:
    """Return the path of every array and its elements, evenly thinned out if there are many."""
    found = []
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        index = np.unique(np.linspace(0, x.size - 1, min(x.size, _ELEMENTS)).astype(np.int32))
        found.append((jax.tree_util.keystr(path).lstrip("."), jnp.ravel(x)[index]))
    return found


def _real_parts(x: Array) -> list[Array]:
    return [x.real, x.imag] if jnp.iscomplexobj(x) else [x]
