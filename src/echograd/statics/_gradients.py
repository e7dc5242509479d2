"""Gradients of equilibria: the implicit function theorem and equilibrium propagation."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._internal import _tree
from .._internal._energy import reading
from .._internal._reverse_rule import reverse_rule
from ..nudge import AbstractNudge
from ..nudge._base import relative_load
from ..nudge._checks import checked_nudge
from ._base import AbstractRelaxation, rest, resting
from ._static_problem import Equilibrium, StaticProblem, only, symmetric


class AbstractStaticGradient(eqx.Module):
    """Relax a state, and define the derivative of the result.

    Example:
        ```python
        class Blind(eg.statics.AbstractStaticGradient):  # its derivative is zero
            def relax(self, problem, start, relaxation):
                return relaxation.relax(jax.lax.stop_gradient(problem), start)

        eg.equilibrium(lambda s, u: jnp.sum(s**2 - s), jnp.zeros(3), gradient=Blind())
        ```
    """

    @abc.abstractmethod
    def relax(self, problem: StaticProblem, start: PyTree, relaxation: AbstractRelaxation) -> Equilibrium:
        """Return the equilibrium found from `start`, differentiable in `problem`."""


class Implicit(AbstractStaticGradient):
    r"""Differentiate the condition of rest (the implicit function theorem): exact, one linear solve.

    $\partial E/\partial s = 0$ along the equilibrium gives $\frac{ds}{d\theta} = -(E_{ss})^{-1} E_{s\theta}$. Either
    mode, any order. It is the reference for equilibrium propagation; a physical machine cannot compute it.

    Raises:
        RunError: (at run time) if the state is not at rest or the linear system is singular.

    Source: L. Almeida (1987) and F. Pineda (1987), recurrent backpropagation.

    Example:
        ```python
        net = eg.nn.ResistiveNet(3, 2, resistors=[(0, 2), (2, 1)])
        volts = jnp.array([1.0, 0.0])
        eg.equilibrium(net, jnp.zeros(1), volts, gradient=eg.Implicit(), solver=eg.Newton())
        ```
    """

    def relax(self, problem: StaticProblem, start: PyTree, relaxation: AbstractRelaxation) -> Equilibrium:
        found = rest(problem, start=jax.lax.stop_gradient(start), relaxation=relaxation)
        return _checked_equilibrium(problem, found, relaxation)


class EP(AbstractStaticGradient):
    r"""Equilibrium propagation: relax, nudge, relax again, and compare the slopes of the energy in the parameters.

    The cotangent $\bar c = \partial C/\partial s$ of the state of rest tilts the energy, $E - \beta \langle \bar c, s
    \rangle$, and the equilibrium $s_\beta$ found from the free one gives

    $$\frac{dC}{d\theta} = -\frac{d}{d\beta} \frac{\partial E}{\partial \theta}(s_\beta, u; \theta) \Big|_{\beta = 0}$$

    for parameters and inputs alike. This is the gradient at the fixed point, the one of `Implicit()`. It is the static
    limit of Lagrangian equilibrium propagation, $L = -E$: nothing moves, and there is no boundary residual. The
    derivative with respect to the initial state is zero. Reverse mode only; second derivatives are forward over
    reverse, as `jax.hessian` takes them.

    Args:
        nudge: how $d/d\beta$ is taken: `Infinitesimal()` (default), the linear response of the equilibrium, exact to
            rounding; or `Symmetric(beta)`, `OneSided(beta)`, ..., by more relaxations, as a machine does. A finite
            nudge must leave the state in the basin of the free equilibrium. In a box, units that the nudge moves to or
            from a bound add to its error. With `beta="auto"` the tolerance of the solver counts as the noise.

    Raises:
        RunError: (at run time) if a relaxation does not come to rest, if the derivative of the force is not symmetric,
            or if a finite nudge is lost in the tolerance of the solver.

    Source: B. Scellier and Y. Bengio, Front. Comput. Neurosci. 11 (2017) 24, eq. 9; A. Laborieux et al., Front.
    Neurosci. 15 (2021) 633674, for symmetric nudges.

    Example:
        ```python
        def loss(k, gradient=eg.EP(eg.Symmetric(1e-3))):
            found = eg.equilibrium(lambda s, u: jnp.sum(k * s**2 + s**4 - s), jnp.zeros(3), gradient=gradient)
            return jnp.sum((found.state - 1.0) ** 2)

        gradient = jax.grad(loss)(jnp.ones(3))
        ```
    """

    nudge: AbstractNudge

    def __init__(self, nudge: AbstractNudge | None = None) -> None:
        self.nudge = checked_nudge("EP", nudge)

    def relax(self, problem: StaticProblem, start: PyTree, relaxation: AbstractRelaxation) -> Equilibrium:
        found = _relax(problem, jax.lax.stop_gradient(start), self, relaxation)
        energy = _stationary(problem, found.state)
        return Equilibrium(found.state, energy, found.residual, found.steps, found.converged)


@eqx.filter_custom_jvp
def _stationary(problem: StaticProblem, state: PyTree) -> Float[Array, ""]:
    """Return the energy of a state of rest. Its first derivative is with respect to the problem alone.

    The energy is stationary in the state. The slope depends on the state, so the second derivative has both parts.
    """
    return problem.value(state)


@_stationary.def_jvp
def _stationary_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (problem, state), (change, _) = primals, tangents
    _, slope = eqx.filter_jvp(lambda x: x.value(state), (problem,), (change,))
    return _stationary(problem, state), slope


def _checked_equilibrium(problem: StaticProblem, found: Equilibrium, relaxation: AbstractRelaxation) -> Equilibrium:
    """Return the equilibrium, or raise at run time if it is not at rest."""
    state = resting(found.state, found, problem.throw, "the state")
    residual = jax.lax.stop_gradient(found.residual)
    return Equilibrium(state, found.energy, residual, found.steps, found.converged)


def _relax_free(problem: StaticProblem, start: PyTree, ep: EP, relaxation: AbstractRelaxation) -> Equilibrium:
    del ep
    return _checked_equilibrium(problem, relaxation.relax(problem, start), relaxation)


def _forward(
    problem: StaticProblem, start: PyTree, ep: EP, relaxation: AbstractRelaxation
) -> tuple[Equilibrium, PyTree]:
    del ep
    # `rest` has derivatives of its own, which second derivatives need.
    found = _checked_equilibrium(problem, rest(problem, start=start, relaxation=relaxation), relaxation)
    state = symmetric(problem, found.state, found.state, "EP") if problem.throw else found.state
    return Equilibrium(state, found.energy, found.residual, found.steps, found.converged), state


def _backward(
    state: PyTree,
    bar: Equilibrium,
    wanted: StaticProblem,
    static: StaticProblem,
    start: PyTree,
    ep: EP,
    relaxation: AbstractRelaxation,
) -> PyTree:
    del start
    cotangent = jax.tree.map(
        lambda s, b: jnp.zeros_like(s) if b is None else b, state, bar.state, is_leaf=lambda x: x is None
    )
    return nudged_rest(wanted, static, state, cotangent, ep.nudge, relaxation)


_relax = reverse_rule(_relax_free, _forward, _backward)


@eqx.filter_jit
def nudged_rest(
    wanted: StaticProblem,
    static: StaticProblem,
    state: PyTree,
    cotangent: PyTree,
    nudge: AbstractNudge,
    relaxation: AbstractRelaxation,
) -> StaticProblem:
    r"""Return $-\frac{d}{d\beta} \partial E/\partial\theta$ for the leaves of `wanted`, by relaxing from `state`."""
    problem: StaticProblem = eqx.combine(wanted, static)
    dtype = jax.tree.leaves(state)[0].dtype
    # The noise is the tolerance of the relaxation, passed as a number of steps with an equal rounding error.
    steps = max(1, round((relaxation.accuracy(dtype) / float(jnp.finfo(dtype).eps)) ** 2))
    beta = jax.lax.stop_gradient(nudge.strength(state, _load(problem, state, cotangent), steps))

    def pushed(beta: Float[Array, ""], s: PyTree) -> tuple[PyTree, StaticProblem]:
        tilted = problem.loaded(jax.tree.map(lambda c: _scaled(beta, c), cotangent))
        found = rest(tilted, start=jax.lax.stop_gradient(s), relaxation=relaxation)
        s = resting(found.state, found, problem.throw, "a nudged state")
        if problem.throw:
            push = jnp.abs(beta) * _tree.max_abs(cotangent)
            s = eqx.error_if(
                s,
                (push > 0) & (found.residual > 0.1 * push),
                "EP: the force that the relaxation left over is more than 0.1 of the nudge, so nudged states do not "
                'give a gradient. Raise beta, pass beta="auto", lower the tolerance of the solver, or use '
                "Infinitesimal().",
            )

        def action(wanted: StaticProblem, s: PyTree) -> Array:
            return -eqx.combine(wanted, static).value(s)

        return s, reading(action, wanted, s)

    ensemble, total = nudge.advance(beta, pushed, nudge.start(state))
    # If bounds hold all coordinates with a cotangent, nothing moves and nothing is lost in rounding.
    moving = _tree.norm(only(problem.free(state, problem.force(state)), cotangent))
    return nudge.check(total, beta, ensemble, moving, steps) if problem.throw else total


def _load(problem: StaticProblem, state: PyTree, cotangent: PyTree) -> Float[Array, ""]:
    """Return the relative response of the state per unit of strength, from its stiffness along the cotangent."""
    problem, state, cotangent = _tree.fixed((problem, state, cotangent))
    size = _tree.norm(cotangent)
    direction = _tree.scale(1 / jnp.where(size > 0, size, 1), cotangent)
    curved = jax.jvp(jax.grad(problem.value), (state,), (direction,))[1]
    stiffness = jnp.abs(_tree.dot(direction, curved))
    sound = (stiffness > 0) & jnp.isfinite(stiffness)
    return relative_load(size / jnp.where(sound, stiffness, 1), state)


def _scaled(beta: Array, c: Array) -> Array:
    """Return `beta * c` in the precision of `c`, complex if the strength is."""
    dtype = _tree.complexified(c.dtype) if jnp.iscomplexobj(beta) else c.dtype
    return beta.astype(dtype) * c.astype(dtype)
