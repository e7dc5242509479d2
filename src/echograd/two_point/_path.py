"""The path of a two-point problem as a differentiable function of the problem."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from . import _bordered
from ._problem import Nodes, TwoPoint


@eqx.filter_custom_jvp
def path_at(x: Nodes, factors: _bordered.Factors, problem: TwoPoint, kicks: Nodes) -> Nodes:
    """Return the path `x`, differentiable in `problem` and `kicks` by the implicit function theorem, to any order.

    `factors` are those of the Newton matrix about the path. They are constants.
    """
    del factors, problem
    # If kicks have a batch axis, the path needs it too: JAX takes the shapes of results from this function, even where
    # the derivative rule gives others.
    return jnp.where(jnp.asarray(True), x, kicks)


@path_at.def_jvp
def _path_at_jvp(primals: Any, tangents: Any) -> tuple[Nodes, Nodes]:
    _, factors, problem, kicks = primals
    x = path_at(*primals)

    def flow(problem: TwoPoint, kicks: Nodes, x: Nodes) -> Nodes:
        steps, boundary = problem.residual(x, kicks)
        return jnp.concatenate([steps, boundary[None]])

    def apply(dx: Nodes) -> Nodes:
        return -jax.jvp(lambda x: flow(problem, kicks, x), (x,), (dx,))[1]

    def solve(_: Any, r: Nodes) -> Nodes:
        return _bordered.solve(factors, r[:-1], r[-1])

    def transpose_solve(_: Any, r: Nodes) -> Nodes:
        # Not `jax.linear_transpose`: in jax 0.9 it fails for a scan.
        return jax.vjp(lambda r: solve(None, r), r)[1](r)[0]

    moved = eqx.filter_jvp(lambda problem, kicks: flow(problem, kicks, x), (problem, kicks), tangents[2:])[1]
    return x, jax.lax.custom_linear_solve(apply, moved, solve, transpose_solve)
