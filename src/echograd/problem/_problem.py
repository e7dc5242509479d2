"""The initial-value problem that every gradient works on, and the result of a run."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from ..integrators import AbstractIntegrator, State, StepInputs
from ._save import AbstractSave


class Problem(eqx.Module):
    """A discrete initial-value problem without its initial state.

    Attributes:
        given: the system, the inputs and the times.
        save: which nodes are kept.
        cost: the running cost, or `None`.
        integrator: takes the steps.
        steps: their number.
        throw: whether checks at run time raise.
        closed_over: traced arrays that methods of the system use and that are not leaves of it.
        program: a digest of the program of a step. Problems with equal digests share one compiled program.
        progress: called with `(step, of, phase)` now and then during a run, or `None`.

    Example: see `gradients.AbstractGradient`.
    """

    given: StepInputs
    save: AbstractSave
    cost: Callable[..., Float[Array, ""]] | None
    integrator: AbstractIntegrator = eqx.field(static=True)
    steps: int = eqx.field(static=True)
    throw: bool = eqx.field(static=True)
    closed_over: list[Array] = eqx.field(default_factory=list)
    program: str = eqx.field(static=True, default="")
    progress: Callable[[int, int, str], None] | None = eqx.field(static=True, default=None)

    def step(self, k: Int[Array, ""], z: State) -> State:
        """Advance the state from node `k` to node `k + 1`."""
        return self.integrator.step(self.given.at(k), k, z)

    def observe(self, k: Int[Array, ""], z: State) -> PyTree:
        """Return the values to keep at node `k`."""
        return jax.tree.map(jnp.asarray, self.save.observe(self.given.time(k), *z))

    def report(self, done: Any, phase: str, after: Any = None) -> None:
        """Report at run time how many steps of a phase are done, once the arrays `after` are known."""
        call, of = self.progress, self.steps
        if call is not None:
            done, _ = jax.lax.optimization_barrier((jnp.asarray(done), jax.lax.stop_gradient(after)))
            jax.debug.callback(lambda done: call(int(done), of, phase), done)

    def running_cost(self, k: Int[Array, ""], z: State) -> Float[Array, ""]:
        """Return the running cost at node `k`."""
        if self.cost is None:
            return jnp.zeros((), self.given.h.dtype)
        cost = jnp.asarray(self.cost(self.given.time(k), *z))
        return cost if jnp.iscomplexobj(cost) else cost.astype(self.given.h.dtype)


class Outcome(eqx.Module):
    """The result of a run: the kept nodes (or `None`), the final state, and the summed running cost.

    Example: see `gradients.AbstractGradient`.
    """

    saved: PyTree
    final: State
    cost: Float[Array, ""]
