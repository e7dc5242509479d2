"""Which gradient applies to a system: its symmetries and its damping, measured along a path."""

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from .._internal import _checks, _tree
from .._internal._errors import ArgumentError, ArgumentTypeError
from .._internal._table import Table, Tabled
from .._solve import Trajectory, initial_value_problem, solve
from ..boundary import InitialValue
from ..gradients import AbstractGradient, Backprop, Echo, Glep, Reciprocal
from ..gradients._reciprocity import Reciprocity, dense, reciprocal_tolerance, reciprocity
from ..gradients._retrace import retrace_error, retraces
from ..gradients._time_reversal import mixed_input
from ..integrators import AbstractIntegrator, State
from ..problem import Problem
from ..systems import Dissipative, Envelope, Hamiltonian, KerrLattice, Lagrangian, MassDamped

# Of a path so many nodes are looked at.
_SAMPLES = 8
# Up to here every signed permutation that is its own inverse is tried as a mirror: 1384 of them.
_EXHAUSTIVE = 6
# Up to here the twist is sought among all matrices: a linear problem with the square of it in unknowns.
_GENERAL = 16

_GYROSCOPIC = (
    "Write the system as a Hamiltonian or a Lagrangian with its gyroscopic term: Glep() is exact on it, and so is "
    "Echo() with a mirror that undoes the term. As it stands, Backprop()."
)


@dataclass(frozen=True)
class Finding:
    """One property of a system: what was measured, and what it means."""

    property: str
    measured: float | str
    verdict: str


@dataclass(frozen=True)
class Diagnosis(Tabled):
    """What `diagnose` found.

    Attributes:
        findings: the properties that were measured, in the order of the table.
        damping: `"none"`, `"gyroscopic"`, `"mass-proportional"`, `"overdamped"`, `"linear"` or `"nonlinear"`.
        rate: the damping rate, where the damping is mass-proportional.
        mirror: the mirror or twist that the system should declare, a matrix on the flattened coordinates; `None` where
            none is missing, or none was found.
        gradient: what to hand to `solve` for the system as it stands: exact by what was measured.
        recommendation: what to do, in a sentence; it may be better than what applies to the system as it stands.
    """

    findings: list[Finding] = field(repr=False)
    damping: str
    rate: float | None
    mirror: np.ndarray | None
    gradient: AbstractGradient
    recommendation: str

    def cells(self) -> Table:
        """Return the findings as texts in columns."""
        rows = [
            (x.property, x.measured if isinstance(x.measured, str) else f"{x.measured:.1e}", x.verdict)
            for x in self.findings
        ]
        return Table(("property", "measured", "verdict"), rows, "<><")

    def table(self) -> str:
        """Return the findings as a table in plain text, the recommendation below it."""
        return f"{self.cells()}\n\n{self.recommendation}"


def diagnose(
    system: Hamiltonian | Lagrangian | Dissipative,
    boundary: InitialValue | Trajectory,
    inputs: PyTree = None,
    *,
    dt: Any = None,
    steps: int | None = None,
    t0: Any = None,
    integrator: AbstractIntegrator | None = None,
    mirrors: Sequence[Float[Array, "n n"]] = (),
    tolerance: float | None = None,
) -> Diagnosis:
    r"""Measure what the exactness of a gradient rests on, and recommend one, or say that none but `Backprop` applies.

    For a Hamiltonian or a Lagrangian: whether $H(t, \Pi q, -\Pi p, \Pi_u u) = H(t, q, p, u)$ with the mirror that it
    declares, how exactly an echo retraces, and, if it does not, whether another mirror would do. For a `Dissipative`
    system: whether it is linear, whether $M$, $D$ and $K = -\partial F/\partial q$ are symmetric along the path up to
    the twist that it declares, what kind of damping it has, and whether another twist would do. Candidates are all
    signed permutations of the coordinates that are their own inverse (for more than six coordinates the reflections and
    the exchange of halves) and the `mirrors` that you supply; for a twist, of up to 16 coordinates, then any matrix $S$
    with $M S = S M^{\sf T}$, and $D$ and $K$ likewise, which is a linear problem: where it has no solution none exists.

    Symmetries are probed at nodes of the path and, of energies, beside them: a finding holds for that path and inputs.

    Args:
        system: the system.
        boundary: an `InitialValue`, or a `Trajectory` of this system with all nodes, which is then the path and tells
            `dt`, `steps` and `t0`.
        inputs: as for `solve`.
        dt: as for `solve`.
        steps: as for `solve`.
        t0: as for `solve`, 0 by default.
        integrator: as for `solve`.
        mirrors: further candidates, matrices on the flattened coordinates.
        tolerance: a relative violation below this is rounding; by default the square root of the rounding unit.

    Returns:
        `Diagnosis` with `findings`, `damping`, `rate`, `mirror`, `gradient`, `recommendation` and `table()`.

    Raises:
        TypeError: for a system that is none, or a boundary that is neither an `InitialValue` nor a `Trajectory`.
        ValueError: if a trajectory does not have every node, comes with `dt`, `steps` or `t0` beside it, or if a step
            of this system with these inputs and this integrator does not lead from each of its nodes to the next;
            without `dt` beside an `InitialValue`; and for what `solve` refuses.

    Source: the conditions of "Unifying Physical Backpropagation" (Boesch, Gediz, Tureci), sections 3 to 10.

    Example:
        ```python
        found = eg.diagnose(system, eg.InitialValue(q, p), dt=0.01, steps=1000)
        print(found.table())
        sol = eg.solve(system, eg.InitialValue(q, p), dt=0.01, steps=1000, gradient=found.gradient)
        ```
    """
    _checks.tolerance("diagnose", "tolerance", tolerance, _checks.not_negative, "the largest violation by rounding")
    if not isinstance(mirrors, Sequence | jax.Array | np.ndarray) or isinstance(mirrors, str):
        raise ArgumentTypeError(f"diagnose: mirrors={_checks.shown(mirrors)} is not a sequence of matrices.")
    mirrors = [_checks.signed("diagnose", f"mirrors[{i}]", matrix) for i, matrix in enumerate(mirrors)]
    if any(matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] for matrix in mirrors):
        raise ArgumentError(f"diagnose: mirrors={_checks.shown(mirrors)}; each must be a square matrix.")
    run = None
    if isinstance(boundary, Trajectory):
        run = boundary
        if not (dt is None and steps is None and t0 is None):
            raise ArgumentError("diagnose: a trajectory tells dt, steps and t0 itself. Leave them out beside it.")
        boundary, dt, steps, t0 = _of_trajectory(run)
    if dt is None:
        raise ArgumentError("diagnose: give dt, the step length, beside an InitialValue.")
    timing = {"dt": dt, "steps": steps, "t0": 0.0 if t0 is None else t0, "integrator": integrator}
    problem, z0 = initial_value_problem(system, boundary, inputs, **timing)
    rounding = float(jnp.finfo(problem.given.h.dtype).eps) ** 0.5 if tolerance is None else tolerance
    if run is None:
        run = solve(system, boundary, inputs, **timing, gradient=Backprop())
    elif not (off := float(_step_error(problem, (run.q, run.p)))) <= rounding:
        raise ArgumentError(
            "diagnose: the trajectory is not one of this system: from one of its nodes a step leads elsewhere than to "
            f"the next, by {off:.1e} of the size of the state. Pass the system, inputs and integrator that it was "
            "solved with, and save=AllNodes(); or the InitialValue, with dt and steps."
        )
    path = run.q, run.p
    retrace = float(retrace_error(problem, z0))
    if isinstance(problem.given.system, Dissipative):
        return _of_forces(problem, path, retrace, mirrors, rounding)
    return _of_energy(problem, path, retrace, mirrors, rounding)


def _of_trajectory(run: Trajectory) -> tuple[InitialValue, Any, int, Any]:
    if run.t.ndim != 1 or run.t.shape[0] < 2 or run.saved is not None:
        raise ArgumentError(
            "diagnose: the trajectory needs every node, from save=AllNodes(). Or pass the InitialValue, with dt and "
            "steps."
        )
    first = [jax.tree.map(lambda x: x[0], x) for x in (run.q, run.p)]
    steps = run.t.shape[0] - 1
    return InitialValue(*first), (run.t[-1] - run.t[0]) / steps, steps, run.t[0]


@eqx.filter_jit
def _step_error(problem: Problem, path: State) -> Float[Array, ""]:
    """Return how far from the next node a step from a node of the path leads at most."""

    def off(row: Any) -> Float[Array, ""]:
        k, here, there = row
        return _tree.max_abs(_tree.subtract(problem.step(k, here), there))

    nodes = jnp.arange(problem.steps, dtype=jnp.int32)
    here, there = (jax.tree.map(lambda x, s=s: x[s], path) for s in (slice(-1), slice(1, None)))
    size = jnp.maximum(*map(_tree.max_abs, path))
    # A maximum passes a NaN on, as a comparison would not.
    return jnp.max(jax.lax.map(off, (nodes, here, there))) / jnp.where(size > 0, size, 1)


# Energies


def _of_energy(problem: Problem, path: State, retrace: float, mirrors: Sequence[Array], tolerance: float) -> Diagnosis:
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
            "Backprop(): the system is time-reversible, but rounding grows so fast on this path that an echo does not "
            "retrace it. With Leapfrog(exact=True), which retraces bit for bit, or over fewer steps Echo() is exact."
        )
        return advise(None, Backprop(), advice)

    tried, found = 0, None
    n = _tree.flat(_tree.take(path[0], 0)).size
    for matrix, with_inputs in _candidates(n, mirrors, _input_size(problem) == n):
        tried += 1
        if float(_oddness(problem, path, jnp.asarray(matrix, problem.given.h.dtype), with_inputs)) <= tolerance:
            found = matrix, with_inputs
            break
    verdict = "none reverses it" if found is None else _named(found[0]) + (", inputs alike" if found[1] else "")
    findings.append(Finding("mirrors", f"{tried} tried", verdict))
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
        advice = "Glep(): no time reversal was found, so no echo; the inverse map, nudged, is exact all the same."
    else:
        advice = "Backprop(): no time reversal was found, and rounding keeps the inverse map from returning."
    return advise(None, standing, advice)


@eqx.filter_jit
def _oddness(problem: Problem, path: State, matrix: Array | None, with_inputs: bool) -> Float[Array, ""]:
    """Return the largest relative violation of time reversal at nodes of the path and beside them.

    Without a matrix the mirror is the system's own; with one, inputs are mirrored by it or left as they are.
    """
    system, given = problem.given.system, problem.given
    n = problem.steps
    flat_path = jax.tree.map(lambda x: x[_nodes(n)], path)
    unravel = jax.flatten_util.ravel_pytree(_tree.take(path[0], 0))[1]

    def mirror(x: PyTree) -> PyTree:
        return system.mirror(x) if matrix is None else unravel(matrix @ _tree.flat(x))

    def mirror_input(u: Any) -> Any:
        if matrix is None:
            return system.mirror_input(u)
        u = jax.tree.map(jnp.conj, u)  # the drive of a wave is reversed like the wave
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
    # Beside the path all inputs have a part, so that what one of them switches on is not missed between the nodes.
    held = jax.tree.map(lambda u: u[jnp.minimum(_nodes(n), n - 1)], given.u)
    blended = mixed_input(given, n)
    along = jax.vmap(violation)(_nodes(n), flat_path, held)
    found = jnp.stack([along, jax.vmap(lambda k, z: violation(k, z, blended))(_nodes(n), beside)])
    # A probe outside the domain of the energy gives NaN: no evidence, unless there is no other.
    return jnp.where(jnp.all(jnp.isnan(found)), jnp.nan, jnp.nanmax(found))


@eqx.filter_jit
def _return_error(problem: Problem, path: State) -> Float[Array, ""]:
    """Return how far the inverse map, run from the end of the path, ends from its start."""
    n = problem.steps
    start, stop = _tree.take(path, 0), _tree.take(path, n)

    def back(i: Any, z: State) -> State:
        k = jnp.asarray(n - 1 - i, jnp.int32)
        return problem.integrator.step(problem.given.at(k), k, z, "backward")

    z = jax.lax.fori_loop(0, n, back, stop)
    size = jnp.maximum(*map(_tree.max_abs, start))
    return _tree.max_abs(_tree.subtract(z, start)) / jnp.where(size > 0, size, 1)


# Forces with damping


class _Matrices(eqx.Module):
    """The linearised system along a path: its matrices, those of the stiffness at several nodes."""

    mass: Float[Array, "n n"]
    damping: Float[Array, "n n"]
    stiffness: Float[Array, "samples n n"]
    twist: Float[Array, "n n"]
    reciprocity: Reciprocity


@eqx.filter_jit
def _matrices(problem: Problem, path: PyTree) -> _Matrices:
    given, n, q0 = problem.given, problem.steps, _tree.take(path, 0)
    system = given.system
    flat = jax.vmap(_tree.flat)(path)
    unravel = jax.flatten_util.ravel_pytree(q0)[1]

    def stiffness(k: Array, q: Array) -> Array:
        k = jnp.minimum(k, n - 1)
        return -jax.jacfwd(lambda q: _tree.flat(system.force(given.time(k), unravel(q), _tree.take(given.u, k))))(q)

    return _Matrices(
        dense(system.inertia, q0),
        dense(system.friction, q0),
        jax.vmap(stiffness)(_nodes(n), flat[_nodes(n)]),
        dense(system.twisted, q0),
        reciprocity(problem, path),
    )


def _of_forces(problem: Problem, path: State, retrace: float, mirrors: Sequence[Array], tolerance: float) -> Diagnosis:
    found = jax.tree.map(lambda x: np.asarray(x, float), _matrices(problem, path[0]))
    bent, rough = float(found.reciprocity.forces), float(found.reciprocity.friction)
    exact = min(tolerance, reciprocal_tolerance(problem.given.h.dtype))
    kind, rate, words = _damping_of(found, rough, tolerance)
    matrices = {"mass": [found.mass], "damping": [found.damping], "stiffness": list(found.stiffness)}

    def asymmetry(twist: np.ndarray) -> dict[str, float]:
        return {name: max(_violation(x, twist) for x in several) for name, several in matrices.items()}

    findings = [
        Finding("damping", "-" if rate is None else f"{rate:.3g}", words),
        Finding("nonlinearity of the forces", bent, "linear" if bent <= exact else "nonlinear"),
    ]
    advise = functools.partial(Diagnosis, findings, kind, rate)
    untwisted = np.array_equal(found.twist, np.eye(len(found.twist)))
    asymmetric = asymmetry(found.twist)
    for name, x in asymmetric.items():
        name = f"asymmetry of the {name}" + ("" if untwisted else ", up to the twist")
        findings.append(Finding(name, x, "reciprocal" if x <= tolerance else "not reciprocal"))
    returns = retrace <= tolerance
    findings.append(Finding("retrace error of a plain echo", retrace, "retraces" if returns else "leaves its path"))

    # Without friction symmetric forces have an energy, and the term that does no work belongs into it.
    gyroscopic = kind == "gyroscopic" and untwisted and max(asymmetric["mass"], asymmetric["stiffness"]) <= tolerance
    if max(bent, rough) <= exact:
        if max(asymmetric.values()) <= exact:
            advice = "Reciprocal(): the same machine, at rest, answers the reversed error with the exact gradient."
            return advise(None, Reciprocal(), advice)
        for tried, (twist, _) in enumerate(_candidates(len(found.twist), mirrors, False), 1):
            if max(asymmetry(twist).values()) <= tolerance:
                findings.append(Finding("twists", f"{tried} tried", _named(twist)))
                advice = (
                    f"Declare {_named(twist)} as the twist of the system and Reciprocal() is exact. As it stands, "
                    "Backprop()."
                )
                return advise(twist, Backprop(), advice)
        if gyroscopic:
            findings.append(Finding("twists", "-", "none of the usual ones makes it reciprocal"))
            return advise(None, Backprop(), _GYROSCOPIC)
        n = len(found.twist)
        twist = _general_twist([found.mass, found.damping, *found.stiffness], tolerance) if n <= _GENERAL else None
        if twist is not None:
            condition = f"condition {np.linalg.cond(twist):.2g}"
            findings.append(Finding("twists", condition, _named(twist) + ", for these values of the parameters"))
            advice = (
                f"Declare {_named(twist)} as the twist of the system and Reciprocal() is exact. It belongs to these "
                "values of the parameters: unless it is known from how the system is built, find it anew after every "
                "change of them. As it stands, Backprop()."
            )
            return advise(twist, Backprop(), advice)
        verdict = "none makes it reciprocal" if n <= _GENERAL else "none of the usual ones makes it reciprocal"
        findings.append(Finding("twists", "-", verdict))
        advice = (
            f"Backprop(): the system is linear but not reciprocal, and of all twists {verdict}. No physical gradient "
            "is exact on it."
        )
    elif max(asymmetric["mass"], asymmetric["stiffness"]) > tolerance or not untwisted:
        advice = (
            "Backprop(): nonlinear forces that are not reciprocal. None of the physical gradients is known to be exact "
            "on them."
        )
    elif kind == "none":
        advice = (
            "Write the system as a SeparableHamiltonian: along this path its forces have a potential, and Echo() is "
            "exact on it. As it stands, Backprop()."
        )
    elif kind == "mass-proportional":
        advice = (
            f"Write the undamped system as a SeparableHamiltonian and wrap it, MassDamped(system, {rate:.6g}): Echo() "
            "is exact on that, nonlinear forces included. As it stands, Backprop()."
        )
    elif gyroscopic:
        advice = _GYROSCOPIC
    elif kind == "linear" and _is_turning(found, tolerance):
        advice = (
            "Backprop(): nonlinear forces under a gyroscopic term and a damping in proportion to the mass. A machine "
            "with a mirror that undoes the one and gain for the other would do; echograd has none."
        )
    else:
        advice = (
            "Backprop(): nonlinear forces under a damping that is not in proportion to the mass. No gradient on the "
            "same hardware exists: that is proven, not a gap."
        )
        if kind == "overdamped":
            advice += " Where it has come to rest `equilibrium` with EP() is exact."
    return advise(None, Backprop(), advice)


def _damping_of(found: _Matrices, roughness: float, tolerance: float) -> tuple[str, float | None, str]:
    """Return the kind of damping, its rate if it has one, and words for it."""
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
    rate = float(np.sum(mass * damping) / np.sum(mass**2))
    if np.linalg.norm(damping - rate * mass) <= tolerance * size:
        return "mass-proportional", rate, "mass-proportional, at this rate"
    return "linear", None, "linear, not in proportion to the mass"


def _is_turning(found: _Matrices, tolerance: float) -> bool:
    """Return whether the damping is a multiple of the mass and an antisymmetric, gyroscopic term."""
    mass, damping = found.mass, found.damping
    rate = np.sum(mass * damping) / np.sum(mass**2)
    return bool(np.linalg.norm(0.5 * (damping + damping.T) - rate * mass) <= tolerance * np.linalg.norm(damping))


def _general_twist(matrices: Sequence[np.ndarray], tolerance: float) -> np.ndarray | None:
    """Return an invertible S with X S = S Xᵀ for all X, diagonal if possible, of norm one; `None` if there is none."""
    n = len(matrices[0])
    eye = np.eye(n)
    scaled = [x / np.linalg.norm(x) for x in matrices if np.any(x)]
    equations = np.concatenate([np.kron(x, eye) - np.kron(eye, x) for x in scaled])
    for places in (np.arange(n) * (n + 1), np.arange(n * n)):
        _, values, rows = np.linalg.svd(equations[:, places], full_matrices=False)
        solutions = np.zeros((np.sum(values <= tolerance), n * n))
        solutions[:, places] = rows[values <= tolerance]
        # What is closest to no twist at all, and a few at random: almost every one is as good as the space allows.
        draws = np.random.default_rng(0).normal(size=(32, len(solutions)))
        trials = [x.reshape(n, n) for x in (solutions @ eye.ravel() @ solutions, *(draws @ solutions))]
        conditions = [np.linalg.cond(x) if np.any(x) else np.inf for x in trials]
        if min(conditions) < tolerance**-0.5:
            best = trials[int(np.argmin(conditions))]
            return best / np.linalg.norm(best, 2)
    return None


def _violation(x: np.ndarray, s: np.ndarray) -> float:
    """Return by how much X S = S Xᵀ is violated, relative to X; zero for a zero matrix."""
    size = np.linalg.norm(x) * np.linalg.norm(s, 2)
    return float(np.linalg.norm(x @ s - s @ x.T) / size) if size else 0.0


# Mirrors


def _candidates(n: int, supplied: Sequence[Array], inputs: bool) -> Iterator[tuple[np.ndarray, bool]]:
    """Yield matrices to try on n coordinates, and whether inputs are mirrored too, the simplest first."""
    options = (False, True) if inputs else (False,)
    for matrix in itertools.chain(map(np.asarray, supplied), _signed_involutions(n)):
        if matrix.shape != (n, n):
            raise ArgumentError(f"diagnose: a mirror has shape {matrix.shape}; on {n} coordinates it is ({n}, {n}).")
        for with_inputs in options:
            yield matrix, with_inputs


def _signed_involutions(n: int) -> Iterator[np.ndarray]:
    """Yield signed permutations that are their own inverse: all of them for few coordinates, else the usual ones."""
    eye = np.eye(n)
    if n > _EXHAUSTIVE:
        signs = np.diag((-1.0) ** np.arange(n)), np.diag(np.sign(np.arange(n) - n / 2 + 0.25))
        # On a ring there are n reflections, one of which is also that of a line.
        turned = [np.roll(eye[::-1], k, 0) for k in range(n)]
        halves = [np.roll(eye, n // 2, 0)] if n % 2 == 0 else []
        for p in (eye, *turned, *halves):
            for signed in (p, *(x @ p for x in signs)):
                if np.array_equal(signed @ signed, eye):
                    yield from (signed, -signed)
        return
    order = [p for p in itertools.permutations(range(n)) if all(p[p[i]] == i for i in range(n))]
    order.sort(key=lambda p: sum(p[i] != i for i in range(n)))
    for p in order:
        cycles = [i for i in range(n) if p[i] >= i]
        for signs in itertools.product((1.0, -1.0), repeat=len(cycles)):
            matrix = np.zeros((n, n))
            for i, s in zip(cycles, signs, strict=True):
                matrix[i, p[i]] = matrix[p[i], i] = s
            yield matrix


def _declaration(system: Hamiltonian, matrix: np.ndarray, with_inputs: bool) -> str:
    """Return how to tell a system its mirror."""
    moved = np.argmax(matrix, 1)
    if isinstance(system, KerrLattice) and np.array_equal(matrix, np.eye(len(matrix))[moved]):
        return f"Give the lattice reflection={moved.tolist()}"
    alike = ", and of its inputs (`mirror_input`)," if with_inputs else ""
    return f"Declare {_named(matrix)} as the `mirror` of the system{alike}"


def _named(matrix: np.ndarray) -> str:
    """Return a mirror in words."""
    matrix = np.asarray(matrix)
    n = len(matrix)
    if np.array_equal(matrix, np.diag(np.diag(matrix))) and n <= 12:
        return "diag(" + ", ".join(f"{x:g}" for x in np.diag(matrix)) + ")"
    if np.array_equal(np.abs(matrix), np.eye(n)[::-1]) and abs(matrix.sum()) == n:
        return "the reversal of the coordinates" if matrix.sum() > 0 else "minus the reversal of the coordinates"
    moved = np.argmax(matrix, 1)
    if np.array_equal(matrix, np.eye(n)[moved]) and n <= 12:
        return f"the permutation {moved.tolist()}"
    return "the matrix in `mirror`"


def _nodes(steps: int) -> Int[Array, " samples"]:
    """Return the nodes that are looked at."""
    return jnp.asarray(np.unique(np.linspace(0, steps, _SAMPLES).astype(np.int32)))


def _input_size(problem: Problem) -> int:
    return sum(int(np.prod(x.shape[1:])) for x in jax.tree.leaves(problem.given.u))
