"""Causal inference: the state at the start is given."""

from typing import Any

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import lineax as lx
import optimistix as optx
from jaxtyping import PyTree

from ..systems import SeparableHamiltonian
from ._base import AbstractBoundary

# Up to here the Legendre transform solves with a dense Cholesky factor, beyond it by conjugate gradients.
_DENSE = 1024


def _as_state(x: PyTree, name: str) -> PyTree:
    """Return `x` with real floating-point array leaves, or say which leaf cannot be one."""

    def convert(path: Any, leaf: Any) -> Any:
        array = jnp.asarray(leaf)
        if jnp.issubdtype(array.dtype, jnp.complexfloating):
            raise ValueError(
                f"InitialValue: {name}{jax.tree_util.keystr(path)} is complex. A canonical state is made of real "
                "arrays; store the real and imaginary parts as two leaves."
            )
        if not jnp.issubdtype(array.dtype, jnp.floating):
            array = array.astype(jnp.result_type(float))
        return array

    return jax.tree_util.tree_map_with_path(convert, x)


class InitialValue(AbstractBoundary):
    r"""Start the trajectory from a given state $(q_0, p_0)$, or from coordinates and a velocity.

    With `v`, the momentum is the one that moves at that velocity, $\partial T/\partial p\,(t_0, p_0) = v$: it then
    depends on the kinetic parameters (a mass, say) and their gradient includes that dependence.

    Args:
        q: initial coordinates, any PyTree of real arrays.
        p: initial momenta, of the same structure and shapes as `q`.
        v: initial velocities instead of `p`, of the same structure and shapes as `q`.

    Raises:
        ValueError: if both or neither of `p` and `v` are given, if structures or shapes differ, or if a leaf is
        complex.

    Example:
        ```python
        eg.InitialValue(q=jnp.zeros(3), p=jnp.ones(3))
        eg.InitialValue(q=jnp.zeros(3), v=jnp.ones(3))
        ```
    """

    q: PyTree
    p: PyTree
    v: PyTree

    def __init__(self, q: PyTree, p: PyTree = None, *, v: PyTree = None) -> None:
        if (p is None) == (v is None):
            given = "neither" if p is None else "both"
            raise ValueError(
                f"InitialValue needs exactly one of `p` (momenta) and `v` (velocities), and got {given}. "
                "For a start at rest pass v=jax.tree.map(jnp.zeros_like, q)."
            )
        self.q = _as_state(q, "q")
        self.p = None if p is None else _as_state(p, "p")
        self.v = None if v is None else _as_state(v, "v")

    def __check_init__(self) -> None:
        name, other = ("p", self.p) if self.v is None else ("v", self.v)
        if jax.tree.structure(self.q) != jax.tree.structure(other):
            raise ValueError(
                f"InitialValue: q and {name} have different structures, {jax.tree.structure(self.q)} and "
                f"{jax.tree.structure(other)}. Every coordinate needs its own entry in {name}."
            )
        for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(self.q), jax.tree.leaves(other), strict=True):
            if a.shape != b.shape:
                raise ValueError(
                    f"InitialValue: q{jax.tree_util.keystr(path)} has shape {a.shape} but {name} has {b.shape} there. "
                    f"Give {name} one number per coordinate."
                )
        if not jax.tree.leaves(self.q):
            raise ValueError("InitialValue: the state has no arrays. Give q at least one array leaf.")

    def state(self, system: SeparableHamiltonian, t0: Any) -> tuple[PyTree, PyTree]:
        """Return the initial state $(q_0, p_0)$ of `system` at time `t0`."""
        p = self.p if self.v is None else momentum(system, t0, self.v)
        return self.q, p


def momentum(system: SeparableHamiltonian, t: Any, v: PyTree) -> PyTree:
    r"""Return the momentum that moves at velocity `v`: the inverse of $v = \partial T / \partial p$.

    Newton's method on the convex kinetic energy; one iteration where $T$ is quadratic. Differentiable with respect
    to the system, the time and the velocity by the implicit function theorem.

    Args:
        system: supplies `kinetic`.
        t: time.
        v: velocities, a PyTree of real arrays.

    Returns:
        Momenta with the structure of `v`.
    """
    flat, unravel = jax.flatten_util.ravel_pytree(v)
    params, static = eqx.partition(system, eqx.is_inexact_array)

    def residual(p: Any, args: Any) -> Any:
        params, t, flat = args
        velocity = jax.grad(lambda p: eqx.combine(params, static).kinetic(t, unravel(p)))(p)
        return velocity - flat

    eps = float(jnp.finfo(flat.dtype).eps)
    if flat.size <= _DENSE:
        linear = lx.AutoLinearSolver(well_posed=True)
    else:
        linear = lx.CG(rtol=50 * eps, atol=50 * eps, max_steps=flat.size)
    solution = optx.root_find(
        residual,
        optx.Newton(rtol=50 * eps, atol=50 * eps, linear_solver=linear),
        flat,
        args=(params, jnp.asarray(t, flat.dtype), flat),
        tags=frozenset({lx.positive_semidefinite_tag}),
        adjoint=optx.ImplicitAdjoint(linear_solver=linear),
        max_steps=64,
        throw=False,
    )
    p = solution.value
    off = jnp.abs(residual(p, (params, jnp.asarray(t, flat.dtype), flat)))
    tolerance = eps**0.5 * (1 + jnp.max(jnp.abs(flat)))
    p = eqx.error_if(
        p,
        jnp.logical_not(jnp.all(off <= tolerance)),
        "InitialValue(v=...): no momentum moves at the given velocity. The kinetic energy may be flat (a zero inverse "
        "mass), bounded in its velocity (relativistic), or not convex. Give the momentum with `p=` instead.",
    )
    return unravel(p)


__all__ = ["InitialValue", "momentum"]
