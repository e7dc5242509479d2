"""How a problem is posed: the arguments of `solve` are checked and become a `Problem`."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, PyTree

from .._internal import _checks, _tree
from .._internal._errors import ArgumentError, ArgumentTypeError, plain_errors
from .._internal._jaxpr import digest
from .._internal._program import as_closures, as_program
from ..boundary import AbstractBoundary, End, InitialValue
from ..friction import Damped, Langevin
from ..integrators import AbstractIntegrator, ImplicitMidpoint, Leapfrog, SplitStep, State, StepInputs, VelocityVerlet
from ..systems import Dissipative, Hamiltonian, Lagrangian, SeparableHamiltonian, SplitHamiltonian, legendre
from ._problem import Problem
from ._progress import reporter
from ._save import AbstractSave, AllNodes, AtNodes, AtTimes, SaveFunction
from ._times import chosen_nodes

Save = AbstractSave | Callable[[Any, PyTree, PyTree], PyTree]
Cost = Callable[[Any, PyTree, PyTree], Float[Array, ""]]


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
    with plain_errors():
        given, z0 = _prepared(problem.integrator, problem.given, z0)
    return eqx.tree_at(lambda p: p.given, problem, given), z0


@eqx.filter_jit
def _prepared(integrator: AbstractIntegrator, given: StepInputs, z0: State) -> tuple[StepInputs, State]:
    return integrator.prepared(given, z0)


def two_point_problem(
    system: Any, boundary: AbstractBoundary, inputs: PyTree, *, start: Any, path: State | None, t0: Any, **options: Any
) -> tuple[Problem, PyTree, State | None]:
    """Return the checked problem, coordinates that have its shape, and the checked start.

    The guess is the run from the state `start`, or `path`, coordinates and momenta at all nodes.
    """
    if not isinstance(boundary, AbstractBoundary):
        raise ArgumentTypeError(
            f"solve: the boundary is a {type(boundary).__name__}. Pass InitialValue(q, p), FixedEnds(q0, qN) or "
            "another boundary condition."
        )
    system, inputs = _accepted(system), _checks.numbers("solve", "inputs", inputs)
    if isinstance(system, Damped):
        raise ArgumentTypeError(
            f"solve: a Damped system runs from an InitialValue, and the boundary is a {type(boundary).__name__}. Find "
            "the initial state by your own root search over solve, or write the system as a Dissipative one."
        )
    _check_usable(system=system, boundary=boundary, inputs=inputs, guess=(start, path), t0=t0, **options)
    n = step_count(inputs, options.pop("steps"))
    like = boundary.structure()
    if path is not None:
        if any(x.shape[:1] != (n + 1,) for x in jax.tree.leaves(path)):
            raise ArgumentError(
                f"solve: the guess is a trajectory that does not have the {n + 1} nodes of {n} steps. Pass one that "
                "was solved with save=AllNodes() and as many steps, or a state (q0, p0)."
            )
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
    return problem, z0[0], None if start is None else z0


def _check_usable(**arguments: Any) -> None:
    for name, tree in arguments.items():
        _tree.check_usable("solve", name, tree)


def _fits(boundary: AbstractBoundary, like: PyTree, q: PyTree) -> None:
    """Raise unless the guess has the number of coordinates of the condition."""
    made, found = (sum(x.size for x in jax.tree.leaves(tree)) for tree in (like, q))
    if made != found:
        raise ArgumentError(
            f"solve: the guess has {found} coordinates, and {type(boundary).__name__} is made for {made}. Give both "
            "the coordinates of the system."
        )


def _accepted(system: Any) -> Hamiltonian | Dissipative | Damped:
    if isinstance(system, Lagrangian):
        return legendre(system)
    if not isinstance(system, Hamiltonian | Dissipative | Damped):
        raise ArgumentTypeError(
            f"solve: the system is a {type(system).__name__}. Derive it from SeparableHamiltonian, Hamiltonian, "
            "Lagrangian or Dissipative and pass an instance, or a Damped one."
        )
    return system


def _problem(
    system: Hamiltonian | Dissipative | Damped,
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
    progress: Any = None,
) -> tuple[Problem, State]:
    """Return the checked problem, and `z0` in the dtypes of the step."""
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

    z0, program, closed_over = _traced(StepInputs(as_closures(system), inputs, h, t0), integrator, z0)
    nudged = (t0, *_tree.as_complex(z0)) if holomorphic else None

    if save is None:
        save = AllNodes()
    elif not isinstance(save, AbstractSave):
        _checks.function("solve", "save", save, "(t, q, p) -> PyTree, nor AllNodes(), EveryNode(k), ...")
        _checks.numbers("solve", "what save returns", _checks.returned("solve", "save(t, q, p)", save, t0, *z0))
        save = SaveFunction(as_program(save, t0, *z0, nudged=nudged))
    if isinstance(save, AtNodes):
        save = save.resolved(steps)
    if cost is not None:
        _checks.function("solve", "cost", cost, "(t, q, p) -> scalar")
        _checks.scalar("solve", "cost(t, q, p)", cost, t0, *z0, integers=True)
        cost = as_program(cost, t0, *z0, nudged=nudged)

    _tree.check_usable("solve", "what a function closes over: ", (closed_over, save, cost))
    given = StepInputs(as_closures(system, program), inputs, h, t0)
    if isinstance(save, AtTimes):
        save = chosen_nodes(save, given, steps)
    return Problem(given, save, cost, integrator, steps, throw, closed_over, program, reporter(progress)), z0


def default_integrator(system: Hamiltonian | Lagrangian | Dissipative | Damped) -> AbstractIntegrator:
    """Return the default integrator of a system."""
    if isinstance(system, SeparableHamiltonian):
        return Leapfrog()
    if isinstance(system, Damped):
        return VelocityVerlet(exact=True) if isinstance(system.friction, Langevin) else Leapfrog(exact=True)
    return SplitStep() if isinstance(system, SplitHamiltonian) else ImplicitMidpoint()


def step_count(inputs: PyTree, steps: Any) -> int:
    """Return the number of steps, from `steps` and the leading axes of `inputs`, which must agree."""
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


def steps_until(t1: Any, steps: Any, t0: Any, dt: Any) -> int:
    """Return the number of steps of length `dt` from `t0` to `t1`."""
    if steps is not None:
        raise ArgumentError("solve: steps and t1 both give the number of steps. Pass one of them.")
    numbers = {"t1": t1, "t0": t0, "dt": dt}
    for name, x in numbers.items():
        if isinstance(x, Tracer):
            raise ArgumentTypeError(
                f"solve: t1 gives the number of steps, the length of a compiled loop, so t1, t0 and dt must be known "
                f"when the program is traced, and {name} is traced. Pass steps instead of t1."
            )
    end, begin, h = (float(_checks.number("solve", name, x)) for name, x in numbers.items())
    if not h > 0 or not end > begin:
        raise ArgumentError(f"solve: t1={end:g}, t0={begin:g} and dt={h:g}; t1 must be after t0, and dt positive.")
    count = (end - begin) / h
    digits = max([2.0**-52, *(float(jnp.finfo(x.dtype).eps) for x in numbers.values() if eqx.is_inexact_array(x))])
    n = max(round(count), 1)
    if abs(count - n) > 1e-9 + 4 * digits * count:
        raise ArgumentError(
            f"solve: t1={end:g} is {count:.6g} steps of dt={h:g} after t0={begin:g}, not a whole number. Pass "
            f"dt={(end - begin) / n:.12g} for {n} steps, or t1={begin + n * h:.12g}; AtTimes keeps states between."
        )
    return n


def _traced(given: StepInputs, integrator: AbstractIntegrator, z0: State) -> tuple[State, str, list[Any]]:
    """Return `z0` in the dtypes of a step's result, a digest of the step, and traced arrays that it closes over.

    Raises:
        ArgumentError: if energies or forces have wrong shapes.
    """
    q0, p0 = z0
    u0 = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), given.u)
    system, t0 = given.system, given.t0
    if isinstance(system, Dissipative):
        _check_forces(given, z0, u0)
    elif isinstance(system, SeparableHamiltonian | Damped):
        _checks.scalar("solve", "kinetic(t, p)", system.kinetic, t0, p0)
        _checks.scalar("solve", "potential(t, q, u)", system.potential, t0, q0, u0)
    else:
        _checks.scalar("solve", "the energy(t, q, p, u)", system, t0, q0, p0, u0)

    arrays, static = eqx.partition(given.without_inputs(), eqx.is_array)

    def step(arrays: Any, u: Any, z: State) -> Any:
        """Take a step and call the other methods that a run uses."""
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
    """Raise unless the forces of a damped system have the shapes of its coordinates."""
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
