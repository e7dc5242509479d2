"""Gradients of linear reciprocal systems with any damping: the reversed error drives the same lossy machine."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from .._internal import _checks, _tree
from .._internal._errors import ArgumentTypeError
from .._internal._reverse_rule import reverse_rule
from ..integrators import State, StepInputs
from ..nudge import AbstractNudge
from ..problem import Outcome, Problem
from ..problem._run import Course, free_run, marks_of
from ..problem._save import AbstractSave
from ..problem._soundness import finite, finite_cotangents
from ..systems import Dissipative
from ..two_point import TwoPointNewton
from ..two_point._newton import Convergence
from ..two_point._problem import Nodes, TwoPoint
from ._base import AbstractGradient
from ._nudged import load_of, share_of
from ._reciprocity import Twist, check_reciprocity, twist_of


class Reciprocal(AbstractGradient):
    r"""Drive the same lossy machine, at rest, with the reversed error; overlap its path with the recorded one.

    For `Dissipative` systems that are linear and reciprocal, with any damping. The machine starts at rest without its
    inputs and takes the steps $k = N-1 \dots 0$, which reverses explicit time dependence. It is driven so weakly that
    it is linear. At node $k$ it is hit by

    $$a \leftarrow a + \bar y^p_k, \qquad \pi \leftarrow \pi + \bar y_k - D^{\sf T} \bar y^p_k$$

    where $\bar y_k, \bar y^p_k$ are the cotangents of $q_k, p_k$. With midpoints and increments of single steps, the
    discrete convolution action

    $$W_k = -\tfrac1h\,\Delta a \cdot M \Delta q - a_{1/2} \cdot D \Delta q
    + h\, a_{1/2} \cdot F(t_{k+1/2}, q_{1/2}, u_k)$$

    pairs the machine's step with step $k$ of the recorded path, and

    $$\frac{dC}{d(\theta, u_k, h, t_0)} = \sum_k \frac{\partial W_k}{\partial(\theta, u_k, h, t_0)}, \qquad
    \frac{dC}{dp_0} = a, \quad \frac{dC}{dq_0} = \pi + D^{\sf T} a \ \text{ at the end.}$$

    This is the gradient of the *discrete* trajectory, the one that `Backprop` returns, to rounding and at any
    amplitude. Damping never turns into gain. Under a twist $S$ the machine is hit by $S$ times the above, and
    $a = S^{-1}(\text{its path})$.

    It takes two runs for any number of parameters. Memory holds the states of all nodes: a lossy machine cannot be
    run back to regenerate them. Reverse mode only.

    Nonlinear forces under general damping have no such gradient. Their adjoint is the linear response about the moving
    state, which the machine itself does not compute under any drive or initial state.

    Args:
        nudge: `None` overlaps two records as above. A nudge takes the contrastive form: the machine with its inputs is
            run with and without the reversed error added at strength $\beta$, and $dC/d\theta = d_\beta\, \partial
            E/\partial\theta$ with $E = \tfrac12 W$ of each record with itself. Exact at any $\beta$ with
            `Symmetric(beta)`. It needs constant coefficients, and reads only changes of parameters that keep the system
            reciprocal (the symmetric part of a matrix).
        tolerance: largest accepted relative violation of linearity and reciprocity, measured at every step, entry by
            entry; by default 10⁴ rounding units.

    Raises:
        ArgumentTypeError: for systems that are not `Dissipative`, and for conditions on both ends.
        RunError: (at run time) if the system is not linear or not reciprocal, or the gradient is not finite.

    Source: "Unifying Physical Backpropagation" (Boesch, Gediz, Tureci), theorems 6.1a, 7.1 and 10.1; contrastive form:
    M. Berneman and D. Hexner, arXiv 2506.20402. The discrete pairing is echograd's own.

    Example:
        ```python
        network = eg.LinearDamped(mass=jnp.eye(2), damping=0.3 * jnp.eye(2), stiffness=jnp.diag(jnp.array([1.0, 2.0])))
        rest, forces = eg.InitialValue(jnp.zeros(2), v=jnp.zeros(2)), jnp.ones((40, 2))

        def loss(network):
            sol = eg.solve(network, rest, forces, dt=0.05, gradient=eg.Reciprocal())
            return jnp.sum((sol.q - 1.0) ** 2)

        gradient = eqx.filter_grad(loss)(network)
        ```
    """

    nudge: AbstractNudge | None
    tolerance: float | None = eqx.field(static=True)

    def __init__(self, nudge: AbstractNudge | None = None, *, tolerance: float | None = None) -> None:
        if not (nudge is None or isinstance(nudge, AbstractNudge)):
            raise ArgumentTypeError(
                f"Reciprocal(nudge={nudge!r}): pass None to overlap two records, or a nudge such as Symmetric(beta) "
                "for the contrastive form."
            )
        self.nudge = nudge
        self.tolerance = _checks.tolerance("Reciprocal", "tolerance", tolerance)

    def check(self, system: Any) -> None:
        if not isinstance(system, Dissipative):
            raise ArgumentTypeError(
                f"Reciprocal: {type(system).__name__} is not a Dissipative system. For a Hamiltonian or a Lagrangian "
                "use Echo(); if its damping is in proportion to its mass, use Echo() on MassDamped(system, rate). A "
                "linear system with any damping can be written as LinearDamped or as a Dissipative. A Damped system "
                "has Rewind()."
            )

    def run(self, problem: Problem, z0: State) -> Outcome:
        self.check(problem.given.system)
        return _run((problem, z0), self)

    def run_two_point(self, problem: TwoPoint, guess: Nodes, newton: TwoPointNewton) -> tuple[Outcome, Convergence]:
        raise ArgumentTypeError(
            "Reciprocal: the machine answers the reversed error from rest, which is the adjoint of an InitialValue "
            "only. Under a condition on both ends use Backprop()."
        )


class SaveStates(AbstractSave):
    """Keep the states of all nodes, and what another rule keeps."""

    save: AbstractSave
    nothing: bool = eqx.field(static=True)

    def stride(self, steps: int) -> int | None:
        return 1

    def observe(self, t: Any, q: PyTree, p: PyTree) -> PyTree:
        return (q, p), None if self.nothing else self.save.observe(t, q, p)


class AtRest(Dissipative):
    """A system without its inputs, linearised about rest: the machine at small amplitudes."""

    system: Dissipative

    def inertia(self, v: PyTree) -> PyTree:
        return _linear(self.system.inertia, v)

    def friction(self, v: PyTree) -> PyTree:
        return _linear(self.system.friction, v)

    def force(self, t: Any, q: PyTree, u: Any) -> PyTree:
        return _linear(lambda q: self.system.force(t, q, u), q)


def _linear(f: Any, x: PyTree) -> PyTree:
    """Return the derivative of a map at zero, applied to `x`."""
    return jax.jvp(f, (_tree.zeros_like(x),), (x,))[1]


def _run_free(arguments: tuple[Problem, State], gradient: Reciprocal) -> Outcome:
    del gradient
    problem, z0 = arguments
    return finite(problem, free_run(problem, z0))


def _run_recorded(arguments: tuple[Problem, State], gradient: Reciprocal) -> tuple[Outcome, State]:
    """Run the problem, and return the states of all nodes too."""
    del gradient
    problem, z0 = arguments
    stride, chosen = problem.save.stride(problem.steps), problem.save.nodes
    recording = eqx.tree_at(lambda x: x.save, problem, SaveStates(problem.save, stride is None))
    outcome = free_run(recording, z0)
    nodes, saved = outcome.saved
    saved = jax.tree.map(lambda x: x[::stride], saved)
    if chosen is not None:
        saved = jax.tree.map(lambda x: x[jnp.minimum(chosen, problem.steps)], nodes)
    return finite(problem, Outcome(saved, outcome.final, outcome.cost)), nodes


def _backward(nodes: State, bar: Outcome, wanted: Any, rest: Any, gradient: Reciprocal) -> PyTree:
    (wanted, _), (rest, _) = wanted, rest
    problem: Problem = eqx.combine(wanted, rest)
    kicks, sharing = _kicks(wanted, rest, nodes, bar)
    if gradient.nudge is None:
        reading, state = _overlapped(wanted, rest, nodes, kicks)
    else:
        marks = marks_of(problem.steps, 1)
        course = Course(marks, *(jax.tree.map(lambda x, k=k: x[k], nodes) for k in (np.asarray(marks), -1)))
        reading, state = _contrasted(wanted, rest, nodes, kicks, gradient.nudge, load_of(problem, course, bar))
    bars = _tree.add(sharing, reading), state
    if not problem.throw:
        return bars
    contrastive = gradient.nudge is not None
    return finite_cotangents(check_reciprocity(bars, problem, nodes[0], gradient.tolerance, contrastive))


_run = reverse_rule(_run_free, _run_recorded, _backward)


def _kicks(wanted: Problem, rest: Problem, nodes: State, bar: Outcome) -> tuple[State, Problem]:
    """Return the cotangents of every node, and the direct cotangents of the problem, summed over the nodes."""
    lasting = eqx.tree_at(lambda x: x.given, wanted, wanted.given.without_inputs())

    def body(total: Problem, row: Any) -> tuple[Problem, State]:
        k, z = row
        reading, kick = jax.grad(lambda x, z: share_of(bar, eqx.combine(x, rest), k, z), (0, 1))(lasting, z)
        return _tree.add(total, reading), kick

    k = jnp.arange(rest.steps + 1, dtype=jnp.int32)
    total, kicks = jax.lax.scan(body, _tree.zeros_like(lasting), (k, nodes))
    if bar.final is not None:
        last = jax.tree.map(lambda y, x: jnp.zeros_like(x[-1]) if y is None else y, bar.final, kicks, is_leaf=_is_none)
        kicks = jax.tree.map(lambda x, y: x.at[-1].add(y), kicks, last)
    inputs = _tree.zeros_like(wanted.given.u)
    return kicks, eqx.tree_at(lambda x: x.given.u, total, inputs, is_leaf=_is_none)


def _transposed(f: Any, x: PyTree) -> PyTree:
    """Return fᵀ(x) of a linear map."""
    return jax.vjp(f, _tree.zeros_like(x))[1](x)[0]


def _hits(system: Dissipative, twist: Twist, kick: State) -> State:
    """Return how a node's cotangents kick the machine: S ȳᵖ in position, S (ȳ - Dᵀ ȳᵖ) in momentum."""
    y, yp = kick
    return twist(yp), twist(_tree.subtract(y, _transposed(system.friction, yp)))


def _initial_bars(system: Dissipative, twist: Twist, machine: State) -> State:
    """Return the cotangents of the initial state from the machine's own at the end."""
    a, momentum = (twist.undone(x) for x in machine)
    return _tree.add(momentum, _transposed(system.friction, a)), a


def _pairing(given: StepInputs, k: Any, field: State, path: State) -> Float[Array, ""]:
    """Return the discrete convolution action W of one step: the field before and after, the path at its ends."""
    h, half = given.h, 0.5
    t = given.t0 + (k.astype(h.dtype) + half) * h
    before, after = field
    da, dq = _tree.subtract(after, before), _tree.subtract(path[1], path[0])
    a, q = (_tree.scale(half, _tree.add(*x)) for x in (field, path))
    system = given.system
    inertia, friction = _tree.dot(da, system.inertia(dq)) / h, _tree.dot(a, system.friction(dq))
    return h * _tree.dot(a, system.force(t, q, given.u)) - inertia - friction


def _self_pairing(given: StepInputs, k: Any, field: State, path: State) -> Float[Array, ""]:
    """Return the share of step k in E: half of W, but all of the terms linear in the coordinates (the sources)."""
    return 0.5 * (_pairing(given, k, field, path) + _pairing(given, k, field, _tree.zeros_like(path)))


def _overlapped(wanted: Problem, rest: Problem, nodes: State, kicks: State) -> tuple[Problem, State]:
    """Return the readings of the error-driven machine against the record, and the cotangents of the initial state."""
    problem: Problem = eqx.combine(wanted, rest)
    system, path = problem.given.system, nodes[0]
    twist = twist_of(system, _tree.take(path, 0))
    linear = eqx.tree_at(lambda w: w.system, problem.given, AtRest(system))

    def body(carry: Any, row: Any) -> tuple[Any, PyTree]:
        machine, total = carry
        k, q0, q1, kick = row
        machine = _tree.add(machine, _hits(system, twist, kick))
        moved = problem.integrator.step(linear.at(k), k, machine)
        field = twist.undone(machine[0]), twist.undone(moved[0])
        reading = _reading(wanted.given.at(k), rest.given.at(k), lambda w: _pairing(w, k, field, (q0, q1)))
        return (moved, _tree.add(total, reading.without_inputs())), reading.u

    start = _tree.zeros_like(_tree.take(nodes, 0)), _tree.zeros_like(wanted.given.without_inputs())
    k = jnp.arange(problem.steps, dtype=jnp.int32)
    before, after = _but_last(path), _but_first(path)
    (machine, total), du = jax.lax.scan(body, start, (k, before, after, _but_first(kicks)), reverse=True)
    machine = _tree.add(machine, _hits(system, twist, _tree.take(kicks, 0)))
    return _readings_of(wanted, total, du), _initial_bars(system, twist, machine)


def _contrasted(
    wanted: Problem, rest: Problem, nodes: State, kicks: State, nudge: AbstractNudge, load: Any
) -> tuple[Problem, State]:
    """Return d/dβ of the nudged machine's convolution action with itself, and the cotangents of the initial state."""
    problem: Problem = eqx.combine(wanted, rest)
    system, n = problem.given.system, problem.steps
    z0 = _tree.take(nodes, 0)
    twist = twist_of(system, z0[0])
    hits = jax.tree.map(lambda x: x[::-1], jax.vmap(lambda kick: _hits(system, twist, kick))(kicks))
    k = jnp.arange(n, dtype=jnp.int32)

    def pushed(beta: Any, z: State) -> tuple[State, tuple[StepInputs, PyTree]]:
        def run(z: State, row: Any) -> tuple[State, Any]:
            k, hit = row
            z = _tree.add(z, _tree.scale(beta, hit))
            moved = problem.integrator.step(problem.given.at(k), k, z)
            return moved, (z[0], moved[0])

        def read(total: StepInputs, row: Any) -> tuple[StepInputs, PyTree]:
            k, path, machine = row
            field = twist.undone(machine[0]), twist.undone(machine[1])
            reading = _reading(wanted.given.at(k), rest.given.at(k), lambda w: _self_pairing(w, k, field, path))
            return _tree.add(total, reading.without_inputs()), reading.u

        z, path = jax.lax.scan(run, z, (k, _but_last(hits)))
        start = _tree.zeros_like(wanted.given.without_inputs())
        readings = jax.lax.scan(read, start, (k, path, jax.tree.map(lambda x: x[::-1], path)))
        return _tree.add(z, _tree.scale(beta, _tree.take(hits, -1))), readings

    beta = jax.lax.stop_gradient(nudge.strength(z0, load, n))
    ensemble, (total, du) = nudge.advance(beta, pushed, nudge.start(z0))
    state = _initial_bars(system, twist, nudge.response(beta, ensemble))

    def at_ends(given: StepInputs) -> Float[Array, ""]:
        """Return the terms of the damping that an integration by parts leaves at the ends and at every hit."""
        friction, q = given.system.friction, nodes[0]
        hit = _tree.dot(kicks[1], jax.vmap(friction)(q))
        return 0.5 * (_tree.dot(state[1], friction(z0[0])) - hit)

    lasting = wanted.given.without_inputs()
    total = _tree.add(total, _reading(lasting, rest.given, at_ends))
    if problem.throw:
        total, du, state = nudge.check((total, du, state), beta, ensemble, load, n)
    return _readings_of(wanted, total, du), state


def _but_first(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda x: x[1:], tree)


def _but_last(tree: PyTree) -> PyTree:
    return jax.tree.map(lambda x: x[:-1], tree)


def _is_none(x: Any) -> bool:
    return x is None


def _reading(wanted: StepInputs, rest: StepInputs, action: Any) -> StepInputs:
    return jax.grad(lambda w: action(eqx.combine(w, rest)))(wanted)


def _readings_of(wanted: Problem, total: StepInputs, du: PyTree) -> Problem:
    """Return readings in the tree of the problem."""
    nothing = _tree.zeros_like(eqx.tree_at(lambda x: x.given, wanted, None))
    given = eqx.tree_at(lambda w: w.u, total, du, is_leaf=_is_none)
    return eqx.tree_at(lambda x: x.given, nothing, given, is_leaf=_is_none)
