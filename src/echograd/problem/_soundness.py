"""Checks of a run: its clock, the stability of its step, its end, and its energy."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._internal import _tree
from .._internal._jaxpr import live
from ..friction import Damped
from ..integrators import State
from ..systems import Dissipative, SeparableHamiltonian
from ._problem import Outcome, Problem
from ._results import RESULTS, Finding, raise_first
from ._save import ChosenNodes

# The clock of a system that reads it must resolve this part of a step.
_TICK = 1 / 64

# A run has blown up if its energy has changed by more than `_FACTOR` times what it moved with at the start, and by more
# than `_SHARE` times what moves at the end.
_FACTOR, _SHARE = 1e3, 0.25


def coarse_clock(problem: Problem, z0: State) -> list[Finding]:
    """Check that the floating-point numbers about the times of the run are fine enough for dt."""
    given = problem.given
    save = problem.save
    if _reads(problem, z0)[0] or (isinstance(save, ChosenNodes) and save.between):
        limit = _TICK
    elif save.stride(problem.steps) is not None or save.nodes is not None:
        limit = 1.0  # only the returned times must be distinct
    else:
        return []
    latest = jnp.maximum(jnp.abs(given.t0), jnp.abs(given.time(jnp.asarray(problem.steps, jnp.int32))))
    spacing = jax.lax.stop_gradient(latest * jnp.finfo(latest.dtype).eps / given.h)
    message = (
        f"solve: the spacing of {given.h.dtype} numbers about the times of this run is {{}} of dt, above {limit:g}, so "
        "the clock cannot follow the steps. Start nearer to t0 = 0 (shift the phase of what depends on time), use "
        "float64, or take longer steps."
    )
    return [Finding(RESULTS.coarse_clock, ~(spacing <= limit), message, spacing)]


def unstable_step(problem: Problem, z0: State) -> list[Finding]:
    r"""Check that the step is stable for the system linearised about the initial state.

    The squared frequencies of the oscillation about $z_0$ are the eigenvalues of $V''T''$. Power iteration on a force
    $f$ gives the Rayleigh quotient $\langle w, V''w\rangle / \langle f, w\rangle$ with $w = T''f$, a lower bound of
    the largest eigenvalue. No step feels the curvature of a kink. The quotient is therefore also taken with the change
    of the force over the distance of one step, and the smaller of the two counts.
    """
    limit = problem.integrator.stability_limit
    given, (q0, p0) = _tree.fixed((problem.given, z0))
    system, u0 = given.system, _tree.take(given.u, 0)
    if not isinstance(system, SeparableHamiltonian | Damped) or limit == jnp.inf:
        return []

    def force(q: PyTree) -> PyTree:
        return jax.grad(lambda q: system.potential(given.t0, q, u0))(q)

    def mobility(f: PyTree) -> PyTree:
        return jax.jvp(jax.grad(lambda p: system.kinetic(given.t0, p)), (p0,), (f,))[1]

    def stiffness(w: PyTree) -> PyTree:
        return jax.jvp(force, (q0,), (w,))[1]

    def unit(x: PyTree) -> tuple[Array, PyTree]:
        size = _tree.max_abs(x)
        size = jnp.where(size > 0, size, 1)
        return size, _tree.scale(1 / size, x)

    def inertia(f: PyTree, w: PyTree, size: Array) -> Array:
        """Return ⟨w, M w⟩ of w = T''f / size; infinite where it is not positive."""
        weight = _tree.dot(f, w) / size
        return jnp.where(weight > 0, weight, jnp.inf)

    def iterate(_: Any, f: PyTree) -> PyTree:
        return unit(stiffness(unit(mobility(f))[1]))[1]

    f = jax.lax.fori_loop(0, 24, iterate, unit(_tree.spread(q0))[1])
    size, w = unit(mobility(f))
    mass = inertia(f, w, size)
    # The distance of a step: by the velocity, or by the force where the velocity is zero.
    velocity = jax.grad(lambda p: system.kinetic(given.t0, p))(p0)
    far = given.h * _tree.max_abs(velocity)
    far = jnp.where(far > 0, far, given.h * (given.h * _tree.max_abs(mobility(force(q0)))))
    away = _tree.scale(far, w)
    change = _tree.subtract(force(_tree.add(q0, away)), force(_tree.subtract(q0, away)))
    felt = jnp.where(far > 0, _tree.dot(w, change) / jnp.where(far > 0, 2 * far, 1), jnp.inf)
    measured = given.h * (given.h * jnp.minimum(_tree.dot(w, stiffness(w)), felt) / mass)
    message = (
        "solve: the step is unstable. About the initial state the fastest oscillation has (dt * frequency)^2 = {}, "
        f"above {limit:.4g}, the limit of {type(problem.integrator).__name__}, so it would grow without bound. Shorten "
        "dt to below sqrt(limit) / (highest angular frequency), or soften the stiffest part."
    )
    return [Finding(RESULTS.unstable_step, measured > limit * (1 + 1e-5), message, measured)]


def blown_up(problem: Problem, z0: State, final: State) -> list[Finding]:
    r"""Check that the energy of an autonomous system stayed near its initial value.

    A step that is too long somewhere on the path shows in the energy: it grows by orders of magnitude while all numbers
    are still finite. What moves is measured by $T = \tfrac12\, p \cdot \partial H/\partial p$ and the rest, $H - T$.
    """
    system = problem.given.system
    if isinstance(system, Dissipative | Damped) or any(_reads(problem, z0)):
        return []
    given, final, z0 = _tree.fixed((problem.given, final, z0))
    u0 = _tree.take(given.u, 0)

    def measured(z: State) -> tuple[Array, Array, Array]:
        energy, (dq, dp) = jax.value_and_grad(lambda z: given.system(given.t0, *z, u0))(z)
        return energy, 0.5 * _tree.dot(z[1], dp), 0.5 * _tree.dot(z[0], dq)

    both = jax.tree.map(lambda x, y: jnp.stack([x, y]), z0, final)
    energy, kinetic, virial = jax.lax.map(measured, both)
    change = jnp.abs(energy[1] - energy[0])
    began = jnp.abs(kinetic[0]) + jnp.abs(virial[0])
    moving = jnp.sum(jnp.abs(kinetic)) + jnp.abs((energy[1] - kinetic[1]) - (energy[0] - kinetic[0]))
    wrong = (began > 0) & (change > _FACTOR * began) & (change > _SHARE * moving)
    message = (
        "solve: the run has blown up. Energy is conserved here, and it has changed by {} times what the system had at "
        "the start, so the step is too long somewhere on the path (steep walls, close encounters). Halve dt until the "
        "energy stays, soften the potential, or pass throw=False to see the run."
    )
    return [Finding(RESULTS.blown_up, wrong, message, change / jnp.where(began > 0, began, 1))]


def finite_cotangents(bars: PyTree) -> PyTree:
    """Return the cotangents, or raise at run time if they are not finite."""
    sound = _tree.all_finite(bars)
    return _tree.check_heads(
        lambda x: eqx.error_if(
            x,
            ~sound,
            "solve: the trajectory is finite and its gradient is not. Likely causes: (a) an energy without a second "
            "derivative where the path goes (abs(q)**1.5, sqrt or a norm at zero, eigenvalues that cross): add a small "
            "constant under the root; (b) a tangent that outgrew the floats, as in chaotic motion: use fewer steps or "
            "float64; (c) a finite nudge that is too strong; (d) a loss whose own derivative is not finite.",
        ),
        bars,
    )


@eqx.filter_custom_jvp
def watched(x: PyTree) -> PyTree:
    """Return `x`. Its cotangents are checked to be finite; its tangents are not changed."""
    return x


@watched.def_jvp
def _watched_jvp(primals: Any, tangents: Any) -> tuple[PyTree, PyTree]:
    (x,), (tangent,) = primals, tangents
    if not jax.tree.leaves(tangent):
        return watched(x), tangent
    # The identity, as a linear map whose transpose runs the check.
    same = lambda v: v  # noqa: E731

    def solved(v: Array) -> Array:
        return jax.lax.custom_linear_solve(same, v, lambda _, v: v, lambda _, bar: finite_cotangents(bar))

    # Array by array: JAX cannot differentiate a solve again if only some of its right-hand sides have a tangent.
    return watched(x), jax.tree.map(solved, tangent)


def not_finite(problem: Problem, outcome: Outcome) -> list[Finding]:
    """Check that the final state and the cost are finite, and that an exact run stayed on its grid."""
    findings = []
    if problem.given.grid is not None:
        message = (
            "solve: the state has outgrown the fixed-point range of Leapfrog(exact=True), or is not finite. Pass fewer "
            "`bits` (every one less doubles the range) or use float64. If the state should not have grown, halve dt."
        )
        findings.append(Finding(RESULTS.not_finite, ~_tree.all_finite(outcome.final), message))
    message = (
        "solve: the trajectory is not finite at its end. The step may be too long (halve dt), the system may run away "
        "(an unbounded potential), or the parameters, inputs or initial state already hold a NaN or an infinity."
    )
    wrong = ~(_tree.all_finite(outcome.final) & jnp.isfinite(outcome.cost))
    return [*findings, Finding(RESULTS.not_finite, wrong, message)]


def finite(problem: Problem, outcome: Outcome) -> Outcome:
    """Return `outcome`, or raise at run time if the final state or the cost is not finite.

    The check is attached to small arrays (the final state, the cost, the last kept node), never to the whole buffer.
    """
    if not problem.throw:
        return outcome
    last = jax.tree.map(lambda x: x[-1], outcome.saved)
    final, cost, last = raise_first((outcome.final, outcome.cost, last), not_finite(problem, outcome))
    return Outcome(jax.tree.map(lambda x, y: x.at[-1].set(y), outcome.saved, last), final, cost)


def _reads(problem: Problem, z0: State) -> tuple[bool, bool]:
    """Return whether the program of the energy, or of the forces, uses the time, and whether it uses the inputs."""
    given, (q, p) = problem.given, z0
    system, u = given.system, _tree.take(given.u, 0)

    def program(t: Any, u: Any) -> Any:
        if isinstance(system, Dissipative):
            return system.force(t, q, u)
        if isinstance(system, SeparableHamiltonian):
            return system.kinetic(t, p), system.potential(t, q, u)
        if isinstance(system, Damped):
            one = eqx.tree_at(lambda x: (x.t0, x.u), given, (t, u), is_leaf=lambda x: x is None)
            return problem.integrator.step(one, jnp.asarray(0, jnp.int32), z0)
        return system(t, q, p, u)

    jaxpr = jax.make_jaxpr(program)(given.t0, u).jaxpr
    _, used = live(jaxpr)
    time, *inputs = [v in used for v in jaxpr.invars]
    return time, any(inputs)
