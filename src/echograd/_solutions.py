"""The different solutions of a two-point problem, from several guesses."""

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
    r"""Return the different paths that meet a boundary condition and are found from the guesses.

    A two-point problem can have no, one or several solutions, and `solve` returns the one that its guess leads to. This
    function runs Newton's method from every guess, drops the runs that do not converge, and keeps one path of each
    group of equal ones. A `convergence.transversality` near zero means that a path is about to merge with another: a
    conjugate point.

    Args:
        system: a Hamiltonian or a Lagrangian.
        boundary: a condition other than an `InitialValue`.
        inputs: as for `solve`.
        guesses: states `(q0, p0)` from which the search begins.
        dt: step length.
        steps: number of steps; optional if `inputs` has that length.
        separation: two paths closer than this, relative to their size, are equal.
        **options: further arguments of `solve`: `t0`, `integrator`, `solver`, ...

    Returns:
        A list of trajectories with all nodes, in the order in which they were found; empty if no run converged. Its
        length depends on the numbers, so the function cannot run under `jit`.

    Raises:
        ArgumentError: for an `InitialValue`, or a negative `separation`.
        ArgumentTypeError: if an argument has the wrong type.

    Source: U. Ascher, R. Mattheij, R. Russell, *Numerical Solution of Boundary Value Problems* (1995), section 3.1.

    Example:
        ```python
        pendulum = eg.systems.PendulumChain()
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
    """Return the largest distance of two paths, with coordinates and momenta each in units of their size."""
    parts = []
    for x, y in ((a.q, b.q), (a.p, b.p)):
        apart, size = _tree.max_abs(jax.tree.map(jnp.subtract, x, y)), _tree.max_abs((x, y))
        parts.append(apart / jnp.where(size > 0, size, 1))
    return float(jnp.maximum(*parts))
