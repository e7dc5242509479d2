"""Hamiltonian echo learning: the gradient is read off the machine while it runs back along its own path."""

from collections.abc import Callable
from typing import Any

import equinox as eqx

from .._internal import _checks
from .._internal._errors import ArgumentTypeError
from ..integrators import State
from ..nudge import AbstractNudge
from ..nudge._checks import checked_nudge
from ..problem import Outcome, Problem
from ..problem._run import Course
from ..two_point import TwoPointNewton
from ..two_point._newton import Convergence
from ..two_point._problem import Nodes, TwoPoint
from ._base import AbstractNudgedGradient
from ._nudged import nudged_run
from ._retrace import checked_cotangents
from ._time_reversal import check_time_reversal, way_back


class Echo(AbstractNudgedGradient):
    r"""Recurrent Hamiltonian echo learning (RHEL): forward, flip the momenta, run the same machine again, nudged.

    With $\bar y_k = \partial C/\partial q_k$ and $\bar y^p_k = \partial C/\partial p_k$ the cotangents that reach node
    $k$, the echo starts at $(q_N, -p_N)$ and does, for $k = N \dots 1$,

    $$p \leftarrow p + \beta \bar y_k, \quad q \leftarrow q + \beta \bar y^p_k, \quad
    (q, p) \leftarrow \Phi((q, p), u_{k-1}) \ \text{ reading } \ r_{k-1} = -h\,\partial H/\partial(\theta, u)$$

    and then $dC/d\theta = \frac{d}{d\beta}\sum_k r_k$, $dC/du_k = \frac{d}{d\beta} r_k$, and in echo variables
    $dC/dq_0 = \frac{d}{d\beta} p$, $dC/dp_0 = \frac{d}{d\beta} q$ at the end. This is the gradient of the *discrete*
    trajectory, the one that `Backprop` returns: exact to rounding with `Infinitesimal()`.

    With `Infinitesimal()` it takes two passes, one forward and one back, for any number of parameters and steps. A
    finite nudge runs several machines back side by side: `OneSided` and `Symmetric` two, `Richardson(order)` `order`,
    `Holomorphic(points)` `points / 2`. Memory holds the inputs, the incoming cotangents, the final state and up to 16
    other states (the marks), for any number of steps. An infinitesimally nudged echo is put back on the free path at
    every mark, so rounding errors grow from one mark to the next only. If the program of the energy does not show that
    it is even in the momentum, the run back uses the inverse map, which makes the same path with the same readings.
    Reverse mode only; second derivatives are forward over reverse, as `jax.hessian` takes them.

    Args:
        nudge: how $d/d\beta$ is taken: `Infinitesimal()` (default), `Symmetric(beta)`, `OneSided(beta)`,
            `Richardson(beta, order)` or `Holomorphic(radius, points)`.
        retrace_tolerance: largest accepted estimate of the relative error of the gradient, by default 1e-9 in float64
            and 3e-2 in float32. The estimate is 20 times the sum of two measured numbers: how far the run back strays
            from the free run, relative to how far each leaf of the state moves; and $\varepsilon \sqrt N$ times the
            growth of the cotangents, since rounding errors of the path grow as they do. With a finite nudge it is the
            largest accepted retrace error, by default 1e-6 in float64 and 1e-3 in float32. `float("inf")` accepts any
            path.
        report: function such as `print`, called with the estimate of every gradient that is taken with an infinitesimal
            nudge.

    Raises:
        ArgumentTypeError: for a `Dissipative` system, or a condition on both ends.
        RunError: (at run time) if the energy is not time-reversible, if the gradient is not finite or not determined to
            the tolerance, or if a finite nudge is lost in rounding or too strong (see `Symmetric`).

    Source: G. Pourcel and M. Ernoult, arXiv 2506.05259, eqs. 6-7 and Cor. A.7-A.8; arXiv 2506.06248.

    Example:
        ```python
        def loss(system):
            sol = eg.solve(system, boundary, dt=0.01, steps=100, gradient=eg.Echo())
            return jnp.sum(sol.q[-1] ** 2)

        gradient = eqx.filter_grad(loss)(system)
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
        self.nudge = checked_nudge("Echo", nudge)
        self.retrace_tolerance = _checks.tolerance("Echo", "retrace_tolerance", retrace_tolerance)
        self.report = None if report is None else _checks.function("Echo", "report", report, "error -> None")

    def prepared(self, problem: Problem, z0: State) -> State:
        or_else = ", or use Backprop(), or Glep(), which then runs the inverse map"
        return check_time_reversal(problem.given, problem.steps, z0, what="Echo: the system", or_else=or_else)

    def read_run(self, wanted: Problem, rest: Problem, course: Course, bar: Outcome) -> tuple[Problem, State]:
        return read_back(wanted, rest, course, bar, self)

    def run_two_point(self, problem: TwoPoint, guess: Nodes, newton: TwoPointNewton) -> tuple[Outcome, Convergence]:
        raise ArgumentTypeError(
            "Echo: an echo is the dual of an InitialValue only. Under another condition the nudged path is not a "
            "forward run of the machine. Use gradient=Glep(), which nudges under the dual condition, or Backprop()."
        )


def read_back(wanted: Problem, rest: Problem, course: Course, bar: Outcome, rule: Any) -> tuple[Problem, State]:
    """Return the cotangents of problem and initial state, read on the nudged run back and checked."""
    problem: Problem = eqx.combine(wanted, rest)
    response = nudged_run(wanted, rest, course, bar, rule.nudge, way_back(problem, course.start))
    return checked_cotangents(problem, course, response, rule)
