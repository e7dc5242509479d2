"""Gradients of long simulations: the echo, backprop, and methods of other libraries."""

import importlib
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from echograd import systems
from echograd._solve import solve
from echograd.boundary import InitialValue
from echograd.gradients import AbstractGradient, Backprop, Echo
from echograd.problem import FinalNode

from ._case import Case, Precision, Program, Row, compiled, complaint

ABOUT = """
The gradient of a running cost, the sum of all squared coordinates at all nodes, with respect to every parameter of a
system of `echograd.systems`. `forward` is the same run without a gradient; passes are times relative to its time.
Contenders "by hand" are plain JAX. diffrax runs its semi-implicit Euler method (one force per step, like leapfrog);
`BacksolveAdjoint` does not support that method and runs Heun's method (two forces per step). Errors are those of the
gradient after 1,000 steps (or the whole run, if it is shorter) relative to backprop through the same discrete map in
float64.
"""

FORWARD = "forward"
# The contenders and their discrete maps.
SCHEMES = {
    FORWARD: "leapfrog",
    "echo": "leapfrog",
    "backprop": "leapfrog",
    "backprop, checkpointed": "leapfrog",
    "lax.scan by hand": "leapfrog",
    "lax.scan by hand, checkpointed": "leapfrog",
    "diffrax RecursiveCheckpointAdjoint": "semi-implicit Euler",
    "diffrax BacksolveAdjoint": "Heun",
}
# For each map, the contender with its exact gradient.
EXACT = {
    "leapfrog": "lax.scan by hand",
    "semi-implicit Euler": "diffrax RecursiveCheckpointAdjoint",
    "Heun": "diffrax RecursiveCheckpointAdjoint, Heun",
}
CHECKED = 1_000

FULL: tuple[tuple[str, Precision, tuple[int, ...]], ...] = (
    ("fput", "float64", (1_000, 10_000, 100_000, 1_000_000)),
    ("pendulums", "float64", (100_000,)),
    ("wave", "float64", (1_000,)),
    ("nbody", "float64", (2_000,)),
    ("kepler", "float64", (1_000_000,)),
    ("fput", "float32", (100_000,)),
    ("pendulums", "float32", (100_000,)),
)
QUICK: tuple[tuple[str, Precision, tuple[int, ...]], ...] = (("kepler", "float64", (100,)),)


def cases(quick: bool, peers: dict[str, str]) -> list[Case]:
    """Return all systems and numbers of steps."""
    del peers
    return [
        Case(
            f"{system}, {steps:,} steps, {dtype}",
            {"system": system, "steps": steps},
            tuple(SCHEMES),
            base=FORWARD,
            dtype=dtype,
        )
        for system, dtype, numbers in (QUICK if quick else FULL)
        for steps in numbers
    ]


def build(case: Case, contender: str) -> Program:
    """Compile a contender: cost and gradient as a function of system and start."""
    system, z0, dt = problem(case.sizes["system"])
    function = gradient(contender, dt, case.sizes["steps"])
    program, figures = compiled(function, system, z0)
    return Program(lambda: program(system, z0), {**figures, "scheme": SCHEMES[contender]})


def measure_errors(case: Case) -> dict[str, dict[str, Any]]:
    """Return the error of every contender that has a gradient."""
    steps, found = min(CHECKED, case.sizes["steps"]), {}
    references = {}
    for name in case.contenders:
        if name == FORWARD:
            continue
        scheme = SCHEMES[name]
        try:
            if scheme not in references:
                references[scheme] = gradient_leaves(EXACT[scheme], case.sizes["system"], steps, "float64")
            ours = gradient_leaves(name, case.sizes["system"], steps, case.dtype)
        except Exception as error:
            found[name] = {"agreement_failed": complaint(error)}
            continue
        pairs = zip(ours, references[scheme], strict=True)
        error = max(float(np.linalg.norm(x - y) / np.linalg.norm(y)) for x, y in pairs)
        found[name] = {"error": error, "error_against": f"backprop through {scheme}, float64"}
    return found


def gradient_leaves(name: str, system_name: str, steps: int, dtype: Precision) -> list[np.ndarray]:
    """Return the gradient of a contender."""
    with jax.enable_x64(dtype == "float64"):
        system, z0, dt = problem(system_name)
        return [np.asarray(leaf) for leaf in jax.tree.leaves(jax.jit(gradient(name, dt, steps))(system, z0)[1])]


def problem(name: str) -> tuple[Any, Any, float]:
    """Return a system with parameters for every site, a start, and a step."""
    n = 256
    if name == "fput":
        bonds = jnp.ones(n + 1)
        system = systems.FPUTChain(jnp.ones(n), bonds, 0.25 * bonds, 0.1 * bonds)
        return system, system.start(n), 0.1
    if name == "pendulums":
        system = systems.PendulumChain(jnp.ones(n), jnp.ones(n), 10 * jnp.ones(n - 1))
        return system, system.start(n), 0.02
    if name == "kepler":
        return systems.Kepler(), systems.Kepler().start(), 0.01
    if name == "nbody":
        return systems.NBody(), systems.NBody().start(), 0.01
    assert name == "wave"
    return systems.WaveField(), systems.WaveField().start(), 0.3


def gradient(name: str, dt: float, steps: int) -> Any:
    """Return the function of system and start that a contender compiles."""
    run = by_diffrax if name.startswith("diffrax") else by_hand if "by hand" in name else by_echograd

    def value(system: Any, z0: Any) -> Array:
        return run(name, system, z0, dt, steps)

    return (lambda system, z0: (value(system, z0),)) if name == FORWARD else jax.value_and_grad(value)


def square(q: Array) -> Array:
    """Return the cost of a node."""
    return jnp.sum(q**2)


def by_echograd(name: str, system: Any, z0: Any, dt: float, steps: int) -> Array:
    """Return the cost by `solve`."""
    gradients: dict[str, AbstractGradient] = {
        "backprop": Backprop(),
        "backprop, checkpointed": Backprop(checkpoints=math.isqrt(steps)),
    }
    sol = solve(
        system,
        InitialValue(*z0),
        dt=dt,
        steps=steps,
        # Long orbits retrace to six digits; the tolerance does not change the time.
        gradient=gradients.get(name, Echo(retrace_tolerance=1e-5)),
        save=FinalNode(),
        cost=lambda t, q, p: square(q),
    )
    return sol.cost


def by_hand(name: str, system: Any, z0: Any, dt: float, steps: int) -> Array:
    """Return the cost by leapfrog as one would write it."""

    def step(carry: Any, _: Any) -> tuple[Any, None]:
        q, p, cost = carry
        q = q + 0.5 * dt * jax.grad(lambda p: system.kinetic(0.0, p))(p)
        p = p - dt * jax.grad(lambda q: system.potential(0.0, q, None))(q)
        q = q + 0.5 * dt * jax.grad(lambda p: system.kinetic(0.0, p))(p)
        return (q, p, cost + square(q)), None

    carry = (*z0, square(z0[0]))
    if not name.endswith("checkpointed"):
        return jax.lax.scan(step, carry, None, length=steps)[0][2]
    inner = math.isqrt(steps)
    outer, rest = divmod(steps, inner)
    segment = jax.checkpoint(lambda carry, _: jax.lax.scan(step, carry, None, length=inner))
    carry, _ = jax.lax.scan(lambda carry, x: (segment(carry, x)[0], None), carry, jnp.zeros(outer))
    return jax.lax.scan(step, carry, None, length=rest)[0][2]


def by_diffrax(name: str, system: Any, z0: Any, dt: float, steps: int) -> Array:
    """Return the cost by diffrax, as one more component of the state."""
    diffrax: Any = importlib.import_module("diffrax")

    def drift(t: Any, y: Any, system: Any) -> Any:
        return jax.grad(lambda p: system.kinetic(t, p))(y[0]), jnp.zeros(())

    def kick(t: Any, y: Any, system: Any) -> Any:
        return -jax.grad(lambda q: system.potential(t, q, None))(y[0]), square(y[0]) / dt

    def flow(t: Any, y: Any, system: Any) -> Any:
        return drift(t, y[1], system), kick(t, y[0], system)

    adjoint = diffrax.RecursiveCheckpointAdjoint()
    terms, solver = (diffrax.ODETerm(drift), diffrax.ODETerm(kick)), diffrax.SemiImplicitEuler()
    if name.endswith(("Heun", "BacksolveAdjoint")):
        terms, solver = diffrax.ODETerm(flow), diffrax.Heun()
    if name.endswith("BacksolveAdjoint"):
        adjoint = diffrax.BacksolveAdjoint(solver=diffrax.Heun())
    q, p = z0
    # Both halves of the state need the same structure, so the coordinates get an unused component.
    start = ((q, jnp.zeros(())), (p, square(q)))
    sol = diffrax.diffeqsolve(
        terms, solver, 0.0, steps * dt, dt, start, args=system, adjoint=adjoint, max_steps=steps + 1
    )
    return sol.ys[1][1][-1]


ROW = Row(
    "simulation",
    "Gradients of long simulations",
    ABOUT,
    cases,
    build,
    measure_errors,
    shared=lambda case: (case.sizes["system"], case.dtype, min(CHECKED, case.sizes["steps"])),
)
