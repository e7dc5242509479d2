"""The one verb: solve."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, PyTree

from ._internal import _checks, _tree
from ._internal._errors import ArgumentError, ArgumentTypeError, plain_errors
from ._internal._hoist import digest, hoisted, opened
from .boundary import AbstractBoundary, End, InitialValue
from .gradients import AbstractGradient, Backprop, Echo, Glep, Reciprocal
from .gradients._retrace import retrace_error as _retrace_error
from .integrators import AbstractIntegrator, ImplicitMidpoint, Leapfrog, SplitStep, State, StepInputs
from .nudge._checks import is_holomorphic
from .problem import AbstractSave, AllNodes, Problem
from .problem._save import SaveFunction
from .problem._soundness import not_blown_up, stable, timed
from .systems import Dissipative, Hamiltonian, Lagrangian, SeparableHamiltonian, SplitHamiltonian, legendre
from .two_point import Condition, Convergence, TwoPointNewton
from .two_point._problem import two_point

Save = AbstractSave | Callable[[Any, PyTree, PyTree], PyTree]
Cost = Callable[[Any, PyTree, PyTree], Float[Array, ""]]


class Trajectory(eqx.Module):
    """What `solve` returns.

    Attributes:
        t: times of the kept nodes (of the final node with `FinalNode`).
        q: coordinates at the kept nodes, on a new leading axis; with `FinalNode` or a function, at the final node only.
        p: momenta, likewise.
        cost: the running cost summed over all nodes 0..N; zero without one.
        saved: with `save=function`, its values at every node on a new leading axis; else `None`.
        convergence: how the path was found, for a condition that is not an initial value; else `None`.
        stride: how many steps apart the nodes of `q` and `p` are; `None` if they hold the final one only.
    """

    t: Float[Array, "*nodes"]
    q: PyTree
    p: PyTree
    cost: Float[Array, ""]
    saved: PyTree = None
    convergence: Convergence | None = None
    stride: int | None = eqx.field(static=True, default=1)


def solve(
    system: Hamiltonian | Lagrangian | Dissipative,
    boundary: AbstractBoundary,
    inputs: PyTree = None,
    *,
    dt: Any,
    steps: int | None = None,
    t0: Any = 0.0,
    integrator: AbstractIntegrator | None = None,
    gradient: AbstractGradient | None = None,
    save: Save | None = None,
    cost: Cost | None = None,
    guess: "Trajectory | State | None" = None,
    solver: TwoPointNewton | None = None,
    throw: bool = True,
) -> Trajectory:
    r"""Run a system from its boundary condition; the result is differentiable, by the gradient you choose.

    The discrete trajectory is $z_{k+1} = \Phi_{dt}(z_k, u_k)$, $k = 0 \dots N-1$. From an initial value it is run; a
    condition that involves the other end is a two-point boundary value problem, solved by Newton's method on all nodes
    (memory grows with N). Differentiate anything computed from it with `jax.grad` or `equinox.filter_grad`, with
    respect to the system's array leaves, the boundary data, the inputs, `dt`, `t0`, and arrays that `cost` and `save`
    hold or close over. Works under `jit`, `vmap` and inside any JAX code; batch axes come from `vmap`.

    Every call outside of `jit` traces the energies, `cost` and `save` and reuses a compiled program if they compute the
    same: a changed global number takes effect, and an equal new `lambda` is not compiled again. Inside your own
    `jax.jit` Python values are constants, as always.

    Args:
        system: a Hamiltonian, a Lagrangian or a `Dissipative` system; its array leaves are the parameters.
        boundary: what the ends are held to: `InitialValue`, `FinalValue`, `FixedEnds`, `FreeEnds`, `MixedEnds`,
            `Periodic`, `Robin` or `LinearBoundary`.
        inputs: PyTree of arrays with a leading axis of N steps; entry k is held during step k and reaches the energy
            (`potential`, `__call__`, `parts`) or the `force` as `u`. `None` for an autonomous system.
        dt: step length, in the time unit of the energies. Positive.
        steps: number of steps N; may be left out when `inputs` tells it.
        t0: time of node 0.
        integrator: a self-adjoint scheme; by default `Leapfrog()` for a `SeparableHamiltonian`, `SplitStep()` for a
            `SplitHamiltonian`, and `ImplicitMidpoint()` for everything else.
        gradient: `Echo()` by default for an initial value: exact, with memory that does not grow with N. `Glep()` by
            default for any other condition. Of a `Dissipative` system `Reciprocal()` and, for any other condition,
            `Backprop()`, which is the oracle.
        save: `AllNodes()` by default, `FinalNode()`, `EveryNode(k)`, or a function `(t, q, p) -> PyTree` of each node,
            whose values come back as `Trajectory.saved`.
        cost: running cost `(t, q, p) -> scalar`, summed over nodes 0..N inside the loop, so that its gradient needs no
            stored trajectory. It is a plain sum: multiply by `dt` for an integral.
        guess: for a two-point problem: a `Trajectory` with all nodes, or a state `(q0, p0)` that is run to make one. By
            default a straight line between the smallest ends that meet the condition.
        solver: for a two-point problem, `TwoPointNewton()` by default.
        throw: whether to measure, at run time, that step, trajectory and echo are sound, and raise where they are not.
            `False` returns whatever comes out; of a two-point problem `convergence` tells whether it is a solution.

    Returns:
        `Trajectory(t, q, p, cost, saved, convergence, stride)`.

    Raises:
        TypeError: for a system, boundary, integrator, gradient, save or cost that is none, for a gradient or an
            integrator that is not made for the system or the boundary, for a state of half precision, for float64
            arrays while x64 is off, for arrays that differ between the devices of a `jax.shard_map` with
            `check_vma=True`, and for a gradient by an array that a method of the system closes over.
        ValueError: for shapes, structures or numbers that do not fit together.
        RuntimeError: (at run time, also under `jit`) if the step is unstable, the trajectory not finite, a two-point
            problem without a solution or at a conjugate point, or the gradient cannot be vouched for.

    Source: arXiv 2506.06248 and 2506.05259.

    Example:
        ```python
        sol = eg.solve(system, eg.InitialValue(q0, p0), dt=0.01, steps=1000)
        energy = eg.energy(system, sol)
        ```
    """
    causal = isinstance(boundary, InitialValue)
    if gradient is None:
        if isinstance(system, Dissipative):
            gradient = Reciprocal() if causal else Backprop()
        else:
            gradient = Echo() if causal else Glep()
    what = "a gradient object. Pass Echo(), Backprop() or another one, with its parentheses"
    _checks.instance("solve", "gradient", gradient, AbstractGradient, what)
    options = {"dt": dt, "steps": steps, "t0": t0, "integrator": integrator, "save": save, "cost": cost, "throw": throw}
    options["holomorphic"] = is_holomorphic(gradient)
    convergence = None
    if causal:
        if guess is not None or solver is not None:
            raise ArgumentError(
                "solve: guess and solver are for two-point problems; an InitialValue is run, not solved for. Leave "
                "them out."
            )
        problem, z0 = initial_value_problem(system, boundary, inputs, **options)
        gradient.check(problem.given.system)
        with _checks.reverse_mode("solve", gradient), plain_errors():
            outcome = _run(_tree.fixed(gradient), problem, z0)
    else:
        problem, like, start, path = two_point_problem(system, boundary, inputs, guess=guess, **options)
        gradient.check(problem.given.system)
        solver = TwoPointNewton() if solver is None else solver
        _checks.instance("solve", "solver", solver, TwoPointNewton, "a TwoPointNewton(), with its parentheses")
        with _checks.reverse_mode("solve", gradient), plain_errors():
            outcome, convergence = _run_two_point(_tree.fixed(gradient), problem, boundary, like, start, path, solver)

    stride, n = problem.save.stride(problem.steps), problem.steps
    nodes = jnp.asarray(n, jnp.int32) if stride is None else jnp.arange(0, n + 1, stride, dtype=jnp.int32)
    t = problem.given.t0 + nodes.astype(problem.given.h.dtype) * problem.given.h
    if isinstance(problem.save, SaveFunction):
        q, p = outcome.final
        return Trajectory(t, q, p, outcome.cost, outcome.saved, convergence, None)
    q, p = outcome.final if stride is None else outcome.saved
    return Trajectory(t, q, p, outcome.cost, None, convergence, stride)


@eqx.filter_jit
def _run(gradient: AbstractGradient, problem: Problem, z0: State) -> Any:
    if not problem.throw:
        return gradient.run(problem, z0)
    return not_blown_up(problem, z0, gradient.run(problem, stable(problem, timed(problem, z0))))


@eqx.filter_jit
def _run_two_point(
    gradient: AbstractGradient,
    problem: Problem,
    boundary: AbstractBoundary,
    like: PyTree,
    start: State | None,
    path: State | None,
    solver: TwoPointNewton,
) -> Any:
    given, n = problem.given, problem.steps
    first = End(given.t0, _tree.take(given.u, 0))
    last = End(given.time(jnp.asarray(n, jnp.int32)), _tree.take(given.u, n - 1))
    condition = Condition(*boundary.rows(given.system, first, last, like))
    return gradient.run_two_point(*two_point(problem, condition, like, start, path), solver)


def retrace_error(
    system: Hamiltonian | Lagrangian | Dissipative,
    boundary: AbstractBoundary,
    inputs: PyTree = None,
    *,
    dt: Any,
    steps: int | None = None,
    t0: Any = 0.0,
    integrator: AbstractIntegrator | None = None,
) -> Float[Array, ""]:
    r"""Measure how exactly an echo retraces: run forward, flip the momenta, run again, flip, compare.

    $$\max_\ell \frac{\max_i |z_{{\rm echo},\ell i} - z_{0,\ell i}|}{\max_{k,i} |z_{k,\ell i} - z_{0,\ell i}|}$$

    over the leaves $\ell$ of the state, each relative to how far it moves along the path. Rounding alone gives about
    1e-13 in float64 over moderate times; chaos amplifies it.

    Args:
        system: a Hamiltonian, a Lagrangian or a `Dissipative` system.
        boundary: an `InitialValue`.
        inputs: inputs with a leading axis of steps, or `None`.
        dt: step length.
        steps: number of steps, unless `inputs` tells it.
        t0: time of node 0.
        integrator: a self-adjoint scheme; by default the one that `solve` takes for the system.

    Returns:
        The relative error, a scalar.

    Raises:
        TypeError: for a system that is none, or a boundary that is not an `InitialValue`.
        ValueError: for shapes, structures or numbers that do not fit together.
        RuntimeError: (at run time) if the run or its echo is not finite.

    Example:
        ```python
        eg.retrace_error(system, eg.InitialValue(q0, p0), dt=0.01, steps=1000)  # 2e-14
        ```
    """
    options = {"dt": dt, "steps": steps, "t0": t0, "integrator": integrator}
    problem, z0 = initial_value_problem(system, boundary, inputs, **options)
    with plain_errors():
        error = _retrace_error(problem, z0)
    return eqx.error_if(
        error,
        ~jnp.isfinite(error),
        "retrace_error: the run or its echo is not finite, so no distance can be told. Halve dt, or take fewer steps.",
    )


def initial_value_problem(
    system: Any, boundary: AbstractBoundary, inputs: PyTree, *, t0: Any, **options: Any
) -> tuple[Problem, State]:
    """Return the checked problem and its initial state."""
    if not isinstance(boundary, InitialValue):
        raise ArgumentTypeError(
            f"solve: the boundary is a {type(boundary).__name__}. Pass InitialValue(q, p) or InitialValue(q, v=v) here."
        )
    system, inputs = _accepted(system), _checks.numbers("solve", "inputs", inputs)
    _check_usable(system=system, boundary=boundary, inputs=inputs, t0=t0, **options)
    n = step_count(inputs, options.pop("steps"))
    dtype = jnp.result_type(*(x.dtype for x in jax.tree.leaves((boundary.q, boundary.p, boundary.v))))
    z0 = boundary.state(system, End(_checks.number("solve", "t0", t0, dtype=dtype), _tree.take(inputs, 0)))
    problem, z0 = _problem(system, inputs, n, z0, t0=t0, **options)
    given, z0 = problem.integrator.prepared(problem.given, z0)
    return eqx.tree_at(lambda p: p.given, problem, given), z0


def two_point_problem(
    system: Any, boundary: AbstractBoundary, inputs: PyTree, *, guess: Any, t0: Any, **options: Any
) -> tuple[Problem, PyTree, State | None, State | None]:
    """Return the checked problem, coordinates to take the shape from, and a start or a path as the guess."""
    if not isinstance(boundary, AbstractBoundary):
        raise ArgumentTypeError(
            f"solve: the boundary is a {type(boundary).__name__}. Pass InitialValue(q, p), FixedEnds(q0, qN) or "
            "another boundary condition."
        )
    system, inputs = _accepted(system), _checks.numbers("solve", "inputs", inputs)
    _check_usable(system=system, boundary=boundary, inputs=inputs, guess=guess, t0=t0, **options)
    n = step_count(inputs, options.pop("steps"))
    start, path = (None, guess) if isinstance(guess, Trajectory) else (guess, None)
    like = boundary.structure()
    if path is not None:
        if any(x.shape[:1] != (n + 1,) for x in jax.tree.leaves((path.q, path.p))):
            raise ArgumentError(
                f"solve: the guess is a trajectory that does not have the {n + 1} nodes of {n} steps. Pass one that "
                "was solved with save=AllNodes() and as many steps, or a state (q0, p0)."
            )
        path = (path.q, path.p)
        nodes = jax.tree.map(lambda x: x[0], path[0])
        if like is not None:
            _fits(boundary, like, nodes)
        like = nodes
    if start is not None:
        start = _checks.pair("solve", "guess", start)
        if like is not None:
            _fits(boundary, like, start[0])
        like = start[0]
    if like is None:
        raise ArgumentError(
            f"solve: {type(boundary).__name__} fits any number of coordinates, so it does not tell the shape of the "
            "state. Pass guess=(q0, p0), a state from which the search begins."
        )
    z0 = (like, like) if start is None else start
    problem, z0 = _problem(system, inputs, n, z0, t0=t0, **options)
    if isinstance(problem.integrator, Leapfrog) and problem.integrator.exact:
        raise ArgumentError(
            f"solve: Leapfrog(exact=True) runs from an InitialValue. A two-point problem ({type(boundary).__name__}) "
            "is solved for, in floats, and has nothing to reverse. Use Leapfrog()."
        )
    return problem, z0[0], None if start is None else z0, path


def _check_usable(**arguments: Any) -> None:
    for name, tree in arguments.items():
        _tree.check_usable("solve", name, tree)


def _fits(boundary: AbstractBoundary, like: PyTree, q: PyTree) -> None:
    """Raise unless a guess has as many coordinates as the condition is made for."""
    made, found = (sum(x.size for x in jax.tree.leaves(tree)) for tree in (like, q))
    if made != found:
        raise ArgumentError(
            f"solve: the guess has {found} coordinates, and {type(boundary).__name__} is made for {made}. Give both "
            "the coordinates of the system."
        )


def _accepted(system: Any) -> Hamiltonian | Dissipative:
    if isinstance(system, Lagrangian):
        return legendre(system)
    if not isinstance(system, Hamiltonian | Dissipative):
        raise ArgumentTypeError(
            f"solve: the system is a {type(system).__name__}. Derive it from SeparableHamiltonian, Hamiltonian, "
            "Lagrangian or Dissipative and pass an instance."
        )
    return system


def _problem(
    system: Hamiltonian | Dissipative,
    inputs: PyTree,
    steps: int,
    z0: State,
    *,
    dt: Any,
    t0: Any = 0.0,
    integrator: AbstractIntegrator | None = None,
    save: Save | None = None,
    cost: Cost | None = None,
    throw: bool = True,
    holomorphic: bool = False,
) -> tuple[Problem, State]:
    """Return the checked problem and a state of it: one place for what `solve` and its relatives accept."""
    if integrator is None:
        integrator = default_integrator(system)
    what = "an integrator. Pass Leapfrog(), with its parentheses"
    _checks.instance("solve", "integrator", integrator, AbstractIntegrator, what).check(system)
    _checks.flag("solve", "throw", throw)

    _tree.check_digits("solve", "the state", z0)
    dtype = jnp.result_type(*(x.dtype for x in jax.tree.leaves(z0)))
    t0 = _checks.number("solve", "t0", t0, dtype=dtype)
    why = "the step length must be positive and finite. To run back in time, flip the momenta and reverse the inputs"
    h = _checks.number("solve", "dt", dt, _checks.positive, why, dtype=dtype, at_run_time=True)

    z0, program, closed_over = _traced(StepInputs(opened(system), inputs, h, t0), integrator, z0)
    nudged = (t0, *_tree.as_complex(z0)) if holomorphic else None

    if save is None:
        save = AllNodes()
    elif not isinstance(save, AbstractSave):
        _checks.function("solve", "save", save, "(t, q, p) -> PyTree, nor AllNodes(), FinalNode() or EveryNode(k)")
        _checks.numbers("solve", "what save returns", _checks.returned("solve", "save(t, q, p)", save, t0, *z0))
        save = SaveFunction(hoisted(save, t0, *z0, nudged=nudged))
    if cost is not None:
        _checks.function("solve", "cost", cost, "(t, q, p) -> scalar")
        _checks.scalar("solve", "cost(t, q, p)", cost, t0, *z0, integers=True)
        cost = hoisted(cost, t0, *z0, nudged=nudged)

    _tree.check_usable("solve", "what a function closes over: ", (closed_over, save, cost))
    given = StepInputs(opened(system, program), inputs, h, t0)
    return Problem(given, save, cost, integrator, steps, throw, closed_over, program), z0


def default_integrator(system: Hamiltonian | Lagrangian | Dissipative) -> AbstractIntegrator:
    """Return the integrator that is made for a system."""
    if isinstance(system, SeparableHamiltonian):
        return Leapfrog()
    return SplitStep() if isinstance(system, SplitHamiltonian) else ImplicitMidpoint()


def step_count(inputs: PyTree, steps: Any) -> int:
    """Return the number of steps that `steps` and the leading axes of `inputs` agree on."""
    lengths = {}
    for path, x in jax.tree_util.tree_leaves_with_path(inputs):
        if x.ndim == 0:
            raise ArgumentError(
                f"solve: inputs{jax.tree_util.keystr(path)} is a scalar. Inputs have a leading axis of steps, entry k "
                "being held during step k. A constant belongs in the system, as a field."
            )
        lengths[f"inputs{jax.tree_util.keystr(path)}"] = x.shape[0]
    if steps is not None:
        lengths["steps"] = _checks.integer("solve", "steps", steps, what="the length of a compiled loop")
    if not lengths:
        raise ArgumentError("solve: give `steps`, the number of steps, or `inputs` with a leading axis of that length.")
    if len(set(lengths.values())) > 1:
        raise ArgumentError(
            "solve: these disagree on the number of steps: "
            + ", ".join(f"{k} has {v}" for k, v in lengths.items())
            + ". Inputs have one entry per step."
        )
    n = next(iter(lengths.values()))
    if n < 1:
        raise ArgumentError(f"solve: the number of steps is {n}; at least 1 is needed.")
    return n


def _traced(given: StepInputs, integrator: AbstractIntegrator, z0: State) -> tuple[State, str, list[Any]]:
    """Return `z0` in the dtypes that a step gives back, what the step does, and traced arrays that it closes over.

    Raises:
        ValueError: if energies or forces are not shaped as they should be.
    """
    q0, p0 = z0
    u0 = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), given.u)
    system, t0 = given.system, given.t0
    if isinstance(system, Dissipative):
        _check_forces(given, z0, u0)
    elif isinstance(system, SeparableHamiltonian):
        _checks.scalar("solve", "kinetic(t, p)", system.kinetic, t0, p0)
        _checks.scalar("solve", "potential(t, q, u)", system.potential, t0, q0, u0)
    else:
        _checks.scalar("solve", "the energy(t, q, p, u)", system, t0, q0, p0, u0)

    arrays, static = eqx.partition(given.without_inputs(), eqx.is_array)

    def step(arrays: Any, u: Any, z: State) -> Any:
        """Step, and what else the system is asked for while it runs."""
        given = eqx.combine(arrays, static)
        system, (q, p) = given.system, z
        mirrored = system.mirror(q), system.mirror(p), system.mirror_input(u)
        rest = (system.friction(p), system.twisted(q)) if isinstance(system, Dissipative) else ()
        given = StepInputs(system, u, given.h, given.t0)
        return integrator.step(given, jnp.asarray(0, jnp.int32), z), mirrored, rest

    program, (after, _, _) = jax.make_jaxpr(step, return_shape=True)(arrays, u0, z0)
    closed_over = [x for x in program.consts if isinstance(x, Tracer) and jnp.issubdtype(x.dtype, jnp.inexact)]
    return jax.tree.map(lambda x, y: x.astype(y.dtype), z0, after), digest(program), closed_over


def _check_forces(given: StepInputs, z0: State, u0: Any) -> None:
    """Raise unless the forces of a damped system are shaped like its coordinates."""
    (q0, v0), system = z0, given.system
    shapes = lambda tree: jax.tree.map(jnp.shape, tree)  # noqa: E731
    for name, function, *arguments in (
        ("inertia(v)", system.inertia, v0),
        ("friction(v)", system.friction, v0),
        ("force(t, q, u)", system.force, given.t0, q0, u0),
        ("twisted(q)", system.twisted, q0),
    ):
        found = _checks.returned("solve", name, function, *arguments)
        if shapes(found) != shapes(q0):
            raise ArgumentError(
                f"solve: {name} must return a tree shaped like the coordinates, {shapes(q0)}, and returned "
                f"{shapes(found)}."
            )
