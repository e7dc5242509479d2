"""Diagnose a system with an energy: its time reversal, and the mirror that it needs."""

import functools
import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._internal import _tree
from ..gradients import Backprop, Echo, Glep
from ..gradients._retrace import retraces
from ..gradients._time_reversal import mixed_input
from ..integrators import State
from ..problem import Problem
from ..systems import Envelope, Hamiltonian, MassDamped
from ._diagnosis import Diagnosis, Finding, sampled_nodes
from ._mirrors import as_permutation, candidates, describe


def diagnose_energy(
    problem: Problem, path: State, retrace: float, mirrors: Sequence[Array], tolerance: float
) -> Diagnosis:
    """Diagnose a Hamiltonian system, given its path and the retrace error of an echo."""
    system, findings = problem.given.system, []
    damping, rate = "none", None
    if isinstance(system, MassDamped | Envelope):
        damping, rate = "mass-proportional", float(system.rate)
        lost = float(jnp.exp(0.5 * system.rate * problem.steps * problem.given.h))
        findings.append(Finding("damping", f"{rate:.3g}", "mass-proportional, at this rate"))
        findings.append(Finding("precision lost by an echo", lost, "up to this factor, exp(rate T / 2)"))
    else:
        findings.append(Finding("damping", "-", "none: the forces have an energy"))
    advise = functools.partial(Diagnosis, findings, damping, rate)

    declared = type(system).mirror is not Hamiltonian.mirror
    odd = float(_oddness(problem, path, None, True))
    name = "H(t, Πq, -Πp) - H(t, q, p)" if declared else "H(t, q, -p) - H(t, q, p)"
    findings.append(Finding(name, odd, "time-reversible" if odd <= tolerance else "no time reversal"))
    returns = retraces(retrace, path)
    findings.append(Finding("retrace error of an echo", retrace, "retraces" if returns else "leaves its path"))
    if odd <= tolerance:
        if returns:
            advice = "Echo(): the machine run forward from the flipped state retraces its path."
            return advise(None, Echo(), advice)
        advice = (
            "Backprop(): the system is time-reversible, but rounding errors grow too fast on this path for an echo to "
            "retrace it. Echo() is exact over fewer steps, or with Leapfrog(exact=True), which retraces bit for bit."
        )
        return advise(None, Backprop(), advice)

    verdict, found = _find_mirror(problem, path, mirrors, tolerance)
    findings.append(verdict)
    back = float(_return_error(problem, path))
    inverts = retraces(back, path)
    findings.append(Finding("return error of the inverse map", back, "returns" if inverts else "leaves its path"))
    standing = Glep() if inverts else Backprop()
    if found is not None:
        advice = (
            f"{_declaration(system, *found)} and Echo() is exact, running forward. As it stands, "
            f"{type(standing).__name__}()."
        )
        return advise(found[0], standing, advice)
    if inverts:
        advice = "Glep(): no time reversal was found, so an echo does not apply; the nudged inverse map is exact."
    else:
        advice = "Backprop(): no time reversal was found, and the inverse map does not return because of rounding."
    return advise(None, standing, advice)


def _find_mirror(
    problem: Problem, path: State, mirrors: Sequence[Array], tolerance: float
) -> tuple[Finding, tuple[np.ndarray, bool] | None]:
    """Return a mirror that reverses the system, and whether it acts on the inputs too."""
    tried = 0
    n = _tree.flat(_tree.take(path[0], 0)).size
    inputs = sum(math.prod(x.shape[1:]) for x in jax.tree.leaves(problem.given.u))
    for matrix in candidates(n, mirrors):
        for with_inputs in (False, True) if inputs == n else (False,):
            tried += 1
            array = jnp.asarray(matrix, problem.given.h.dtype)
            if float(_oddness(problem, path, array, with_inputs)) <= tolerance:
                verdict = describe(matrix) + (", on the inputs too" if with_inputs else "")
                return Finding("mirrors", f"{tried} tried", verdict), (matrix, with_inputs)
    return Finding("mirrors", f"{tried} tried", "none reverses it"), None


@eqx.filter_jit
def _oddness(problem: Problem, path: State, matrix: Array | None, with_inputs: bool) -> Float[Array, ""]:
    """Return the largest relative violation of time reversal at nodes of the path and beside them.

    Without a matrix the mirror is that of the system. `with_inputs` tells whether a matrix acts on the inputs too.
    """
    system, given = problem.given.system, problem.given
    n = problem.steps
    nodes = sampled_nodes(n)
    flat_path = jax.tree.map(lambda x: x[nodes], path)
    unravel = jax.flatten_util.ravel_pytree(_tree.take(path[0], 0))[1]

    def mirror(x: PyTree) -> PyTree:
        return system.mirror(x) if matrix is None else unravel(matrix @ _tree.flat(x))

    def mirror_input(u: Any) -> Any:
        if matrix is None:
            return system.mirror_input(u)
        u = jax.tree.map(jnp.conj, u)  # time reversal conjugates the drive of a wave, like the wave
        if not with_inputs:
            return u
        flat, back = jax.flatten_util.ravel_pytree(u)
        return back(matrix.astype(flat.dtype) @ flat)

    def violation(k: Array, z: State, u: Any) -> Float[Array, ""]:
        t = given.time(k)
        here = jax.grad(lambda z: system(t, *z, u))(z)
        there = jax.grad(lambda z: system(t, mirror(z[0]), _tree.negate(mirror(z[1])), mirror_input(u)))(z)
        parts = [
            _tree.max_abs(_tree.subtract(a, b)) / jnp.maximum(_tree.max_abs(a), jnp.finfo(given.h.dtype).tiny)
            for a, b in zip(here, there, strict=True)
        ]
        return jnp.maximum(*parts)

    size = jnp.maximum(*map(_tree.max_abs, path))
    beside = _tree.add(flat_path, _tree.scale(jnp.where(size > 0, size, 1), _tree.spread(flat_path)))
    # Beside the path use a mixture of all inputs: one of them may switch on a term between the sampled nodes.
    held = jax.tree.map(lambda u: u[jnp.minimum(nodes, n - 1)], given.u)
    mixed = mixed_input(given, n)
    along = jax.vmap(violation)(nodes, flat_path, held)
    found = jnp.stack([along, jax.vmap(lambda k, z: violation(k, z, mixed))(nodes, beside)])
    # A probe outside the domain of the energy gives NaN. Ignore it unless all probes do.
    return jnp.where(jnp.all(jnp.isnan(found)), jnp.nan, jnp.nanmax(found))


@eqx.filter_jit
def _return_error(problem: Problem, path: State) -> Float[Array, ""]:
    """Run the inverse map from the end of the path, and return its distance from the start."""
    n = problem.steps
    start, stop = _tree.take(path, 0), _tree.take(path, n)

    def back(i: Any, z: State) -> State:
        k = jnp.asarray(n - 1 - i, jnp.int32)
        return problem.integrator.step(problem.given.at(k), k, z, "backward")

    z = jax.lax.fori_loop(0, n, back, stop)
    size = jnp.maximum(*map(_tree.max_abs, start))
    return _tree.max_abs(_tree.subtract(z, start)) / jnp.where(size > 0, size, 1)


def _declaration(system: Hamiltonian, matrix: np.ndarray, with_inputs: bool) -> str:
    """Return how to declare a mirror of the system."""
    permutation = as_permutation(matrix)
    if hasattr(system, "reflection") and permutation is not None:
        return f"Give the {type(system).__name__} reflection={permutation}"
    too = ", and of its inputs (`mirror_input`)," if with_inputs else ""
    return f"Declare {describe(matrix)} as the `mirror` of the system{too}"
