"""How well the run back retraces the free run: measures of it, and the checks that a gradient has to pass."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from .._internal import _tree
from .._internal._errors import refuse_if
from ..integrators import State
from ..integrators._base import time_reversed
from ..nudge import Infinitesimal
from ..problem import Problem
from ..problem._run import Course, index, marked_run, marks_of
from ..problem._soundness import finite_cotangents
from ._nudged import Response

# The nudge is too strong if the extrapolated echo misses the initial state by more than both of these: a fraction of
# the size of the state, and a fraction of the distance between the nudged echoes. Over the zoo, gradients with an error
# below 1 % have misses up to 0.17 of the size of the state.
_LARGEST_MISS, _LEAST_BEND = 0.3, 0.03

# The relative error of a gradient over that of its path. Measured over chaotic and regular systems: 10 to 200 where the
# errors are large enough to matter.
_BENDING = 20


def tolerance_for(rule: Any, z: PyTree) -> float:
    """Return the largest accepted retrace error of nudged echoes; the default depends on the precision."""
    if rule.retrace_tolerance is not None:
        return rule.retrace_tolerance
    return 1e-6 if _tree.rounding(z) < 1e-12 else 1e-3


def largest_error(z: PyTree) -> float:
    """Return the largest relative error of a gradient that is accepted by default, by the precision of a state."""
    return 1e-9 if _tree.rounding(z) < 1e-12 else 3e-2


def retraces(error: float, z: PyTree) -> bool:
    """Return whether a gradient along a path with this retrace error is accurate enough for the default tolerance."""
    return bool(_BENDING * error <= largest_error(z))


def checked_cotangents(problem: Problem, course: Course, response: Response, rule: Any) -> tuple[Problem, State]:
    r"""Return the cotangents of the problem and of the state, $dC/dz_0 = (-d_\beta p_0, d_\beta q_0)$, checked."""
    dq, dp = response.state
    bars = response.readings, (_tree.negate(dp), dq)
    if not problem.throw:
        return bars
    bars = finite_cotangents(bars)

    def check(x: Any) -> Any:
        x = _check_units(x, course)
        if problem.given.grid is not None:
            x = _check_bitwise_retrace(x, response)
        elif isinstance(rule.nudge, Infinitesimal):
            x = _check_error(x, problem, course, response, rule)
        else:
            x = _check_retrace(x, course, response, tolerance_for(rule, course.final))
        x = _check_nudge_strength(x, course, response)
        sizes = course.sizes()
        return rule.nudge.check(x, response.beta, response.ensemble, response.load, problem.steps, sizes)

    return _tree.check_heads(check, bars)


def _check_units(x: Any, course: Course) -> Any:
    """Return `x`, or raise at run time if the readings, which are actions, would underflow."""
    q, p = (_tree.max_abs(size) for size in course.sizes())
    action, info = q * p, jnp.finfo(q.dtype)
    least = float(info.tiny) / float(info.eps) ** 2
    return refuse_if(
        x,
        (q > 0) & (p > 0) & (action < least),
        f"Echo: a coordinate times a momentum is {{}} here. Below {least:.1g} the readings of an echo underflow in "
        f"{q.dtype}. Choose units in which actions are nearer to 1, or use float64.",
        action,
    )


def strayed_by(course: Course, strayed: State) -> Float[Array, ""]:
    """Return the largest distance from the free path over all leaves, each relative to how far the leaf moves.

    Ignore leaves that move by no more than the rounding errors of the others.
    """
    worst = []
    for part, extents, sizes in zip(strayed, course.extents(), course.sizes(), strict=True):
        least = 1e3 * _tree.rounding(sizes) * _tree.max_abs(sizes)
        for s, extent in zip(jax.tree.leaves(part), jax.tree.leaves(extents), strict=True):
            moves = extent > least.astype(extent.dtype)
            worst.append(jnp.where(moves | ~(s < jnp.inf), s / jnp.where(moves, extent, 1), 0).astype(least.dtype))
    return jnp.max(jnp.stack(worst))


def _check_error(x: Any, problem: Problem, course: Course, response: Response, rule: Any) -> Any:
    r"""Return `x`, or raise at run time if the gradient is not determined to the tolerance.

    The estimate adds two measurements: how far the run back strays from the free run, and $\varepsilon \sqrt N$ times
    the growth of the cotangents. Rounding errors of the free run grow as the cotangents do, so no program knows the
    path and its gradient better than that: backpropagation compiled differently gives another number.
    """
    rounding, tolerance = _tree.rounding(course.final), rule.retrace_tolerance
    tolerance = largest_error(course.final) if tolerance is None else tolerance
    strayed = strayed_by(course, response.strayed)
    error = _BENDING * (strayed + rounding * problem.steps**0.5 * response.growth.astype(strayed.dtype))
    if rule.report is not None:
        jax.debug.callback(rule.report, error)
    return refuse_if(
        x,
        ~(error <= tolerance),
        "Echo: the gradient is determined to a relative error of {} only, more than "
        f"retrace_tolerance={tolerance:g}, because rounding errors grow along this path. Likely causes: (a) the motion "
        "is chaotic or very long: use Leapfrog(exact=True), whose path does not depend on rounding, float64, or fewer "
        "steps; (b) a large constant offset of coordinates takes up their digits: subtract it; (c) dt is too long. Or "
        "accept the error with a larger retrace_tolerance.",
        error,
    )


def _check_retrace(x: Any, course: Course, response: Response, tolerance: float) -> Any:
    """Return `x`, or raise at run time if finitely nudged runs back left the free path."""
    error = strayed_by(course, response.strayed)
    return refuse_if(
        x,
        ~(error <= tolerance),
        "Echo: the run back did not retrace the free run. It strayed by {} of the distance "
        f"that the state moves, more than retrace_tolerance={tolerance:g}. Likely causes: (a) the system is chaotic "
        "over this time and rounding errors grew: use Leapfrog(exact=True), float64 or fewer steps; (b) dt is too "
        "long; (c) a large constant offset of coordinates takes up their digits: subtract it; (d) the finite nudge is "
        "too strong. Backprop() always applies.",
        error,
    )


def _check_nudge_strength(x: Any, course: Course, response: Response) -> Any:
    """Return `x`, or raise at run time if the nudges were too strong for a finite difference.

    The nudged echoes of a linear system extrapolate to the initial state, however far apart they are. Those of a
    nonlinear one miss it, and a reading that is a product of two coordinates has an error of the miss over their size.
    Nudge schemes with an un-nudged member cannot be checked in this way.
    """
    worst = []
    for ended, about, start, size in zip(response.ended, response.about, course.start, course.sizes(), strict=True):
        apart = _tree.max_abs(_tree.subtract(about, ended))
        unit = jnp.where(apart > 0, apart, jnp.inf)  # coordinates and momenta, each in units of their response
        miss = _tree.max_abs(_tree.subtract(ended, start))
        bent = (miss > _LEAST_BEND * unit) & (miss > _LARGEST_MISS * _tree.max_abs(size))
        worst.append(jnp.where(bent, miss / jnp.maximum(_tree.max_abs(size), jnp.finfo(miss.dtype).tiny), 0))
    return refuse_if(
        x,
        jnp.maximum(*worst) > 0,
        "Echo: the nudge is too strong. The mean of the nudged echoes misses the initial state by {} of the size of "
        f"the state (limit {_LARGEST_MISS:g}). So the system does not answer the nudge linearly, and the gradient is "
        'off by tens of percent. Lower beta, or pass beta="auto", which scales it to the cotangents.',
        jnp.maximum(*worst),
    )


def _check_bitwise_retrace(x: Any, response: Response) -> Any:
    """Return `x`, or raise at run time if a run back in fixed point differs from the free run in any bit."""
    strayed = _tree.max_abs(response.strayed)
    return refuse_if(
        x,
        strayed != 0,
        "Echo: the run back in fixed point did not return to the bits of the free run (it is off by {}), so its "
        "gradient belongs to another path. Likely causes: (a) the two compiled programs round the force differently "
        "on this machine; (b) the mirror is not a signed permutation. Backprop() always applies.",
        strayed,
    )


@eqx.filter_jit
def retrace_error(problem: Problem, z0: State) -> Float[Array, ""]:
    """Return how far from the initial state an un-nudged echo ends, relative to how far each leaf moves."""
    system, n = problem.given.system, problem.steps
    _, course = marked_run(problem, z0, marks_of(n, problem.save.stride(n)))

    def back(i: Int[Array, ""], z: State) -> State:
        k = index(n - 1 - i)
        return problem.integrator.step(problem.given.at(k), k, z, "echo")

    z = jax.lax.fori_loop(0, n, back, time_reversed(system, course.final))
    apart = _tree.subtract(z0, time_reversed(system, z))
    return strayed_by(course, jax.tree.map(_tree.max_abs, apart))
