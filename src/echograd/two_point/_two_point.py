"""Two-point boundary value problems: the free path by Newton's method, and the nudged path beside it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._internal import _checks, _tree
from ..boundary import omega
from ..integrators import State, StepInputs
from ..nudge import AbstractNudge, Infinitesimal
from ..problem import Outcome, Problem
from ..problem._problem import finite
from . import _bordered
from ._units import Units, power_of_two, units_of_path, units_of_rows

# A residual below this many rounding units is one.
_ROUNDING = 1e3

# How far, in units of its displacement, a nudged path may be off from where it would be if it answered linearly.
_LARGEST_BEND = 0.5

Nodes = Float[Array, "N+1 2n"]


def _tolerance(x: Any) -> float | None:
    what = "the last step accepted"
    return _checks.tolerance("TwoPointNewton", "tolerance", x, _checks.not_negative, what)


class TwoPointNewton(eqx.Module):
    r"""How a two-point boundary value problem is solved: damped Newton steps on all nodes at once.

    The unknowns are the states of all nodes; the equations are the integrator's steps between them and the boundary
    condition at the ends. A step costs $O(N n^3)$.

    Args:
        iterations: most Newton steps taken, per stage of the continuation.
        continuation: number of stages in which the boundary data are moved from those of the guess to the wanted ones.
            More than 1 helps where the guess is far off.
        tolerance: a Newton step below this, relative to the sizes of coordinates and momenta of the path, ends the
            iteration if the steps and the condition are then met to rounding, or to this tolerance if it is given. By
            default the 2/3 power of the rounding unit; what remains is its square.

    Raises:
        ValueError: for counts below 1, and a tolerance that is none.

    Source: U. Ascher, R. Mattheij, R. Russell, *Numerical Solution of Boundary Value Problems* (1995), chapters 7, 8.

    Example:
        ```python
        eg.solve(system, eg.FixedEnds(a, b), dt=0.01, steps=100, solver=eg.TwoPointNewton(continuation=4))
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
        iterations: Newton steps taken in all.
        residual: largest violation of a step or of the boundary condition that is left, relative to the sizes of
            coordinates and momenta that the step, or the condition, adds up. A solution has some rounding units.
        transversality: the sine of the smallest angle between the paths that the dynamics and those that the boundary
            condition allow, linearised about the solution, with coordinates and momenta measured by the size of those
            of the guess. Zero at a conjugate point, where solutions merge or branch.
    """

    converged: Bool[Array, ""]
    iterations: Int[Array, ""]
    residual: Float[Array, ""]
    transversality: Float[Array, ""]


class Condition(eqx.Module):
    r"""Boundary rows and data, $B z_\partial = b$."""

    rows: Float[Array, "2n 4n"]
    data: Float[Array, " 2n"]


class TwoPoint(eqx.Module):
    """A problem with a condition on its ends, in flat nodes; the maps that its solution and its gradients need.

    Nodes and condition are in `units`, in which the action is that of the user's over `units.q * units.p`.
    """

    problem: Problem
    condition: Condition
    units: Units
    unravel: Callable[[Array], State] = eqx.field(static=True)

    def state(self, x: Float[Array, " 2n"]) -> State:
        """Return the state of a node."""
        return self.unravel(x * self.units.each(x.size // 2).astype(x.dtype))

    def step(self, k: Int[Array, ""], x: Float[Array, " 2n"]) -> Float[Array, " 2n"]:
        """Return Φₖ(x)."""
        after = _tree.flat(self.problem.step(k, self.state(x)))
        return after / self.units.each(x.size // 2).astype(after.dtype)

    def residual(self, x: Nodes, kicks: Nodes) -> tuple[Float[Array, "N 2n"], Float[Array, " 2n"]]:
        r"""Return how far steps and boundary condition are from being met, node $k$ being kicked by `kicks[k]`.

        The ends that the condition speaks of are the state before the kick of node 0 and that after the kick of node N.
        """
        k = jnp.arange(self.problem.steps, dtype=jnp.int32)
        after = jax.vmap(self.step)(k, x[:-1] + kicks[:-1])
        return after - x[1:], self.condition.data - self.condition.rows @ ends(x, kicks)

    def slopes(self, x: Nodes, kicks: Nodes) -> Float[Array, "N 2n 2n"]:
        """Return the derivatives of the steps along a path."""
        k = jnp.arange(self.problem.steps, dtype=jnp.int32)
        return jax.vmap(jax.jacfwd(self.step, 1))(k, x[:-1] + kicks[:-1])

    def linearised(self, x: Nodes, kicks: Nodes) -> _bordered.Factors:
        """Return the factors of the Newton matrix about a path."""
        return _bordered.factorise(self.slopes(x, kicks), self.condition.rows)

    def read(self, wanted: StepInputs, rest: StepInputs, x: Nodes, kicks: Nodes) -> StepInputs:
        """Return the readings along a path: summed over the steps, but for the inputs, which have one each."""

        def body(total: StepInputs, row: Any) -> tuple[StepInputs, PyTree]:
            k, x = row
            _, reading = self.problem.integrator.read(wanted.at(k), rest.at(k), k, self.state(x))
            reading = _tree.scale(1 / self.units.p, _tree.scale(1 / self.units.q, reading))
            return _tree.add(total, reading.without_inputs()), reading.u

        k = jnp.arange(self.problem.steps, dtype=jnp.int32)
        start = _tree.zeros_like(wanted.without_inputs())
        start = jax.tree.map(lambda s: s.astype(jnp.result_type(s, x)), start)
        total, u = jax.lax.scan(body, start, (k, x[:-1] + kicks[:-1]))
        return eqx.tree_at(lambda w: w.u, total, u, is_leaf=lambda x: x is None)


def two_point(
    problem: Problem, condition: Condition, like: PyTree, start: State | None, path: State | None
) -> tuple[TwoPoint, Nodes]:
    """Return the problem in flat nodes, for coordinates shaped `like` this, and a guess of its path.

    The guess is a path, the run from a start state, or a straight line between the smallest ends that fit.
    """
    one = jnp.ones((), condition.rows.dtype)
    posed = TwoPoint(problem, condition, Units(one, one), jax.flatten_util.ravel_pytree((like, like))[1])
    fixed = _tree.fixed(posed)
    guess = jax.lax.stop_gradient(_initial_path(fixed, start) if path is None else jax.vmap(_tree.flat)(path))
    units = _tree.fixed(units_of_path(fixed.step, guess))
    posed = eqx.tree_at(lambda p: (p.condition, p.units), posed, (_measured(condition, units), units))
    return posed, guess / units.each(guess.shape[1] // 2)[None]


def _measured(condition: Condition, units: Units) -> Condition:
    """Return the condition on ends in units, every row and its datum divided by the size of the row."""
    rows = condition.rows * jnp.tile(units.each(condition.rows.shape[0] // 2), 2)[None]
    sizes = jax.lax.stop_gradient(power_of_two(jnp.max(jnp.abs(rows), 1)))
    return Condition(rows / sizes[:, None], condition.data / sizes)


def _initial_path(problem: TwoPoint, start: State | None) -> Nodes:
    n = problem.problem.steps
    if start is None:
        units = units_of_rows(problem.condition.rows)
        condition = _measured(problem.condition, units)
        both = (jnp.linalg.pinv(condition.rows) @ condition.data).reshape(2, -1)
        first, last = both * units.each(both.shape[1] // 2)[None]
        part = jnp.linspace(0, 1, n + 1, dtype=both.dtype)[:, None]
        return (1 - part) * first[None] + part * last[None]
    flat = _tree.flat(start)

    def body(x: Any, k: Int[Array, ""]) -> Any:
        x = problem.step(k, x)
        return x, x

    _, xs = jax.lax.scan(body, flat, jnp.arange(n, dtype=jnp.int32))
    return jnp.concatenate([flat[None], xs])


def ends(x: Nodes, kicks: Nodes) -> Float[Array, " 4n"]:
    """Return $(q_0, p_0, q_N, p_N)$: before the kick of node 0, after the kick of node N."""
    return jnp.concatenate([x[0], x[-1] + kicks[-1]])


def kicks_of(bars: Nodes, beta: Any) -> Nodes:
    r"""Return the kicks of the nudge: $\beta \bar y$ to the momenta, $-\beta \bar y^p$ to the coordinates."""
    y, yp = jnp.split(bars, 2, axis=1)
    return beta * jnp.concatenate([-yp, y], 1)


def find_path(
    problem: TwoPoint, newton: TwoPointNewton, guess: Nodes, kicks: Nodes, which: str
) -> tuple[Nodes, Convergence]:
    """Solve for the path by damped Newton steps from a guess, in stages if asked.

    Its derivatives are those of the exact solution; the guess has none.
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


@eqx.filter_custom_jvp
def path_at(x: Nodes, factors: _bordered.Factors, problem: TwoPoint, kicks: Nodes) -> Nodes:
    """Return the path `x` as the function of `problem` and `kicks` that it is, which has derivatives of any order.

    By the implicit function theorem: `factors` are those of the Newton matrix about the path, and constants.
    """
    del factors, problem
    # Where kicks have a batch axis the path has to have it as well: JAX takes the shapes of results from this function,
    # also where its derivative gives others.
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
        # Not `jax.linear_transpose`, which jax 0.9 cannot make of a scan.
        return jax.vjp(lambda r: solve(None, r), r)[1](r)[0]

    moved = eqx.filter_jvp(lambda problem, kicks: flow(problem, kicks, x), (problem, kicks), tangents[2:])[1]
    return x, jax.lax.custom_linear_solve(apply, moved, solve, transpose_solve)


def sizes_of(x: Nodes, slopes: Float[Array, "N 2n 2n"]) -> Float[Array, " 2n"]:
    """Return the sizes that differences of paths are relative to: that of coordinates, n times, and that of momenta.

    A momentum is at least as large as one that carries the coordinates by their own size during the run: what is left
    of a smaller one moves nothing. And what is lost in the rounding of the guess, of size 1, is as good as zero.
    """
    n, eps = x.shape[1] // 2, float(jnp.finfo(x.dtype).eps)
    q, p = (jnp.maximum(jnp.max(jnp.abs(part)), eps) for part in (x[:, :n], x[:, n:]))
    reach = x.shape[0] * jnp.max(jnp.abs(slopes[:, :n, n:]))
    return Units(q, jnp.maximum(p, jnp.where(reach > 0, q / jnp.where(reach > 0, reach, 1), 0))).each(n)


def violation(problem: TwoPoint, x: Nodes, r: Any, slopes: Float[Array, "N 2n 2n"]) -> Float[Array, ""]:
    """Return the largest violation of a step or of the boundary condition, relative to what rounding is relative to.

    That is the size of what a step, or a row of the condition, adds up.
    """
    sizes = sizes_of(x, slopes)
    steps = sizes[None] + jnp.abs(slopes) @ sizes
    rows = jnp.abs(problem.condition.rows) @ jnp.tile(sizes, 2)
    return jnp.maximum(jnp.max(jnp.abs(r[0]) / steps), jnp.max(jnp.abs(r[1]) / rows))


def _iterated(problem: TwoPoint, newton: TwoPointNewton, guess: Nodes, kicks: Nodes) -> Any:
    """Return the final path, the number of steps, whether it converged, the residual, and the first step."""
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
            # Where rounding keeps the steps from shrinking further the residual says whether this is a solution, and
            # it has to say so where they are small.
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
        "solve: the guess of the path holds a NaN or an infinity, so that there is nothing to begin with. If it is a "
        "state guess=(q0, p0), its run leaves the floats within these steps: give one that stays near the path, or a "
        "Trajectory. If there is none, the boundary data hold it.",
    )


def _checked_path(x: Nodes, convergence: Convergence, which: str) -> Nodes:
    """Return `x`, or raise at run time if it is not a path that one can differentiate."""
    x = eqx.error_if(
        x,
        ~convergence.converged,
        f"solve: no {which} path was found that meets the boundary condition: Newton's method did not converge. Give a "
        "better guess (guess=(q0, p0), or the trajectory of a nearby problem), more stages "
        "(solver=TwoPointNewton(continuation=8)), or check that the condition can be met at all: there may be no path.",
    )
    return eqx.error_if(
        x,
        is_conjugate(convergence),
        f"solve: the {which} path ends at a conjugate point: to first order a whole family of neighbouring paths meets "
        "the boundary condition, so that the path is not unique and no gradient is defined. Change the duration, the "
        "boundary data or the parameters a little; where a symmetry is the cause (an autonomous periodic orbit, free "
        "ends of a free body) fix it by one more condition.",
    )


def is_conjugate(convergence: Convergence) -> Bool[Array, ""]:
    """Return whether a path ends at a conjugate point."""
    transversality = convergence.transversality
    return transversality < 1e3 * float(jnp.finfo(transversality.dtype).eps)


def outcome_of(problem: TwoPoint, x: Nodes) -> Outcome:
    """Return what is kept of a path: plain differentiable functions of its nodes."""
    n, stride = problem.problem.steps, problem.problem.save.stride(problem.problem.steps)
    k = jnp.arange(n + 1, dtype=jnp.int32)
    z = jax.vmap(problem.state)(x)
    final = problem.state(x[-1])
    cost = jnp.sum(jax.vmap(problem.problem.running_cost)(k, z))
    if stride is None:
        return finite(problem.problem, Outcome(None, final, cost))
    saved = jax.vmap(problem.problem.observe)(k[::stride], jax.tree.map(lambda x: x[::stride], z))
    return finite(problem.problem, Outcome(saved, final, cost))


class NudgedPath(eqx.Module):
    """What nudging a path yields: d/dβ of the readings and of the ends, both with β in the unit of the action."""

    readings: StepInputs
    ends: Float[Array, " 4n"]


def nudged_path(
    problem: TwoPoint,
    wanted: StepInputs,
    rest: StepInputs,
    x: Nodes,
    bars: Nodes,
    nudge: AbstractNudge,
    newton: TwoPointNewton,
) -> NudgedPath:
    r"""Solve the nudged problem under `problem.condition` about the free path `x`; take d/dβ of what it reads."""
    # Cotangents of order 1 as well: everything is linear in them.
    cost = jax.lax.stop_gradient(power_of_two(jnp.max(jnp.abs(bars))))
    bars = bars / cost

    def pushed(beta: Any, x: Nodes) -> tuple[Nodes, tuple[StepInputs, Float[Array, " 4n"]]]:
        kicks = kicks_of(bars, beta)
        if isinstance(nudge, Infinitesimal):
            # At no strength the nudged path is the free one, which is known: it is only asked where it goes. The dual
            # condition leaves it no more freedom than its own, for which it has been checked.
            factors = _tree.fixed(problem).linearised(*_tree.fixed((x, kicks)))
            found = path_at(x, factors, problem, kicks)
        else:
            found, _ = find_path(problem, newton, x, kicks, "nudged")
        return found, (problem.read(wanted, rest, found, kicks), ends(found, kicks))

    n, newton = x.shape[1] // 2, dataclasses.replace(newton, continuation=1)
    load = jnp.sum(jnp.max(jnp.abs(bars[:, :n]), 1) + jnp.max(jnp.abs(bars[:, n:]), 1))
    # The strength is in the user's units, in which it is an action over a cost, and so is what the nudges add up to.
    beta = nudge.strength(jnp.ones(1, x.dtype), load / problem.units.q / problem.units.p * cost, problem.problem.steps)
    beta = beta / problem.units.q / problem.units.p * cost
    ensemble, (readings, at_ends) = nudge.advance(beta, pushed, nudge.start(x))
    if problem.problem.throw:
        found = nudge.check((readings, at_ends), beta, ensemble, load, problem.problem.steps)
        readings, at_ends = eqx.error_if(
            found,
            ~(_tree.all_finite(found) & jnp.isfinite(load)),
            "solve: the gradient of the two-point problem holds a NaN or an infinity. The path itself is finite, so "
            "the loss or the energy has no derivative at one of its nodes (a root or a logarithm of zero, a division).",
        )
    return NudgedPath(*_tree.scale(cost, (readings, at_ends)))


def _checked_branch(found: Nodes, x: Nodes, response: Nodes) -> Nodes:
    """Return a nudged path, or raise at run time if it lies elsewhere than where the free path `x` leads to.

    A path that answers the nudge linearly lies at `x + response`, where the first step of Newton's method goes.
    """
    sizes = jnp.repeat(jnp.stack([jnp.max(jnp.abs(part)) for part in jnp.split(x.real, 2, 1)]), x.shape[1] // 2)
    sizes = jnp.where(sizes > 0, sizes, 1)[None]
    bend, size = (jnp.max(jnp.abs(d) / sizes) for d in (found - x - response, response))
    return eqx.error_if(
        found,
        (bend > _LARGEST_BEND * size) & (bend > float(jnp.finfo(x.dtype).eps) ** (2 / 3)),
        "solve: the nudged path is not where the free one leads to. Either the nudge is too strong for an answer in "
        f"proportion to it (the path lies further off than {_LARGEST_BEND:g} of its own displacement), or Newton's "
        'method ended on another path that meets the same condition. Lower beta, pass beta="auto", or use '
        "Infinitesimal().",
    )


def condition_bars(condition: Condition, free: Float[Array, " 4n"], nudged: Float[Array, " 4n"]) -> Condition:
    r"""Return the cotangents of rows and data: the explicit part of the boundary residual, $\Omega(d_\beta z, v)$.

    $v$ is any variation of the ends with $B v = \partial_\theta b - (\partial_\theta B) z_\partial$; the pseudo-inverse
    gives one.
    """
    form = omega(free.size // 4, free.dtype)
    data = jnp.linalg.pinv(condition.rows).T @ (form.T @ nudged)
    return Condition(-data[:, None] * free[None], data)
