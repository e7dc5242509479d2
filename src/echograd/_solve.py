"""Solve: run a system from its boundary condition, with a gradient of your choice."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from ._internal import _checks, _tree
from ._internal._errors import ArgumentError, plain_errors
from .boundary import AbstractBoundary, End, InitialValue
from .friction import Damped
from .gradients import AbstractGradient, Backprop, Echo, Glep, Reciprocal, Rewind
from .gradients._retrace import retrace_error as _retrace_error
from .integrators import AbstractIntegrator, State
from .nudge._checks import is_holomorphic
from .problem import RESULTS, Outcome, Problem
from .problem._posing import Cost, Save, initial_value_problem, steps_until, two_point_problem
from .problem._results import Finding, raise_first, result_of
from .problem._save import AtTimes, SaveFunction
from .problem._soundness import blown_up, coarse_clock, not_finite, unstable_step
from .problem._times import nodes_before, states_between
from .systems import Dissipative, Hamiltonian, Lagrangian
from .two_point import TwoPointNewton
from .two_point._newton import Convergence, is_conjugate
from .two_point._problem import Condition, two_point


class Trajectory(eqx.Module):
    """What `solve` returns.

    Attributes:
        t: times of the kept nodes (of the final node with `FinalNode`).
        q: coordinates at the kept nodes, on a new leading axis; with `FinalNode` or a function, at the final node only.
        p: momenta, likewise.
        cost: the running cost summed over all nodes 0..N; zero without one.
        saved: with `save=function`, its values at every node on a new leading axis; else `None`.
        convergence: how the path was found, for a condition that is not an initial value; else `None`.
        stride: how many steps apart the nodes of `q` and `p` are; `None` if they hold the final one only, or others.
        result: `RESULTS.successful`, or with `throw=False` what is wrong with the run, one value per batch member
            under `vmap`.
        nodes: with `AtNodes` the numbers of the kept nodes, with `AtTimes` of the node before each time; else `None`.

    Example: see `solve`.
    """

    t: Float[Array, "*nodes"]
    q: PyTree
    p: PyTree
    cost: Float[Array, ""]
    saved: PyTree = None
    convergence: Convergence | None = None
    stride: int | None = eqx.field(static=True, default=1)
    result: Any = eqx.field(default_factory=lambda: RESULTS.successful)
    nodes: Int[Array, "*nodes"] | None = None


def solve(
    system: Hamiltonian | Lagrangian | Dissipative | Damped,
    boundary: AbstractBoundary,
    inputs: PyTree = None,
    *,
    dt: Any,
    steps: int | None = None,
    t0: Any = 0.0,
    t1: Any = None,
    integrator: AbstractIntegrator | None = None,
    gradient: AbstractGradient | None = None,
    save: Save | None = None,
    cost: Cost | None = None,
    guess: "Trajectory | State | None" = None,
    solver: TwoPointNewton | None = None,
    throw: bool = True,
    progress: bool | Callable[[int, int, str], None] = False,
) -> Trajectory:
    r"""Run a system from its boundary condition; the result is differentiable, by the gradient you choose.

    The discrete trajectory is $z_{k+1} = \Phi_{dt}(z_k, u_k)$, $k = 0 \dots N-1$. From an initial value the steps are
    taken one after the other. A condition that involves the other end poses a two-point boundary value problem, which
    Newton's method solves on all nodes; its memory grows with N.

    Differentiate anything computed from the result with `jax.grad` or `equinox.filter_grad`: with respect to the
    system's array leaves, the boundary data, the inputs, `dt`, `t0`, and arrays that `cost` and `save` hold or close
    over. `solve` works under `jit` and `vmap` and inside any JAX code. Batch axes come from `vmap`.

    Each call outside of `jit` traces the energies, `cost` and `save`, and reuses the compiled program if the traces are
    equal. A changed global number therefore takes effect, and an equal new `lambda` is not compiled again. Inside your
    own `jax.jit`, Python values are constants as usual.

    Args:
        system: a Hamiltonian, a Lagrangian, a `Damped` or a `Dissipative` system; its array leaves are the parameters.
        boundary: what the ends are held to: `InitialValue`, `FinalValue`, `FixedEnds`, `FreeEnds`, `MixedEnds`,
            `Periodic`, `Robin` or `LinearBoundary`.
        inputs: PyTree of arrays with a leading axis of N steps; entry k is held during step k and reaches the energy
            (`potential`, `__call__`, `parts`) or the `force` as `u`. `None` for an autonomous system.
        dt: step length, in the time unit of the energies. Positive.
        steps: number of steps N. May be left out if `inputs` has that length.
        t0: time of node 0.
        t1: time of node N, instead of `steps`. It must be a whole number of steps after `t0`; the step is never changed
            to fit, because every gradient belongs to the map with this step.
        integrator: a self-adjoint scheme; by default `Leapfrog()` for a `SeparableHamiltonian`, `SplitStep()` for a
            `SplitHamiltonian`, `Leapfrog(exact=True)` for a `Damped` system (`VelocityVerlet(exact=True)` with
            `Langevin` friction), and `ImplicitMidpoint()` for everything else.
        gradient: `Echo()` by default for an initial value: exact, with memory that does not grow with N. `Glep()` by
            default for any other condition. Of a `Damped` system `Rewind()`. Of a `Dissipative` system `Reciprocal()`
            and, for any other condition, `Backprop()`, which is the oracle.
        save: `AllNodes()` by default, `FinalNode()`, `EveryNode(k)`, `AtNodes([...])`, `AtTimes(ts)` for states between
            the nodes, or a function `(t, q, p) -> PyTree` of each node, whose values come back as `Trajectory.saved`.
        cost: running cost `(t, q, p) -> scalar`, summed over nodes 0..N inside the loop, so that its gradient needs no
            stored trajectory. It is a plain sum: multiply by `dt` for an integral.
        guess: for a two-point problem: a `Trajectory` with all nodes, or a state `(q0, p0)` that is run to make one. By
            default a straight line between the smallest ends that meet the condition.
        solver: for a two-point problem, `TwoPointNewton()` by default.
        throw: whether to raise `RunError` at run time if the step, the trajectory or the gradient is not sound.
            `False` skips these errors: `Trajectory.result` tells whether the run is sound, for each member of a batch.
            The gradient is then returned unchecked.
        progress: from an `InitialValue`, whether to print how far a long run is, about 16 times for each pass; or a
            function `(step, of, phase)` to call instead, with the phase "forward" or "echo". `Backprop` and
            `Reciprocal` report their forward run only. Pass the same function again: another one is compiled anew.

    Returns:
        `Trajectory(t, q, p, cost, saved, convergence, stride, result, nodes)`.

    Raises:
        ArgumentTypeError: if an argument has the wrong type; if the gradient or the integrator does not apply to the
            system or the boundary; if the state has half precision, or is float64 while x64 is off; if arrays differ
            between the devices of a `jax.shard_map` with `check_vma=True`; if an array is differentiated that a method
            of the system closes over.
        ArgumentError: if shapes, structures or numbers do not fit together.
        RunError: at run time, if the step is unstable, the trajectory is not finite, a two-point problem has no path or
            a conjugate point, or the gradient is not determined to its tolerance. Under your own `jit` or `grad` JAX
            wraps this error; `plain_errors` unwraps it.

    Source: arXiv 2506.06248 and 2506.05259.

    Example:
        ```python
        sol = eg.solve(system, eg.InitialValue(q, p), dt=0.01, steps=1000)
        energy = eg.energy(system, sol)
        ```
    """
    causal = isinstance(boundary, InitialValue)
    if gradient is None:
        if isinstance(system, Dissipative):
            gradient = Reciprocal() if causal else Backprop()
        elif isinstance(system, Damped):
            gradient = Rewind()
        else:
            gradient = Echo() if causal else Glep()
    what = "a gradient object. Pass Echo(), Backprop() or another one, with its parentheses"
    _checks.instance("solve", "gradient", gradient, AbstractGradient, what)
    if t1 is not None:
        steps = steps_until(t1, steps, t0, dt)
    options = {"dt": dt, "steps": steps, "t0": t0, "integrator": integrator, "save": save, "cost": cost, "throw": throw}
    options["holomorphic"] = is_holomorphic(gradient)
    convergence = None
    if causal:
        if guess is not None or solver is not None:
            raise ArgumentError(
                "solve: guess and solver are for two-point problems; an InitialValue is run, not solved for. Leave "
                "them out."
            )
        problem, z0 = initial_value_problem(system, boundary, inputs, progress=progress, **options)
        gradient.check(problem.given.system)
        with _checks.reverse_mode("solve", gradient), plain_errors():
            outcome, result = _run(_tree.fixed(gradient), problem, z0)
    else:
        if progress:
            raise ArgumentError(
                f"solve: progress reports a run from an InitialValue, and {type(boundary).__name__} is solved for all "
                "nodes at once. Leave it out; Trajectory.convergence tells the iterations."
            )
        start, path = (None, (guess.q, guess.p)) if isinstance(guess, Trajectory) else (guess, None)
        problem, like, start = two_point_problem(system, boundary, inputs, start=start, path=path, **options)
        gradient.check(problem.given.system)
        solver = TwoPointNewton() if solver is None else solver
        _checks.instance("solve", "solver", solver, TwoPointNewton, "a TwoPointNewton(), with its parentheses")
        with _checks.reverse_mode("solve", gradient), plain_errors():
            outcome, convergence, result = _run_two_point(
                _tree.fixed(gradient), problem, boundary, like, start, path, solver
            )

    stride, n = problem.save.stride(problem.steps), problem.steps
    if isinstance(save, AtTimes):
        with plain_errors():
            t, k, (q, p) = _between(problem, save.times, outcome.saved)
        return Trajectory(t, q, p, outcome.cost, None, convergence, None, result, k)
    nodes = jnp.asarray(n, jnp.int32) if stride is None else jnp.arange(0, n + 1, stride, dtype=jnp.int32)
    if problem.save.nodes is not None:
        nodes = problem.save.nodes
    t = problem.given.t0 + nodes.astype(problem.given.h.dtype) * problem.given.h
    if isinstance(problem.save, SaveFunction):
        q, p = outcome.final
        return Trajectory(t, q, p, outcome.cost, outcome.saved, convergence, None, result)
    q, p = outcome.final if nodes.ndim == 0 else outcome.saved
    return Trajectory(t, q, p, outcome.cost, None, convergence, stride, result, problem.save.nodes)


@eqx.filter_jit
def _between(problem: Problem, times: Array, kept: State) -> tuple[Array, Array, State]:
    """Return the times, the nodes before them, and their states."""
    times = times.astype(problem.given.h.dtype)
    return times, nodes_before(times, problem.given, problem.steps), states_between(problem, times, kept)


@eqx.filter_jit
def _run(gradient: AbstractGradient, problem: Problem, z0: State) -> tuple[Outcome, Any]:
    begin = [*coarse_clock(problem, z0), *unstable_step(problem, z0)]
    if not problem.throw:
        outcome = gradient.run(problem, z0)
        end = [*not_finite(problem, outcome), *blown_up(problem, z0, outcome.final)]
        return outcome, result_of([*begin, *end])
    stop = problem.given.time(jnp.asarray(problem.steps, jnp.int32))
    z0 = problem.given.system.admitted(raise_first(z0, begin), problem.given.t0, stop)
    outcome = gradient.run(problem, z0)
    final = raise_first(outcome.final, blown_up(problem, z0, outcome.final))
    return Outcome(outcome.saved, final, outcome.cost), RESULTS.successful


@eqx.filter_jit
def _run_two_point(
    gradient: AbstractGradient,
    problem: Problem,
    boundary: AbstractBoundary,
    like: PyTree,
    start: State | None,
    path: State | None,
    solver: TwoPointNewton,
) -> tuple[Outcome, Convergence, Any]:
    given, n = problem.given, problem.steps
    first = End(given.t0, _tree.take(given.u, 0))
    last = End(given.time(jnp.asarray(n, jnp.int32)), _tree.take(given.u, n - 1))
    condition = Condition(*boundary.rows(given.system, first, last, like))
    outcome, convergence = gradient.run_two_point(*two_point(problem, condition, like, start, path), solver)
    if problem.throw:
        return outcome, convergence, RESULTS.successful
    return (
        outcome,
        convergence,
        result_of(
            [
                Finding(RESULTS.no_path, ~convergence.converged),
                Finding(RESULTS.conjugate_point, is_conjugate(convergence)),
                *not_finite(problem, outcome),
            ]
        ),
    )


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
        steps: number of steps, unless `inputs` has that length.
        t0: time of node 0.
        integrator: a self-adjoint scheme; by default the one that `solve` takes for the system.

    Returns:
        The relative error, a scalar.

    Raises:
        ArgumentTypeError: if the system is not a system, or the boundary not an `InitialValue`.
        ArgumentError: if shapes, structures or numbers do not fit together.
        RunError: at run time, if the run or its echo is not finite.

    Example:
        ```python
        eg.retrace_error(system, eg.InitialValue(q, p), dt=0.01, steps=1000)  # 2e-14
        ```
    """
    options = {"dt": dt, "steps": steps, "t0": t0, "integrator": integrator}
    problem, z0 = initial_value_problem(system, boundary, inputs, **options)
    with plain_errors():
        error = _retrace_error(problem, z0)
    return eqx.error_if(
        error,
        ~jnp.isfinite(error),
        "retrace_error: the run or its echo is not finite, so no distance is known. Halve dt, or take fewer steps.",
    )
