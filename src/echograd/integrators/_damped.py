"""One step of a system with friction, ahead and back."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from .._internal import _tree
from .._internal._energy import derivatives, slope, zero_reading
from ..friction import Damped
from ..friction._moves import Decrease, Instant, Move, Scaling
from ._base import State, StepInputs
from ._grid import rounded, within
from ._palindrome import Substep, drift_action, kick_action
from ._record import Record, decreased, scaled, undecreased, unscaled


def parts_of(substeps: tuple[Substep, ...], system: Any) -> tuple[Substep | None, ...]:
    """Return the substeps of a system; `None`, in the middle of the middle one, is its friction."""
    if not isinstance(system, Damped):
        return substeps
    half = len(substeps) // 2
    middle = substeps[half]._replace(length=substeps[half].length / 2)
    return (*substeps[:half], middle, None, middle, *substeps[half + 1 :])


def ahead(
    substeps: tuple[Substep, ...], given: StepInputs, k: Int[Array, ""], z: State, record: Record | None = None
) -> tuple[State, Record | None]:
    """Return the state after step `k`, and the record with what friction destroyed, unless it is `None`."""
    q, p = z
    grid_q, grid_p = (None, None) if given.grid is None else given.grid
    push = None  # of the kick before the friction, which is repeated after it
    for s in parts_of(substeps, given.system):
        if s is None:
            action = given.system.over_this_step(given.h, p)
            part, grid = action.cut(p), _cut_grid(action, grid_p, p)
            for move in action.moves(_now(given, k, q)):
                part, record = _done(move, part, grid, record)
            p = action.pasted(p, part)
        elif s.kind == "drift":
            q, push = _tree.subtract(q, _increment(drift_action, given, k, p, s, grid_q)), None
        else:
            push = _increment(kick_action, given, k, q, s, grid_p) if push is None else push
            p = _tree.add(p, push)
    return within((q, p), given.grid), record


def back(
    substeps: tuple[Substep, ...],
    wanted: StepInputs,
    rest: StepInputs,
    k: Int[Array, ""],
    z: State,
    bars: State,
    record: Record | None,
) -> tuple[State, State, StepInputs, Record | None]:
    r"""Undo step `k`, and pull cotangents back through it.

    A kick $p' = p + \partial S/\partial q$ of the action $S(\theta, q)$ has the cotangents $\bar q = \bar q' +
    \partial_q^2 S\, \bar p'$ and $\bar\theta = \partial_\theta \partial_q S\, \bar p'$, the derivative of
    $\partial S/\partial(\theta, q)$ in the direction $\bar p'$; a drift likewise. Friction $p' = p - \varepsilon p$ has
    $\bar p = (1 - \varepsilon)\, \bar p'$: on the way back it damps the cotangent as it damped the momentum.

    Args:
        substeps: of the scheme.
        wanted: the leaves of the step inputs that are differentiated.
        rest: the others.
        k: the step.
        z: the state after it.
        bars: its cotangents.
        record: with what friction destroyed.

    Returns:
        The state before the step, its cotangents, those of `wanted`, and the record without this step.
    """
    given: StepInputs = eqx.combine(wanted, rest)
    now = k.astype(given.h.dtype)
    (q, p), (q_bar, p_bar) = z, bars
    grid_q, grid_p = given.grid
    reading, pending = zero_reading(wanted, z), None

    def curved(action: Any, s: Substep, x: PyTree) -> Any:
        """Return the derivative of the slopes of an action in a direction, as a linear map."""

        def slopes(x: PyTree) -> tuple[StepInputs, PyTree]:
            return derivatives(lambda w, x: action(eqx.combine(w, rest), now, x, s.length, s.clock), wanted, x)

        return jax.linearize(slopes, x)[1]

    def pulled(reading: StepInputs, q_bar: PyTree, pending: Any) -> tuple[StepInputs, PyTree]:
        """Return the cotangents after those of the kicks at this position, taken together."""
        if pending is None:
            return reading, q_bar
        along, direction = pending
        more, turned = along(direction)
        return _tree.add(reading, more), _tree.add(q_bar, turned)

    for s in reversed(parts_of(substeps, given.system)):
        if s is None:
            action = given.system.over_this_step(given.h, p)
            part, part_bar, grid = action.cut(p), action.cut(p_bar), _cut_grid(action, grid_p, p)
            for i, move in reversed(list(enumerate(action.moves(_now(given, k, q))))):
                part, record = _undone(move, part, grid, record)

                def moved(wanted: StepInputs, q: PyTree, part: PyTree, p: PyTree = p, i: int = i) -> PyTree:
                    given = eqx.combine(wanted, rest)
                    action = given.system.over_this_step(given.h, p)
                    return _done(action.moves(_now(given, k, q))[i], part, None, None)[0]

                more, turned, part_bar = jax.vjp(moved, wanted, q, part)[1](part_bar)
                reading, q_bar = _tree.add(reading, more), _tree.add(q_bar, turned)
            p, p_bar = action.pasted(p, part), action.pasted(p_bar, part_bar)
        elif s.kind == "drift":
            reading, q_bar = pulled(reading, q_bar, pending)
            pending = None
            q = _tree.add(q, _increment(drift_action, given, k, p, s, grid_q))
            more, turned = curved(drift_action, s, p)(_tree.negate(q_bar))
            reading, p_bar = _tree.add(reading, more), _tree.add(p_bar, turned)
        else:
            if pending is None:
                pending, push = (curved(kick_action, s, q), p_bar), _increment(kick_action, given, k, q, s, grid_p)
            else:
                pending = pending[0], _tree.add(pending[1], p_bar)
            p = _tree.subtract(p, push)  # pyright: ignore[reportPossiblyUnboundVariable]
    reading, q_bar = pulled(reading, q_bar, pending)
    return (q, p), (q_bar, p_bar), reading, record


def _increment(action: Any, given: StepInputs, k: Any, x: PyTree, s: Substep, grid: PyTree) -> PyTree:
    """Return the slope of an action, rounded to the grid. Both directions find the same bits."""

    def change(k: Array, x: PyTree) -> PyTree:
        return slope(lambda x: action(given, k.astype(given.h.dtype), x, s.length, s.clock), x)

    return change(k, x) if grid is None else rounded(_tree.isolated(change, k, x), grid)


def _now(given: StepInputs, k: Array, q: PyTree) -> Instant:
    now = Instant(k, given.h, given.t0 + (k.astype(given.h.dtype) + 0.5) * given.h, q, given.u)
    if given.grid is None:
        return now
    spacings = jax.tree.leaves(given.grid[1])
    return now._replace(exact=lambda x, i: rounded(x, spacings[i]))


def _cut_grid(action: Any, grid: PyTree, p: PyTree) -> PyTree:
    """Return the spacings of the part of the momenta that the moves act on; a part has that of its array."""
    if grid is None:
        return None
    whole = jax.tree.map(lambda g, x: jnp.broadcast_to(g, x.shape), grid, p)
    shapes = jax.eval_shape(action.cut, p)
    if jax.tree.structure(shapes) == jax.tree.structure(grid):
        return grid
    return jax.tree.map(lambda x: x[(0,) * x.ndim], action.cut(whole))


def _done(move: Move, p: PyTree, grid: PyTree, record: Any) -> tuple[PyTree, Any]:
    """Return the momenta after a move, and the record."""
    if isinstance(move, Scaling):
        return scaled(p, move.lost(p), grid, record)
    if isinstance(move, Decrease):
        return decreased(p, move.loss, grid, record)
    return _pushed(p, move.push(p), grid, 1), record


def _undone(move: Move, p: PyTree, grid: PyTree, record: Any) -> tuple[PyTree, Any]:
    """Return the momenta before a move, and the record without it."""
    if isinstance(move, Scaling):
        return unscaled(p, move.lost(p), grid, record)
    if isinstance(move, Decrease):
        return undecreased(p, move.loss, grid, record)
    return _pushed(p, move.push(p), grid, -1), record


def _pushed(p: PyTree, push: PyTree, grid: PyTree, sign: int) -> PyTree:
    leaves, structure = jax.tree.flatten(p)
    spacings = [None] * len(leaves) if grid is None else structure.flatten_up_to(grid)
    pushes = structure.flatten_up_to(push)
    moved = [x if a is None else x + sign * rounded(a, g) for x, a, g in zip(leaves, pushes, spacings, strict=True)]
    return jax.tree.unflatten(structure, moved)
