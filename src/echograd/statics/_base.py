"""The base class of relaxations, which move a state until no force is left, and the equilibrium they find."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

from .._internal import _tree
from .._internal._errors import refuse_if
from ._static_problem import Equilibrium, StaticProblem


class AbstractRelaxation(eqx.Module):
    r"""A way of finding the state $s$ with $\partial E/\partial s = \text{load}$, and its linear response to a load.

    A relaxation repeats `move` until the largest unbalanced force is within the tolerance, or `max_steps` are spent.

    Example:
        ```python
        class HalfSteps(eg.statics.AbstractRelaxation):  # for energies whose second derivative is about 1
            tolerance, max_steps = None, 100

            def start(self, problem, s, force):
                return None

            def move(self, problem, s, force, memory):
                return jax.tree.map(lambda s, f: s + 0.5 * f, s, force), None

            def respond(self, problem, s, load):
                return load

        eg.equilibrium(lambda s, u: jnp.sum(s**2 / 2 - s), jnp.zeros(3), solver=HalfSteps())
        ```
    """

    tolerance: eqx.AbstractVar[float | None]
    max_steps: eqx.AbstractVar[int]

    @abc.abstractmethod
    def start(self, problem: StaticProblem, s: PyTree, force: PyTree) -> PyTree:
        """Return the memory of the relaxation before its first move from `s`, with `force` on it."""

    @abc.abstractmethod
    def move(self, problem: StaticProblem, s: PyTree, force: PyTree, memory: PyTree) -> tuple[PyTree, PyTree]:
        """Return the next state, inside the box, and the next memory, from `s` and the force on it."""

    @abc.abstractmethod
    def respond(self, problem: StaticProblem, s: PyTree, load: PyTree) -> PyTree:
        r"""Return the linear response $ds$ of the equilibrium `s` to a small load: $E''\, ds = \text{load}$.

        It is linear in `load` and transposable. Coordinates pressed against a bound do not respond.
        """

    def accuracy(self, dtype: Any) -> float:
        """Return the accuracy of the balance of forces, by default three quarters of the digits of the dtype."""
        return float(jnp.finfo(dtype).eps) ** 0.75 if self.tolerance is None else self.tolerance

    def limit(self, problem: StaticProblem, s: PyTree, force: PyTree) -> Float[Array, ""]:
        r"""Return the largest force accepted at rest for a relaxation that starts at `s`.

        By default it is relative to the larger of the force at the start and the elastic force, $E'' s$.
        """
        dtype = _real(s)
        accuracy = jnp.asarray(self.accuracy(dtype), dtype)
        if self.tolerance is not None:
            return accuracy
        elastic = _tree.max_abs(jax.jvp(problem.force, (s,), (s,))[1])
        scale = jnp.maximum(_largest(problem, s, force), jnp.where(jnp.isfinite(elastic), elastic, 0))
        return accuracy * jax.lax.stop_gradient(jnp.where((scale > 0) & jnp.isfinite(scale), scale, 1))

    def relax(self, problem: StaticProblem, s: PyTree) -> Equilibrium:
        """Move `s` until it is at rest. Forward only; `rest` is differentiable."""
        s = problem.clip(s)
        force = problem.force(s)
        tolerance = self.limit(problem, s, force)

        def moving(carry: Any) -> Any:
            _, _, _, residual, steps = carry
            # A NaN compares false and ends the loop.
            return (residual > tolerance) & (steps < self.max_steps)

        def step(carry: Any) -> Any:
            s, force, memory, _, steps = carry
            s, memory = self.move(problem, s, force, memory)
            force = problem.force(s)
            return s, force, memory, _largest(problem, s, force), steps + 1

        carry = (s, force, self.start(problem, s, force), _largest(problem, s, force), jnp.asarray(0, jnp.int32))
        s, _, _, residual, steps = jax.lax.while_loop(moving, step, carry)
        return Equilibrium(s, problem.value(s), residual, steps, _settled(s, residual, tolerance))

    def unroll(self, problem: StaticProblem, s: PyTree, scan: Any) -> Equilibrium:
        """Make all `max_steps` moves with `scan`, differentiable move by move.

        The memory of the relaxation (its step lengths) is a constant.
        """

        def step(carry: Any, _: Any) -> tuple[Any, None]:
            s, memory = carry
            s, memory = self.move(problem, s, problem.force(s), memory)
            return (s, jax.lax.stop_gradient(memory)), None

        s = problem.clip(s)
        force = problem.force(s)
        tolerance = self.limit(problem, s, force)
        memory = jax.lax.stop_gradient(self.start(problem, s, force))
        (s, _), _ = scan(step, (s, memory), jnp.arange(self.max_steps))
        residual = jax.lax.stop_gradient(_largest(problem, s, problem.force(s)))
        steps = jnp.asarray(self.max_steps, jnp.int32)
        return Equilibrium(s, problem.value(s), residual, steps, _settled(s, residual, tolerance))


def _largest(problem: StaticProblem, s: PyTree, force: PyTree) -> Float[Array, ""]:
    return _tree.max_abs(problem.unbalanced(s, force))


def _settled(s: PyTree, residual: Float[Array, ""], tolerance: Float[Array, ""]) -> Bool[Array, ""]:
    # At infinity there may be no force.
    return (residual <= tolerance) & _tree.all_finite(s)


def _real(s: PyTree) -> Any:
    return jnp.finfo(jnp.result_type(*(x.dtype for x in jax.tree.leaves(s)))).dtype


@eqx.filter_custom_jvp
def rest(problem: StaticProblem, *, start: PyTree, relaxation: AbstractRelaxation) -> Equilibrium:
    r"""Return the equilibrium of a problem, with the derivatives of the implicit function theorem.

    $E_s(s, \theta) = \text{load}$ gives $E_{ss}\, ds = d(\text{load}) - E_{s\theta}\, d\theta$: any order, either mode.
    The derivative with respect to `start` is zero.
    """
    return relaxation.relax(problem, start)


@rest.def_jvp
def _rest_jvp(
    primals: Any, tangents: Any, *, start: PyTree, relaxation: AbstractRelaxation
) -> tuple[Equilibrium, Equilibrium]:
    (problem,), (change,) = primals, tangents
    found = rest(problem, start=start, relaxation=relaxation)
    force, load = eqx.filter_jvp(lambda x: x.force(found.state), (problem,), (change,))
    # `None` where the force on a leaf does not depend on what changes.
    load = jax.tree.map(lambda f, x: jnp.zeros_like(f) if x is None else x, force, load, is_leaf=lambda x: x is None)
    _, energy = eqx.filter_jvp(lambda x: x.value(found.state), (problem,), (change,))
    ds = relaxation.respond(problem, found.state, load)
    nothing: Any = None
    return found, Equilibrium(ds, energy, nothing, nothing, nothing)


def resting(x: Any, found: Equilibrium, throw: bool, what: str) -> Any:
    """Return `x`, or raise at run time if the relaxation did not come to rest."""
    if not throw:
        return x
    return refuse_if(
        x,
        ~found.converged,
        f"equilibrium: {what} did not come to rest. The largest force left is {{}}, above the tolerance of the solver. "
        "Either (a) more steps are needed: raise max_steps of the solver, or use Newton() for a small system; (b) the "
        "step is too long and the state jumps about: shorten it; (c) the tolerance is below the rounding error of the "
        "forces: raise it, or use float64; (d) the energy has no minimum, or is not finite where the state went. "
        "throw=False returns the state as it is, but its gradient may be wrong.",
        found.residual,
    )
