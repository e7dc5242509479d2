"""All the paths that several guesses lead to: a two-point problem may have none, one or many."""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from ._internal import _checks, _tree
from ._internal._errors import ArgumentError, ArgumentTypeError
from ._solve import Trajectory, solve
from .boundary import AbstractBoundary, InitialValue
from .integrators import State
from .systems import Hamiltonian, Lagrangian


def solutions(
    system: Hamiltonian | Lagrangian,
    boundary: AbstractBoundary,
    inputs: PyTree = None,
    *,
    guesses: Iterable[State],
    dt: Any,
    steps: int | None = None,
    separation: float = 1e-6,
    **options: Any,
) -> list[Trajectory]:
    r"""Return the different paths that meet a boundary condition, as far as the guesses lead to them.

    A two-point problem can have several solutions, and `solve` returns the one that its guess leads to. This runs
    Newton's method from every guess, leaves out what did not converge, and keeps one of each that differ. A
    `convergence.transversality` near zero tells that a path is about to merge with another: a conjugate point.

    Args:
        system: a Hamiltonian or a Lagrangian.
        boundary: a condition other than an initial value, which has one solution only.
        inputs: as for `solve`.
        guesses: states `(q0, p0)` from which the search begins.
        dt: step length.
        steps: number of steps, unless `inputs` tells it.
        separation: paths closer than this, relative to their size, are one.
        **options: further arguments of `solve`: `t0`, `integrator`, `solver`, ...

    Returns:
        Trajectories with all nodes, in the order in which they were found; none if no guess led to one. The list is
        built from concrete numbers: do not call it under `jit`.

    Raises:
        ValueError: for an initial value.

    Source: U. Ascher, R. Mattheij, R. Russell, *Numerical Solution of Boundary Value Problems* (1995), section 3.1.

    Example:
        ```python
        starts = [(jnp.zeros(1), jnp.full(1, p)) for p in (-2.0, -1.0, 0.5, 1.0, 2.0)]
        ends = eg.FixedEnds(jnp.zeros(1), jnp.zeros(1))
        paths = eg.solutions(pendulum, ends, dt=0.1, steps=80, guesses=starts)
        ```
    """
    if isinstance(boundary, InitialValue):
        raise ArgumentError("solutions: an InitialValue has exactly one solution. Run it with solve().")
    what = "a boundary condition such as FixedEnds(q0, qN), an instance"
    _checks.instance("solutions", "boundary", boundary, AbstractBoundary, what)
    _checks.constant("solutions", "separation", separation, _checks.not_negative, "it must be zero or positive")
    if not isinstance(guesses, Iterable) or isinstance(guesses, str):
        raise ArgumentTypeError(f"solutions: guesses={_checks.shown(guesses)} is not a sequence of states (q0, p0).")
    found: list[Trajectory] = []
    for guess in guesses:
        path = solve(system, boundary, inputs, dt=dt, steps=steps, guess=guess, throw=False, **options)
        if path.convergence is None or not path.convergence.converged:
            continue
        if all(_distance(path, other) > separation for other in found):
            found.append(path)
    return found


def _distance(a: Trajectory, b: Trajectory) -> float:
    """Return how far two paths are apart, coordinates and momenta each in units of their size."""
    parts = []
    for x, y in ((a.q, b.q), (a.p, b.p)):
        apart, size = _tree.max_abs(jax.tree.map(jnp.subtract, x, y)), _tree.max_abs((x, y))
        parts.append(apart / jnp.where(size > 0, size, 1))
    return float(jnp.maximum(*parts))
