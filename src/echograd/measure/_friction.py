"""Diagnose a damped system: the kind of its friction, and what it takes."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._internal import _tree
from ..friction import Damped, Drag, FrictionMatrix, Langevin, NoseHoover
from ..friction._rates import ConstantRates, VaryingRates, per_momentum
from ..gradients import Rewind
from ..integrators import State
from ..problem import Problem
from ._diagnosis import Diagnosis, Finding

_KINDS = {
    VaryingRates: ("varying", "rates that depend on time, coordinates or inputs"),
    FrictionMatrix: ("linear", "a matrix"),
    Drag: ("nonlinear", "not in proportion to the momentum"),
    Langevin: ("thermal", "a heat bath with noise"),
    NoseHoover: ("thermal", "a thermostat with a coordinate of its own"),
}


@eqx.filter_jit
def _lost(problem: Problem, path: State) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Return the change of the energy relative to its start, and the strongest part of a momentum lost in a step."""
    given, n = problem.given, problem.steps

    def energy(k: int) -> Array:
        q, p = jax.tree.map(lambda x: x[k], path)
        u = _tree.take(given.u, min(k % (n + 1), n - 1))
        return given.system.kinetic(given.time(jnp.asarray(k % (n + 1))), p) + given.system.potential(
            given.time(jnp.asarray(k % (n + 1))), q, u
        )

    first, last = energy(0), energy(n)
    return (last - first) / jnp.where(first != 0, jnp.abs(first), 1), given.system.action.strongest()


def diagnose_friction(
    problem: Problem, path: State, retrace: float, mirrors: Sequence[Any], tolerance: float
) -> Diagnosis:
    """Diagnose a damped system, given its path and the retrace error of a plain echo."""
    del mirrors
    system: Damped = problem.given.system
    kind, rate, words = _kind(system, jax.tree.map(lambda x: x[0], path[1]))
    change, strongest = (float(x) for x in _lost(problem, path))
    findings = [
        Finding("friction", "-" if rate is None else f"{rate:.3g}", words),
        Finding("change of the energy along the path", change, "lost" if change < 0 else "gained"),
        Finding("retrace error of a plain echo", retrace, "retraces" if retrace <= tolerance else "leaves its path"),
    ]
    if kind in ("mass-proportional", "linear"):
        verdict = f"about {2 * strongest:.2g} bits at most for every momentum and step"
        findings.insert(1, Finding("largest part of a momentum lost in a step", strongest, verdict))
    advice = (
        "Rewind(): exact at little memory, in software. No machine runs back through friction; on the machine itself "
    )
    if kind == "none":
        advice = "Rewind() is exact, and so is Echo() on the system without its friction, which is zero"
    elif kind == "mass-proportional":
        advice += f"Echo() is exact on MassDamped(system, {rate:.6g}), if the masses are damped alike"
    elif kind in ("linear", "varying") and not isinstance(system.friction, VaryingRates):
        advice += "Reciprocal() is exact if the forces are linear and the system is written as LinearDamped"
    else:
        advice += "no exact gradient is known"
    return Diagnosis(findings, kind, rate, None, Rewind(), advice + ".")


def _kind(system: Damped, p: Any) -> tuple[str, float | None, str]:
    """Return the kind of friction, its rate if it has one, and a description."""
    if not isinstance(system.friction, ConstantRates):
        found = [x for kind, x in _KINDS.items() if isinstance(system.friction, kind)]
        kind, words = found[0] if found else ("nonlinear", "a friction of your own")
        return kind, None, words
    rates = jax.tree.leaves(
        jax.tree.map(lambda x, r: 0.0 if r is None else r, p, per_momentum("diagnose", system.friction.rate, p))
    )
    least, most = min(float(np.min(r)) for r in rates), max(float(np.max(r)) for r in rates)
    if least == most:
        return ("none", None, "none") if most == 0 else ("mass-proportional", most, "one rate for all momenta")
    return "linear", None, f"constant rates from {least:.3g} to {most:.3g}"
