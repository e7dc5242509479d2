"""Whether a system is time-reversible, so that it can be run back by an echo: shown by its program, or probed."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._internal import _tree
from .._internal._errors import refuse_if
from ..integrators import State, StepInputs
from ..integrators._base import Direction, is_mirrored, time_reversed
from ..problem import Problem
from ..problem._run import index
from ..systems import Hamiltonian, SeparableHamiltonian
from ..systems._legendre import LegendreHamiltonian
from ._parity import is_even


def limit_of_oddness(z0: State) -> float:
    """Return the largest `oddness` that rounding explains."""
    return 1e3 * _tree.rounding(z0)


def oddness(given: StepInputs, steps: int, z0: State) -> Float[Array, ""] | float:
    r"""Return the largest relative change of forces and velocities under time reversal that probes find.

    With the mirror $\Pi$, the gradient of $H(t, \Pi q, -\Pi p, \Pi_u u) - H(t, q, p, u)$ must vanish. If the program of
    the energy shows that it does, the answer is the number 0. Otherwise probe the gradient: at the initial state and at
    states without any symmetry, at several times of the run with the inputs there, and with a mixture of all inputs,
    since an odd term may be switched on late. The mirror must be an orthogonal involution; its error counts too.
    """
    given, z0 = _tree.fixed((given, z0))
    if surely_even(given, z0):
        return 0.0
    system = given.system
    states, function = _probes(z0), _energy(system)

    def change(t: Float[Array, ""], u: Any, z: State) -> Float[Array, ""]:
        here = jax.grad(lambda z: function(t, *z, u))(z)
        there = jax.grad(lambda z: function(t, *time_reversed(system, z), system.mirror_input(u)))(z)
        # Forces and velocities each on their own scale, so that a strong force cannot hide an odd kinetic energy. A
        # probe outside the domain of the energy gives NaN: no evidence.
        parts = [_tree.max_abs(_tree.subtract(a, b)) / _tree.max_abs(a) for a, b in zip(here, there, strict=True)]
        return jnp.maximum(*(jnp.where(jnp.isnan(part), 0, part) for part in parts))

    times, inputs = _probe_points(given, steps)
    found = jnp.max(jax.lax.map(lambda x: jax.lax.map(lambda z: change(x[0], x[1], z), states), (times, inputs)))
    if type(system).mirror is not Hamiltonian.mirror:
        x, y = _tree.spread(z0[0], 1), _tree.spread(z0[0], 2)
        twice = _tree.subtract(system.mirror(system.mirror(x)), x)
        turned = _tree.dot(system.mirror(x), system.mirror(y)) - _tree.dot(x, y)
        found = jnp.maximum(found, _tree.max_abs(twice))
        found = jnp.maximum(found, jnp.abs(turned) / (_tree.norm(x) * _tree.norm(y)))
    return found


def readings_are_even(wanted: StepInputs, rest: StepInputs, steps: int, z0: State) -> Bool[Array, ""] | np.bool_:
    r"""Return True unless a probe shows that $\partial H/\partial\theta$ changes under time reversal.

    An even energy is not enough. A parameter may multiply a term that is odd in the momentum (a wind, a magnetic field,
    the phase of a hopping amplitude). Where this parameter is zero the energy is even, but an echo reads
    $\partial H/\partial\theta$ with the wrong sign. Systems with a mirror pass: they are read in forward time.
    """
    if is_mirrored(eqx.combine(wanted, rest).system, z0[0]):
        return np.True_
    wanted, rest, z0 = _tree.fixed((wanted, rest, z0))
    if surely_even(eqx.combine(wanted, rest), z0):
        return np.True_
    system = eqx.combine(wanted, rest).system
    times, inputs = _probe_points(eqx.combine(wanted, rest), steps)
    chosen = jax.tree.map(lambda u, w: None if w is None else u, inputs, wanted.u, is_leaf=lambda x: x is None)
    others = jax.tree.map(lambda u, w: u if w is None else None, inputs, wanted.u, is_leaf=lambda x: x is None)

    def measured(point: Any, z: State) -> tuple[PyTree, PyTree]:
        """Return the size of each slope, and of its change under time reversal."""
        t, chosen, other = point

        def energy(parameters: Any, turned: bool) -> Any:
            system_, u = eqx.combine(parameters[0], rest.system), eqx.combine(parameters[1], other)
            function = _energy(system_)
            return function(t, *time_reversed(system, z), system_.mirror_input(u)) if turned else function(t, *z, u)

        here, there = (jax.grad(energy)((wanted.system, chosen), turned) for turned in (False, True))
        return jax.tree.map(_tree.max_abs, here), jax.tree.map(_tree.max_abs, _tree.subtract(here, there))

    at = jax.lax.map(lambda x: jax.lax.map(lambda z: measured(x, z), _probes(z0)), (times, chosen, others))
    sizes, changes = map(jax.tree.leaves, at)
    largest = _tree.max_abs(sizes)
    # Ignore slopes below the rounding errors of the largest one, and NaNs.
    limits = [_tree.rounding(z0) * (1e3 * jnp.max(size) + 10 * largest) for size in sizes]
    odd = [jnp.max(change) > limit for change, limit in zip(changes, limits, strict=True)]
    return ~jnp.any(jnp.stack([jnp.asarray(False), *odd]))


def _probes(z0: State) -> State:
    """Return the initial state and two states of its scale without any symmetry, stacked."""
    scale = jnp.maximum(*map(_tree.max_abs, z0))
    scale = jnp.where(scale > 0, scale, 1)
    probe = _tree.add(z0, _tree.scale(scale, _tree.spread(z0)))
    return jax.tree.map(lambda *x: jnp.stack(x), z0, (z0[0], probe[1]), probe)


def surely_even(given: StepInputs, z0: State) -> bool:
    """Return whether the program shows that the energy and all its slopes are even in the momentum."""
    system, (q, p), u = given.system, z0, _tree.take(given.u, 0)
    unturned = zip(jax.tree.leaves(system.mirror_input(u)), jax.tree.leaves(u), strict=True)
    if is_mirrored(system, q) or any(a is not b for a, b in unturned):
        return False
    return is_even(lambda p: _energy(system)(given.t0, q, p, u), p)


def _energy(system: Any) -> Any:
    """Return the part of an energy that may be odd in the momentum.

    That is the kinetic part if the system is separable. For a Lagrangian system it is the Lagrangian, which must be
    even in the velocity; the momenta of a probe then stand for velocities.
    """
    kind = type(system)
    plain = kind.mirror is Hamiltonian.mirror and kind.mirror_input is Hamiltonian.mirror_input
    if plain and isinstance(system, SeparableHamiltonian) and kind.__call__ is SeparableHamiltonian.__call__:
        return lambda t, q, p, u: system.kinetic(t, p)
    return system.lagrangian if isinstance(system, LegendreHamiltonian) else system


def _probe_points(given: StepInputs, steps: int) -> tuple[Float[Array, " probes"], PyTree]:
    """Return times and inputs to probe a system with: those of some steps, the last with a mixture of all inputs."""
    # Not at simple fractions of the run, where a term that is periodic in the run would vanish.
    nodes = jnp.asarray([round(x * (steps - 1)) for x in (0, 0.382, 0.764, 1, 0.618)], jnp.int32)
    inputs = jax.tree.map(lambda u, v: u[nodes].at[-1].set(v), given.u, mixed_input(given, steps))
    return given.t0 + nodes.astype(given.h.dtype) * given.h, inputs


def mixed_input(given: StepInputs, steps: int) -> PyTree:
    """Return a weighted average of all inputs, with irregular weights that are all nonzero.

    Leaves that are not floating-point numbers are taken from the middle of the run.
    """
    numbers, others = eqx.partition(given.u, eqx.is_inexact_array)

    def add(k: Int[Array, ""], carry: Any) -> Any:
        total, sums = carry
        weight = _tree.hashed(index(k), total.dtype)
        return total + weight, _tree.add(sums, _tree.scale(weight, _tree.take(numbers, k)))

    # In a loop: an array of all weights would need memory that grows with the number of steps.
    start = jnp.zeros((), given.h.dtype), jax.tree.map(lambda u: jnp.zeros_like(u[0]), numbers)
    total, sums = jax.lax.fori_loop(0, steps, add, start)
    return eqx.combine(_tree.scale(1 / total, sums), jax.tree.map(lambda u: u[steps // 2], others))


def check_time_reversal(given: StepInputs, steps: int, z0: State, *, what: str, or_else: str) -> State:
    """Return `z0`, or raise at run time if the system has no time reversal; `what` and `or_else` complete the text."""
    found, limit = oddness(given, steps, z0), limit_of_oddness(z0)
    if isinstance(found, float | int):
        return z0
    return refuse_if(
        z0,
        found > limit,
        f"{what} is not time-reversible: its energy is not even in the momentum, H(t, q, -p, u) != H(t, q, p, u). Time "
        f"reversal changes its forces or velocities by {{}} of their size; rounding explains {limit:.0e}. From the "
        "flipped state the machine would not retrace its path, and its readings would not be a gradient. Remove the "
        "part that is odd in p (a drift or magnetic term), or give the system the `mirror` under which it is even (an "
        f"orthogonal involution){or_else}.",
        found,
    )


def way_back(problem: Problem, z0: State) -> Direction:
    """Return the direction of the nudged run: an echo if the program shows that the energy is even, else backward.

    Where an echo retraces the path, the inverse map makes the same path with the same readings. But the inverse map
    retraces and reads correctly for any energy, also for one whose evenness is not shown.
    """
    return "echo" if surely_even(problem.given, z0) else "backward"
