"""Run a machine, and differentiate the run by echoes on the machine itself."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, Int, PyTree

from .._internal import _checks, _tree
from .._internal._errors import ArgumentError, ArgumentTypeError, plain_errors
from .._solve import Trajectory
from ..boundary import AbstractBoundary
from ..integrators import State
from ..nudge import AbstractFiniteNudge
from ..problem import Problem
from ..problem._posing import Cost, Save, initial_value_problem
from ..problem._save import AtTimes, SaveFunction
from ..systems import Dissipative
from ._echo import EchoPlan, measure_retrace, run_machine
from ._machine import AbstractMachine


def run(
    machine: AbstractMachine,
    model: Any,
    boundary: AbstractBoundary,
    inputs: PyTree = None,
    *,
    dt: Any,
    steps: int | None = None,
    t0: Any = 0.0,
    nudge: AbstractFiniteNudge,
    save: Save | None = None,
    cost: Cost | None = None,
    experiment: Any = 0,
    retrace_tolerance: float = 0.5,
    probe: Any = 0.0,
    throw: bool = True,
) -> Trajectory:
    r"""Run a machine from its initial state; the result is differentiable, though the machine is not.

    The machine is set to the parameters of the model, prepared, and run, which gives the trajectory. `jax.grad` and
    `equinox.filter_grad` differentiate it by echoes on the machine, one for every strength of the nudge. For an echo
    the machine is prepared in the last state that was read, reverses its motion, and runs back, kicked at each node by
    $\beta\,\partial C/\partial z$. The gradient is the weighted difference of the readings, as in
    `solve(..., gradient=Echo(nudge))`; if the machine equals the model, both gradients are equal.

    Reverse mode gives the gradient with respect to the model's array leaves, the initial state and the inputs. The
    model itself is only used for its mirror and for the momentum of an initial velocity. The cost is one forward run
    and one echo per strength of the nudge (two for a symmetric one), for any number of parameters.

    On an imperfect machine the result is, at best, the gradient of the machine as it is (see `Mismatch`). Its error
    depends on how well the machine runs back: `retrace_error` and `probe` measure that, and `survey` measures the
    effect of every imperfection.

    Args:
        machine: a `Simulated` or `Hosted` machine, or one of your own.
        model: the owner's model of the machine, a Hamiltonian or a Lagrangian. Its array leaves are the parameters as
            commanded.
        boundary: an `InitialValue`.
        inputs: PyTree of arrays with a leading axis of N steps, or `None`.
        dt: step length: the time between two nodes, where the machine is read and kicked.
        steps: number of steps N; optional if `inputs` has that length.
        t0: time of node 0.
        nudge: `Symmetric(beta)`, `OneSided(beta)` or `Richardson(beta, order)`. Choose the strength by the noise of
            the machine: differences between runs that do not come from the nudge are divided by $\beta$. `"auto"` takes
            only rounding into account.
        save: which nodes are read: `AllNodes()` by default, `FinalNode()`, `EveryNode(k)`, or a function
            `(t, q, p) -> PyTree` of each node as read. Only nodes that are read are kicked. With `FinalNode()` the
            memory of a `Simulated` machine does not grow with N; other machines return all nodes.
        cost: running cost `(t, q, p) -> scalar`, summed over the nodes as read. With a cost, or a function for `save`,
            all nodes are kept.
        experiment: number of the experiment. A simulated machine draws new noise for every number, and the same noise
            for the same number. Increment it in a training loop.
        retrace_tolerance: largest accepted distance between the end of the echoes (extrapolated to no nudge) and the
            start of the run, relative to the largest coordinate (momentum) of the run. Default 0.5; beyond that no
            gradient is useful. A smaller value stops training on a broken machine. `float("inf")` accepts any distance.
        probe: any number. Its "gradient" is the retrace error, measured during the echoes at no extra cost:
            `jax.grad(loss, (0, 1))(model, probe)`.
        throw: whether to raise at run time if the machine returns a NaN or an infinity, does not run back, or loses
            the nudge in rounding.

    Returns:
        `Trajectory(t, q, p, cost, saved, None, stride)` as from `solve`, with the nodes as read.

    Raises:
        ArgumentTypeError: if `machine` is not a machine, the nudge is infinitesimal or complex, or the boundary is not
            an initial value; for gradients with respect to `dt`, `t0` or fields of the machine, for forward mode and
            for second derivatives.
        ArgumentError: if shapes or numbers do not fit together.
        RunError: at run time, see `throw`; also if the model is not time-reversible. A machine other than
            `Simulated` reads slopes in the reversed motion; the error is raised too if a slope that is differentiated
            changes sign there. Both are probed at a few states and times: a slope that is odd in the momentum only
            elsewhere is not detected, and its gradient has the wrong sign. Under `jit` and in gradients JAX raises its
            own RuntimeError, unless they are called inside `eg.plain_errors()`.

    Source: G. Pourcel and M. Ernoult, arXiv 2506.05259; V. Lopez-Pastor and F. Marquardt, PRX 13 (2023) 031020.

    Example:
        ```python
        machine = eg.device.Simulated([eg.device.Mismatch(0.1, jax.random.key(0))])

        def loss(system):
            start = eg.InitialValue(q, p)
            sol = eg.device.run(machine, system, start, dt=0.1, steps=20, nudge=eg.Symmetric(1e-2))
            return jnp.sum(sol.q[-1] ** 2)

        gradient = eqx.filter_grad(loss)(system)
        ```
    """
    if not isinstance(nudge, AbstractFiniteNudge) or any(isinstance(node, complex) for node in nudge.nodes):
        raise ArgumentTypeError(
            f"device.run(nudge={nudge!r}): a machine is kicked with finite, real strengths. Pass Symmetric(beta), "
            "OneSided(beta) or Richardson(beta, order). Noise belongs to the machine, see ReadoutNoise."
        )
    if _checks.tolerance("device.run", "retrace_tolerance", retrace_tolerance) is None:
        raise ArgumentError("device.run: retrace_tolerance=None; give a positive number, or float('inf').")
    _checks.flag("device.run", "throw", throw)
    problem, z0 = _problem(machine, model, boundary, inputs, dt=dt, steps=steps, t0=t0, save=save, cost=cost)
    given, n = problem.given, problem.steps
    stride = problem.save.stride(n)
    if isinstance(save, AtTimes):
        raise ArgumentTypeError("device.run: save=AtTimes; a machine is read at the nodes. Pass AtNodes or EveryNode.")
    chosen = problem.save.nodes
    whole = cost is not None or isinstance(problem.save, SaveFunction) or chosen is not None
    plan = EchoPlan(_tree.fixed(nudge), _number(experiment), n, 1 if whole else stride, float(retrace_tolerance), throw)
    probe = _checks.number("device.run", "probe", probe, dtype=given.h.dtype)
    with plain_errors():
        nodes, final = run_machine((given, z0, machine, probe), plan)
    k = jnp.arange(n + 1, dtype=jnp.int32)
    total = jnp.zeros_like(given.h) if cost is None else jnp.sum(jax.vmap(problem.running_cost)(k, nodes))
    if chosen is not None:
        q, p = jax.tree.map(lambda x: x[chosen], nodes)
        return Trajectory(given.time(chosen), q, p, total, stride=None, nodes=chosen)
    k = k[-1] if stride is None else k[::stride]
    t = given.time(k)
    if isinstance(problem.save, SaveFunction):
        (q, p), saved = final, jax.vmap(problem.observe)(k, nodes)
        return Trajectory(t, q, p, total, saved, None, None)
    q, p = final if stride is None else jax.tree.map(lambda x: x[::stride], nodes) if whole else nodes
    return Trajectory(t, q, p, total, None, None, stride)


def retrace_error(
    machine: AbstractMachine,
    model: Any,
    boundary: AbstractBoundary,
    inputs: PyTree = None,
    *,
    dt: Any,
    steps: int | None = None,
    t0: Any = 0.0,
    experiment: Any = 0,
) -> Float[Array, ""]:
    r"""Measure on the machine how well it runs back along its path, by one forward run and one echo without a nudge.

    The arguments are those of `run`.

    Returns:
        The largest distance between the end of the echo and the start of the run; coordinates and momenta are each
        relative to their largest value in the run.

    Raises:
        ArgumentTypeError: as for `run`.
        ArgumentError: as for `run`.
        RunError: at run time, if the machine returns a NaN or an infinity; as for `run`.

    Example:
        ```python
        machine = eg.device.Simulated([eg.device.Friction(1e-3)])
        eg.device.retrace_error(machine, system, eg.InitialValue(q, p), dt=0.1, steps=20)
        ```
    """
    problem, z0 = _problem(machine, model, boundary, inputs, dt=dt, steps=steps, t0=t0)
    with plain_errors():
        return measure_retrace(machine, problem.given, z0, _number(experiment), problem.steps)


def _problem(machine: Any, model: Any, boundary: Any, inputs: PyTree, **options: Any) -> tuple[Problem, State]:
    if not isinstance(machine, AbstractMachine):
        raise ArgumentTypeError(
            f"device.run: machine={machine!r} is not a machine. Pass Simulated(), Hosted(function), or an instance of "
            "your own subclass of AbstractMachine."
        )
    if isinstance(model, Dissipative):
        raise ArgumentTypeError(
            f"device.run: the model is a {type(model).__name__}, given by its forces. It has no energy whose slope a "
            "sensor could read. Pass the Hamiltonian without the damping as the model, and add the damping to the "
            "machine: Simulated([Friction(rate)])."
        )
    return initial_value_problem(model, boundary, inputs, **options)


def _number(experiment: Any) -> Int[Array, ""]:
    if isinstance(experiment, Tracer) and experiment.shape == () and jnp.issubdtype(experiment.dtype, jnp.integer):
        return experiment.astype(jnp.int32)
    least, what = -(2**31), "the number of an experiment"
    return jnp.asarray(_checks.integer("device.run", "experiment", experiment, least, what=what), jnp.int32)
