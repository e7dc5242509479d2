"""Gradients of two-point problems: time and memory over the number of steps and of coordinates."""

import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from echograd._solve import solve
from echograd.boundary import AbstractBoundary, FixedEnds, Periodic, Robin
from echograd.gradients import Backprop, Glep
from echograd.problem import FinalNode
from echograd.systems import FPUTChain

from ._case import Case, Program, Row, compiled

ABOUT = """
A driven FPUT chain of n masses between two ends, over the time 2 in N steps. `path` finds the trajectory by Newton's
method from the default guess. `Glep()` and `Backprop()` (by the implicit function theorem) add the gradient of a
running cost with respect to all parameters. `scipy solve_bvp` finds the path of the continuous problem on the same mesh
without refinement; it agrees with ours to second order in the step, and has no gradients. Errors of gradients are
relative to `Backprop()`.
"""

DURATION = 2.0
PATH, GLEP, BACKPROP, SCIPY = "path", "Glep()", "Backprop()", "scipy solve_bvp"
CONTENDERS = (PATH, GLEP, BACKPROP, SCIPY)
FULL = (
    *(("fixed ends", steps, 8) for steps in (100, 1_000, 10_000)),
    *(("fixed ends", 1_000, n) for n in (2, 4, 16)),
    *((condition, 1_000, 8) for condition in ("Robin", "periodic")),
)
QUICK = (("fixed ends", 20, 2),)


def cases(quick: bool, peers: dict[str, str]) -> list[Case]:
    """Return all conditions and sizes."""
    del peers
    return [
        Case(
            f"{condition}, N = {steps:,}, n = {n}",
            {"condition": condition, "steps": steps, "n": n},
            CONTENDERS,
            base=PATH,
            reference=BACKPROP,
        )
        for condition, steps, n in (QUICK if quick else FULL)
    ]


def condition_of(name: str, n: int) -> AbstractBoundary:
    """Return a boundary condition."""
    if name == "fixed ends":
        return FixedEnds(0.2 * jnp.sin(jnp.pi * jnp.arange(1, n + 1) / (n + 1)), jnp.zeros(n))
    if name == "Robin":
        spring = jnp.eye(n) + 0.1 * jnp.ones((n, n))
        return Robin(spring, -spring, 0.1 * jnp.ones(n), jnp.zeros(n))
    assert name == "periodic"
    return Periodic()


def drive(t: Any, n: int) -> Any:
    """Return the force at the times t. Its period is that of the trajectory, its frequency above those of the chain."""
    return 0.2 * np.cos(np.pi * np.asarray(t))[..., None] / np.arange(1, n + 1)


def build(case: Case, contender: str) -> Program:
    """Compile the path or a gradient, or prepare scipy."""
    n, steps = case.sizes["n"], case.sizes["steps"]
    if contender == SCIPY:
        return by_scipy(case.sizes["condition"], n, steps)
    chain = FPUTChain(jnp.ones(n), jnp.ones(n + 1), 0.25 * jnp.ones(n + 1), 0.1 * jnp.ones(n + 1))
    dt = DURATION / steps
    # A step kicks at its middle.
    inputs = jnp.asarray(drive(dt * (np.arange(steps) + 0.5), n))
    condition = condition_of(case.sizes["condition"], n)

    def cost(chain: FPUTChain, condition: AbstractBoundary, inputs: Array) -> tuple[Array, Any]:
        sol = solve(
            chain,
            condition,
            inputs,
            dt=dt,
            steps=steps,
            gradient=Backprop() if contender == BACKPROP else Glep(),
            save=FinalNode(),
            cost=lambda t, q, p: dt * jnp.sum(q**2),
            # A periodic condition does not determine a default guess.
            guess=(jnp.zeros(n), jnp.zeros(n)) if isinstance(condition, Periodic) else None,
        )
        assert sol.convergence is not None
        return sol.cost, (sol.q, sol.p, sol.convergence.iterations)

    function = cost if contender == PATH else jax.value_and_grad(cost, has_aux=True)
    program, figures = compiled(function, chain, condition, inputs)

    def result(found: Any) -> dict[str, Any]:
        end, gradient = (found[1], {}) if contender == PATH else (found[0][1], {"gradient": found[1]})
        return {"path": np.concatenate(end[:2]), **gradient}

    return Program(lambda: program(chain, condition, inputs), figures, result)


def by_scipy(condition: str, n: int, steps: int) -> Program:
    """Prepare scipy's collocation on the mesh of our nodes."""
    integrate: Any = importlib.import_module("scipy.integrate")
    mesh = np.linspace(0.0, DURATION, steps + 1)

    def slope(t: np.ndarray, y: np.ndarray) -> np.ndarray:
        q, p = y[:n], y[n:]
        r = np.diff(q, axis=0, prepend=0.0, append=0.0)
        return np.concatenate([p, np.diff(r + 0.25 * r**2 + 0.1 * r**3, axis=0) + drive(t, n).T])

    none: Any = None  # these conditions do not depend on the system
    rows, data = (np.asarray(x) for x in condition_of(condition, n).rows(none, none, none, jnp.zeros(n)))

    def ends(start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        return rows @ np.concatenate([start, stop]) - data

    def run() -> np.ndarray:
        # The tolerance stops the Newton iteration early. `max_nodes` forbids refinement of the mesh.
        first, last = np.split(np.linalg.pinv(rows) @ data, 2)
        guess = np.linspace(first, last, steps + 1, axis=1)
        found = integrate.solve_bvp(slope, ends, mesh, guess, tol=1e-8, max_nodes=steps + 1)
        if found.status == 2:
            raise RuntimeError(found.message)
        return found.y[:, -1]

    return Program(run, result=lambda end: {"path": end})


ROW = Row("boundary", "Gradients of two-point problems", ABOUT, cases, build)
