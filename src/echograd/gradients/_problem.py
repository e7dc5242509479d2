"""The initial-value problem that every gradient works on, and its free run."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from .. import _tree
from .._loops import summed
from ..integrators import AbstractIntegrator, State, World
from ._save import AbstractSave


class Problem(eqx.Module):
    """A discrete initial-value problem without its initial state.

    `closed_over` are traced arrays that the methods of the system reach without their being leaves of it. `program` is
    what a step does, as a digest: what is compiled for this problem serves for another one if that is the same.
    """

    world: World
    save: AbstractSave
    cost: Callable[..., Float[Array, ""]] | None
    integrator: AbstractIntegrator = eqx.field(static=True)
    steps: int = eqx.field(static=True)
    throw: bool = eqx.field(static=True)
    closed_over: list[Array] = eqx.field(default_factory=list)
    program: str = eqx.field(static=True, default="")

    def step(self, k: Int[Array, ""], z: State) -> State:
        """Advance the state from node `k` to node `k + 1`."""
        return self.integrator.step(self.world.at(k), k, z)

    def observe(self, k: Int[Array, ""], z: State) -> PyTree:
        """Return what is kept of node `k`."""
        return jax.tree.map(jnp.asarray, self.save.observe(self.world.time(k), *z))

    def running_cost(self, k: Int[Array, ""], z: State) -> Float[Array, ""]:
        """Return the running cost at node `k`."""
        if self.cost is None:
            return jnp.zeros((), self.world.h.dtype)
        cost = jnp.asarray(self.cost(self.world.time(k), *z))
        return cost if jnp.iscomplexobj(cost) else cost.astype(self.world.h.dtype)


class Outcome(eqx.Module):
    """What a run leaves: the kept nodes (or `None`), the final state, and the summed running cost."""

    saved: PyTree
    final: State
    cost: Float[Array, ""]


def index(k: Any) -> Int[Array, ""]:
    """Return a node index as an array."""
    return jnp.asarray(k, jnp.int32)


def free_run(problem: Problem, z0: State) -> Outcome:
    """Run the problem forward, keeping nothing but what `problem.save` asks for.

    Kept nodes are written in place into one buffer, so the working memory is the buffer and two states. This loop is
    never differentiated; `Backprop` has its own.
    """
    n = problem.steps
    stride = problem.save.stride(n)

    def advance(k: Int[Array, ""], z: State) -> tuple[State, Float[Array, ""]]:
        z = problem.step(k, z)
        return z, problem.running_cost(k + 1, z)

    def run(first: Any, steps: int, z: State) -> tuple[State, Float[Array, ""]]:
        return summed(lambda i, z: advance(first + i, z), steps, z)

    cost = problem.running_cost(index(0), z0)
    if stride is None:
        z, more = run(index(0), n, z0)
        return Outcome(None, z, cost + more)

    blocks = n // stride
    first = problem.observe(index(0), z0)
    buffer = jax.tree.map(lambda x: jnp.zeros((blocks + 1, *jnp.shape(x)), jnp.result_type(x)), first)
    buffer = _tree.put(buffer, 0, first)

    def block(j: Int[Array, ""], carry: Any) -> tuple[Any, Float[Array, ""]]:
        z, buffer = carry
        z, cost = advance(j, z) if stride == 1 else run(j * stride, stride, z)
        return (z, _tree.put(buffer, j + 1, problem.observe((j + 1) * stride, z))), cost

    (z, buffer), more = summed(block, blocks, (z0, buffer))
    z, rest = run(index(blocks * stride), n - blocks * stride, z)
    return Outcome(buffer, z, cost + more + rest)


def finite(problem: Problem, outcome: Outcome) -> Outcome:
    """Return `outcome`, or raise at run time if the final state or the cost is not finite.

    The check hangs on small arrays (the final state, the cost, the last kept node), never on the whole buffer.
    """
    if not problem.throw:
        return outcome
    if problem.world.grid is not None:
        outcome = _on_grid(outcome)
    last = jax.tree.map(lambda x: x[-1], outcome.saved)
    final, cost, last = eqx.error_if(
        (outcome.final, outcome.cost, last),
        ~(_tree.all_finite(outcome.final) & jnp.isfinite(outcome.cost)),
        "solve: the trajectory is not finite at its end. The step may be too long (halve dt), the system may run away "
        "(an unbounded potential), or the parameters, inputs or initial state already hold a NaN or an infinity.",
    )
    return Outcome(jax.tree.map(lambda x, y: x.at[-1].set(y), outcome.saved, last), final, cost)


def _on_grid(outcome: Outcome) -> Outcome:
    """Return `outcome`, or raise at run time if the state has outgrown the grid."""
    final = eqx.error_if(
        outcome.final,
        ~_tree.all_finite(outcome.final),
        "solve: the state has outgrown the fixed-point range of Leapfrog(exact=True), or is not finite. Pass fewer "
        "`bits` (every one less doubles the range) or use float64; if it should not have grown, halve dt.",
    )
    return Outcome(outcome.saved, final, outcome.cost)
