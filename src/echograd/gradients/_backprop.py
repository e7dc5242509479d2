"""Backpropagation through time: the oracle beside everything."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from .._internal import _checks, _tree
from ..integrators import State
from ..problem import Outcome, Problem
from ..problem._run import MARKS, index
from ..problem._save import ChosenNodes
from ..problem._soundness import finite, watched
from ..statics import AbstractRelaxation, AbstractStaticGradient, Equilibrium
from ..statics._base import resting
from ..statics._static_problem import StaticProblem
from ..two_point import TwoPointNewton
from ..two_point._newton import Convergence, find_path
from ..two_point._problem import Nodes, TwoPoint, outcome_of
from ._base import AbstractGradient


class Backprop(AbstractGradient, AbstractStaticGradient):
    r"""Differentiate through every step (BPTT): exact, with memory that grows with the number of steps.

    It runs the same discrete map as every other gradient, so in float64 it is the reference for all of them.

    Args:
        checkpoints: `None` stores every step. An integer stores that many states along the way and recomputes the
            steps between them: about $\sqrt N$ is best, memory $O(\text{checkpoints} + N/\text{checkpoints})$ for one
            more forward pass.

    Raises:
        ArgumentError: if `checkpoints` is not a positive integer.

    Source: P. Werbos, Proc. IEEE 78 (1990) 1550; A. Griewank, Optim. Methods Softw. 1 (1992) 35.

    Example:
        ```python
        eg.solve(system, boundary, dt=0.01, steps=1000, gradient=eg.Backprop(checkpoints=100))
        ```
    """

    checkpoints: int | None = eqx.field(
        static=True,
        default=None,
        converter=_checks.optional(_checks.integer, "Backprop", "checkpoints", what="the number of stored states"),
    )

    def check(self, system: Any) -> None:
        pass

    def run(self, problem: Problem, z0: State) -> Outcome:
        if problem.throw:
            problem, z0 = watched((problem, z0))
        n = problem.steps
        stride = problem.save.stride(n)

        def advance(carry: Any, k: Int[Array, ""]) -> tuple[Any, None]:
            z, cost = carry
            if problem.progress is not None:
                due = k % max(n // MARKS, 1) == 0
                jax.lax.cond(due, lambda: problem.report(k, "forward"), lambda: None)
            z = problem.step(k, z)
            return (z, cost + problem.running_cost(k + 1, z)), None

        carry = (z0, problem.running_cost(index(0), z0))
        if isinstance(problem.save, ChosenNodes):
            return finite(problem, self._run_with_chosen_nodes(problem, problem.save, advance, carry))
        if stride is None:
            (z, cost), _ = checkpointed_scan(advance, carry, jnp.arange(n, dtype=jnp.int32), self.checkpoints)
            return finite(problem, Outcome(None, z, cost))

        def block(carry: Any, j: Int[Array, ""]) -> Any:
            """Observe a kept node, then run to the next one."""
            seen = problem.observe(j * stride, carry[0])
            if stride == 1:
                return advance(carry, j)[0], seen
            return checkpointed_scan(advance, carry, j * stride + jnp.arange(stride, dtype=jnp.int32), None)[0], seen

        blocks = n // stride
        carry, saved = checkpointed_scan(block, carry, jnp.arange(blocks, dtype=jnp.int32), self.checkpoints)
        last = problem.observe(index(blocks * stride), carry[0])
        saved = jax.tree.map(lambda xs, x: jnp.concatenate([xs, x[None]]), saved, last)
        rest = jnp.arange(blocks * stride, n, dtype=jnp.int32)
        (z, cost), _ = checkpointed_scan(advance, carry, rest, self.checkpoints)
        return finite(problem, Outcome(saved, z, cost))

    def _run_with_chosen_nodes(self, problem: Problem, save: ChosenNodes, advance: Any, carry: Any) -> Outcome:
        """Write every node into the row of the next kept node, so that the kept node is written last."""

        def write(buffer: PyTree, k: Int[Array, ""], z: State) -> PyTree:
            return _tree.put(buffer, save.row(k), problem.observe(k, z))

        def step(carry: Any, k: Int[Array, ""]) -> tuple[Any, None]:
            carry, buffer = carry
            carry, _ = advance(carry, k)
            return (carry, write(buffer, k + 1, carry[0])), None

        seen = problem.observe(index(0), carry[0])
        buffer = jax.tree.map(lambda x: jnp.zeros((save.nodes.size + 1, *x.shape), x.dtype), seen)
        start = carry, write(buffer, index(0), carry[0])
        steps = jnp.arange(problem.steps, dtype=jnp.int32)
        ((z, cost), buffer), _ = checkpointed_scan(step, start, steps, self.checkpoints)
        return Outcome(jax.tree.map(lambda x: x[:-1], buffer), z, cost)

    def relax(self, problem: StaticProblem, start: PyTree, relaxation: AbstractRelaxation) -> Equilibrium:
        def scan(body: Any, carry: Any, xs: PyTree) -> tuple[Any, Any]:
            return checkpointed_scan(body, carry, xs, self.checkpoints)

        found = relaxation.unroll(problem, start, scan)
        state = resting(found.state, found, problem.throw, "the state")
        return Equilibrium(state, found.energy, found.residual, found.steps, found.converged)

    def run_two_point(self, problem: TwoPoint, guess: Nodes, newton: TwoPointNewton) -> tuple[Outcome, Convergence]:
        """Differentiate implicitly: the adjoint of the linearised path equations, solved once."""
        still = jnp.zeros_like(guess)
        found, convergence = find_path(problem, newton, guess, still, "free")
        return outcome_of(problem, found), convergence


def checkpointed_scan(body: Any, carry: Any, xs: PyTree, segments: int | None) -> tuple[Any, Any]:
    """Scan as `jax.lax.scan` does, but store only the carries at the starts of `segments` equal parts."""
    n = jax.tree.leaves(xs)[0].shape[0]
    if n == 0:  # outside of `jit`, JAX cannot scan over zero steps
        y = jax.eval_shape(body, carry, jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), xs))[1]
        return carry, jax.tree.map(lambda y: jnp.zeros((0, *y.shape), y.dtype), y)
    if segments is None or n < 2:
        return jax.lax.scan(body, carry, xs)
    segments = min(segments, n)
    length = n // segments
    whole = segments * length

    @jax.checkpoint
    def segment(carry: Any, xs: PyTree) -> Any:
        return jax.lax.scan(body, carry, xs)

    parts = jax.tree.map(lambda x: x[:whole].reshape(segments, length, *x.shape[1:]), xs)
    carry, ys = jax.lax.scan(segment, carry, parts)
    ys = jax.tree.map(lambda y: y.reshape(whole, *y.shape[2:]), ys)
    if whole < n:
        carry, tail = segment(carry, jax.tree.map(lambda x: x[whole:], xs))
        ys = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), ys, tail)
    return carry, ys
