"""Hamiltonian echo learning: the gradient is read off the machine while it runs back along its own path."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from .. import _tree
from ..integrators import State, World
from ..nudge import AbstractNudge, Infinitesimal
from ._base import AbstractGradient
from ._problem import Outcome, Problem, finite, free_run, index


class Echo(AbstractGradient):
    r"""Recurrent Hamiltonian echo learning (RHEL): forward, flip the momenta, run the same machine again, nudged.

    With $\bar y_k = \partial C/\partial q_k$ and $\bar y^p_k = \partial C/\partial p_k$ the cotangents that reach node
    $k$, the echo starts at $(q_N, -p_N)$ and does, for $k = N \dots 1$,

    $$p \leftarrow p + \beta \bar y_k, \quad q \leftarrow q + \beta \bar y^p_k, \quad
    (q, p) \leftarrow \Phi((q, p), u_{k-1}) \ \text{ reading } \ r_{k-1} = -h\,\partial H/\partial(\theta, u)$$

    and then $dC/d\theta = \frac{d}{d\beta}\sum_k r_k$, $dC/du_k = \frac{d}{d\beta} r_k$, and in echo variables
    $dC/dq_0 = \frac{d}{d\beta} p$, $dC/dp_0 = \frac{d}{d\beta} q$ at the end. This is the gradient of the *discrete*
    trajectory, the one that `Backprop` returns: exact to rounding with `Infinitesimal()`.

    Two passes (three runs with a finite nudge), whatever the number of parameters and steps. Only the final state is
    kept for the echo, with the inputs and the incoming cotangents. Reverse mode only.

    Args:
        nudge: how $d/d\beta$ is taken: `Infinitesimal()` (default), `Symmetric(beta)` or `OneSided(beta)`.
        retrace_tolerance: largest accepted distance, relative to the size of the initial state, between the state where
            the echo ends and the initial state. A larger one raises: the echo ran along another path.

    Raises:
        RuntimeError: (at run time) if the kinetic energy is not even in the momentum, if the echo does not return, or
            if a finite nudge is lost in rounding.

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
    retrace_tolerance: float = eqx.field(static=True)

    def __init__(self, nudge: AbstractNudge | None = None, *, retrace_tolerance: float = 1e-3) -> None:
        nudge = Infinitesimal() if nudge is None else nudge
        if not isinstance(nudge, AbstractNudge):
            raise TypeError(
                f"Echo(nudge={nudge!r}): a nudge is an object such as Infinitesimal(), Symmetric(beta) or "
                f"OneSided(beta). For a number write Symmetric({nudge!r})."
            )
        if not retrace_tolerance > 0:
            raise ValueError(
                f"Echo(retrace_tolerance={retrace_tolerance!r}) must be positive; float('inf') accepts any path."
            )
        self.nudge = nudge
        self.retrace_tolerance = retrace_tolerance

    def run(self, problem: Problem, z0: State) -> Outcome:
        return _run((problem, z0), self)


@eqx.filter_custom_vjp
def _run(arguments: tuple[Problem, State], echo: Echo) -> Outcome:
    del echo
    problem, z0 = arguments
    return finite(problem, free_run(problem, z0))


@_run.def_fwd
def _forward(perturbed: PyTree, arguments: tuple[Problem, State], echo: Echo) -> tuple[Outcome, Any]:
    problem, z0 = arguments
    outcome = finite(problem, free_run(problem, even_in_momentum(problem, z0) if problem.throw else z0))
    return outcome, (outcome.final, perturbed[0])


@_run.def_bwd
def _backward(residuals: Any, bar: Outcome, perturbed: PyTree, arguments: tuple[Problem, State], echo: Echo) -> PyTree:
    del perturbed  # the residuals hold it as plain booleans; this copy may have been traced
    problem, z0 = arguments
    final, perturbed = residuals
    wanted, rest = eqx.partition(problem, jax.tree.map(bool, perturbed))
    return echo_run(wanted, rest, z0, final, bar, echo)


@eqx.filter_jit
def echo_run(
    wanted: Problem, rest: Problem, z0: State, final: State, bar: Outcome, echo: Echo
) -> tuple[Problem, State]:
    """Return the cotangents of the problem and of the initial state, from one nudged run back from `final`.

    `wanted` and `rest` are the two halves of the problem: the leaves that are read, and the others. `bar` holds the
    cotangents of the outcome, with `None` for what no loss depends on.
    """
    problem: Problem = eqx.combine(wanted, rest)
    n, nudge, stride = problem.steps, echo.nudge, problem.save.stride(problem.steps)
    # The inputs are read step by step; everything else is read into one running total.
    lasting = eqx.tree_at(lambda x: x.world, wanted, wanted.world.without_inputs())

    def push(k: Int[Array, ""], seen: PyTree, beta: Any, z: State) -> tuple[State, Problem]:
        """Nudge node `k` by the action β (c̄ c + ⟨ȳ, observed⟩), reading that action too."""

        def action(lasting: Problem, z: State) -> Float[Array, ""]:
            now, q, p = eqx.combine(lasting, rest), z[0], _tree.negate(z[1])
            total = jnp.zeros((), beta.dtype)
            if bar.cost is not None and problem.cost is not None:
                total += bar.cost * now.running_cost(k, (q, p))
            if seen is not None:
                total += _paired(seen, now.observe(k, (q, p)))
            return beta * total

        reading, (dq, dp) = jax.grad(action, (0, 1))(lasting, z)
        # The momentum of the echo is flipped, so ∂/∂p of the trajectory is -∂/∂p here.
        return (_tree.subtract(z[0], dp), _tree.add(z[1], dq)), reading

    def back(k: Int[Array, ""], carry: Any, seen: PyTree = None) -> Any:
        """Nudge node `k + 1` and step back to node `k`."""
        ensemble, total, du = carry

        def pushed(beta: Any, z: State) -> tuple[State, tuple[Problem, World]]:
            z, pushing = push(k + 1, seen, beta, z)
            z, stepping = problem.integrator.echo_step(wanted.world.at(k), rest.world.at(k), k, z)
            return z, (pushing, stepping)

        ensemble, (pushing, stepping) = nudge.advance(beta, pushed, ensemble)
        total = _tree.add(total, pushing)
        total = eqx.tree_at(lambda x: x.world, total, _tree.add(total.world, stepping.without_inputs()))
        return ensemble, total, _tree.put(du, k, stepping.u)

    def back_to(low: Any, high: Any, carry: Any) -> Any:
        """Step back from node `high` to node `low` under the running cost alone."""
        return jax.lax.fori_loop(low, high, lambda i, c: back(high - 1 - (i - low), c), carry)

    load = _load(problem, z0, final, bar)
    start = (final[0], _tree.negate(final[1]))
    beta = nudge.strength(start, load, n)
    ensemble = nudge.start(start)
    carry = (ensemble, _tree.zeros_like(lasting), _tree.zeros_like(wanted.world.u))

    if bar.final is not None:

        def terminal(beta: Any, z: State) -> tuple[State, None]:
            def action(z: State) -> Float[Array, ""]:
                return beta * _paired(bar.final, (z[0], _tree.negate(z[1])))

            dq, dp = jax.grad(action)(z)
            return (_tree.subtract(z[0], dp), _tree.add(z[1], dq)), None

        carry = (nudge.advance(beta, terminal, ensemble)[0], *carry[1:])

    if stride is None or bar.saved is None:
        first = None
        carry = back_to(index(0), index(n), carry)
    else:
        blocks = n // stride
        carry = back_to(index(blocks * stride), index(n), carry)

        def block(i: Int[Array, ""], carry: Any) -> Any:
            j = blocks - 1 - i
            carry = back((j + 1) * stride - 1, carry, _tree.take(bar.saved, j + 1))
            return carry if stride == 1 else back_to(j * stride, (j + 1) * stride - 1, carry)

        carry = jax.lax.fori_loop(0, blocks, block, carry)
        first = _tree.take(bar.saved, 0)

    ensemble, total, du = carry
    ensemble, pushing = nudge.advance(beta, lambda beta, z: push(index(0), first, beta, z), ensemble)
    total = _tree.add(total, pushing)

    response_q, response_p = nudge.response(beta, ensemble)
    bar_z0 = (response_p, response_q)
    if problem.throw:
        bar_z0, total = _returned(echo, z0, (bar_z0, total), *nudge.retraced(ensemble))
        bar_z0, total = nudge.check((bar_z0, total), beta, ensemble, load, n)
    total = eqx.tree_at(lambda x: x.world.u, total, du, is_leaf=lambda x: x is None)
    return total, bar_z0


def _paired(bars: PyTree, values: PyTree) -> Float[Array, ""]:
    """Return ⟨bars, values⟩ over the leaves that have a cotangent."""
    return _tree.sum_of(
        jax.tree.map(lambda b, v: None if b is None else jnp.sum(b * v), bars, values, is_leaf=lambda x: x is None)
    )


def _load(problem: Problem, z0: State, final: State, bar: Outcome) -> Float[Array, ""]:
    """Return the total size of the nudges, ∑ₖ ‖∂C/∂zₖ‖; the running cost is gauged at the two ends."""
    total = jnp.zeros((), problem.world.h.dtype)
    if bar.final is not None:
        total += _tree.norm(bar.final)
    if bar.saved is not None:
        rows = [jnp.sum(jnp.abs(x) ** 2, axis=tuple(range(1, x.ndim))) for x in jax.tree.leaves(bar.saved)]
        total += jnp.sum(jnp.sqrt(_tree.sum_of(rows)))
    if bar.cost is not None and problem.cost is not None:
        ends = [(index(0), z0), (index(problem.steps), final)]
        slopes = [_tree.norm(jax.grad(problem.running_cost, 1)(k, z)) for k, z in ends]
        total += (problem.steps + 1) * jnp.abs(bar.cost) * jnp.maximum(*slopes)
    return total


def _returned(echo: Echo, z0: State, x: Any, ended: State, about: State) -> Any:
    """Return `x`, or raise at run time if the echo ended elsewhere than at the initial state.

    Where only nudged echoes were run, as far as they are apart from their mean counts as their uncertainty.
    """
    error = _distance(z0, (ended[0], _tree.negate(ended[1]))) - _distance(ended, about)
    return eqx.error_if(
        x,
        ~(error <= echo.retrace_tolerance),
        "Echo: the echo did not return to the initial state, so it did not run along the path it should differentiate. "
        f"The relative retrace error exceeds retrace_tolerance={echo.retrace_tolerance:g}. Likely causes: (a) the "
        "system is chaotic over this time and rounding grew: use float64 or fewer steps; (b) dt is too long; (c) the "
        "energy is not even in the momentum; (d) a finite nudge that is too strong. Backprop() always applies.",
    )


def _distance(a: State, b: State) -> Float[Array, ""]:
    """Return the largest distance of two states relative to the size of the first, coordinates and momenta apart.

    A part of the state that is zero is measured on the scale of the other.
    """
    sizes = [_tree.max_abs(x) for x in a]
    largest = jnp.maximum(*sizes)
    largest = jnp.where(largest > 0, largest, 1)
    errors = [
        _tree.max_abs(_tree.subtract(x, y)) / jnp.where(size > 0, size, largest)
        for x, y, size in zip(a, b, sizes, strict=True)
    ]
    return jnp.maximum(*errors)


def even_in_momentum(problem: Problem, z0: State) -> State:
    r"""Return `z0`, or raise at run time if the kinetic energy is not even in the momentum.

    $\partial T/\partial p$ must be odd. It is probed at the initial momentum and at a momentum without any symmetry.
    """
    p0 = z0[1]
    size = _tree.max_abs(p0)
    probe = _tree.scale(jnp.where(size > 0, size, 1), _tree.spread(p0))
    velocity = jax.grad(lambda p: problem.world.system.kinetic(problem.world.t0, p))
    odd = jnp.asarray(False)
    for p in (p0, probe):
        there, back = velocity(p), velocity(_tree.negate(p))
        mismatch = _tree.max_abs(_tree.add(there, back))
        tolerance = 1e3 * float(jnp.finfo(problem.world.h.dtype).eps)
        # A probe outside the domain of T gives NaN, which compares false: no evidence.
        odd |= mismatch > tolerance * _tree.max_abs(there)
    return eqx.error_if(
        z0,
        odd,
        "Echo: the kinetic energy is not even in the momentum, T(t, -p) != T(t, p). Run forward from the flipped state "
        "the machine would not retrace its path, and its readings would not be a gradient. Remove the part that is odd "
        "in p (a drift or magnetic term), or use Backprop().",
    )


@eqx.filter_jit
def retrace_error(problem: Problem, z0: State) -> Float[Array, ""]:
    """Return how far an un-nudged echo ends from the initial state, relative to it."""
    z = jax.lax.fori_loop(0, problem.steps, lambda k, z: problem.step(k, z), z0)
    z = (z[0], _tree.negate(z[1]))
    nothing = jax.tree.map(lambda _: None, problem.world)

    def back(i: Int[Array, ""], z: State) -> State:
        k = problem.steps - 1 - i
        return problem.integrator.echo_step(nothing.at(k), problem.world.at(k), k, z)[0]

    q, p = jax.lax.fori_loop(0, problem.steps, back, z)
    return _distance(z0, (q, _tree.negate(p)))
