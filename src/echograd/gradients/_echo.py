"""Hamiltonian echo learning: the gradient is read off the machine while it runs back along its own path."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from .._internal import _checks, _tree
from .._internal._errors import ArgumentTypeError, refuse_if
from ..integrators import Direction, State, StepInputs, time_reversed
from ..integrators._base import is_mirrored
from ..nudge import AbstractNudge, Infinitesimal
from ..nudge._checks import checked_nudge
from ..problem import Outcome, Problem
from ..problem._problem import Course, finite_cotangents, index, marked_run, marks_of
from ..systems import Hamiltonian, LegendreHamiltonian, SeparableHamiltonian
from ..two_point import Convergence, TwoPoint, TwoPointNewton
from ..two_point._two_point import Nodes
from ._base import AbstractNudgedGradient
from ._nudged import Response, nudged_run
from ._parity import is_even

# How far, in units of the state, nudged echoes may extrapolate off the un-nudged one, unless that is no more than the
# other fraction of how far they are apart. Over the zoo, gradients off by less than 1 % come up to 0.17.
_LARGEST_MISS, _LEAST_BEND = 0.3, 0.03

# The relative error of a gradient over that of its path. Measured over chaotic and regular systems: 10 to 200 where the
# errors are large enough to matter.
_BENDING = 20


class Echo(AbstractNudgedGradient):
    r"""Recurrent Hamiltonian echo learning (RHEL): forward, flip the momenta, run the same machine again, nudged.

    With $\bar y_k = \partial C/\partial q_k$ and $\bar y^p_k = \partial C/\partial p_k$ the cotangents that reach node
    $k$, the echo starts at $(q_N, -p_N)$ and does, for $k = N \dots 1$,

    $$p \leftarrow p + \beta \bar y_k, \quad q \leftarrow q + \beta \bar y^p_k, \quad
    (q, p) \leftarrow \Phi((q, p), u_{k-1}) \ \text{ reading } \ r_{k-1} = -h\,\partial H/\partial(\theta, u)$$

    and then $dC/d\theta = \frac{d}{d\beta}\sum_k r_k$, $dC/du_k = \frac{d}{d\beta} r_k$, and in echo variables
    $dC/dq_0 = \frac{d}{d\beta} p$, $dC/dp_0 = \frac{d}{d\beta} q$ at the end. This is the gradient of the *discrete*
    trajectory, the one that `Backprop` returns: exact to rounding with `Infinitesimal()`.

    With `Infinitesimal()` it takes two passes, one forward and one back, whatever the number of parameters and steps. A
    finite nudge runs several machines back side by side: `OneSided` and `Symmetric` two, `Richardson(order)` `order`,
    `Holomorphic(points)` `points / 2`. For the echo the final state and up to 16 others are kept, however many steps
    there are, with the inputs and the incoming cotangents. An infinitesimally nudged echo is put back on the free path
    at these marks, so rounding errors grow from one mark to the next only. Where the program of the energy does not
    show that it is even in the momentum, the run back is computed by the inverse map, which makes the same path and
    reads the slopes that the free run had. Reverse mode; second derivatives are forward over reverse, as
    `jax.hessian` takes them.

    Args:
        nudge: how $d/d\beta$ is taken: `Infinitesimal()` (default), `Symmetric(beta)`, `OneSided(beta)`,
            `Richardson(beta, order)` or `Holomorphic(radius, points)`.
        retrace_tolerance: largest accepted estimate of the relative error of the gradient, by default 1e-9 in float64
            and 3e-2 in float32. It is 20 times the sum of two measured numbers: how far the run back strays from
            the free run, relative to how far each leaf of the state moves; and $\varepsilon \sqrt N$ times the growth
            of the cotangents, since rounding errors of the path grow as they do. With a finite nudge it is the largest
            accepted retrace error, 1e-6 or 1e-3. `float("inf")` accepts any path.
        report: called with the estimate of every gradient that is taken with an infinitesimal nudge, such as `print`.

    Raises:
        RuntimeError: (at run time) if the energy is not time-reversible, if the gradient is not finite or not
            determined to the tolerance, or if a finite nudge is lost in rounding or is found too strong (see
            `Symmetric`).

    Source: G. Pourcel and M. Ernoult, arXiv 2506.05259, eqs. 6-7 and Cor. A.7-A.8; arXiv 2506.06248.

    Example:
        ```python
        def loss(system):
            sol = eg.solve(system, boundary, dt=0.01, steps=100, gradient=eg.Echo())
            return jnp.sum(sol.q[-1] ** 2)

        gradient = eqx.filter_grad(loss)(system)
        ```
    """

    nudge: AbstractNudge
    retrace_tolerance: float | None = eqx.field(static=True)
    report: Callable[[Any], None] | None = eqx.field(static=True)

    def __init__(
        self,
        nudge: AbstractNudge | None = None,
        *,
        retrace_tolerance: float | None = None,
        report: Callable[[Any], None] | None = None,
    ) -> None:
        self.nudge = checked_nudge("Echo", nudge)
        self.retrace_tolerance = _checks.tolerance("Echo", "retrace_tolerance", retrace_tolerance)
        self.report = None if report is None else _checks.function("Echo", "report", report, "error -> None")

    def prepared(self, problem: Problem, z0: State) -> State:
        return check_time_reversal(problem, z0)

    def read_run(self, wanted: Problem, rest: Problem, course: Course, bar: Outcome) -> tuple[Problem, State]:
        problem: Problem = eqx.combine(wanted, rest)
        response = nudged_run(wanted, rest, course, bar, self.nudge, way_back(problem, course.start))
        return checked_cotangents(problem, course, response, self)

    def run_two_point(self, problem: TwoPoint, guess: Nodes, newton: TwoPointNewton) -> tuple[Outcome, Convergence]:
        raise ArgumentTypeError(
            "Echo: an echo is the dual of an InitialValue only; under another condition the nudged path is no forward "
            "run of the machine. Use gradient=Glep(), which nudges under the dual condition, or Backprop()."
        )


def tolerance_for(rule: Any, z: PyTree) -> float:
    """Return the largest accepted retrace error of nudged echoes, by default one that suits the precision."""
    if rule.retrace_tolerance is not None:
        return rule.retrace_tolerance
    return 1e-6 if _tree.rounding(z) < 1e-12 else 1e-3


def largest_error(z: PyTree) -> float:
    """Return the largest relative error of a gradient that is accepted by default in the precision of a state."""
    return 1e-9 if _tree.rounding(z) < 1e-12 else 3e-2


def retraces(error: float, z: PyTree) -> bool:
    """Return whether a retrace error of a whole run leaves the gradient as well determined as an echo demands."""
    return bool(_BENDING * error <= largest_error(z))


def way_back(problem: Problem, z0: State) -> Direction:
    """Return how the nudged run goes back: as an echo where the program shows that the energy is even, else inverted.

    Along a path that can be run back by an echo the inverse map makes the same one, and reads the same; but that it is
    the inverse, and reads slopes as the free run had them, is certain of it for any energy.
    """
    return "echo" if surely_even(problem.given, z0) else "backward"


def checked_cotangents(problem: Problem, course: Course, response: Response, rule: Any) -> tuple[Problem, State]:
    r"""Return the cotangents of the problem and of the state, $dC/dz_0 = (-d_\beta p_0, d_\beta q_0)$, checked."""
    dq, dp = response.state
    bars = response.readings, (_tree.negate(dp), dq)
    if not problem.throw:
        return bars
    bars = finite_cotangents(bars)

    def check(x: Any) -> Any:
        x = _check_units(x, course)
        if problem.given.grid is not None:
            x = _check_bitwise_retrace(x, response)
        elif isinstance(rule.nudge, Infinitesimal):
            x = _check_error(x, problem, course, response, rule)
        else:
            x = _check_retrace(x, course, response, tolerance_for(rule, course.final))
        x = _check_nudge_strength(x, course, response)
        sizes = course.sizes()
        return rule.nudge.check(x, response.beta, response.ensemble, response.load, problem.steps, sizes)

    return _tree.check_heads(check, bars)


def _check_units(x: Any, course: Course) -> Any:
    """Return `x`, or raise at run time if what is read, actions, is next to the smallest numbers of the dtype."""
    q, p = (_tree.max_abs(size) for size in course.sizes())
    action, info = q * p, jnp.finfo(q.dtype)
    least = float(info.tiny) / float(info.eps) ** 2
    return refuse_if(
        x,
        (q > 0) & (p > 0) & (action < least),
        f"Echo: a coordinate times a momentum is {{}} here, and below {least:.1g} numbers of {q.dtype} underflow while "
        "an echo is read. Choose units in which actions are nearer to 1, or use float64.",
        action,
    )


def strayed_by(course: Course, strayed: State) -> Float[Array, ""]:
    """Return the distances from the free path relative to how far each leaf moves on it, the largest of all leaves.

    A leaf that moves by no more than the rounding errors of the others is passed over.
    """
    worst = []
    for part, extents, sizes in zip(strayed, course.extents(), course.sizes(), strict=True):
        least = 1e3 * _tree.rounding(sizes) * _tree.max_abs(sizes)
        for s, extent in zip(jax.tree.leaves(part), jax.tree.leaves(extents), strict=True):
            moves = extent > least.astype(extent.dtype)
            worst.append(jnp.where(moves | ~(s < jnp.inf), s / jnp.where(moves, extent, 1), 0).astype(least.dtype))
    return jnp.max(jnp.stack(worst))


def _check_error(x: Any, problem: Problem, course: Course, response: Response, rule: Any) -> Any:
    r"""Return `x`, or raise at run time if the gradient is not determined to the tolerance.

    Two things are measured: by how much the run back strays from the free run, and by how much the cotangents grow on
    the way. Rounding errors of the free run grow so, too. The path, and the gradient with it, is then known to
    $\varepsilon \sqrt N$ times the growth only, whatever computes it: backpropagation in another program, which
    rounds otherwise, gives another number.
    """
    rounding, tolerance = _tree.rounding(course.final), rule.retrace_tolerance
    tolerance = largest_error(course.final) if tolerance is None else tolerance
    strayed = strayed_by(course, response.strayed)
    error = _BENDING * (strayed + rounding * problem.steps**0.5 * response.growth.astype(strayed.dtype))
    if rule.report is not None:
        jax.debug.callback(rule.report, error)
    return refuse_if(
        x,
        ~(error <= tolerance),
        "Echo: the gradient is determined to a relative error of {} only, more than "
        f"retrace_tolerance={tolerance:g}, because rounding errors grow along this path. Likely causes: (a) the motion "
        "is chaotic or very long: use Leapfrog(exact=True), whose path does not depend on rounding, float64, or fewer "
        "steps; (b) coordinates with a large constant offset, which takes up their digits: subtract it; (c) dt is too "
        "long. Or accept the error with a larger retrace_tolerance.",
        error,
    )


def _check_retrace(x: Any, course: Course, response: Response, tolerance: float) -> Any:
    """Return `x`, or raise at run time if the run back left the path that it should differentiate."""
    error = strayed_by(course, response.strayed)
    return refuse_if(
        x,
        ~(error <= tolerance),
        "Echo: the run back did not keep to the path that it should differentiate. It strayed by {} of the distance "
        f"that the state moves, more than retrace_tolerance={tolerance:g}. Likely causes: (a) the system is chaotic "
        "over this time and rounding grew: use Leapfrog(exact=True), float64 or fewer steps; (b) dt is too long; (c) "
        "coordinates with a large constant offset, which takes up their digits: subtract it; (d) a finite nudge that "
        "is too strong. Backprop() always applies.",
        error,
    )


def _check_nudge_strength(x: Any, course: Course, response: Response) -> Any:
    """Return `x`, or raise at run time if the nudges were too strong for the members to tell a derivative.

    Of a linear system what the members extrapolate to is the un-nudged state, however far apart they are. Elsewhere it
    misses it, and a reading that is a product of two coordinates is off by the miss over their size. Nudges that leave
    an un-nudged member cannot be judged so.
    """
    worst = []
    for ended, about, start, size in zip(response.ended, response.about, course.start, course.sizes(), strict=True):
        apart = _tree.max_abs(_tree.subtract(about, ended))
        unit = jnp.where(apart > 0, apart, jnp.inf)  # coordinates and momenta, each on the scale of their response
        miss = _tree.max_abs(_tree.subtract(ended, start))
        bent = (miss > _LEAST_BEND * unit) & (miss > _LARGEST_MISS * _tree.max_abs(size))
        worst.append(jnp.where(bent, miss / jnp.maximum(_tree.max_abs(size), jnp.finfo(miss.dtype).tiny), 0))
    return refuse_if(
        x,
        jnp.maximum(*worst) > 0,
        "Echo: the nudge is too strong. The mean of the nudged echoes misses the initial state by {} of the size of "
        f"the state (limit {_LARGEST_MISS:g}), so that the system does not answer the nudge linearly, and the "
        'gradient is off by tens of percent. Lower beta, or pass beta="auto", which scales it to the cotangents.',
        jnp.maximum(*worst),
    )


def _check_bitwise_retrace(x: Any, response: Response) -> Any:
    """Return `x`, or raise at run time if a run back in fixed point met other bits than the free run."""
    strayed = _tree.max_abs(response.strayed)
    return refuse_if(
        x,
        strayed != 0,
        "Echo: the run back in fixed point did not return to the bits of the free run (it is off by {}), so it left "
        "the path it should differentiate. Likely causes: (a) the two compiled programs round the force differently "
        "on this machine; (b) the mirror is not a signed permutation. Backprop() always applies.",
        strayed,
    )


def reversible(given: StepInputs, steps: int, z0: State) -> Bool[Array, ""] | np.bool_:
    r"""Return True unless a probe shows that the system is not time-reversible.

    With the mirror $\Pi$, the gradient of $H(t, \Pi q, -\Pi p, \Pi_u u) - H(t, q, p, u)$ must vanish. Where the program
    of the energy does not show that it does (then the answer is no array but `np.True_`) it is probed at the initial
    state and at a state without any symmetry, at several times of the run and with the inputs there, and with a mixture
    of all inputs: what is odd may be switched on late. The mirror must be an orthogonal involution.
    """
    given, z0 = _tree.fixed((given, z0))
    if surely_even(given, z0):
        return np.True_
    system, eps = given.system, 1e3 * _tree.rounding(z0)
    states, function = _probes(z0), _energy(system)

    def is_odd(t: Float[Array, ""], u: Any, z: State) -> Bool[Array, ""]:
        here = jax.grad(lambda z: function(t, *z, u))(z)
        there = jax.grad(lambda z: function(t, *time_reversed(system, z), system.mirror_input(u)))(z)
        # Forces and velocities on their own scales, so that a strong force cannot hide an odd kinetic energy. A probe
        # outside the domain of the energy gives NaN, which compares false: no evidence.
        parts = [_tree.max_abs(_tree.subtract(a, b)) > eps * _tree.max_abs(a) for a, b in zip(here, there, strict=True)]
        return parts[0] | parts[1]

    times, inputs = _probe_points(given, steps)
    found = jax.lax.map(lambda x: jax.lax.map(lambda z: is_odd(x[0], x[1], z), states), (times, inputs))
    odd = jnp.any(found)
    if type(system).mirror is not Hamiltonian.mirror:
        x, y = _tree.spread(z0[0], 1), _tree.spread(z0[0], 2)
        twice = _tree.subtract(system.mirror(system.mirror(x)), x)
        turned = _tree.dot(system.mirror(x), system.mirror(y)) - _tree.dot(x, y)
        odd |= (_tree.max_abs(twice) > eps) | (jnp.abs(turned) > eps * _tree.norm(x) * _tree.norm(y))
    return ~odd


def readings_are_even(wanted: StepInputs, rest: StepInputs, steps: int, z0: State) -> Bool[Array, ""] | np.bool_:
    r"""Return True unless a probe shows that $\partial H/\partial\theta$ changes under time reversal.

    The energy being even is not enough. A parameter whose own energy is odd in the momentum (a wind, a magnetic field,
    the phase of a hopping amplitude) leaves it even where it happens to be zero, and there an echo reads
    $\partial H/\partial\theta$ with the other sign. Readings of a system with a mirror are taken in forward time.
    """
    if is_mirrored(eqx.combine(wanted, rest).system, z0[0]):
        return np.True_
    wanted, rest, z0 = _tree.fixed((wanted, rest, z0))
    if surely_even(eqx.combine(wanted, rest), z0):
        return np.True_
    system = eqx.combine(wanted, rest).system
    times, inputs = _probe_points(eqx.combine(wanted, rest), steps)
    chosen = jax.tree.map(lambda u, w: None if w is None else u, inputs, wanted.u, is_leaf=lambda x: x is None)
    others = jax.tree.map(lambda u, w: u if w is None else None, inputs, wanted.u, is_leaf=lambda x: x is None)

    def measured(point: Any, z: State) -> tuple[PyTree, PyTree]:
        """Return how large each slope is, and how much another in the reversed state."""
        t, chosen, other = point

        def energy(parameters: Any, turned: bool) -> Any:
            system_, u = eqx.combine(parameters[0], rest.system), eqx.combine(parameters[1], other)
            function = _energy(system_)
            return function(t, *time_reversed(system, z), system_.mirror_input(u)) if turned else function(t, *z, u)

        here, there = (jax.grad(energy)((wanted.system, chosen), turned) for turned in (False, True))
        return jax.tree.map(_tree.max_abs, here), jax.tree.map(_tree.max_abs, _tree.subtract(here, there))

    at = jax.lax.map(lambda x: jax.lax.map(lambda z: measured(x, z), _probes(z0)), (times, chosen, others))
    sizes, changes = map(jax.tree.leaves, at)
    largest = _tree.max_abs(sizes)
    # What is zero but for the rounding of larger slopes tells nothing, nor does what is not a number.
    limits = [_tree.rounding(z0) * (1e3 * jnp.max(size) + 10 * largest) for size in sizes]
    odd = [jnp.max(change) > limit for change, limit in zip(changes, limits, strict=True)]
    return ~jnp.any(jnp.stack([jnp.asarray(False), *odd]))


def _probes(z0: State) -> State:
    """Return, stacked, the initial state, and states of its scale without any symmetry."""
    scale = jnp.maximum(*map(_tree.max_abs, z0))
    scale = jnp.where(scale > 0, scale, 1)
    probe = _tree.add(z0, _tree.scale(scale, _tree.spread(z0)))
    return jax.tree.map(lambda *x: jnp.stack(x), z0, (z0[0], probe[1]), probe)


def surely_even(given: StepInputs, z0: State) -> bool:
    """Return whether the energy is even in the momentum for all parameters and inputs, and so are all its slopes."""
    system, (q, p), u = given.system, z0, _tree.take(given.u, 0)
    unturned = zip(jax.tree.leaves(system.mirror_input(u)), jax.tree.leaves(u), strict=True)
    if is_mirrored(system, q) or any(a is not b for a, b in unturned):
        return False
    return is_even(lambda p: _energy(system)(given.t0, q, p, u), p)


def _energy(system: Any) -> Any:
    """Return the part of an energy that may be odd in the momentum.

    Of a separable one only the kinetic part may. A Lagrangian has to be even in the velocity, for which the momenta of
    a probe serve.
    """
    kind = type(system)
    plain = kind.mirror is Hamiltonian.mirror and kind.mirror_input is Hamiltonian.mirror_input
    if plain and isinstance(system, SeparableHamiltonian) and kind.__call__ is SeparableHamiltonian.__call__:
        return lambda t, q, p, u: system.kinetic(t, p)
    return system.lagrangian if isinstance(system, LegendreHamiltonian) else system


def _probe_points(given: StepInputs, steps: int) -> tuple[Float[Array, " probes"], PyTree]:
    """Return times of a run and inputs to probe a system with: those of some steps, and a mixture of all."""
    # No simple fractions of the run, at which what comes and goes in time with it would be off.
    nodes = jnp.asarray([round(x * (steps - 1)) for x in (0, 0.382, 0.764, 1, 0.618)], jnp.int32)
    inputs = jax.tree.map(lambda u, v: u[nodes].at[-1].set(v), given.u, mixed_input(given, steps))
    return given.t0 + nodes.astype(given.h.dtype) * given.h, inputs


def mixed_input(given: StepInputs, steps: int) -> PyTree:
    """Return an average of all inputs with weights of no pattern, in which every one that occurs has a part.

    Of what is not a number it returns one as it is.
    """
    numbers, others = eqx.partition(given.u, eqx.is_inexact_array)

    def add(k: Int[Array, ""], carry: Any) -> Any:
        total, sums = carry
        weight = _tree.hashed(index(k), total.dtype)
        return total + weight, _tree.add(sums, _tree.scale(weight, _tree.take(numbers, k)))

    # Step by step, as the weights of all of them would be memory that grows with their number.
    start = jnp.zeros((), given.h.dtype), jax.tree.map(lambda u: jnp.zeros_like(u[0]), numbers)
    total, sums = jax.lax.fori_loop(0, steps, add, start)
    return eqx.combine(_tree.scale(1 / total, sums), jax.tree.map(lambda u: u[steps // 2], others))


def check_time_reversal(problem: Problem, z0: State) -> State:
    """Return `z0`, or raise at run time if the system has no time reversal."""
    return eqx.error_if(
        z0,
        ~reversible(problem.given, problem.steps, z0),
        "Echo: the system is not time-reversible: its energy is not even in the momentum, H(t, q, -p, u) != H(t, q, p, "
        "u). Run forward from the flipped state the machine would not retrace its path, and its readings would not be "
        "a gradient. Remove the part that is odd in p (a drift or magnetic term), give the system the `mirror` under "
        "which it is even (an orthogonal involution), or use Backprop(), or Glep(), which then runs the map backward.",
    )


@eqx.filter_jit
def retrace_error(problem: Problem, z0: State) -> Float[Array, ""]:
    """Return how far an un-nudged echo ends from the initial state, relative to how far each part of it moves."""
    system, n = problem.given.system, problem.steps
    _, course = marked_run(problem, z0, marks_of(n, problem.save.stride(n)))

    def back(i: Int[Array, ""], z: State) -> State:
        k = index(n - 1 - i)
        return problem.integrator.step(problem.given.at(k), k, z, "echo")

    z = jax.lax.fori_loop(0, n, back, time_reversed(system, course.final))
    apart = _tree.subtract(z0, time_reversed(system, z))
    return strayed_by(course, jax.tree.map(_tree.max_abs, apart))
