"""A two-point boundary value problem in flat nodes: its equations, a guess of its path, and what is kept of it."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from .._internal import _tree
from ..integrators import State, StepInputs
from ..problem import Outcome, Problem
from ..problem._soundness import finite
from . import _bordered
from ._units import Units, units_of_path, units_of_rows

Nodes = Float[Array, "N+1 2n"]


class Condition(eqx.Module):
    r"""Boundary rows and data, $B z_\partial = b$."""

    rows: Float[Array, "2n 4n"]
    data: Float[Array, " 2n"]


class TwoPoint(eqx.Module):
    """A problem with a condition on its ends, in flat nodes; the maps that its solution and its gradients need.

    Nodes and condition are in `units`. An action in these units is the user's over `units.q * units.p`.
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
        r"""Return the residuals of the steps and of the boundary condition, with node $k$ kicked by `kicks[k]`.

        The boundary condition holds before the kick of node 0 and after the kick of node N.
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
        """Return the readings along a path: those of the inputs for every step, all others summed over the steps."""

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
    """Return the problem in flat nodes, and a guess of its path in its units.

    The guess is `path`, all states, or the run from `start`, or a straight line between the smallest ends that meet the
    condition.
    """
    one = jnp.ones((), condition.rows.dtype)
    posed = TwoPoint(problem, condition, Units(one, one), jax.flatten_util.ravel_pytree((like, like))[1])
    fixed = _tree.fixed(posed)
    guess = jax.lax.stop_gradient(_initial_path(fixed, start) if path is None else jax.vmap(_tree.flat)(path))
    units = _tree.fixed(units_of_path(fixed.step, guess))
    posed = eqx.tree_at(lambda p: (p.condition, p.units), posed, (_measured(condition, units), units))
    return posed, guess / units.each(guess.shape[1] // 2)[None]


def _measured(condition: Condition, units: Units) -> Condition:
    """Return the condition on ends in `units`, with every row and its datum divided by the size of the row."""
    rows = condition.rows * jnp.tile(units.each(condition.rows.shape[0] // 2), 2)[None]
    sizes = jax.lax.stop_gradient(_tree.power_of_two(jnp.max(jnp.abs(rows), 1)))
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


def outcome_of(problem: TwoPoint, x: Nodes) -> Outcome:
    """Return the outcome of a path, by plain differentiable functions of its nodes."""
    n, stride = problem.problem.steps, problem.problem.save.stride(problem.problem.steps)
    k = jnp.arange(n + 1, dtype=jnp.int32)
    z = jax.vmap(problem.state)(x)
    final = problem.state(x[-1])
    cost = jnp.sum(jax.vmap(problem.problem.running_cost)(k, z))
    nodes = problem.problem.save.nodes
    if nodes is not None:
        rows = jnp.minimum(nodes, n)
        saved = jax.vmap(problem.problem.observe)(rows, jax.tree.map(lambda x: x[rows], z))
        return finite(problem.problem, Outcome(saved, final, cost))
    if stride is None:
        return finite(problem.problem, Outcome(None, final, cost))
    saved = jax.vmap(problem.problem.observe)(k[::stride], jax.tree.map(lambda x: x[::stride], z))
    return finite(problem.problem, Outcome(saved, final, cost))
