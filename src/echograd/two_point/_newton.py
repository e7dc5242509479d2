"""Newton's method for the paths of two-point problems, and the checks of what it finds.

It does not use `_internal._root`, which has a dense matrix: here the Newton matrix is a bordered chain of blocks.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from .._internal import _checks, _tree
from . import _bordered
from ._path import path_at
from ._problem import Nodes, TwoPoint, ends
from ._units import Units

# Residuals up to this many rounding units count as zero.
_ROUNDING = 1e3

# Largest distance of a nudged path from where a linear response would put it, relative to that response.
_LARGEST_BEND = 0.5


def _tolerance(x: Any) -> float | None:
    what = "the last step accepted"
    return _checks.tolerance("TwoPointNewton", "tolerance", x, _checks.not_negative, what)


class TwoPointNewton(eqx.Module):
    r"""Solve a two-point boundary value problem by damped Newton steps on all nodes at once.

    The unknowns are the states of all nodes. The equations are the integrator's steps between them and the boundary
    condition at the ends. A Newton step costs $O(N n^3)$.

    Args:
        iterations: largest number of Newton steps per stage of the continuation.
        continuation: number of stages in which the boundary data move from those of the guess to the wanted ones. More
            than 1 helps if the guess is far off.
        tolerance: largest Newton step that ends the iteration, relative to the sizes of coordinates and momenta of the
            path; by default the 2/3 power of the rounding unit, and the error left is its square. The steps and the
            condition must then hold to rounding, or to the tolerance that you give.

    Raises:
        ArgumentError: for counts below 1, and a negative tolerance.

    Source: U. Ascher, R. Mattheij, R. Russell, *Numerical Solution of Boundary Value Problems* (1995), chapters 7, 8.

    Example:
        ```python
        eg.solve(system, eg.FixedEnds(q, -q), dt=0.1, steps=20, solver=eg.TwoPointNewton(continuation=4))
        ```
    """

    iterations: int = eqx.field(
        static=True, default=50, converter=_checks.converter(_checks.integer, "TwoPointNewton", "iterations")
    )
    continuation: int = eqx.field(
        static=True, default=1, converter=_checks.converter(_checks.integer, "TwoPointNewton", "continuation")
    )
    tolerance: float | None = eqx.field(static=True, default=None, converter=_tolerance)


class Convergence(eqx.Module):
    """How the solution of a two-point boundary value problem was found: pure numbers, the same in all units.

    Attributes:
        converged: whether Newton's method ended at a solution.
        iterations: total number of Newton steps.
        residual: largest residual of a step or of the boundary condition, relative to the sizes of the coordinates and
            momenta that it adds up. At a solution it is some rounding units.
        transversality: the sine of the smallest angle between the paths that the dynamics allow and those that the
            boundary condition allows, linearised about the solution, with coordinates and momenta in units of their
            sizes in the guess. Zero at a conjugate point, where solutions merge or branch.
    """

    converged: Bool[Array, ""]
    iterations: Int[Array, ""]
    residual: Float[Array, ""]
    transversality: Float[Array, ""]


def find_path(
    problem: TwoPoint, newton: TwoPointNewton, guess: Nodes, kicks: Nodes, which: str
) -> tuple[Nodes, Convergence]:
    """Solve for the path by damped Newton steps from a guess; `which` is "free" or "nudged".

    The derivatives are those of the exact solution, and zero with respect to the guess.
    """
    fixed, newton, guess, still = _tree.fixed((problem, newton, guess, kicks))
    if problem.problem.throw:
        guess = _checked_guess(guess)
    x, count, done, r, first = _iterated(fixed, newton, guess, still)
    if problem.problem.throw and which == "nudged":
        x = _checked_branch(x, guess, first)
    slopes = fixed.slopes(x, still)
    factors = _bordered.factorise(slopes, fixed.condition.rows)
    residual = violation(fixed, x, r, slopes)
    x = path_at(x, factors, problem, kicks)
    convergence = Convergence(done & jnp.all(jnp.isfinite(x)), count, residual, factors.transversality)
    return (_checked_path(x, convergence, which) if problem.problem.throw else x), convergence


def sizes_of(x: Nodes, slopes: Float[Array, "N 2n 2n"]) -> Float[Array, " 2n"]:
    """Return the scales for differences of paths: the size of the coordinates, n times, then that of the momenta.

    The size of the momenta is at least that of a momentum that carries the coordinates by their own size during the
    run, since smaller ones move nothing. Both are at least the rounding error of the guess, which has size 1.
    """
    n, eps = x.shape[1] // 2, float(jnp.finfo(x.dtype).eps)
    q, p = (jnp.maximum(jnp.max(jnp.abs(part)), eps) for part in (x[:, :n], x[:, n:]))
    reach = x.shape[0] * jnp.max(jnp.abs(slopes[:, :n, n:]))
    return Units(q, jnp.maximum(p, jnp.where(reach > 0, q / jnp.where(reach > 0, reach, 1), 0))).each(n)


def violation(problem: TwoPoint, x: Nodes, r: Any, slopes: Float[Array, "N 2n 2n"]) -> Float[Array, ""]:
    """Return the largest residual of a step or of the boundary condition, relative to the sum of its terms' sizes."""
    sizes = sizes_of(x, slopes)
    steps = sizes[None] + jnp.abs(slopes) @ sizes
    rows = jnp.abs(problem.condition.rows) @ jnp.tile(sizes, 2)
    return jnp.maximum(jnp.max(jnp.abs(r[0]) / steps), jnp.max(jnp.abs(r[1]) / rows))


def _iterated(problem: TwoPoint, newton: TwoPointNewton, guess: Nodes, kicks: Nodes) -> Any:
    """Return the final path, the number of Newton steps, whether it converged, its residual, and the first step."""
    eps = float(jnp.finfo(guess.dtype).eps)
    tolerance = eps ** (2 / 3) if newton.tolerance is None else newton.tolerance
    limit = max(_ROUNDING * eps, newton.tolerance or 0)
    began = problem.condition.rows @ ends(guess, kicks)

    def merit(r: Any) -> Float[Array, ""]:
        return jnp.sum(jnp.abs(r[0]) ** 2) + jnp.sum(jnp.abs(r[1]) ** 2)

    def stage(carry: Any, part: Float[Array, ""]) -> Any:
        x, count, *_ = carry
        moved = (1 - part) * began + part * problem.condition.data
        here = eqx.tree_at(lambda p: p.condition.data, problem, moved)

        def unfinished(carry: Any) -> Any:
            *_, i, done, stuck = carry
            return (i < newton.iterations) & ~done & ~stuck

        def update(carry: Any) -> Any:
            x, r, first, i, _, _ = carry
            slopes = here.slopes(x, kicks)
            dx = _bordered.solve(_bordered.factorise(slopes, here.condition.rows), *r)
            first = jnp.where(i == 0, dx, first)
            before = merit(r)
            last = jnp.all(jnp.abs(dx) <= tolerance * sizes_of(x, slopes)[None])

            # Halve the step until the residual falls; a converged step is taken whole.
            def too_long(trial: Any) -> Any:
                length, r = trial
                fallen = merit(r) <= (1 - 0.1 * length) * before
                return (length > 1) | (~(fallen | last) & (length > 1e-4))

            def halve(trial: Any) -> Any:
                length = trial[0] / 2
                return length, here.residual(x + length * dx, kicks)

            length, after = jax.lax.while_loop(too_long, halve, (jnp.full((), 2, guess.dtype), r))
            stuck = ~(merit(after) < before) & ~last
            x = jnp.where(stuck, x, x + length * dx)
            r = jax.tree.map(lambda old, new: jnp.where(stuck, old, new), r, after)
            # A small step, or one that rounding keeps from shrinking, ends at a solution only if the residual is small.
            done = (last | stuck) & (violation(here, x, r, slopes) <= limit)
            return x, r, first, i + 1, done, stuck

        nothing, no = jnp.asarray(0, jnp.int32), jnp.asarray(False)
        start = (x, here.residual(x, kicks), jnp.zeros_like(x), nothing, no, no)
        x, r, first, i, done, _ = jax.lax.while_loop(unfinished, update, start)
        return (x, count + i, done, r, first), None

    parts = jnp.arange(1, newton.continuation + 1, dtype=guess.dtype) / newton.continuation
    rest = (guess[1:], problem.condition.data), guess
    start = guess, jnp.asarray(0, jnp.int32), jnp.asarray(False), *_tree.zeros_like(rest)
    return jax.lax.scan(stage, start, parts)[0]


def _checked_guess(guess: Nodes) -> Nodes:
    return eqx.error_if(
        guess,
        ~jnp.all(jnp.isfinite(guess)),
        "solve: the guess of the path holds a NaN or an infinity. If you gave a state guess=(q0, p0), its run "
        "overflows within these steps: give a state that stays near the path, or a Trajectory. If you gave no guess, "
        "the boundary data are not finite.",
    )


def _checked_path(x: Nodes, convergence: Convergence, which: str) -> Nodes:
    """Return `x`, or raise at run time if it is not a solution, or ends at a conjugate point."""
    x = eqx.error_if(
        x,
        ~convergence.converged,
        f"solve: no {which} path was found that meets the boundary condition: Newton's method did not converge. Give a "
        "better guess (guess=(q0, p0), or the trajectory of a nearby problem) or more stages "
        "(solver=TwoPointNewton(continuation=8)), or check that a path exists that meets the condition.",
    )
    return eqx.error_if(
        x,
        is_conjugate(convergence),
        f"solve: the {which} path ends at a conjugate point: to first order a whole family of neighbouring paths meets "
        "the boundary condition, so the path is not unique and has no gradient. Change the duration, the boundary data "
        "or the parameters a little. If a symmetry is the cause (an autonomous periodic orbit, free ends of a free "
        "body), fix it by one more condition.",
    )


def is_conjugate(convergence: Convergence) -> Bool[Array, ""]:
    """Return whether a path ends at a conjugate point."""
    transversality = convergence.transversality
    return transversality < 1e3 * float(jnp.finfo(transversality.dtype).eps)


def _checked_branch(found: Nodes, x: Nodes, response: Nodes) -> Nodes:
    """Return a nudged path, or raise at run time if it is not the continuation of the free path `x`.

    A path that answers the nudge linearly lies at `x + response`, where the first Newton step goes.
    """
    sizes = jnp.repeat(jnp.stack([jnp.max(jnp.abs(part)) for part in jnp.split(x.real, 2, 1)]), x.shape[1] // 2)
    sizes = jnp.where(sizes > 0, sizes, 1)[None]
    bend, size = (jnp.max(jnp.abs(d) / sizes) for d in (found - x - response, response))
    return eqx.error_if(
        found,
        (bend > _LARGEST_BEND * size) & (bend > float(jnp.finfo(x.dtype).eps) ** (2 / 3)),
        "solve: the nudged path is not the continuation of the free one: it is further from the linear response than "
        f"{_LARGEST_BEND:g} of its displacement. Either the nudge is too strong, or Newton's method ended on another "
        'path that meets the same condition. Lower beta, pass beta="auto", or use Infinitesimal().',
    )
