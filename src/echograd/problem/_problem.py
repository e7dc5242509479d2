"""The initial-value problem that every gradient works on, and its free run."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from .._internal import _tree
from .._loops import summed
from ..integrators import AbstractIntegrator, State, StepInputs
from ._results import RESULTS, Finding, raise_first
from ._save import AbstractSave

# So many states of the free run are kept for its echo, however long it is.
MARKS = 16


class Problem(eqx.Module):
    """A discrete initial-value problem without its initial state.

    `closed_over` are traced arrays that the methods of the system reach without their being leaves of it. `program` is
    what a step does, as a digest: what is compiled for this problem serves for another one if that is the same.
    """

    given: StepInputs
    save: AbstractSave
    cost: Callable[..., Float[Array, ""]] | None
    integrator: AbstractIntegrator = eqx.field(static=True)
    steps: int = eqx.field(static=True)
    throw: bool = eqx.field(static=True)
    closed_over: list[Array] = eqx.field(default_factory=list)
    program: str = eqx.field(static=True, default="")

    def step(self, k: Int[Array, ""], z: State) -> State:
        """Advance the state from node `k` to node `k + 1`."""
        return self.integrator.step(self.given.at(k), k, z)

    def observe(self, k: Int[Array, ""], z: State) -> PyTree:
        """Return what is kept of node `k`."""
        return jax.tree.map(jnp.asarray, self.save.observe(self.given.time(k), *z))

    def running_cost(self, k: Int[Array, ""], z: State) -> Float[Array, ""]:
        """Return the running cost at node `k`."""
        if self.cost is None:
            return jnp.zeros((), self.given.h.dtype)
        cost = jnp.asarray(self.cost(self.given.time(k), *z))
        return cost if jnp.iscomplexobj(cost) else cost.astype(self.given.h.dtype)


class Outcome(eqx.Module):
    """What a run leaves: the kept nodes (or `None`), the final state, and the summed running cost."""

    saved: PyTree
    final: State
    cost: Float[Array, ""]


class Course(eqx.Module):
    """Some states of a free run: what its echo is held to, and what tells how large the parts of the state are.

    Attributes:
        marks: the nodes, ascending, the first one node 0.
        states: the states there, on a leading axis.
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
        """Return how far every leaf of the state goes from where it starts."""

        def extent(x: Array, y: Array) -> Float[Array, ""]:
            return jnp.maximum(_tree.max_abs(x - x[:1]), _tree.max_abs(y - x[0]))

        return jax.tree.map(extent, self.states, self.final)


def marks_of(steps: int, stride: int | None) -> tuple[int, ...]:
    """Return the nodes of the states that an echo is held to: as many in a long run as in a short one."""
    unit = 1 if stride is None else stride
    blocks = steps // unit
    count = max(1, min(MARKS, blocks))
    # Not evenly spaced, lest a periodic motion be seen at one phase only.
    shifts = [0.4 * ((0.618 * j) % 1) for j in range(count)]
    return tuple(sorted({unit * int(blocks * (j + shift) / count) for j, shift in enumerate(shifts)}))


def index(k: Any) -> Int[Array, ""]:
    """Return a node index as an array."""
    return jnp.asarray(k, jnp.int32)


def free_run(problem: Problem, z0: State) -> Outcome:
    """Run the problem forward, keeping nothing but what `problem.save` asks for."""
    return marked_run(problem, z0, (0,))[0]


def marked_run(problem: Problem, z0: State, marks: tuple[int, ...]) -> tuple[Outcome, Course]:
    """Run the problem forward, keeping what `problem.save` asks for, and the states at the marks.

    Kept nodes are written in place into one buffer, so the working memory is the buffer, the marks and two states.
    This loop is never differentiated; `Backprop` has its own.
    """
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
    return Outcome(buffer, z, cost), Course(marks, states, z)


def repeated(count: int, body: Callable[[Any, Any], Any], carry: Any) -> Any:
    """Return `jax.lax.fori_loop(0, count, body, carry)`; a single turn needs no loop."""
    return body(index(0), carry) if count == 1 else jax.lax.fori_loop(0, count, body, carry)


def finite_cotangents(bars: PyTree) -> PyTree:
    """Return the cotangents, or raise at run time if they are not finite."""
    sound = _tree.all_finite(bars)
    return _tree.check_heads(
        lambda x: eqx.error_if(
            x,
            ~sound,
            "solve: the trajectory is finite and its gradient is not. Likely causes: (a) an energy without a second "
            "derivative where the path goes (abs(q)**1.5, sqrt or a norm at zero, eigenvalues that cross): add a small "
            "constant under the root; (b) a tangent that outgrew the floats, as in chaotic motion: use fewer steps or "
            "float64; (c) a finite nudge that is too strong; (d) a loss whose own derivative is not finite.",
        ),
        bars,
    )


@eqx.filter_custom_jvp
def watched(x: PyTree) -> PyTree:
    """Return `x`, whose cotangents are checked to be finite; its tangents pass as they are."""
    return x


@watched.def_jvp
def _watched_jvp(primals: Any, tangents: Any) -> tuple[PyTree, PyTree]:
    (x,), (tangent,) = primals, tangents
    if not jax.tree.leaves(tangent):
        return watched(x), tangent
    # The identity, as a linear map whose transpose is the check.
    same = lambda v: v  # noqa: E731
    return watched(x), jax.lax.custom_linear_solve(
        same, tangent, lambda _, v: v, lambda _, bars: finite_cotangents(bars)
    )


def not_finite(problem: Problem, outcome: Outcome) -> list[Finding]:
    """Check that the final state and the cost are finite, and that an exact run stayed on its grid."""
    findings = []
    if problem.given.grid is not None:
        message = (
            "solve: the state has outgrown the fixed-point range of Leapfrog(exact=True), or is not finite. Pass fewer "
            "`bits` (every one less doubles the range) or use float64. If the state should not have grown, halve dt."
        )
        findings.append(Finding(RESULTS.not_finite, ~_tree.all_finite(outcome.final), message))
    message = (
        "solve: the trajectory is not finite at its end. The step may be too long (halve dt), the system may run away "
        "(an unbounded potential), or the parameters, inputs or initial state already hold a NaN or an infinity."
    )
    wrong = ~(_tree.all_finite(outcome.final) & jnp.isfinite(outcome.cost))
    return [*findings, Finding(RESULTS.not_finite, wrong, message)]


def finite(problem: Problem, outcome: Outcome) -> Outcome:
    """Return `outcome`, or raise at run time if the final state or the cost is not finite.

    The check is attached to small arrays (the final state, the cost, the last kept node), never to the whole buffer.
    """
    if not problem.throw:
        return outcome
    last = jax.tree.map(lambda x: x[-1], outcome.saved)
    final, cost, last = raise_first((outcome.final, outcome.cost, last), not_finite(problem, outcome))
    return Outcome(jax.tree.map(lambda x, y: x.at[-1].set(y), outcome.saved, last), final, cost)
