"""Gradients of linear reciprocal systems with any damping: the reversed error drives the same lossy machine."""

from typing import Any

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from .._internal import _checks, _tree
from .._internal._errors import ArgumentTypeError, refuse_if
from ..integrators import State, StepInputs
from ..nudge import AbstractNudge
from ..problem import AbstractSave, Outcome, Problem
from ..problem._problem import Course, finite, finite_cotangents, free_run, index, marks_of
from ..systems import Dissipative
from ..two_point import Convergence, TwoPoint, TwoPointNewton
from ..two_point._two_point import Nodes
from ._base import AbstractGradient
from ._nudged import load_of, share_of


class Reciprocal(AbstractGradient):
    r"""Drive the same lossy machine, at rest, with the reversed error; overlap its path with the recorded one.

    For `Dissipative` systems that are linear and reciprocal, with any damping. The machine starts at rest without its
    inputs, is driven so weakly that it is linear, takes the steps $k = N-1 \dots 0$ (explicit time dependence so
    reversed), and is hit at node $k$ by

    $$a \leftarrow a + \bar y^p_k, \qquad \pi \leftarrow \pi + \bar y_k - D^{\sf T} \bar y^p_k$$

    with $\bar y_k, \bar y^p_k$ the cotangents of $q_k, p_k$. With midpoints and increments taken step by step, the
    discrete convolution action

    $$W_k = -\tfrac1h\,\Delta a \cdot M \Delta q - a_{1/2} \cdot D \Delta q
    + h\, a_{1/2} \cdot F(t_{k+1/2}, q_{1/2}, u_k)$$

    pairs the machine's step with step $k$ of the recorded path, and

    $$\frac{dC}{d(\theta, u_k, h, t_0)} = \sum_k \frac{\partial W_k}{\partial(\theta, u_k, h, t_0)}, \qquad
    \frac{dC}{dp_0} = a, \quad \frac{dC}{dq_0} = \pi + D^{\sf T} a \ \text{ at the end.}$$

    This is the gradient of the *discrete* trajectory, the one that `Backprop` returns, to rounding and at any
    amplitude: nothing is small here, and nothing turns damping into gain. Under a twist $S$ the machine is hit by
    $S$ times the above, and $a = S^{-1}(\text{its path})$.

    Two runs whatever the number of parameters. The coordinates of all nodes are kept: a lossy machine cannot be run
    back to regenerate them. Reverse mode only.

    Nonlinear forces under general damping have no such gradient: the linear response of the moving machine would be
    wanted, which is not the machine itself, and no change of drive or initial state makes it so.

    Args:
        nudge: `None` overlaps two records as above. A nudge takes the contrastive form: the machine with its inputs is
            run with and without the reversed error added at strength $\beta$, and $dC/d\theta = d_\beta\, \partial
            E/\partial\theta$ with $E = \tfrac12 W$ of each record with itself. Exact at any $\beta$ with
            `Symmetric(beta)`. It needs constant coefficients, and sees changes of parameters only that keep reciprocity
            (of a matrix its symmetric part).
        tolerance: largest accepted relative violation of linearity and reciprocity, measured at every step, entry by
            entry; by default 10⁴ rounding units.

    Raises:
        TypeError: on systems that are not `Dissipative`.
        RuntimeError: (at run time) if the system is not linear or not reciprocal.

    Source: "Unifying Physical Backpropagation" (Boesch, Gediz, Tureci), theorems 6.1a, 7.1 and 10.1; contrastive form:
    M. Berneman and D. Hexner, arXiv 2506.20402. The discrete pairing is echograd's own.

    Example:
        ```python
        network = eg.LinearDamped(mass, damping, stiffness)
        start = eg.InitialValue(q, v=v)

        def loss(network):
            sol = eg.solve(network, start, forces, dt=0.05, gradient=eg.Reciprocal())
            return jnp.sum((sol.q - target) ** 2)

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
                "use Echo(), and for one with damping in proportion to its mass Echo() on MassDamped(system, rate). A "
                "linear system with any damping can be written as LinearDamped or as a Dissipative."
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
    """Keep all states beside what another rule keeps."""

    save: AbstractSave
    nothing: bool = eqx.field(static=True)

    def stride(self, steps: int) -> int | None:
        return 1

    def observe(self, t: Any, q: PyTree, p: PyTree) -> PyTree:
        return (q, p), None if self.nothing else self.save.observe(t, q, p)


class AtRest(Dissipative):
    """A system without its inputs, linearised about rest: the machine at amplitudes so small that it is linear."""

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


@eqx.filter_custom_vjp
def _run(arguments: tuple[Problem, State], gradient: Reciprocal) -> Outcome:
    del gradient
    problem, z0 = arguments
    return finite(problem, free_run(problem, z0))


@_run.def_fwd
def _forward(perturbed: PyTree, arguments: tuple[Problem, State], gradient: Reciprocal) -> tuple[Outcome, Any]:
    problem, z0 = arguments
    stride = problem.save.stride(problem.steps)
    recording = eqx.tree_at(lambda x: x.save, problem, SaveStates(problem.save, stride is None))
    outcome = free_run(recording, z0)
    nodes, saved = outcome.saved
    saved = jax.tree.map(lambda x: x[::stride], saved)
    return finite(problem, Outcome(saved, outcome.final, outcome.cost)), (nodes, _tree.as_shapes(perturbed[0]))


@_run.def_bwd
def _backward(
    residuals: Any, bar: Outcome, perturbed: PyTree, arguments: tuple[Problem, State], gradient: Reciprocal
) -> PyTree:
    del perturbed  # this copy may have been traced
    problem, _ = arguments
    nodes, perturbed = residuals
    wanted, rest = eqx.partition(problem, _tree.from_shapes(perturbed))
    kicks, sharing = _kicks(wanted, rest, nodes, bar)
    if gradient.nudge is None:
        reading, state = _overlapped(wanted, rest, nodes, kicks)
    else:
        marks = marks_of(problem.steps, 1)
        course = Course(marks, *(jax.tree.map(lambda x, k=k: x[k], nodes) for k in (np.asarray(marks), -1)))
        reading, state = _contrasted(wanted, rest, nodes, kicks, gradient.nudge, load_of(problem, course, bar))
    bars = _tree.add(sharing, reading), state
    return finite_cotangents(_check_reciprocity(bars, problem, nodes[0], gradient)) if problem.throw else bars


def _kicks(wanted: Problem, rest: Problem, nodes: State, bar: Outcome) -> tuple[State, Problem]:
    """Return the cotangents of every node, and those of what the loss reads directly, summed over the nodes."""
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


class Twist(eqx.Module):
    """The matrix S of a twisted reciprocity, on flat coordinates, and its inverse."""

    matrix: Float[Array, "n n"]
    inverse: Float[Array, "n n"]

    def __call__(self, x: PyTree) -> PyTree:
        return _apply(self.matrix, x)

    def undone(self, x: PyTree) -> PyTree:
        """Return S⁻¹ x."""
        return _apply(self.inverse, x)


def twist_of(system: Dissipative, like: PyTree) -> Twist:
    """Return the twist of a system whose coordinates are shaped `like` this."""
    matrix = dense(system.twisted, like)
    return Twist(matrix, jnp.linalg.inv(matrix))


def dense(f: Any, like: PyTree, at: PyTree = None) -> Float[Array, "n n"]:
    """Return the Jacobian of a map between trees shaped `like` this, on flat coordinates, at zero or another point."""
    flat, unravel = jax.flatten_util.ravel_pytree(_tree.zeros_like(like) if at is None else at)
    return jax.jacfwd(lambda x: _tree.flat(f(unravel(x))))(flat)


def _apply(matrix: Float[Array, "n n"], x: PyTree) -> PyTree:
    flat, unravel = jax.flatten_util.ravel_pytree(x)
    return unravel(matrix @ flat)


def _transposed(f: Any, x: PyTree) -> PyTree:
    """Return fᵀ(x) of a linear map."""
    return jax.vjp(f, _tree.zeros_like(x))[1](x)[0]


def _hits(system: Dissipative, twist: Twist, kick: State) -> State:
    """Return by how much a node's cotangents move the machine: S ȳᵖ in place, S (ȳ - Dᵀ ȳᵖ) in momentum."""
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
    """Return the share of step k in E: half of W, but the whole of what is linear in the coordinates, the sources."""
    return 0.5 * (_pairing(given, k, field, path) + _pairing(given, k, field, _tree.zeros_like(path)))


def _overlapped(wanted: Problem, rest: Problem, nodes: State, kicks: State) -> tuple[Problem, State]:
    """Return the readings of the undriven machine's run against the record, and the initial state's cotangents."""
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
    """Return d/dβ of the convolution action of the nudged machine with itself, and the initial state's cotangents."""
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
        """Return what the damping of a record with itself lacks: an integration by parts leaves it at every hit."""
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


class Reciprocity(eqx.Module):
    r"""By how much linearity and reciprocity are violated along a path: relative, zero where they hold.

    Attributes:
        forces: by how much the forces are not linear.
        friction: by how much the friction, or the inertia, is not.
        mass: of $M S = S M^{\sf T}$.
        damping: of the same for D.
        stiffness: of the same for K, at its worst along the path.
        drift: by how much the stiffness changes in time.
        skewness: of the twist, $S = S^{\sf T}$.
    """

    forces: Float[Array, ""]
    friction: Float[Array, ""]
    mass: Float[Array, ""]
    damping: Float[Array, ""]
    stiffness: Float[Array, ""]
    drift: Float[Array, ""]
    skewness: Float[Array, ""]


def relative(x: Array, *scales: Array) -> Float[Array, ""]:
    """Return the size of `x` on a scale, the sum of the sizes of others; zero on nothing is zero."""
    scale = sum((_tree.norm(s) for s in scales), jnp.zeros((), x.dtype))
    return _tree.norm(x) / jnp.where(scale == 0, 1, scale)


def _by_entry(x: Array, scale: Array) -> Float[Array, ""]:
    """Return the largest ratio of an entry of `x` and that of a scale; zero on nothing is zero."""
    return jnp.max(jnp.abs(x) / jnp.where(scale == 0, 1, scale), initial=0)


def _nonlinearity(f: Any, matrix: Float[Array, "n n"], x: Float[Array, " n"], unravel: Any) -> Float[Array, ""]:
    """Return by how much a map is not the matrix at a point: its value, every entry on its own scale, or its slope."""
    zero = f(unravel(jnp.zeros_like(x)))
    value, linear = f(unravel(x)), matrix @ x
    scale = jnp.abs(value) + jnp.abs(zero) + jnp.abs(matrix) @ jnp.abs(x)
    return jnp.maximum(_by_entry(value - zero - linear, scale), _asymmetry(dense(f, unravel(x), unravel(x)), matrix))


def _asymmetry(a: Float[Array, "n n"], b: Float[Array, "n n"]) -> Float[Array, ""]:
    """Return by how much two matrices of couplings differ, every entry on the scale of its row and its column."""
    rows = jnp.sqrt(jnp.max(jnp.abs(a) + jnp.abs(b), axis=1, initial=0))
    return _by_entry(a - b, rows[:, None] * rows[None])


def reciprocity(problem: Problem, path: PyTree) -> Reciprocity:
    """Measure linearity and reciprocity of the problem's system along a path of coordinates at all nodes."""
    given, q0 = problem.given, _tree.take(path, 0)
    system = given.system
    unravel = jax.flatten_util.ravel_pytree(q0)[1]
    twist = dense(system.twisted, q0)
    mass, damping = dense(system.inertia, q0), dense(system.friction, q0)
    steps = jax.vmap(_tree.flat)(path)

    def violation(x: Float[Array, "n n"]) -> Float[Array, ""]:
        if type(system).twisted is Dissipative.twisted:
            return _asymmetry(x, x.T)
        return relative(x @ twist - twist @ x.T, x) / jnp.linalg.norm(twist, 2)

    def force_at(k: Int[Array, ""]) -> Any:
        t = given.t0 + (k.astype(given.h.dtype) + 0.5) * given.h
        return lambda q: _tree.flat(system.force(t, q, given.at(k).u))

    first = -dense(force_at(index(0)), q0)

    def body(worst: Any, row: Any) -> tuple[Any, None]:
        k, x, y = row
        force, v = force_at(k), (y - x) / given.h
        matrix = -dense(force, q0)
        bent = _nonlinearity(force, -matrix, 0.5 * (x + y), unravel)
        flat = lambda f: lambda v: _tree.flat(f(v))  # noqa: E731
        friction = _nonlinearity(flat(system.friction), damping, v, unravel)
        inertia = _nonlinearity(flat(system.inertia), mass, v, unravel)
        now = jnp.stack(
            [bent, jnp.maximum(friction, inertia), violation(matrix), relative(matrix - first, first, matrix)]
        )
        return jnp.maximum(worst, now), None

    k = jnp.arange(problem.steps, dtype=jnp.int32)
    worst, _ = jax.lax.scan(body, jnp.zeros(4, steps.dtype), (k, steps[:-1], steps[1:]))
    skewness = relative(twist - twist.T, twist)
    return Reciprocity(worst[0], worst[1], violation(mass), violation(damping), worst[2], worst[3], skewness)


def reciprocal_tolerance(dtype: Any) -> float:
    """Return the largest relative violation of linearity and reciprocity that is taken for rounding."""
    return 1e4 * float(jnp.finfo(dtype).eps)


def _check_reciprocity(x: Any, problem: Problem, path: PyTree, gradient: Reciprocal) -> Any:
    """Return `x`, or raise at run time if the system is not one that the gradient is exact on."""
    found = reciprocity(problem, path)
    tolerance = gradient.tolerance
    if tolerance is None:
        tolerance = reciprocal_tolerance(found.mass.dtype)
    nonlinearity = jnp.maximum(found.forces, found.friction)
    x = refuse_if(
        x,
        ~(nonlinearity <= tolerance),
        f"Reciprocal: the system is nonlinear (relative deviation {{}}, tolerance {tolerance:.1g}), "
        "so the error field is not a motion of the machine itself, and with a "
        "general damping no change of drive or initial state makes it one: proven impossible on the same hardware. "
        "Where the damping is in proportion to the mass use Echo() on MassDamped(system, rate); without any, Echo() on "
        "the Hamiltonian; else Backprop().",
        nonlinearity,
    )
    asymmetry = jnp.maximum(jnp.maximum(found.mass, found.damping), found.stiffness)
    x = refuse_if(
        x,
        ~(asymmetry <= tolerance),
        f"Reciprocal: the system is not reciprocal (relative asymmetry {{}}, tolerance {tolerance:.1g}): "
        "its mass, damping or stiffness matrix is not symmetric (S M^T S^-1 "
        "= M and so on, with its twist S), so the machine answers the reversed error with another field than the "
        "wanted one. Make the matrices symmetric, declare the `twisted` map S under which they are (diagnose looks for "
        "one), or use Backprop().",
        asymmetry,
    )
    if gradient.nudge is None:
        return x
    change = jnp.maximum(found.drift, found.skewness)
    return refuse_if(
        x,
        ~(change <= tolerance),
        "Reciprocal: the contrastive form pairs a record with itself, so the stiffness must not change in time and a "
        "twist must be symmetric, S = S^T; the relative deviation is {}. Use Reciprocal() without a nudge, which "
        "replays time dependence reversed.",
        change,
    )
