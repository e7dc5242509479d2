"""Diagnose a system of forces with damping: its linearity, its kind of damping, its reciprocity and its twist."""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._internal import _tree
from ..gradients import Backprop, Reciprocal
from ..gradients._reciprocity import Reciprocity, dense, reciprocal_tolerance, reciprocity
from ..integrators import State
from ..problem import Problem
from ._diagnosis import Diagnosis, Finding, sampled_nodes
from ._mirrors import asymmetry, candidates, describe, symmetrising_twist

# Up to so many coordinates the twist is sought among all matrices, a linear problem with its square of unknowns.
_GENERAL = 16

_GYROSCOPIC = (
    "Write the system as a Hamiltonian or a Lagrangian with its gyroscopic term: Glep() is exact on it, and so is "
    "Echo() with a mirror that reverses the term. As it stands, Backprop()."
)


class _Linearised(eqx.Module):
    """The linearised system along a path, with the stiffness at several nodes."""

    mass: Float[Array, "n n"]
    damping: Float[Array, "n n"]
    stiffness: Float[Array, "samples n n"]
    twist: Float[Array, "n n"]
    reciprocity: Reciprocity


@eqx.filter_jit
def _linearised(problem: Problem, path: PyTree) -> _Linearised:
    given, n, q0 = problem.given, problem.steps, _tree.take(path, 0)
    system, nodes = given.system, sampled_nodes(n)
    flat = jax.vmap(_tree.flat)(path)
    unravel = jax.flatten_util.ravel_pytree(q0)[1]

    def stiffness(k: Array, q: Array) -> Array:
        k = jnp.minimum(k, n - 1)
        return -jax.jacfwd(lambda q: _tree.flat(system.force(given.time(k), unravel(q), _tree.take(given.u, k))))(q)

    return _Linearised(
        dense(system.inertia, q0),
        dense(system.friction, q0),
        jax.vmap(stiffness)(nodes, flat[nodes]),
        dense(system.twisted, q0),
        reciprocity(problem, path),
    )


def diagnose_forces(
    problem: Problem, path: State, retrace: float, mirrors: Sequence[Array], tolerance: float
) -> Diagnosis:
    """Diagnose a dissipative system, given its path and the retrace error of an echo."""
    found = jax.tree.map(lambda x: np.asarray(x, float), _linearised(problem, path[0]))
    bent, rough = float(found.reciprocity.forces), float(found.reciprocity.friction)
    exact = min(tolerance, reciprocal_tolerance(problem.given.h.dtype))
    kind, rate, words = _damping(found, rough, tolerance)
    untwisted = np.array_equal(found.twist, np.eye(len(found.twist)))
    asymmetries = _asymmetries(found, found.twist)
    findings = [
        Finding("damping", "-" if rate is None else f"{rate:.3g}", words),
        Finding("nonlinearity of the forces", bent, "linear" if bent <= exact else "nonlinear"),
        *(
            Finding(
                f"asymmetry of the {name}" + ("" if untwisted else ", up to the twist"),
                x,
                "reciprocal" if x <= tolerance else "not reciprocal",
            )
            for name, x in asymmetries.items()
        ),
        Finding("retrace error of a plain echo", retrace, "retraces" if retrace <= tolerance else "leaves its path"),
    ]
    symmetric = untwisted and max(asymmetries["mass"], asymmetries["stiffness"]) <= tolerance
    if not max(bent, rough) <= exact:
        advice = _nonlinear_advice(found, kind, rate, symmetric, tolerance)
        return Diagnosis(findings, kind, rate, None, Backprop(), advice)
    if max(asymmetries.values()) <= exact:
        advice = "Reciprocal(): the same machine, started at rest, turns the reversed error into the exact gradient."
        return Diagnosis(findings, kind, rate, None, Reciprocal(), advice)
    finding, twist, advice = _twist(found, mirrors, symmetric and kind == "gyroscopic", tolerance)
    return Diagnosis([*findings, finding], kind, rate, twist, Backprop(), advice)


def _asymmetries(found: _Linearised, twist: np.ndarray) -> dict[str, float]:
    stiffness = max(asymmetry(np.asarray(x), twist) for x in found.stiffness)
    mass, damping = (asymmetry(np.asarray(x), twist) for x in (found.mass, found.damping))
    return {"mass": mass, "damping": damping, "stiffness": stiffness}


def _twist(
    found: _Linearised, mirrors: Sequence[Array], gyroscopic: bool, tolerance: float
) -> tuple[Finding, np.ndarray | None, str]:
    """Find the twist that makes a linear system reciprocal. Return the finding, the twist and the advice."""
    n = len(found.twist)
    for tried, twist in enumerate(candidates(n, mirrors), 1):
        if max(_asymmetries(found, twist).values()) <= tolerance:
            advice = (
                f"Declare {describe(twist)} as the twist of the system and Reciprocal() is exact. As it stands, "
                "Backprop()."
            )
            return Finding("twists", f"{tried} tried", describe(twist)), twist, advice
    verdict = "none of the usual ones makes it reciprocal"
    # Without friction, symmetric forces have an energy, to which the gyroscopic term belongs.
    if gyroscopic:
        return Finding("twists", "-", verdict), None, _GYROSCOPIC
    if n <= _GENERAL:
        twist = symmetrising_twist(list(map(np.asarray, (found.mass, found.damping, *found.stiffness))), tolerance)
        if twist is not None:
            advice = (
                f"Declare {describe(twist)} as the twist of the system and Reciprocal() is exact. The twist depends on "
                "the values of the parameters: unless you know it from the construction of the system, find it again "
                "after every change of them. As it stands, Backprop()."
            )
            condition = f"condition {np.linalg.cond(twist):.2g}"
            return Finding("twists", condition, describe(twist) + ", for these values of the parameters"), twist, advice
        verdict = "none makes it reciprocal"
    advice = (
        f"Backprop(): the system is linear but not reciprocal, and of all twists {verdict}. No physical gradient is "
        "exact on it."
    )
    return Finding("twists", "-", verdict), None, advice


def _nonlinear_advice(found: _Linearised, kind: str, rate: float | None, symmetric: bool, tolerance: float) -> str:
    """Return what to do with a nonlinear system."""
    if not symmetric:
        return "Backprop(): the forces are nonlinear and not reciprocal. No physical gradient is known to be exact."
    if kind == "none":
        return (
            "Write the system as a SeparableHamiltonian: along this path its forces have a potential, and Echo() is "
            "exact on it. As it stands, Backprop()."
        )
    if kind == "mass-proportional":
        return (
            f"Write the undamped system as a SeparableHamiltonian and wrap it, MassDamped(system, {rate:.6g}): Echo() "
            "is exact on that, nonlinear forces included. As it stands, Backprop()."
        )
    if kind == "gyroscopic":
        return _GYROSCOPIC
    if kind == "linear" and _is_gyroscopic_and_mass_proportional(found, tolerance):
        return (
            "Backprop(): nonlinear forces with a gyroscopic term and mass-proportional damping. An echo would need a "
            "mirror for the former and gain for the latter at once, which echograd does not have."
        )
    advice = (
        "Backprop(): nonlinear forces with a damping that is not proportional to the mass. No gradient on the same "
        "hardware exists; this is proven. Software can: write the system without its damping as a "
        "SeparableHamiltonian, and Rewind() is exact on Damped(system, friction) at little memory."
    )
    return advice + " At equilibrium, `equilibrium` with EP() is exact." if kind == "overdamped" else advice


def _damping(found: _Linearised, roughness: float, tolerance: float) -> tuple[str, float | None, str]:
    """Return the kind of damping, its rate if it has one, and a description."""
    mass, damping = found.mass, found.damping
    size = np.linalg.norm(damping)
    if not roughness <= tolerance:
        return "nonlinear", None, "nonlinear in the velocity"
    if size <= tolerance * max(np.linalg.norm(mass), np.linalg.norm(found.stiffness[0])):
        return "none", None, "none"
    if np.linalg.norm(mass) <= tolerance * size:
        return "overdamped", None, "overdamped: there is no mass"
    if np.linalg.norm(damping + damping.T) <= tolerance * size:
        return "gyroscopic", None, "gyroscopic: antisymmetric, does no work"
    rate = _rate(found)
    if np.linalg.norm(damping - rate * mass) <= tolerance * size:
        return "mass-proportional", rate, "mass-proportional, at this rate"
    return "linear", None, "linear, not in proportion to the mass"


def _rate(found: _Linearised) -> float:
    """Return the rate of the mass-proportional damping that is closest to the damping."""
    return float(np.sum(found.mass * found.damping) / np.sum(found.mass**2))


def _is_gyroscopic_and_mass_proportional(found: _Linearised, tolerance: float) -> bool:
    symmetric = 0.5 * (found.damping + found.damping.T)
    off = symmetric - _rate(found) * found.mass
    return bool(np.linalg.norm(off) <= tolerance * np.linalg.norm(found.damping))
