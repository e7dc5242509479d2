"""`equilibrium`: relax to a state of rest, differentiable by a gradient of choice."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, PyTree

from .._internal import _checks, _tree
from .._internal._errors import ArgumentError, plain_errors
from .._internal._program import as_program
from ..nudge._checks import is_holomorphic
from ._base import AbstractRelaxation
from ._descent import Relaxation
from ._gradients import EP, AbstractStaticGradient
from ._static_problem import Equilibrium, StaticProblem

Energy = Callable[[PyTree, PyTree], Float[Array, ""]]


def equilibrium(
    energy: Energy,
    x0: PyTree,
    inputs: PyTree = None,
    *,
    gradient: AbstractStaticGradient | None = None,
    solver: AbstractRelaxation | None = None,
    bounds: tuple[float, float] | None = None,
    throw: bool = True,
) -> Equilibrium:
    r"""Relax a state until its energy is stationary; the result is differentiable by the gradient you choose.

    $$\frac{\partial E}{\partial s}(s, u; \theta) = 0, \quad {\rm low} \le s \le {\rm high}$$

    Differentiate anything computed from the state with `jax.grad` or `equinox.filter_grad`, with respect to the
    energy's array leaves, the inputs, and arrays that the energy closes over. Works under `jit`, `vmap` and inside any
    JAX code. A batch may also be one state: sum the energies of copies that do not interact, and the gradients come
    summed over the batch.

    Args:
        energy: `(s, u) -> scalar`, an `equinox.Module` whose array leaves are the parameters, or a function.
        x0: state where the relaxation starts, a PyTree of real arrays.
        inputs: the argument `u` of the energy, a PyTree of arrays, or `None`.
        gradient: `EP()` by default, equilibrium propagation with an infinitesimal nudge. `Implicit()` is the implicit
            function theorem. `Backprop()` differentiates all of the solver's `max_steps` moves: the reference for a
            fixed number of steps, which tends to the other two for many steps.
        solver: `Relaxation()` by default; `LayerwiseRelaxation()` for layered states, `Newton()` for small ones.
        bounds: `(low, high)`, a box for every coordinate, as clipped ("hard sigmoid") units have; infinities are
            allowed. A coordinate that its force presses against a bound stays there and does not respond.
        throw: whether to raise at run time if a state is not at rest or the gradient is not reliable. `False` returns
            any result, also that of a truncated relaxation.

    Returns:
        `Equilibrium(state, energy, residual, steps, converged)`.

    Raises:
        ArgumentTypeError: if the energy, gradient or solver has the wrong type, or the state has half precision.
        ArgumentError: if the energy is not one real number, the state is not real, or the box is empty.
        RunError: (at run time, also under `jit`) if the state did not come to rest, or the gradient is not reliable.

    Source: B. Scellier and Y. Bengio, Front. Comput. Neurosci. 11 (2017) 24.

    Example:
        ```python
        def energy(s, u):
            return 0.5 * jnp.sum(s**2) - jnp.tanh(s) @ weights @ jnp.tanh(s) - u @ s

        weights, u = 0.1 * jnp.ones((3, 3)), jnp.arange(3.0)
        found = eg.equilibrium(energy, jnp.zeros(3), u)
        ```
    """
    gradient = EP() if gradient is None else gradient
    solver = Relaxation() if solver is None else solver
    what = "a gradient of states of rest. Pass EP(nudge), Implicit() or Backprop(); Echo() is for trajectories"
    _checks.instance("equilibrium", "gradient", gradient, AbstractStaticGradient, what)
    what = "a relaxation solver. Pass Relaxation() or another, with its parentheses"
    _checks.instance("equilibrium", "solver", solver, AbstractRelaxation, what)
    _checks.function("equilibrium", "energy", energy, "(s, u) -> scalar. Pass an instance")
    _checks.flag("equilibrium", "throw", throw)
    if bounds is not None:
        what = "the lower bound and the upper bound are numbers, the first below the second"
        low, high = _checks.interval("equilibrium", "bounds", bounds, what, lambda x: True)
        if low == high:
            raise ArgumentError(f"equilibrium: bounds={bounds!r} leave no room; give (low, high) with low < high.")
        bounds = None if (low, high) == (-math.inf, math.inf) else (low, high)

    for name, tree in (("energy", energy), ("x0", x0), ("inputs", inputs)):
        _tree.check_usable("equilibrium", name, tree)
    inputs = _checks.numbers("equilibrium", "inputs", inputs)
    x0 = _checks.state("equilibrium", "x0", x0)
    if not sum(x.size for x in jax.tree.leaves(x0)):
        raise ArgumentError("equilibrium: x0 holds no numbers, so there is nothing to relax.")
    # A common error is to pass a vector field, the slope of an energy.
    _checks.scalar("equilibrium", "energy(s, u)", energy, x0, inputs)
    nudged = (_tree.as_complex(x0), inputs) if is_holomorphic(gradient) else None
    problem = StaticProblem(as_program(energy, x0, inputs, nudged=nudged), inputs, None, bounds, throw)
    with _checks.reverse_mode("equilibrium", gradient), plain_errors():
        return _relax(_tree.fixed(gradient), problem, x0, solver)


@eqx.filter_jit
def _relax(gradient: Any, problem: StaticProblem, x0: PyTree, solver: AbstractRelaxation) -> Equilibrium:
    return gradient.relax(problem, x0, solver)
