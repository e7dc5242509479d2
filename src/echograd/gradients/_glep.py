"""Generalized Lagrangian equilibrium propagation: nudge under the dual boundary condition."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp

from .._internal import _checks
from ..boundary._duality import dual_rows
from ..integrators import State, StepInputs
from ..nudge import AbstractNudge
from ..nudge._checks import checked_nudge
from ..problem import Outcome, Problem
from ..problem._run import Course
from ..two_point import TwoPointNewton
from ..two_point._nudged import condition_bars, nudged_path
from ..two_point._problem import Condition, Nodes, TwoPoint, ends
from ._base import AbstractPathGradient
from ._echo import read_back


class Glep(AbstractPathGradient):
    r"""Generalized Lagrangian equilibrium propagation (GLEP): exact under any boundary condition.

    The free path makes the discrete action $S = \sum_k L_d$ stationary under its boundary condition. The nudged path
    makes $S + \beta C$ stationary under the *dual* condition about the ends of the free path, and then

    $$\frac{dC}{d\theta} = \frac{d}{d\beta} \sum_k \frac{\partial L_d}{\partial\theta}\Big|_{\beta=0}$$

    without a boundary residual. Trainable boundary data add an explicit term.

    The nudged problem depends on the condition. For an `InitialValue` the dual is a final value: the nudged path is run
    as an echo if the system is time-reversible, and by the inverse map otherwise; two passes. For a condition on both
    ends it is another two-point problem. It has the same condition if that is its own dual (fixed, free, mixed and
    periodic ends, symmetric Robin), and a different one otherwise.

    Args:
        nudge: how $d/d\beta$ is taken: `Infinitesimal()` (default), `Symmetric(beta)`, `OneSided(beta)`, ...
        retrace_tolerance: for an `InitialValue`, as for `Echo`.
        report: for an `InitialValue`, as for `Echo`.

    Raises:
        RunError: (at run time) if no path is found, at a conjugate point, if the run back does not retrace the free
            run, or if a finite nudge is lost in rounding or too strong.

    Source: arXiv 2506.06248; theorems 1 and 2 in `docs/boundaries.md`.

    Example:
        ```python
        sol = eg.solve(system, eg.FixedEnds(q, -q), dt=0.1, steps=20, gradient=eg.Glep())
        ```
    """

    nudge: AbstractNudge
    retrace_tolerance: float | None = eqx.field(static=True)
    report: Callable[[Any], None] | None = eqx.field(static=True)

    def __init__(
        self,
        nudge: AbstractNudge | None = None,
        *,
        retrace_tolerance: float | None = None,
        report: Callable[[Any], None] | None = None,
    ) -> None:
        self.nudge = checked_nudge("Glep", nudge)
        self.retrace_tolerance = _checks.tolerance("Glep", "retrace_tolerance", retrace_tolerance)
        self.report = None if report is None else _checks.function("Glep", "report", report, "error -> None")

    def prepared(self, problem: Problem, z0: State) -> State:
        return z0

    def read_run(self, wanted: Problem, rest: Problem, course: Course, bar: Outcome) -> tuple[Problem, State]:
        return read_back(wanted, rest, course, bar, self)

    def read_path(
        self, wanted: StepInputs, rest: StepInputs, problem: TwoPoint, found: Nodes, bars: Nodes, newton: TwoPointNewton
    ) -> tuple[StepInputs, Condition]:
        free = ends(found, jnp.zeros_like(found))
        rows = dual_rows(problem.condition.rows)
        dual = eqx.tree_at(lambda p: p.condition, problem, Condition(rows, rows @ free))
        response = nudged_path(dual, wanted, rest, found, bars, self.nudge, newton)
        return response.readings, condition_bars(problem.condition, free, response.ends)
