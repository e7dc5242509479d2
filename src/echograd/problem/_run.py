"""Free runs of a problem, and the states of them that an echo is compared with."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._internal import _tree
from .._loops import summed
from ..integrators import State
from ._problem import Outcome, Problem
from ._save import ChosenNodes

# Number of states of the free run that are kept for the echo, for any number of steps.
MARKS = 16


class Course(eqx.Module):
    """Some states of a free run. An echo is compared with them, and they give the sizes of the state's parts.

    Attributes:
        marks: the nodes, ascending, beginning with node 0.
        states: the states at the marks, on a leading axis.
        final: the state at node N.
    """

    marks: tuple[int, ...] = eqx.field(static=True)
    states: State
    final: State

    @property
    def start(self) -> State:
        """The state at node 0."""
        return _tree.take(self.states, 0)

    def sizes(self) -> State:
        """Return the largest absolute value of every leaf of the state."""
        return jax.tree.map(lambda x, y: jnp.maximum(_tree.max_abs(x), _tree.max_abs(y)), self.states, self.final)

    def extents(self) -> State:
        """Return the largest distance of every leaf of the state from its start."""

        def extent(x: Array, y: Array) -> Float[Array, ""]:
            return jnp.maximum(_tree.max_abs(x - x[:1]), _tree.max_abs(y - x[0]))

        return jax.tree.map(extent, self.states, self.final)


def marks_of(steps: int, stride: int | None) -> tuple[int, ...]:
    """Return the nodes whose states an echo is compared with, at most `MARKS` of them."""
    unit = 1 if stride is None else stride
    blocks = steps // unit
    count = max(1, min(MARKS, blocks))
    # Uneven spacing, so that a periodic motion is not sampled at a single phase.
    shifts = [0.4 * ((0.618 * j) % 1) for j in range(count)]
    return tuple(sorted({unit * int(blocks * (j + shift) / count) for j, shift in enumerate(shifts)}))


def index(k: Any) -> Int[Array, ""]:
    """Return a node index as an array."""
    return jnp.asarray(k, jnp.int32)


def free_run(problem: Problem, z0: State) -> Outcome:
    """Run the problem forward and keep the nodes that `problem.save` selects."""
    marks = (0,) if problem.progress is None else marks_of(problem.steps, problem.save.stride(problem.steps))
    return marked_run(problem, z0, marks)[0]


def marked_run(problem: Problem, z0: State, marks: tuple[int, ...]) -> tuple[Outcome, Course]:
    """Run the problem forward and keep the nodes that `problem.save` selects, and the states at the marks.

    Kept nodes are written in place into one buffer. The working memory is this buffer, the marks and two states. JAX
    never differentiates this loop; `Backprop` has its own.
    """
    if isinstance(problem.save, ChosenNodes):
        return _run_with_chosen_nodes(problem, problem.save, z0, marks)
    n = problem.steps
    stride = problem.save.stride(n)
    unit = 1 if stride is None else stride
    blocks = n // unit

    def advance(k: Int[Array, ""], z: State) -> tuple[State, Float[Array, ""]]:
        z = problem.step(k, z)
        return z, problem.running_cost(k + 1, z)

    def run(first: Any, steps: Any, z: State) -> tuple[State, Float[Array, ""]]:
        return summed(lambda i, z: advance(first + i, z), steps, z)

    def block(j: Int[Array, ""], carry: Any) -> tuple[Any, Float[Array, ""]]:
        z, buffer = carry
        z, cost = advance(j, z) if unit == 1 else run(j * unit, unit, z)
        if stride is not None:
            buffer = _tree.put(buffer, j + 1, problem.observe((j + 1) * unit, z))
        return (z, buffer), cost

    def stretch(i: Any, passed: Any) -> Any:
        """Run from one mark to the next."""
        carry, cost, states = passed
        states = _tree.put(states, i, carry[0])
        problem.report(bounds[i] * unit, "forward")
        carry, more = summed(lambda j, carry: block(bounds[i] + j, carry), bounds[i + 1] - bounds[i], carry)
        return carry, cost + more, states

    buffer = None
    if stride is not None:
        first = problem.observe(index(0), z0)
        buffer = jax.tree.map(lambda x: jnp.zeros((blocks + 1, *jnp.shape(x)), jnp.result_type(x)), first)
        buffer = _tree.put(buffer, 0, first)
    bounds = jnp.asarray((*(k // unit for k in marks), blocks), jnp.int32)
    states = jax.tree.map(lambda x: jnp.zeros((len(marks), *x.shape), x.dtype), z0)
    passed = (z0, buffer), problem.running_cost(index(0), z0), states
    (z, buffer), cost, states = repeated(len(marks), stretch, passed)
    if blocks * unit < n:
        z, more = run(index(blocks * unit), n - blocks * unit, z)
        cost += more
    problem.report(n, "forward", z)
    return Outcome(buffer, z, cost), Course(marks, states, z)


def _run_with_chosen_nodes(
    problem: Problem, save: ChosenNodes, z0: State, marks: tuple[int, ...]
) -> tuple[Outcome, Course]:
    """Run from bound to bound, where a bound is a mark or a kept node."""
    n = problem.steps
    of_marks = ChosenNodes(jnp.asarray(marks, jnp.int32), False)
    ends = jnp.asarray((*marks, n), jnp.int32)
    bounds = jnp.sort(jnp.concatenate([ends, jnp.minimum(save.nodes, n).astype(jnp.int32)]))

    def advance(k: Int[Array, ""], z: State) -> tuple[State, Float[Array, ""]]:
        z = problem.step(k, z)
        return z, problem.running_cost(k + 1, z)

    def visit(i: Any, z: State, buffer: Any, states: Any) -> tuple[Any, Any]:
        """Write the state at bound `i` into the rows of the next kept node and mark; their own states come last."""
        k = bounds[i]
        buffer = _tree.put(buffer, save.row(k), problem.observe(k, z))
        return buffer, _tree.put(states, of_marks.row(k), z)

    def stretch(i: Any, carry: Any) -> Any:
        z, buffer, states, cost = carry
        buffer, states = visit(i, z, buffer, states)
        if problem.progress is not None:
            reported = jnp.any(ends == bounds[i]) & (bounds[i + 1] > bounds[i])
            jax.lax.cond(reported, lambda: problem.report(bounds[i], "forward"), lambda: None)
        z, more = summed(lambda j, z: advance(bounds[i] + j, z), bounds[i + 1] - bounds[i], z)
        return z, buffer, states, cost + more

    def empty(rows: int, x: Any) -> Any:
        """Return an array of so many rows and a spare one."""
        return jax.tree.map(lambda x: jnp.zeros((rows + 1, *jnp.shape(x)), jnp.result_type(x)), x)

    carry = z0, empty(save.nodes.size, problem.observe(index(0), z0)), empty(len(marks), z0)
    z, buffer, states, cost = jax.lax.fori_loop(
        0, bounds.size - 1, stretch, (*carry, problem.running_cost(index(0), z0))
    )
    buffer, states = visit(bounds.size - 1, z, buffer, states)
    problem.report(n, "forward", z)
    buffer, states = jax.tree.map(lambda x: x[:-1], (buffer, states))
    return Outcome(buffer, z, cost), Course(marks, states, z)


def repeated(count: int, body: Callable[[Any, Any], Any], carry: Any) -> Any:
    """Return `jax.lax.fori_loop(0, count, body, carry)`; a single iteration needs no loop."""
    return body(index(0), carry) if count == 1 else jax.lax.fori_loop(0, count, body, carry)
