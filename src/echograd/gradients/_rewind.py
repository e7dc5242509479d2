"""Exact reversal through friction, in software: gradients of damped systems at little memory."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PyTree

from .._internal import _checks, _tree
from .._internal._errors import ArgumentTypeError, refuse_if
from .._internal._reverse_rule import reverse_rule
from .._loops import summed
from ..friction import Damped
from ..integrators import State
from ..integrators._record import STEPS, Record, capacity, empty_record, put_away, taken_back
from ..problem import Outcome, Problem
from ..problem._run import MARKS, free_run, index, marked_run
from ..problem._save import ChosenNodes
from ..problem._soundness import finite, finite_cotangents
from ..systems import SeparableHamiltonian
from ..two_point import TwoPointNewton
from ..two_point._newton import Convergence
from ..two_point._problem import Nodes, TwoPoint
from ._base import AbstractGradient, guarded
from ._nudged import share_of

# A run of at most so many steps is recorded at once by default.
_SHORT = 2000


class Rewind(AbstractGradient):
    r"""Run a damped system back bit for bit, and pull the cotangents back along the way. Software only.

    In fixed point the motion without friction is undone exactly. Friction $P' = P - {\rm round}(\varepsilon P)$ merges
    momenta; a record keeps which of them it was, only where there is more than one: about $2 \gamma h$ bits for every
    damped momentum and step. On the way back friction damps the cotangents, $\bar p \leftarrow (1 - \varepsilon) \bar
    p$, and $d C/d\varepsilon = -\bar p'\, p$; the rest is the pull-back of the drifts and kicks.

    This is the gradient of the *discrete* trajectory, the one that `Backprop` returns, to rounding: for nonlinear
    forces, any friction, any number of steps. It is not a learning rule for a machine: no machine retraces a path on
    which it lost energy, and the cotangents are computed, not measured. For a system without friction it is the exact
    reversal of `Leapfrog(exact=True)`, also along chaotic paths.

    Args:
        bits: size of the record, in bits for every damped momentum and step. By default 1, which is enough if a step
            takes less than half of any momentum. About 4 times the mean of $\gamma h$ over the damped momenta is enough
            as a rule, because words are put away before they are full; a record that is too small is an error.
        checkpoints: how many states are kept, from which parts of the run are run again and recorded, one part at a
            time. The record shrinks by this factor; it costs one more forward run. By default 1 (record the run itself)
            if `bits` is given or there are at most 2000 steps, otherwise about $\sqrt{N/110}$: the least memory.
        report: function such as `print`, called with the bits used for every momentum and step by every gradient.

    Raises:
        ArgumentTypeError: if the system is neither `Damped` nor a `SeparableHamiltonian`, if the integrator is not in
            fixed point (`Leapfrog(exact=True)`, `VelocityVerlet(exact=True)`), or for a condition on both ends.
        RunError: (at run time) if friction takes too much of a momentum in one step, if the record is too small, if the
            run back does not arrive at the initial bits, or the gradient is not finite.

    Source: D. Levesque and L. Verlet, J. Stat. Phys. 72 (1993) 519 (reversible integers); D. Maclaurin, D. Duvenaud,
    R. P. Adams, arXiv 1502.03492, and M. MacKay et al., arXiv 1810.10999 (buffers of lost bits); J. Stam, arXiv
    2207.07695 (bitwise reversal for adjoints); B. Giffin and S. Alibakhshi, WCCM 2026 (dissipative solids).

    Example:
        ```python
        chain = eg.systems.FPUTChain()
        start = eg.InitialValue(*chain.start(n=32))
        damped = eg.Damped(chain, friction=jnp.linspace(0.0, 0.4, 32))

        def loss(damped):
            sol = eg.solve(damped, start, dt=0.05, steps=1000, save=eg.FinalNode(), gradient=eg.Rewind())
            return jnp.sum(sol.q**2)

        gradient = eqx.filter_grad(loss)(damped)
        ```
    """

    bits: float | None = eqx.field(static=True)
    checkpoints: int | None = eqx.field(static=True)
    report: Callable[[Any], None] | None = eqx.field(static=True)

    def __init__(
        self,
        *,
        bits: float | None = None,
        checkpoints: int | None = None,
        report: Callable[[Any], None] | None = None,
    ) -> None:
        why = "it must be positive: the bits kept for every momentum and step"
        self.bits = None if bits is None else _checks.constant("Rewind", "bits", bits, _checks.positive, why)
        count = _checks.optional(_checks.integer, "Rewind", "checkpoints", what="the number of kept states")
        self.checkpoints = count(checkpoints)
        self.report = None if report is None else _checks.function("Rewind", "report", report, "bits -> None")

    def check(self, system: Any) -> None:
        if not isinstance(system, Damped | SeparableHamiltonian):
            raise ArgumentTypeError(
                f"Rewind: {type(system).__name__} is neither a Damped system nor a SeparableHamiltonian, and only "
                "these run in fixed point. Use Damped(system, friction), Reciprocal() for a linear reciprocal "
                "Dissipative system, Echo() without friction, or Backprop()."
            )

    def run(self, problem: Problem, z0: State) -> Outcome:
        if problem.given.grid is None:
            raise ArgumentTypeError(
                f"Rewind: the integrator is {problem.integrator}, in floats that round at every step, so nothing runs "
                "back along the same bits. Pass integrator=Leapfrog(exact=True) or VelocityVerlet(exact=True)."
            )
        return _run((guarded(problem), z0), self)

    def run_two_point(self, problem: TwoPoint, guess: Nodes, newton: TwoPointNewton) -> tuple[Outcome, Convergence]:
        raise ArgumentTypeError(
            "Rewind: a run is rewound to its InitialValue. Under a condition on both ends use Glep() or Backprop()."
        )

    def parts(self, problem: Problem) -> tuple[int, ...]:
        """Return the first node of every part that is recorded at once."""
        n, count = problem.steps, self.checkpoints
        if count is None:
            short = n <= _SHORT or self.bits is not None or not isinstance(problem.given.system, Damped)
            count = 1 if short else round(math.sqrt(n / 110))
        length = STEPS * math.ceil(n / count / STEPS)
        return tuple(range(0, n, length))

    def empty_record(self, problem: Problem, steps: int, z: State) -> Record | None:
        """Return a record for so many steps, or `None` if there is no friction."""
        system = problem.given.system
        if not isinstance(system, Damped):
            return None
        assert system.action is not None  # made by `prepared`
        damped = system.action.cut(z[1])
        least = min(capacity(x.dtype) for x in jax.tree.leaves(damped))
        rows = math.ceil((1.0 if self.bits is None else self.bits) * steps / least) + 1
        return empty_record(damped, rows, system.action.strongest())


class Watched(eqx.Module):
    """What is kept of a recorded run: saved nodes (or `None`), and the summed cost."""

    saved: PyTree
    cost: Array


def _run_free(arguments: tuple[Problem, State], rule: Rewind) -> Outcome:
    problem, z0 = arguments
    return finite(problem, free_run(problem, _checked(problem, z0)))


def _checked(problem: Problem, z0: State) -> State:
    """Return the initial state, or raise at run time if friction takes too much of a momentum in one step."""
    system = problem.given.system
    if not isinstance(system, Damped) or not problem.throw:
        return z0
    assert system.action is not None
    limit = 0.9 if _tree.rounding(z0) < 1e-12 else 0.7
    strongest = jax.lax.stop_gradient(system.action.strongest())
    return refuse_if(
        z0,
        ~(strongest <= limit),
        f"Rewind: friction takes {{}} of a momentum in one step, more than {limit:g}, and nearly nothing of it is left "
        "to rewind. Shorten dt, or use Backprop().",
        strongest,
    )


def _run_recorded(arguments: tuple[Problem, State], rule: Rewind) -> tuple[Outcome, Any]:
    problem, z0 = arguments
    z0 = _checked(problem, z0)
    parts = rule.parts(problem)
    if len(parts) > 1:
        outcome, course = marked_run(problem, z0, parts)
        return finite(problem, outcome), (course.states, outcome.final, None)
    n, stride = problem.steps, problem.save.stride(problem.steps)
    saved = None
    if stride is not None:
        first = problem.observe(index(0), z0)
        saved = jax.tree.map(lambda x: jnp.zeros((n // stride + 1, *jnp.shape(x)), jnp.result_type(x)), first)
        saved = _tree.put(saved, 0, first)
    chosen = problem.save if isinstance(problem.save, ChosenNodes) else None
    if chosen is not None:  # with a spare row
        first = problem.observe(index(0), z0)
        saved = jax.tree.map(lambda x: jnp.zeros((chosen.nodes.size + 1, *x.shape), x.dtype), first)
        saved = _tree.put(saved, chosen.row(index(0)), first)

    def watch(k: Int[Array, ""], z: State, saved: PyTree) -> tuple[PyTree, Array]:
        """Write node `k` where the next kept node belongs, so that this one is written last."""
        if stride is not None:
            row = jnp.minimum((k + stride - 1) // stride, n // stride)
            seen = problem.observe(k, z)
            late = k > n // stride * stride
            seen = (
                jax.tree.map(lambda x, y: jnp.where(late, y, x), seen, _tree.take(saved, row)) if stride > 1 else seen
            )
            saved = _tree.put(saved, row, seen)
        if chosen is not None:
            saved = _tree.put(saved, chosen.row(k), problem.observe(k, z))
        return saved, problem.running_cost(k, z)

    cost = problem.running_cost(index(0), z0)
    z, record, saved, more = _recorded(problem, 0, n, z0, rule.empty_record(problem, n, z0), saved, watch, "forward")
    problem.report(n, "forward", z)
    if chosen is not None:
        saved = jax.tree.map(lambda x: x[:-1], saved)
    outcome = finite(problem, Outcome(saved, z, cost + more))
    states = jax.tree.map(lambda x: x[None], z0)
    return outcome, (states, outcome.final, record)


def _recorded(
    problem: Problem,
    first: Any,
    steps: int,
    z: State,
    record: Record | None,
    saved: PyTree,
    watch: Any,
    phase: str | None = None,
) -> tuple[State, Record | None, PyTree, Array]:
    """Run `steps` steps from node `first`, keep a record, and return the sum of what `watch` returns, too."""

    def advance(k: Any, carry: Any) -> tuple[Any, Array]:
        z, record, saved = carry
        z, record = problem.integrator.recorded(problem.given.at(k), k, z, record)
        saved, cost = watch(k + 1, z, saved)
        return (z, record, saved), cost

    def block(i: Any, carry: Any) -> Any:
        (z, record, saved), total = carry
        begin, count = STEPS * i, _block(i, steps)
        if phase is not None:
            _report(problem, begin, phase)
        start = z, _in_use(record), saved
        (z, used, saved), cost = summed(lambda j, c: advance(first + begin + j, c), count, start)
        return (z, None if record is None else put_away(_with_words(record, used)), saved), total + cost

    start = (z, record, saved), jnp.zeros((), problem.given.h.dtype)
    (z, record, saved), total = jax.lax.fori_loop(0, math.ceil(steps / STEPS), block, start)
    return z, record, saved, total


def _report(problem: Problem, done: Any, phase: str) -> None:
    """Report at run time how many steps are done, about `MARKS` times in a run."""
    if problem.progress is not None:
        due = done // STEPS % max(problem.steps // STEPS // MARKS, 1) == 0
        jax.lax.cond(due, lambda: problem.report(done, phase), lambda: None)


def _in_use(record: Record | None) -> Record | None:
    """Return the record without its rows, which only blocks of steps touch."""
    return None if record is None else eqx.tree_at(lambda r: (r.rows, r.ends), record, ([], jnp.zeros(0, jnp.int32)))


def _with_words(record: Any, used: Any) -> Any:
    """Return the record with the words that a block of steps has left."""
    return None if record is None else eqx.tree_at(lambda r: r.words, record, used.words)


def _block(i: Any, steps: int) -> Any:
    """Return how many steps block `i` has."""
    return STEPS if steps % STEPS == 0 else jnp.minimum(STEPS, steps - STEPS * i)


def _run_back(kept: tuple[State, State, Record | None], bar: Outcome, wanted: Any, rest: Any, rule: Rewind) -> PyTree:
    return _rewound(rule, wanted[0], rest[0], kept, bar)


@eqx.filter_jit
def _rewound(rule: Rewind, wanted: Problem, rest: Problem, kept: Any, bar: Outcome) -> tuple[Problem, State]:
    """Return the cotangents of the problem and its initial state."""
    problem: Problem = eqx.combine(wanted, rest)
    states, z, record = kept
    n, parts = problem.steps, rule.parts(problem)
    lasting = eqx.tree_at(lambda x: x.given, wanted, wanted.given.without_inputs())

    def visited(k: Any, z: State, bars: State) -> tuple[Problem, State]:
        """Return the direct cotangents of node `k`: of the problem, and of its state added to `bars`."""
        reading, kick = jax.grad(lambda x, z: share_of(bar, eqx.combine(x, rest), k, z), (0, 1))(lasting, z)
        return reading, _tree.add(bars, kick)

    def retreat(k: Any, carry: Any) -> tuple[Any, Problem]:
        z, bars, record, du = carry
        direct, bars = visited(k + 1, z, bars)
        z, bars, reading, record = problem.integrator.rewound(wanted.given.at(k), rest.given.at(k), k, z, bars, record)
        given = _tree.add(direct.given, reading.without_inputs())
        return (z, bars, record, _tree.put(du, k, reading.u)), eqx.tree_at(lambda x: x.given, direct, given)

    def part(first: Any, steps: int, carry: Any) -> Any:
        """Go back over `steps` steps to node `first`."""
        blocks = math.ceil(steps / STEPS)

        def block(i: Any, carry: Any) -> Any:
            (z, bars, record, du), total = carry
            record = None if record is None else taken_back(record)
            last, count = first + STEPS * (blocks - 1 - i), _block(blocks - 1 - i, steps)
            _report(problem, n - last - count, "echo")
            start = z, bars, _in_use(record), du
            (z, bars, used, du), more = summed(lambda j, c: retreat(last + count - 1 - j, c), count, start)
            return (z, bars, _with_words(record, used), du), _tree.add(total, more)

        return jax.lax.fori_loop(0, blocks, block, carry)

    nothing = lambda saved, k: (saved, jnp.zeros((), problem.given.h.dtype))  # noqa: E731
    final = jax.tree.map(_is_none, z) if bar.final is None else bar.final
    bars = jax.tree.map(lambda x, y: y if eqx.is_array(y) else jnp.zeros_like(x), z, final)
    carry = (z, bars, record, _tree.zeros_like(wanted.given.u)), _tree.zeros_like(lasting)
    overflown, used = jnp.asarray(False), jnp.zeros((), jnp.int32)

    def again(first: Any, steps: int, start: State, carry: Any) -> Any:
        """Record one part of the run, then go back over it."""
        ((z, bars, _, du), total), overflown, used = carry
        record = rule.empty_record(problem, steps, start)
        _, record, _, _ = _recorded(problem, first, steps, start, record, None, lambda k, z, s: nothing(s, k))
        overflown |= False if record is None else record.overflown
        used += 0 if record is None else record.row
        (z, bars, _, du), total = part(first, steps, ((z, bars, record, du), total))
        return ((z, bars, None, du), total), overflown, used

    if len(parts) == 1:
        if record is not None:
            overflown, used = record.overflown, record.row
        carry = part(0, n, carry)
    else:
        length = parts[1]
        carry = carry, overflown, used
        carry = again(parts[-1], n - parts[-1], _tree.take(states, -1), carry)

        def whole(i: Any, carry: Any) -> Any:
            j = len(parts) - 2 - i
            return again(length * j, length, _tree.take(states, j), carry)

        carry, overflown, used = jax.lax.fori_loop(0, len(parts) - 1, whole, carry)
    (z, bars, _, du), total = carry
    direct, bars = visited(index(0), z, bars)
    total = eqx.tree_at(lambda x: x.given.u, _tree.add(total, direct), du, is_leaf=_is_none)
    total, bars = _sound(problem, rule, (total, bars), z, states, overflown, used)
    if not problem.throw:
        return total, bars
    return _tree.check_heads(lambda x: _if_tangents_return(x, z, _tree.take(states, 0), kept[1]), (total, bars))


def _sound(
    problem: Problem, rule: Rewind, bars: Any, z: State, states: State, overflown: Array, used: Array
) -> tuple[Problem, State]:
    """Return the cotangents, or raise at run time if the run back is not the run."""
    words = used * 8 * max(x.dtype.itemsize for x in jax.tree.leaves(z[1]))
    bits = words.astype(problem.given.h.dtype) / problem.steps
    if rule.report is not None:
        jax.debug.callback(rule.report, bits)
    start = _tree.take(states, 0)
    strayed = _tree.max_abs(_tree.subtract(z, start))
    if not problem.throw:
        wrong = overflown | (strayed != 0)
        return jax.tree.map(lambda x: jnp.where(wrong, jnp.nan, x), bars)

    def check(x: Any) -> Any:
        x = refuse_if(
            x,
            overflown,
            "Rewind: the record of what friction destroys is full. The run needs more than {} bits for every momentum "
            "and step. Pass Rewind(bits=...) with a larger number, or shorten dt; strong friction (a step that takes "
            "more than half of a momentum) needs more than the default.",
            bits,
        )
        return refuse_if(
            x,
            strayed != 0,
            "Rewind: the run back did not arrive at the bits of the initial state (it is off by {}), so its gradient "
            "belongs to another path. Likely causes: (a) friction that varies takes most of a momentum in one step, or "
            "what a drag leaves of a momentum does not increase with it: shorten dt; (b) the two compiled programs "
            "round a force or a rate differently on this machine. Backprop() always applies.",
            strayed,
        )

    return finite_cotangents(_tree.check_heads(check, bars))


@eqx.filter_custom_jvp
def _if_tangents_return(x: Any, z: State, start: State, final: State) -> Any:
    """Return `x`; for a second derivative, raise at run time if the tangents of the state did not return to the start.

    Tangents are not in fixed point. On the way back friction amplifies their rounding errors.
    """
    del z, start, final
    return x


@_if_tangents_return.def_jvp
def _if_tangents_return_jvp(primals: Any, tangents: Any) -> Any:
    x, (dx, dz, dstart, dfinal) = primals[0], tangents

    def size(tangent: Any) -> Array:
        return _tree.max_abs(eqx.filter(tangent, eqx.is_array))

    if not jax.tree.leaves(dz):
        return x, dx
    zeros = jax.tree.map(jnp.zeros_like, primals[1])
    full = [jax.tree.map(lambda z, d: z if d is None else d, zeros, d, is_leaf=_is_none) for d in (dz, dstart)]
    scale = jnp.maximum(size(dstart), size(dfinal))
    missed = size(_tree.subtract(*full)) / jnp.where(scale > 0, scale, 1)
    limit = 1e-9 if _tree.rounding(zeros) < 1e-12 else 1e-2
    message = (
        "Rewind: a second derivative is lost. The tangent of the state misses that of the initial state by a relative "
        f"{{}} on the way back, more than {limit:g}, because friction amplifies its rounding errors there. Take fewer "
        "steps, or use Backprop()."
    )
    return x, refuse_if(dx, ~(missed <= limit), message, missed)


def _is_none(x: Any) -> bool:
    return x is None


_run = reverse_rule(_run_free, _run_recorded, _run_back)
