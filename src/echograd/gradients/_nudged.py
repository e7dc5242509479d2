"""The nudged run of a causal problem: forward, backward, or as an echo."""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact, Int, PyTree

from .._internal import _tree
from .._internal._energy import derivatives
from .._loops import summed
from ..integrators import State, StepInputs
from ..integrators._base import Direction, sign, time_reversed
from ..nudge import AbstractNudge, Infinitesimal
from ..problem import Outcome, Problem
from ..problem._run import Course, index, repeated
from ..problem._save import ChosenNodes, SaveFunction

# Number of rows of cotangents that are processed together.
_BLOCK = 256


class Response(eqx.Module):
    """The result of a nudged run.

    Attributes:
        readings: d/dβ of the readings, in the tree of the problem, with `None` for leaves that are not wanted.
        state: d/dβ of the state at the far end, in forward time.
        strayed: for every leaf of the state, the distance of the run from the free path, summed over the stretches.
        growth: largest sensitivity of the loss to a relative change of the state at a mark, over the sensitivity to
            relative changes of the nodes in the loss; zero for finite nudges.
        ended: the best estimate of the un-nudged state at the far end, in forward time.
        about: that estimate displaced by its uncertainty, the distance between the members.
        beta: strength of the nudge.
        load: total size of the nudges relative to the state, per unit of strength.
        ensemble: the members at the far end.
    """

    readings: Problem
    state: State
    strayed: State
    growth: Float[Array, ""]
    ended: State
    about: State
    beta: Float[Array, ""]
    load: Float[Array, ""]
    ensemble: PyTree


def nudged_run(
    wanted: Problem,
    rest: Problem,
    course: Course,
    bar: Outcome,
    nudge: AbstractNudge,
    direction: Direction,
) -> Response:
    r"""Run the problem once more from one end, nudged with strength β, and return d/dβ of its readings.

    The nudged energy is $H - \beta c$. Passing node $k$ adds $\beta \bar y_k$ to the momentum and subtracts
    $\beta \bar y^p_k$ from the coordinates; a backward run does the opposite. A forward run starts at node 0, the
    others at node N. Memory holds only the ensemble and the sums.

    An infinitesimal nudge carries the un-nudged state. It is put back on the free path at every mark of the course, so
    rounding errors grow from one mark to the next only.

    Args:
        wanted: the leaves of the problem that are differentiated.
        rest: its other leaves.
        course: states of the free run.
        bar: cotangents of the outcome, with `None` for zero.
        nudge: how d/dβ is taken.
        direction: of the run.

    Example: see `gradients.AbstractNudgedGradient`.
    """
    problem: Problem = eqx.combine(wanted, rest)
    n, forward = problem.steps, direction == "forward"
    # The inputs are read step by step; everything else is read into one running total.
    lasting = eqx.tree_at(lambda x: x.given, wanted, wanted.given.without_inputs())

    def in_forward_time(z: State) -> State:
        return time_reversed(problem.given.system, z) if direction == "echo" else z

    def push(action: Any, beta: Any, z: State) -> tuple[State, Problem]:
        """Kick the state by β times an action at one node, and read that action."""
        slopes = derivatives(action, lasting, z)
        reading, (dq, dp) = jax.tree.map(lambda x: _by_strength(beta, x), slopes)
        if sign(direction) > 0:
            return (_tree.subtract(z[0], dp), _tree.add(z[1], dq)), reading
        return (_tree.add(z[0], dp), _tree.subtract(z[1], dq)), reading

    def visit(k: Int[Array, ""], beta: Any, z: State) -> tuple[State, Problem]:
        """Nudge node `k` by β times its share of the loss."""

        def action(lasting: Problem, z: State) -> Inexact[Array, ""]:
            return share_of(bar, eqx.combine(lasting, rest), k, in_forward_time(z))

        return push(action, beta, z)

    def terminal(beta: Any, z: State) -> tuple[State, Problem]:
        """Nudge node N by the cotangent of the final state."""

        def action(lasting: Problem, z: State) -> Inexact[Array, ""]:
            return paired(bar.final, in_forward_time(z))

        return push(action, beta, z)

    def step(k: Int[Array, ""], z: State) -> tuple[State, StepInputs]:
        """Take step `k`, and read the action of the step."""
        return problem.integrator.read(wanted.given.at(k), rest.given.at(k), k, z, direction)

    def advance(i: Int[Array, ""], carry: Any) -> Any:
        """Nudge the node that the run has reached, and take the next step."""
        ensemble, du = carry
        node, k = (i, i) if forward else (n - i, n - 1 - i)

        def pushed(beta: Any, z: State) -> tuple[State, tuple[Problem, StepInputs]]:
            z, pushing = visit(node, beta, z)
            z, stepping = step(k, z)
            return z, (pushing, stepping)

        ensemble, (pushing, stepping) = nudge.advance(beta, pushed, ensemble)
        given = _tree.add(pushing.given, stepping.without_inputs())
        return (ensemble, _tree.put(du, k, stepping.u)), eqx.tree_at(lambda x: x.given, pushing, given)

    load = load_of(problem, course, bar)
    start = in_forward_time(course.start if forward else course.final)  # an involution: it is its own inverse
    beta = jax.lax.stop_gradient(nudge.strength(start, load, n))
    ensemble = nudge.start(start)
    if bar.final is not None and not forward:
        ensemble, _ = nudge.advance(beta, terminal, ensemble)

    # Run from mark to mark. Only an infinitesimal nudge carries an un-nudged state to put back.
    held = isinstance(nudge, Infinitesimal) and not forward
    marks = course.marks if held or problem.progress is not None else (0,)
    bounds = jnp.asarray((*marks, n), jnp.int32)

    def stretch(i: Any, carry: Any) -> Any:
        ensemble, du, total, strayed, growth = carry
        j = len(marks) - 1 - i
        first, steps = (index(0), n) if len(marks) == 1 else (n - bounds[j + 1], bounds[j + 1] - bounds[j])
        problem.report(first, "forward" if forward else "echo")
        (ensemble, du), more = summed(lambda i, carry: advance(first + i, carry), steps, (ensemble, du))
        if isinstance(nudge, Infinitesimal) and held:
            found, there = in_forward_time(nudge.retraced(ensemble)[0]), _tree.take(course.states, j)
            strayed = jax.tree.map(lambda s, a, b: s + _tree.max_abs(a - b), strayed, found, there)
            growth = jnp.maximum(growth, _weight(ensemble[1], there, units))
            ensemble = nudge.put_back(ensemble, in_forward_time(there))
        return ensemble, du, _tree.add(total, more), strayed, growth

    units = _units(course)
    nothing = jax.tree.map(lambda x: jnp.zeros((), x.dtype), start)
    carry = ensemble, _tree.zeros_like(wanted.given.u), _tree.zeros_like(lasting), nothing, jnp.zeros_like(load)
    ensemble, du, total, strayed, growth = repeated(len(marks), stretch, carry)
    if held:
        began = weight_of(problem, course, bar, beta, units)
        growth = jnp.where(began > 0, growth / jnp.where(began > 0, began, 1), 0)
    problem.report(n, "forward" if forward else "echo", ensemble)
    last = index(n if forward else 0)
    ensemble, pushing = nudge.advance(beta, lambda beta, z: visit(last, beta, z), ensemble)
    if bar.final is not None and forward:
        ensemble, _ = nudge.advance(beta, terminal, ensemble)

    readings = eqx.tree_at(lambda x: x.given.u, _tree.add(total, pushing), du, is_leaf=lambda x: x is None)
    ended, about = nudge.retraced(ensemble)
    if not held:
        # All members are nudged: the distance from their mean is their uncertainty.
        strayed = jax.tree.map(
            lambda a, b, c: jnp.maximum(_tree.max_abs(a - b) - _tree.max_abs(b - c), 0),
            course.start,
            in_forward_time(ended),
            in_forward_time(about),
        )
    state = in_forward_time(nudge.response(beta, ensemble))
    return Response(
        readings, state, strayed, growth, in_forward_time(ended), in_forward_time(about), beta, load, ensemble
    )


def share_of(bar: Outcome, problem: Problem, k: Int[Array, ""], z: State) -> Inexact[Array, ""]:
    r"""Return $\bar c\, c(z) + \langle \bar y, {\rm observed}(z)\rangle$: the linearised loss's share of node `k`."""
    stride = problem.save.stride(problem.steps)
    total = jnp.zeros((), problem.given.h.dtype)
    if bar.cost is not None and problem.cost is not None:
        total += bar.cost * problem.running_cost(k, z)
    if stride is not None and bar.saved is not None:
        seen = _tree.take(bar.saved, k // stride)
        if stride > 1:
            kept = k % stride == 0
            seen = jax.tree.map(lambda x: jnp.where(kept, x, jnp.zeros_like(x)), seen)
        total += paired(seen, problem.observe(k, z))
    if isinstance(problem.save, ChosenNodes) and bar.saved is not None:
        nodes = problem.save.nodes
        row = jnp.minimum(problem.save.row(k), nodes.size - 1)
        kept = nodes[row] == k
        seen = jax.tree.map(lambda x: jnp.where(kept, x, jnp.zeros_like(x)), _tree.take(bar.saved, row))
        total += paired(seen, problem.observe(k, z))
    return total


@jax.custom_jvp
def _by_strength(beta: Inexact[Array, ""], x: Array) -> Array:
    """Return βx; for β = 0 it is zero and does not depend on `x`, so the compiler drops it."""
    return jnp.where(beta == 0, jnp.zeros_like(x), beta.astype(x.dtype) * x)


@_by_strength.defjvp
def _by_strength_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (beta, x), (dbeta, dx) = primals, tangents
    return _by_strength(beta, x), dbeta.astype(x.dtype) * x + _by_strength(beta, dx)


def load_of(problem: Problem, course: Course, bar: Outcome) -> Float[Array, ""]:
    r"""Return the total size of the nudges relative to the state, $\sum_k (|\bar y_k|/P + |\bar y^p_k|/Q)$.

    $Q$ and $P$ are the sizes of coordinates and momenta along the path, leaf by leaf, and $|\cdot|$ is the largest
    entry. The load has the units of 1/β, so a power of two in any unit is a power of two in the load. Running costs and
    functions of the nodes are sampled at the marks.
    """
    problem, course, bar = _tree.fixed((problem, course, bar))
    dtype = problem.given.h.dtype
    q_sizes, p_sizes = _filled(course.sizes())
    receiving = p_sizes, q_sizes  # cotangents of coordinates kick momenta

    def relative(kick: Any, sized: Callable[[Array], Array] = _tree.max_abs) -> Float[Array, ""]:
        """Return the size of a kick relative to the part of the state that it kicks; nonzero stays nonzero."""

        def part(y: Array | None, size: Array) -> Array | None:
            if y is None:
                return None
            info, there = jnp.finfo(dtype), sized(y)
            ratio = jnp.clip(there.astype(dtype) / size.astype(dtype), info.tiny, info.max)
            return jnp.sum(jnp.where(there > 0, ratio, jnp.zeros_like(ratio)))

        return _tree.sum_of(jax.tree.map(part, kick, receiving, is_leaf=_is_none))

    def gauged(share: Callable[[Any, State], Array]) -> Float[Array, ""]:
        """Return the largest relative kick of an action at a mark."""
        nodes = jnp.asarray((*course.marks, problem.steps), jnp.int32)
        states = jax.tree.map(lambda x, y: jnp.concatenate([x, y[None]]), course.states, course.final)
        return jnp.max(jax.lax.map(lambda x: relative(jax.grad(share, 1)(*x)), (nodes, states)))

    total = jnp.zeros((), dtype)
    if bar.final is not None:
        total += relative(bar.final)
    if bar.saved is not None and isinstance(problem.save, SaveFunction):
        rows, strongest = _strongest(bar.saved, dtype)
        total += jnp.sum(rows) * gauged(lambda k, z: paired(strongest, problem.observe(k, z)))
    elif bar.saved is not None:
        total += relative(bar.saved, lambda rows: _sum_of_rows(rows, 0, rows.shape[0]))
    if bar.cost is not None and problem.cost is not None:
        total += (problem.steps + 1) * jnp.abs(bar.cost) * gauged(problem.running_cost)
    return total


def _units(course: Course) -> tuple[Array, Array]:
    """Return the sizes of coordinates and momenta, as units in which their products do not overflow or underflow."""
    q, p = (_tree.max_abs(x) for x in _filled(_tree.fixed(course).sizes()))
    return q, p


def _weight(response: State, z: State, units: tuple[Array, Array]) -> Float[Array, ""]:
    r"""Return $|d_\beta p|\,|q| + |d_\beta q|\,|p|$: the sensitivity of the loss to relative changes of the state."""
    (dq, dp), (q, p), (q_unit, p_unit) = response, z, units

    def products(x: PyTree, y: PyTree, x_unit: Array, y_unit: Array) -> Any:
        size = lambda a, unit: _tree.max_abs(a).astype(unit.dtype) / unit  # noqa: E731
        return _tree.sum_of(jax.tree.map(lambda a, b: size(a, x_unit) * size(b, y_unit), x, y))

    return products(dp, q, p_unit, q_unit) + products(dq, p, q_unit, p_unit)


def weight_of(
    problem: Problem, course: Course, bar: Outcome, beta: Array, units: tuple[Array, Array]
) -> Float[Array, ""]:
    """Return the sum of the `_weight`s of all nudges, each at the larger of the states at the marks beside its node."""
    problem, course, bar = _tree.fixed((problem, course, bar))
    bounds = (*course.marks, problem.steps)
    every = jax.tree.map(lambda x, y: jnp.concatenate([x, y[None]]), course.states, course.final)
    largest = jax.tree.map(_row_sizes, every)
    beside = jax.tree.map(lambda x: jnp.maximum(x[:-1], x[1:]), largest)

    def weight(kick: Any, sizes: State) -> Float[Array, ""]:
        """Return the weight of a kick by cotangents (of coordinates, of momenta) on a state of these sizes."""
        kick = jax.tree.map(
            lambda y, size: jax.tree.map(jnp.zeros_like, size) if y is None else y, kick, sizes, is_leaf=_is_none
        )
        dp, dq = jax.tree.map(lambda y: y * beta.astype(y.dtype), kick)
        return _weight((dq, dp), sizes, units)

    def gauged(share: Callable[[Any, State], Array]) -> Float[Array, ""]:
        nodes = jnp.asarray(bounds, jnp.int32)
        return jnp.mean(jax.lax.map(lambda x: weight(jax.grad(share, 1)(x[0], x[1]), x[1]), (nodes, every)))

    total = jnp.zeros_like(units[0])
    if bar.final is not None:
        total += weight(bar.final, _tree.take(largest, -1))
    if bar.saved is not None and isinstance(problem.save, SaveFunction):
        rows, strongest = _strongest(bar.saved, total.dtype)
        total += jnp.sum(rows) * gauged(lambda k, z: paired(strongest, problem.observe(k, z)))
    elif bar.saved is not None:
        starts = _first_rows(problem, course.marks)
        within = jnp.stack([starts, jnp.append(starts[1:], _rows(problem))], 1).astype(jnp.int32)

        def stretch(x: Any) -> Float[Array, ""]:
            (start, stop), sizes = x
            return weight(jax.tree.map(lambda rows: _sum_of_rows(rows, start, stop), bar.saved), sizes)

        total += jnp.sum(jax.lax.map(stretch, (within, beside)))
    if bar.cost is not None and problem.cost is not None:
        total += (problem.steps + 1) * jnp.abs(bar.cost) * gauged(problem.running_cost)
    return total


def _first_rows(problem: Problem, marks: tuple[int, ...]) -> Int[Array, " marks"]:
    """Return the first row of kept nodes that does not lie before each mark."""
    if isinstance(problem.save, ChosenNodes):
        return problem.save.row(jnp.asarray(marks, jnp.int32))
    return jnp.asarray(marks, jnp.int32) // (problem.save.stride(problem.steps) or 1)


def _rows(problem: Problem) -> int:
    """Return the number of kept nodes."""
    nodes = problem.save.nodes
    return problem.steps // (problem.save.stride(problem.steps) or 1) + 1 if nodes is None else nodes.size


def _strongest(saved: PyTree, dtype: Any) -> tuple[Float[Array, " rows"], PyTree]:
    """Return the sizes of the rows of cotangents relative to the largest row, and the largest row."""
    rows = [_row_sizes(x) / jnp.maximum(_tree.max_abs(x), jnp.finfo(x.dtype).tiny) for x in jax.tree.leaves(saved)]
    rows = functools.reduce(jnp.maximum, [x.astype(dtype) for x in rows])
    return rows, _tree.take(saved, jnp.argmax(rows))


def _is_none(x: Any) -> bool:
    return x is None


def _sum_of_rows(rows: Array, start: Any, stop: Any) -> Inexact[Array, ""]:
    """Return the sum of the sizes of the rows from `start` to `stop`, block by block to save memory."""
    length = min(_BLOCK, rows.shape[0])
    start, stop = jnp.asarray(start, jnp.int32), jnp.asarray(stop, jnp.int32)

    def add(i: Any, total: Array) -> Array:
        wanted = start + jnp.asarray(i, jnp.int32) * length
        first = jnp.minimum(wanted, rows.shape[0] - length)
        sizes = _row_sizes(jax.lax.dynamic_slice_in_dim(rows, first, length))
        k = first + jnp.arange(length, dtype=jnp.int32)
        return total + jnp.sum(jnp.where((k >= wanted) & (k < stop), sizes, jnp.zeros_like(sizes)))

    zero = jnp.zeros((), rows.real.dtype)
    return jax.lax.fori_loop(jnp.asarray(0, jnp.int32), (stop - start + length - 1) // length, add, zero)


def _row_sizes(x: Array) -> Float[Array, " rows"]:
    """Return the largest absolute value of every row."""
    return jnp.max(jnp.abs(x), axis=tuple(range(1, x.ndim)), initial=0)


def _filled(sizes: State) -> State:
    """Return the sizes, with zeros replaced by the largest size of the same part, or else of the other part."""
    parts = [_tree.max_abs(x) for x in sizes]
    both = jnp.maximum(*parts)
    both = jnp.where(both > 0, both, 1)
    parts = [jnp.where(part > 0, part, both) for part in parts]
    filled = [
        jax.tree.map(lambda x, p=p: jnp.where(x > 0, x, p.astype(x.dtype)), x)
        for x, p in zip(sizes, parts, strict=True)
    ]
    return filled[0], filled[1]


def paired(bars: PyTree, values: PyTree) -> Inexact[Array, ""]:
    """Return ⟨bars, values⟩ over the leaves that have a cotangent."""
    return _tree.sum_of(
        jax.tree.map(lambda b, v: None if b is None else jnp.sum(b * v), bars, values, is_leaf=lambda x: x is None)
    )
