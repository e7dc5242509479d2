"""Gradients of equilibria: what differentiating a state of rest means."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._internal import _tree
from .._internal._energy import reading
from ..nudge import AbstractNudge, relative_load
from ..nudge._checks import checked_nudge
from ._base import AbstractRelaxation, rest, resting
from ._static_problem import Equilibrium, StaticProblem, only, symmetric


class AbstractStaticGradient(eqx.Module):
    """Relaxes a state; differentiating the result is this object's business."""

    @abc.abstractmethod
    def relax(self, problem: StaticProblem, start: PyTree, relaxation: AbstractRelaxation) -> Equilibrium:
        """Return the equilibrium found from `start`, differentiable in `problem`."""


class Implicit(AbstractStaticGradient):
    r"""Differentiate the condition of rest (the implicit function theorem): exact, one linear solve.

    $\partial E/\partial s = 0$ along the equilibrium gives $\frac{ds}{d\theta} = -(E_{ss})^{-1} E_{s\theta}$. Either
    mode, any order. It is what every equilibrium propagation is compared with, and what a machine cannot do.

    Raises:
        RuntimeError: (at run time) if the state is not at rest or the linear system is singular.

    Source: L. Almeida (1987) and F. Pineda (1987), recurrent backpropagation.

    Example:
        ```python
        eg.equilibrium(energy, x0, gradient=eg.Implicit())
        ```
    """

    def relax(self, problem: StaticProblem, start: PyTree, relaxation: AbstractRelaxation) -> Equilibrium:
        found = rest(problem, start=jax.lax.stop_gradient(start), relaxation=relaxation)
        return _checked_equilibrium(problem, found, relaxation)


class EP(AbstractStaticGradient):
    r"""Equilibrium propagation: relax freely, nudge, relax again, and compare what the energy says of the parameters.

    The cotangent $\bar c = \partial C/\partial s$ of the state of rest tilts the energy, $E - \beta \langle \bar c, s
    \rangle$, and the equilibrium $s_\beta$ found from the free one gives

    $$\frac{dC}{d\theta} = -\frac{d}{d\beta} \frac{\partial E}{\partial \theta}(s_\beta, u; \theta) \Big|_{\beta = 0}$$

    for parameters and inputs alike: the gradient at the fixed point, that of `Implicit()`. It is the static limit of
    Lagrangian equilibrium propagation, $L = -E$, where nothing moves and no boundary is left to leave a residual. The
    derivative with respect to the initial state is zero: an equilibrium has forgotten it. Reverse mode; second
    derivatives are forward over reverse, as `jax.hessian` takes them.

    Args:
        nudge: how $d/d\beta$ is taken: `Infinitesimal()` (default), the linear response of the equilibrium, exact to
            rounding; `Symmetric(beta)` or `OneSided(beta)`, second and third relaxations as a machine makes them. A
            finite nudge must leave the state in the basin of the free equilibrium; in a box, units that the nudge
            brings to or from a bound add to its error. `"auto"` takes the tolerance of the solver for the noise.

    Raises:
        RuntimeError: (at run time) if a relaxation does not come to rest, if the derivative of the force is not
            symmetric, or if a finite nudge is lost in what the tolerance leaves open.

    Source: B. Scellier and Y. Bengio, Front. Comput. Neurosci. 11 (2017) 24, eq. 9; A. Laborieux et al., Front.
    Neurosci. 15 (2021) 633674, for symmetric nudges.

    Example:
        ```python
        def loss(energy):
            return jnp.sum((eg.equilibrium(energy, x0, gradient=eg.EP(eg.Symmetric(1e-3))).state - target) ** 2)

        gradient = eqx.filter_grad(loss)(energy)
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
    """Return the energy of a state of rest, in which it is stationary: its first derivative is by the problem alone.

    That derivative is taken at the state, which moves: so the second is by both.
    """
    return problem.value(state)


@_stationary.def_jvp
def _stationary_jvp(primals: Any, tangents: Any) -> tuple[Array, Array]:
    (problem, state), (change, _) = primals, tangents
    _, slope = eqx.filter_jvp(lambda x: x.value(state), (problem,), (change,))
    return _stationary(problem, state), slope


def _checked_equilibrium(problem: StaticProblem, found: Equilibrium, relaxation: AbstractRelaxation) -> Equilibrium:
    """Return what was found, or raise at run time if it is not at rest."""
    state = resting(found.state, found, problem.throw, "the state")
    residual = jax.lax.stop_gradient(found.residual)
    return Equilibrium(state, found.energy, residual, found.steps, found.converged)


@eqx.filter_custom_vjp
def _relax(problem: StaticProblem, start: PyTree, ep: EP, relaxation: AbstractRelaxation) -> Equilibrium:
    del ep
    return _checked_equilibrium(problem, relaxation.relax(problem, start), relaxation)


@_relax.def_fwd
def _forward(
    perturbed: PyTree, problem: StaticProblem, start: PyTree, ep: EP, relaxation: AbstractRelaxation
) -> tuple[Equilibrium, Any]:
    del ep
    # As something with derivatives of its own, which second derivatives take.
    found = _checked_equilibrium(problem, rest(problem, start=start, relaxation=relaxation), relaxation)
    state = symmetric(problem, found.state, found.state, "EP") if problem.throw else found.state
    found = Equilibrium(state, found.energy, found.residual, found.steps, found.converged)
    return found, (state, _tree.as_shapes(perturbed))


@_relax.def_bwd
def _backward(
    residuals: Any,
    bar: Equilibrium,
    perturbed: PyTree,
    problem: StaticProblem,
    start: PyTree,
    ep: EP,
    relaxation: AbstractRelaxation,
) -> PyTree:
    del perturbed, start  # this copy of the former may have been traced
    state, perturbed = residuals
    wanted, static = eqx.partition(problem, _tree.from_shapes(perturbed))
    cotangent = jax.tree.map(
        lambda s, b: jnp.zeros_like(s) if b is None else b, state, bar.state, is_leaf=lambda x: x is None
    )
    return nudged_rest(wanted, static, state, cotangent, ep.nudge, relaxation)


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
    # The tolerance sets how well a state of rest is known. Nudges count in steps: those whose rounding piles up to it.
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
                "EP: the nudge is no larger than the force that the relaxation left over, so the nudged states tell no "
                'gradient. Raise beta, pass beta="auto", lower the tolerance of the solver, or use Infinitesimal().',
            )

        def action(wanted: StaticProblem, s: PyTree) -> Array:
            return -eqx.combine(wanted, static).value(s)

        return s, reading(action, wanted, s)

    ensemble, total = nudge.advance(beta, pushed, nudge.start(state))
    # Where bounds hold all that is pushed, nothing moves and nothing is lost.
    moving = _tree.norm(only(problem.free(state, problem.force(state)), cotangent))
    return nudge.check(total, beta, ensemble, moving, steps) if problem.throw else total


def _load(problem: StaticProblem, state: PyTree, cotangent: PyTree) -> Float[Array, ""]:
    """Return by how much of itself the state answers the nudge per unit of strength, by its stiffness along it."""
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
