"""The naive rule: nudge under the same boundary condition, and its boundary residual."""

from typing import Any

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._internal import _checks, _tree
from ..boundary._duality import omega
from ..integrators import State, StepInputs
from ..nudge import AbstractNudge
from ..nudge._checks import checked_nudge
from ..problem import Outcome, Problem
from ..problem._run import Course, free_run
from ..problem._soundness import finite_cotangents
from ..two_point import TwoPointNewton
from ..two_point._nudged import condition_bars, nudged_path
from ..two_point._path import path_at
from ..two_point._problem import Condition, Nodes, TwoPoint, ends
from ._base import AbstractPathGradient
from ._nudged import nudged_run


class SameBoundary(AbstractPathGradient):
    r"""Nudge the problem under its own boundary condition: exact only where that condition is its own dual.

    By theorem 1 (`docs/boundaries.md`) the readings lack the boundary residual
    $\bigl[\omega(d_\beta z, d_\theta z)\bigr]_0^N$ with the sensitivities $d_\theta z$ of the ends, which no local
    reading gives. For an initial value nudged from the same start it is $\omega(d_\beta z_N, d_\theta z_N)$, and
    dropping it gives wrong directions. Use this object to measure that error; to train use `Echo` or `Glep`.

    Args:
        nudge: how $d/d\beta$ is taken: `Infinitesimal()` (default), `Symmetric(beta)`, `OneSided(beta)`, ...
        correct: whether to add the residual by forward sensitivities, one more pass for *every* number that is
            differentiated.

    Raises:
        RunError: (at run time) if no path is found, at a conjugate point, or if a finite nudge is lost in rounding.

    Source: the constant initial value problem of arXiv 2506.06248; theorem 1 in `docs/boundaries.md`.

    Example:
        ```python
        eg.solve(system, eg.InitialValue(q, p), dt=0.01, steps=100, gradient=eg.SameBoundary(correct=True))
        ```
    """

    nudge: AbstractNudge
    correct: bool = eqx.field(static=True)

    def __init__(self, nudge: AbstractNudge | None = None, *, correct: bool = False) -> None:
        self.nudge = checked_nudge("SameBoundary", nudge)
        self.correct = _checks.flag("SameBoundary", "correct", correct)

    def prepared(self, problem: Problem, z0: State) -> State:
        return z0

    def read_run(self, wanted: Problem, rest: Problem, course: Course, bar: Outcome) -> tuple[Problem, State]:
        problem, z0 = eqx.combine(wanted, rest), course.start
        response = nudged_run(wanted, rest, course, bar, self.nudge, "forward")
        bars = response.readings, _tree.zeros_like(z0)
        if self.correct:

            def ends_of(arguments: tuple[StepInputs, State]) -> Float[Array, " 4n"]:
                given, z0 = arguments
                moved = eqx.tree_at(lambda p: p.given, problem, eqx.combine(given, rest.given))
                return _tree.flat((z0, free_run(moved, z0).final))

            nudged = _tree.flat((_tree.zeros_like(z0), response.state))
            given, start = _residual(ends_of, (wanted.given, z0), nudged)
            given = _tree.add(response.readings.given, given)
            bars = eqx.tree_at(lambda p: p.given, response.readings, given), start
        if not problem.throw:
            return bars
        sizes = course.sizes()
        bars = self.nudge.check(bars, response.beta, response.ensemble, response.load, problem.steps, sizes)
        return finite_cotangents(bars)

    def read_path(
        self, wanted: StepInputs, rest: StepInputs, problem: TwoPoint, found: Nodes, bars: Nodes, newton: TwoPointNewton
    ) -> tuple[StepInputs, Condition]:
        still = jnp.zeros_like(found)
        response = nudged_path(problem, wanted, rest, found, bars, self.nudge, newton)
        if not self.correct:
            # Keep only the part of the residual that the boundary data give explicitly.
            return response.readings, condition_bars(problem.condition, ends(found, still), response.ends)

        factors = _tree.fixed(problem).linearised(*_tree.fixed((found, still)))

        def ends_of(arguments: tuple[StepInputs, Condition]) -> Float[Array, " 4n"]:
            given, condition = arguments
            parts = (eqx.combine(given, rest), condition)
            moved = eqx.tree_at(lambda p: (p.problem.given, p.condition), problem, parts)
            return ends(path_at(found, factors, moved, still), still)

        given, condition = _residual(ends_of, (wanted, problem.condition), response.ends)
        return _tree.add(response.readings, given), condition


def _residual(ends_of: Any, arguments: PyTree, nudged: Float[Array, " 4n"]) -> PyTree:
    r"""Return $\Omega(d_\beta z_\partial, d_\theta z_\partial)$ by one forward sensitivity per number."""
    flat, unravel = jax.flatten_util.ravel_pytree(arguments)
    form = omega(nudged.size // 4, nudged.dtype)

    def one(i: Array) -> Array:
        direction = jnp.zeros_like(flat).at[i].set(1)
        moved = jax.jvp(lambda x: ends_of(unravel(x)), (flat,), (direction,))[1]
        return nudged @ form @ moved

    return unravel(jax.lax.map(one, jnp.arange(flat.size)))
