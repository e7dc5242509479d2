"""What the ends of a trajectory are held to."""

import abc
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .. import _tree
from ..systems import Hamiltonian


class End(NamedTuple):
    """One end of a trajectory: its time, and the input held during the step that touches it."""

    t: Any
    u: Any


class AbstractBoundary(eqx.Module):
    r"""A condition on the ends $z_\partial = (q_0, p_0, q_N, p_N)$ of a trajectory, linear in them: $B z_\partial = b$.

    Coordinates and momenta are flattened in the order of their PyTree, so that with $n$ coordinates $B$ has $2n$ rows
    and $4n$ columns.
    """

    @abc.abstractmethod
    def structure(self) -> PyTree:
        """Return coordinates of the shape that the condition is made for, or `None` if it fits any."""

    @abc.abstractmethod
    def rows(
        self, system: Hamiltonian, start: End, stop: End, like: PyTree
    ) -> tuple[Float[Array, "2n 4n"], Float[Array, " 2n"]]:
        """Return $B$ and $b$ for a system whose coordinates are shaped `like` this."""


def as_arrays(owner: str, name: str, x: PyTree) -> PyTree:
    """Return `x` with real floating-point array leaves, or say which leaf cannot be one."""

    def convert(path: Any, leaf: Any) -> Any:
        array = jnp.asarray(leaf)
        if jnp.issubdtype(array.dtype, jnp.complexfloating):
            raise ValueError(
                f"{owner}: {name}{jax.tree_util.keystr(path)} is complex. A canonical state is made of real arrays; "
                "store the real and imaginary parts as coordinates and momenta: InitialValue(*canonical(psi))."
            )
        if not jnp.issubdtype(array.dtype, jnp.floating):
            array = array.astype(jnp.result_type(float))
        return array

    x = jax.tree_util.tree_map_with_path(convert, x)
    _tree.check_digits(owner, name, x)
    return x


def same_structure(owner: str, name: str, a: PyTree, other: str, b: PyTree) -> None:
    """Raise unless two trees have the same structure and shapes, and any numbers at all."""
    if jax.tree.structure(a) != jax.tree.structure(b):
        raise ValueError(
            f"{owner}: {name} and {other} have different structures, {jax.tree.structure(a)} and "
            f"{jax.tree.structure(b)}. Every coordinate needs its own entry in {other}."
        )
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(a), jax.tree.leaves(b), strict=True):
        if x.shape != y.shape:
            raise ValueError(
                f"{owner}: {name}{jax.tree_util.keystr(path)} has shape {x.shape} but {other} has {y.shape} there. "
                f"Give {other} one number per coordinate."
            )
    if not jax.tree.leaves(a):
        raise ValueError(f"{owner}: the state has no arrays. Give {name} at least one array leaf.")
