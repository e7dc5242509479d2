"""Which gradient applies to a system: its symmetries and its damping, measured along a path."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._internal import _checks, _tree
from .._internal._errors import ArgumentError, ArgumentTypeError
from .._solve import Trajectory, solve
from ..boundary import InitialValue
from ..friction import Damped
from ..gradients import Backprop
from ..gradients._retrace import retrace_error
from ..integrators import AbstractIntegrator, State
from ..problem import Problem
from ..problem._posing import initial_value_problem
from ..systems import Dissipative, Hamiltonian, Lagrangian
from ._damping import diagnose_forces
from ._diagnosis import Diagnosis
from ._friction import diagnose_friction
from ._time_reversal import diagnose_energy


def diagnose(
    system: Hamiltonian | Lagrangian | Dissipative | Damped,
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
    r"""Measure the symmetries and the damping of a system, and recommend a gradient that is exact on it.

    For a Hamiltonian or a Lagrangian, measure whether $H(t, \Pi q, -\Pi p, \Pi_u u) = H(t, q, p, u)$ with the mirror
    that it declares, and how exactly an echo retraces its path. If there is no time reversal, look for another mirror.
    For a `Dissipative` system, measure whether it is linear, whether $M$, $D$ and $K = -\partial F/\partial q$ are
    symmetric along the path up to the twist that it declares, and what kind of damping it has. If it is linear but not
    reciprocal, look for another twist. For a `Damped` system, name the friction, and measure what it takes.

    Candidates for both are the `mirrors` that you supply and all signed permutations of the coordinates that are their
    own inverse (for more than six coordinates only the reflections and the exchange of halves). For up to 16
    coordinates a twist is then sought among all matrices $S$ with $M S = S M^{\sf T}$, and $D$ and $K$ likewise. This
    is a linear problem: if it has no solution, there is no twist.

    Symmetries are probed at nodes of the path, and those of energies also beside it. A finding holds for this path and
    these inputs.

    Args:
        system: the system.
        boundary: an `InitialValue`, or a `Trajectory` of this system with all nodes. A trajectory is the path itself
            and replaces `dt`, `steps` and `t0`.
        inputs: as for `solve`.
        dt: as for `solve`; needed beside an `InitialValue`.
        steps: as for `solve`.
        t0: as for `solve`, 0 by default.
        integrator: as for `solve`.
        mirrors: further candidates, matrices on the flattened coordinates.
        tolerance: largest relative violation that counts as rounding; by default the square root of the rounding unit.

    Returns:
        `Diagnosis` with `findings`, `damping`, `rate`, `mirror`, `gradient`, `recommendation` and `table()`.

    Raises:
        ArgumentTypeError: if `system` is not a system, or `boundary` is neither an `InitialValue` nor a `Trajectory`.
        ArgumentError: if a trajectory lacks nodes, or comes with `dt`, `steps` or `t0`; if a step of this system, with
            these inputs and this integrator, does not lead from each of its nodes to the next; if `dt` is missing
            beside an `InitialValue`; and for arguments that `solve` refuses.

    Source: the conditions of "Unifying Physical Backpropagation" (Boesch, Gediz, Tureci), sections 3 to 10.

    Example:
        ```python
        found = eg.diagnose(system, eg.InitialValue(q, p), dt=0.01, steps=1000)
        print(found.table())
        sol = eg.solve(system, eg.InitialValue(q, p), dt=0.01, steps=1000, gradient=found.gradient)
        ```
    """
    _checks.tolerance(
        "diagnose", "tolerance", tolerance, _checks.not_negative, "the largest violation that counts as rounding"
    )
    if not isinstance(mirrors, Sequence | jax.Array | np.ndarray) or isinstance(mirrors, str):
        raise ArgumentTypeError(f"diagnose: mirrors={_checks.shown(mirrors)} is not a sequence of matrices.")
    mirrors = [_checks.signed("diagnose", f"mirrors[{i}]", matrix) for i, matrix in enumerate(mirrors)]
    if any(matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] for matrix in mirrors):
        raise ArgumentError(f"diagnose: mirrors={_checks.shown(mirrors)}; each must be a square matrix.")
    run = None
    if isinstance(boundary, Trajectory):
        run = boundary
        if not (dt is None and steps is None and t0 is None):
            raise ArgumentError("diagnose: a trajectory determines dt, steps and t0. Leave them out beside it.")
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
            "diagnose: the trajectory is not one of this system: a step from one of its nodes misses the next one by "
            f"{off:.1e} of the size of the state; at most {rounding:.1e} is allowed. Pass the system, inputs and "
            "integrator that it was solved with, and save=AllNodes(); or the InitialValue, with dt and steps."
        )
    kind = problem.given.system
    examine = diagnose_forces if isinstance(kind, Dissipative) else diagnose_energy
    examine = diagnose_friction if isinstance(kind, Damped) else examine
    return examine(problem, (run.q, run.p), float(retrace_error(problem, z0)), mirrors, rounding)


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
    """Return the largest distance by which a step from a node of the path misses the next one."""

    def miss(row: Any) -> Float[Array, ""]:
        k, here, there = row
        return _tree.max_abs(_tree.subtract(problem.step(k, here), there))

    nodes = jnp.arange(problem.steps, dtype=jnp.int32)
    here, there = (jax.tree.map(lambda x, s=s: x[s], path) for s in (slice(-1), slice(1, None)))
    size = jnp.maximum(*map(_tree.max_abs, path))
    # A maximum propagates a NaN; a comparison would not.
    return jnp.max(jax.lax.map(miss, (nodes, here, there))) / jnp.where(size > 0, size, 1)
