"""The nudged run of a causal problem: forward, backward, or as an echo."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from .. import _tree
from .._energy import derivatives
from .._loops import summed
from ..integrators import Direction, State, World, is_mirrored, sign, time_reversed
from ..nudge import AbstractNudge
from ._problem import Outcome, Problem, index


class Response(eqx.Module):
    """What a nudged run leaves.

    Attributes:
        readings: d/dβ of the readings, in the tree of the problem, with `None` for what was not wanted.
        state: d/dβ of the state at the far end, in forward time.
        ended: the best estimate of the un-nudged state there, in forward time.
        about: that estimate displaced by its uncertainty: as far as the members are apart.
        beta: strength of the nudge.
        load: total size of the nudges.
        ensemble: the members at the far end.
    """

    readings: Problem
    state: State
    ended: State
    about: State
    beta: Float[Array, ""]
    load: Float[Array, ""]
    ensemble: PyTree


def nudged_run(
    wanted: Problem,
    rest: Problem,
    start: State,
    bar: Outcome,
    nudge: AbstractNudge,
    direction: Direction,
    load: Float[Array, ""],
) -> Response:
    r"""Run the problem once more from one end, nudged with strength β, and take d/dβ of what is read on the way.

    The nudged energy is $H - \beta c$: passing node $k$ adds $\beta \bar y_k$ to the momentum and takes
    $\beta \bar y^p_k$ from the coordinates; run backward, it undoes this. `start` is the free state at the end where
    the run begins, in forward time: node 0 going forward, node N otherwise. `wanted` and `rest` are the two halves of
    the problem: the leaves that are read, and the others. `bar` holds the cotangents of the outcome, with `None` for
    what no loss depends on. Nothing is kept but the ensemble and the sums.
    """
    problem: Problem = eqx.combine(wanted, rest)
    n, forward = problem.steps, direction == "forward"
    # The inputs are read step by step; everything else is read into one running total.
    lasting = eqx.tree_at(lambda x: x.world, wanted, wanted.world.without_inputs())

    def in_forward_time(z: State) -> State:
        return time_reversed(problem.world.system, z) if direction == "echo" else z

    def push(action: Any, beta: Any, z: State) -> tuple[State, Problem]:
        """Add β times the kick of an action at one node, reading that action too."""
        slopes = derivatives(action, lasting, z)
        reading, (dq, dp) = jax.tree.map(lambda x: _by_strength(beta, x), slopes)
        if sign(direction) > 0:
            return (_tree.subtract(z[0], dp), _tree.add(z[1], dq)), reading
        return (_tree.add(z[0], dp), _tree.subtract(z[1], dq)), reading

    def visit(k: Int[Array, ""], beta: Any, z: State) -> tuple[State, Problem]:
        """Nudge node `k` by β times its share of the loss."""

        def action(lasting: Problem, z: State) -> Float[Array, ""]:
            return share_of(bar, eqx.combine(lasting, rest), k, in_forward_time(z))

        return push(action, beta, z)

    def terminal(beta: Any, z: State) -> tuple[State, Problem]:
        """Nudge node N by the cotangent of the final state."""

        def action(lasting: Problem, z: State) -> Float[Array, ""]:
            return paired(bar.final, in_forward_time(z))

        return push(action, beta, z)

    def step(k: Int[Array, ""], z: State) -> tuple[State, World]:
        """Take step `k`, reading what the action says of the parameters where the free run went."""
        asked = wanted.world.at(k), rest.world.at(k), k
        after, reading = problem.integrator.read(*asked, z, direction)
        if direction == "echo" and is_mirrored(problem.world.system, z[0]):
            # Seen in the mirror one site's parameter is another's: the energy is the same, its slope is not.
            _, reading = problem.integrator.read(*asked, in_forward_time(z), "backward")
        return after, reading

    def advance(i: Int[Array, ""], carry: Any) -> Any:
        """Nudge the node that the run has reached, and take the step that follows."""
        ensemble, du = carry
        node, k = (i, i) if forward else (n - i, n - 1 - i)

        def pushed(beta: Any, z: State) -> tuple[State, tuple[Problem, World]]:
            z, pushing = visit(node, beta, z)
            z, stepping = step(k, z)
            return z, (pushing, stepping)

        ensemble, (pushing, stepping) = nudge.advance(beta, pushed, ensemble)
        world = _tree.add(pushing.world, stepping.without_inputs())
        return (ensemble, _tree.put(du, k, stepping.u)), eqx.tree_at(lambda x: x.world, pushing, world)

    start = in_forward_time(start)  # an involution: it goes both ways
    beta = nudge.strength(start, load, n)
    ensemble = nudge.start(start)
    if bar.final is not None and not forward:
        ensemble, _ = nudge.advance(beta, terminal, ensemble)
    (ensemble, du), total = summed(advance, n, (ensemble, _tree.zeros_like(wanted.world.u)))
    last = index(n if forward else 0)
    ensemble, pushing = nudge.advance(beta, lambda beta, z: visit(last, beta, z), ensemble)
    if bar.final is not None and forward:
        ensemble, _ = nudge.advance(beta, terminal, ensemble)

    readings = eqx.tree_at(lambda x: x.world.u, _tree.add(total, pushing), du, is_leaf=lambda x: x is None)
    ended, about = nudge.retraced(ensemble)
    state = in_forward_time(nudge.response(beta, ensemble))
    return Response(readings, state, in_forward_time(ended), in_forward_time(about), beta, load, ensemble)


def share_of(bar: Outcome, problem: Problem, k: Int[Array, ""], z: State) -> Float[Array, ""]:
    r"""Return $\bar c\, c(z) + \langle \bar y, {\rm observed}(z)\rangle$: the linearised loss's share of node `k`."""
    stride = problem.save.stride(problem.steps)
    total = jnp.zeros((), problem.world.h.dtype)
    if bar.cost is not None and problem.cost is not None:
        total += bar.cost * problem.running_cost(k, z)
    if stride is not None and bar.saved is not None:
        seen = _tree.take(bar.saved, k // stride)
        if stride > 1:
            kept = k % stride == 0
            seen = jax.tree.map(lambda x: jnp.where(kept, x, jnp.zeros_like(x)), seen)
        total += paired(seen, problem.observe(k, z))
    return total


@jax.custom_jvp
def _by_strength(beta: Float[Array, ""], x: Array) -> Array:
    """Return βx, which for β = 0 is zero without a look at `x`, so that the compiler leaves it out."""
    return jnp.where(beta == 0, jnp.zeros_like(x), beta.astype(x.dtype) * x)


@_by_strength.defjvp
def _by_strength_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (beta, x), (dbeta, dx) = primals, tangents
    return _by_strength(beta, x), dbeta.astype(x.dtype) * x + _by_strength(beta, dx)


def load_of(problem: Problem, first: State, last: State, bar: Outcome) -> Float[Array, ""]:
    """Return the total size of the nudges, ∑ₖ ‖∂C/∂zₖ‖; the running cost is gauged at the two ends."""
    total = jnp.zeros((), problem.world.h.dtype)
    if bar.final is not None:
        total += _tree.norm(bar.final)
    if bar.saved is not None:
        rows = [jnp.sum(jnp.abs(x) ** 2, axis=tuple(range(1, x.ndim))) for x in jax.tree.leaves(bar.saved)]
        total += jnp.sum(jnp.sqrt(_tree.sum_of(rows)))
    if bar.cost is not None and problem.cost is not None:
        ends = [(index(0), first), (index(problem.steps), last)]
        slopes = [_tree.norm(jax.grad(problem.running_cost, 1)(k, z)) for k, z in ends]
        total += (problem.steps + 1) * jnp.abs(bar.cost) * jnp.maximum(*slopes)
    return total


def paired(bars: PyTree, values: PyTree) -> Float[Array, ""]:
    """Return ⟨bars, values⟩ over the leaves that have a cotangent."""
    return _tree.sum_of(
        jax.tree.map(lambda b, v: None if b is None else jnp.sum(b * v), bars, values, is_leaf=lambda x: x is None)
    )


def distance(a: State, b: State) -> Float[Array, ""]:
    """Return the largest distance of two states relative to the size of the first, coordinates and momenta apart.

    A part of the state that is zero is measured on the scale of the other.
    """
    sizes = [_tree.max_abs(x) for x in a]
    largest = jnp.maximum(*sizes)
    largest = jnp.where(largest > 0, largest, 1)
    errors = [
        _tree.max_abs(_tree.subtract(x, y)) / jnp.where(size > 0, size, largest)
        for x, y, size in zip(a, b, sizes, strict=True)
    ]
    return jnp.maximum(*errors)
