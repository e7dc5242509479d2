"""Measure learning rules: what each pair of a boundary condition and a gradient costs, and whether it is right."""

import dataclasses
import json
import math
import statistics
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from .._internal import _checks, _tree
from .._internal._errors import RUNTIME_ERRORS, ArgumentError, ArgumentTypeError, EchogradError, said
from .._internal._files import finite
from .._internal._format import memory
from .._internal._table import Table, Tabled
from .._solve import Trajectory, default_integrator, solve, step_count
from ..boundary import AbstractBoundary, FinalValue, InitialValue, defect
from ..gradients import AbstractGradient, AbstractNudgedGradient, Backprop, Reciprocal, SameBoundary
from ..gradients._reciprocity import twist_of
from ..gradients._time_reversal import reversible
from ..integrators import AbstractIntegrator, Direction, State, StepInputs
from ..problem import FinalNode
from ..problem._problem import MARKS
from ..systems import Dissipative, Hamiltonian, Lagrangian, legendre

# As many coordinates are a neighbourhood at most: more than the bonds of an atom make, fewer than a system has.
_NEIGHBOURS = 12
# With so many coordinates, all others are compared.
_SAMPLES = 32

Cost = Callable[[Any, PyTree, PyTree], Float[Array, ""]]


@dataclasses.dataclass(frozen=True)
class AuditRow:
    """What was measured of one learning rule.

    Attributes:
        rule: its name.
        boundary: class of the boundary condition.
        gradient: class of the gradient.
        defect: how far the condition is from being its own dual, 0 to 1; `None` for a `Dissipative` system: duals are
            those of an action, and it has none. For a rule that failed, too; its other numbers are NaN.
        error: relative error of the gradient, against backpropagation through the same discrete map; NaN where either
            is not finite.
        cosine: of the angle between the two; likewise.
        passes: steps taken in all, free and nudged, counted while they were taken, over the number of steps N. The
            reverse sweep of backpropagation takes none: it is not a run of the machine.
        passes_by_steps: exponent with which the passes grow with N; 0 where they do not.
        passes_by_parameters: passes for each further parameter, to two significant digits; `None` where there is
            nothing to vary.
        memory: working memory of the compiled program, in bytes.
        memory_by_steps: exponent with which it grows with N, inputs left out.
        seconds: median time of a call, compiled.
        forward_only: whether free and nudged phase both run forward in time on the same machine.
        local: whether every parameter is read where it acts, and nothing else is needed; see `audit`.
        touches: the most coordinates that the reading of any one parameter takes together, of how many; see `audit`.
        why: what decides `forward_only` and `local`.
        refused: why the rule failed, in the words of the error; `None` where it did not.
    """

    rule: str
    boundary: str
    gradient: str
    defect: float | None
    error: float
    cosine: float
    passes: float
    passes_by_steps: float | None
    passes_by_parameters: float | None
    memory: float
    memory_by_steps: float | None
    seconds: float
    forward_only: bool
    local: bool
    touches: tuple[int, int]
    why: str
    refused: str | None = None


@dataclasses.dataclass(frozen=True)
class AuditReport(Tabled):
    """What `audit` found.

    Attributes:
        rows: one for every learning rule.
        setting: system, sizes, integrator, dtype, jax version and device that it was measured with.
    """

    rows: list[AuditRow]
    setting: dict[str, Any]

    def cells(self) -> Table:
        """Return the rows as texts in columns."""
        head = (
            "rule", "defect", "error", "cosine", "passes", "~N", "per parameter", "memory", "~N", "ms", "forward-only",
            "local", "touches",
        )  # fmt: skip
        rows = [
            (
                r.rule,
                "-" if r.defect is None else f"{r.defect:.2f}",
                "refused" if r.refused else f"{r.error:.0e}",
                "-" if math.isnan(r.cosine) else f"{r.cosine:+.3f}",
                "-" if r.refused else f"{r.passes:.1f}",
                "-" if r.passes_by_steps is None else f"{r.passes_by_steps:.1f}",
                "-" if r.passes_by_parameters is None else f"{r.passes_by_parameters:.2g}",
                memory(None if r.refused else r.memory),
                "-" if r.memory_by_steps is None else f"{r.memory_by_steps:.1f}",
                "-" if r.refused else f"{1e3 * r.seconds:.2f}",
                *(("-",) * 3 if r.refused else (_yes(r.forward_only), _yes(r.local), f"{r.touches[0]}/{r.touches[1]}")),
            )
            for r in self.rows
        ]
        return Table(head, rows)

    def json(self) -> str:
        """Return setting and rows as JSON; numbers that it lacks are null."""
        rows = [dataclasses.asdict(row) for row in self.rows]
        return json.dumps(finite({"setting": self.setting, "rows": rows}), indent=1, allow_nan=False)


def _yes(verdict: bool) -> str:
    return "yes" if verdict else "no"


def audit(
    system: Hamiltonian | Lagrangian | Dissipative,
    rules: Mapping[str, tuple[AbstractBoundary, AbstractGradient]],
    inputs: PyTree = None,
    *,
    dt: Any,
    steps: int | None = None,
    t0: Any = 0.0,
    integrator: AbstractIntegrator | None = None,
    cost: Cost | None = None,
    guess: Trajectory | State | None = None,
    growth: bool = False,
    repeats: int = 3,
    progress: Callable[[str], Any] | None = None,
) -> AuditReport:
    r"""Measure learning rules side by side on one system: exactness, passes, memory, time, and what hardware they need.

    The objective is a running cost summed over all nodes; the gradient is that with respect to all parameters of the
    system. Exactness is measured against `Backprop` through the same discrete map and boundary condition. Passes are
    counted by an integrator that counts its own steps. Memory is that of the compiled program. Whether the phases run
    forward is told from the boundary condition and the measured reversibility of the system. A rule that fails gets a
    row that says why, and the others go on.

    A rule is *local* if nothing but readings is needed and each parameter is read where it acts. Two coordinates
    $i \ne k$ (each with its momentum) are *taken together* by the reading $r = \partial H/\partial\theta$ of one
    parameter if $\partial^2 r / \partial z_i\,\partial z_k \ne 0$ somewhere. Where they are not, $r$ is a sum of
    terms that take one or the other, each measured at its own place and added up: a stiffness that all springs of a
    chain share is read spring by spring. `touches` counts the coordinates that are taken together with any one, itself
    included. It is 2 for the element $J_{ij}$ of a coupling matrix, 3 for the shared stiffness of a chain, and grows
    with the system for a mean field $g\,(\sum_i q_i)^2$, of which every coordinate must be known at one place. Local
    means that it is at most 2; or at most 12, and fewer than all coordinates. Of a `Dissipative` system the reading is
    that of the action in which `Reciprocal` pairs the records of the driven machine and of the path.

    Args:
        system: a Hamiltonian, a Lagrangian or a `Dissipative` system with at least one array of parameters.
        rules: `(boundary, gradient)` by name.
        inputs: PyTree of arrays with a leading axis of N steps, or `None`.
        dt: step length.
        steps: number of steps N, unless `inputs` tells it.
        t0: time of node 0.
        integrator: as for `solve`.
        cost: running cost `(t, q, p) -> scalar`; by default half the squared coordinates.
        guess: as for `solve`, for the conditions that involve both ends.
        growth: whether to measure also how passes and memory grow, which compiles each rule four more times.
        repeats: number of timed calls, of which the median counts.
        progress: called with a line of text before each rule is measured.

    Returns:
        `AuditReport` with `rows`, `table()` and `json()`.

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if there are no rules or no parameters, or a number is out of range.

    Source: the question that arXiv 2506.06248 leaves open (which of its boundary conditions are practical), measured.

    Example:
        ```python
        chain = eg.systems.FPUTChain()
        q, p = chain.start(n=8)
        rules = {
            "echo": (eg.InitialValue(q, p), eg.Echo()),
            "naive": (eg.InitialValue(q, p), eg.SameBoundary()),
            "fixed ends": (eg.FixedEnds(q, -q), eg.Glep()),
        }
        print(eg.audit(chain, rules, dt=0.1, steps=50))
        ```
    """
    if not isinstance(system, Hamiltonian | Lagrangian | Dissipative):
        raise ArgumentTypeError(
            f"audit: the system is a {type(system).__name__}, and not a Hamiltonian, a Lagrangian or a Dissipative "
            "system. Pass an instance of a subclass of one of them."
        )
    _checks.instance("audit", "rules", rules, Mapping, "a dictionary {name: (boundary, gradient)}")
    if not rules:
        raise ArgumentError("audit: there are no rules. Pass {name: (boundary, gradient)}.")
    for name, rule in rules.items():
        pair = isinstance(rule, tuple | list) and len(rule) == 2
        if not pair or not isinstance(rule[0], AbstractBoundary) or not isinstance(rule[1], AbstractGradient):
            raise ArgumentTypeError(f"audit: rules[{name!r}]={_checks.shown(rule)} is not a pair (boundary, gradient).")
    _tree.check_differentiable("audit", "the system", system)
    inputs = _checks.numbers("audit", "inputs", inputs)
    steps = step_count(inputs, steps)
    _checks.number("audit", "dt", dt, _checks.positive, "a step length is positive and finite")
    _checks.number("audit", "t0", t0)
    repeats = _checks.integer("audit", "repeats", repeats, what="the number of timed calls")
    _checks.flag("audit", "growth", growth)
    if progress is not None:
        _checks.function("audit", "progress", progress, "of a line of text")
    integrator = default_integrator(system) if integrator is None else integrator
    if guess is not None and not isinstance(guess, Trajectory):
        guess = _checks.pair("audit", "guess", guess)
    what = "an integrator. Pass Leapfrog(), with its parentheses"
    _checks.instance("audit", "integrator", integrator, AbstractIntegrator, what)
    if cost is None:
        cost = _half_square
    _checks.function("audit", "cost", cost, "(t, q, p) -> scalar")
    bench = Bench(system, inputs, dt, steps, t0, integrator, cost, guess, repeats)
    rows = []
    for i, (name, (boundary, gradient)) in enumerate(rules.items(), start=1):
        if progress is not None:
            progress(f"{i} of {len(rules)}: {name}")
        try:
            rows.append(bench.row(name, boundary, gradient, growth))
        except (EchogradError, *RUNTIME_ERRORS, NotImplementedError) as error:
            rows.append(_failed(name, boundary, gradient, said(error)))
    leaf = jax.tree.leaves(eqx.filter(system, eqx.is_inexact_array))[0]
    setting = {
        "system": type(system).__name__,
        "parameters": bench.parameters,
        "steps": steps,
        "integrator": type(integrator).__name__,
        "dtype": str(leaf.dtype),
        "jax": jax.__version__,
        "device": jax.devices()[0].device_kind,
    }
    return AuditReport(rows, setting)


def _failed(name: str, boundary: AbstractBoundary, gradient: AbstractGradient, reason: str) -> AuditRow:
    nan = math.nan
    return AuditRow(
        rule=name,
        boundary=type(boundary).__name__,
        gradient=type(gradient).__name__,
        defect=None,
        error=nan,
        cosine=nan,
        passes=nan,
        passes_by_steps=None,
        passes_by_parameters=None,
        memory=nan,
        memory_by_steps=None,
        seconds=nan,
        forward_only=False,
        local=False,
        touches=(0, 0),
        why=f"it failed: {reason}",
        refused=reason,
    )


def _half_square(t: Any, q: PyTree, p: PyTree) -> Float[Array, ""]:
    return 0.5 * _tree.dot(q, q)


class Tally:
    """A counter that compiled programs add to."""

    def __init__(self) -> None:
        self.count = 0
        self._lock = threading.Lock()

    def add(self, _: Any) -> None:
        with self._lock:
            self.count += 1


class Counted(AbstractIntegrator):
    """An integrator that counts the steps it takes, those of every member of a batch."""

    order: int = eqx.field(static=True)
    inner: AbstractIntegrator
    tally: Tally = eqx.field(static=True)

    def __init__(self, inner: AbstractIntegrator, tally: Tally) -> None:
        self.order, self.inner, self.tally = inner.order, inner, tally

    @property
    def stability_limit(self) -> float:
        return self.inner.stability_limit

    def check(self, system: Hamiltonian | Dissipative) -> None:
        self.inner.check(system)

    def prepared(self, given: StepInputs, z0: State) -> tuple[StepInputs, State]:
        return self.inner.prepared(given, z0)

    def read(
        self, wanted: StepInputs, rest: StepInputs, k: Int[Array, ""], z: State, direction: Direction = "forward"
    ) -> tuple[State, StepInputs]:
        # An argument that is batched whenever the step is, so that a batch counts as many.
        mark = jnp.ravel(jax.tree.leaves(z)[0])[0].real
        jax.debug.callback(self.tally.add, jax.lax.stop_gradient(mark + 0 * k.astype(mark.dtype)))
        return self.inner.read(wanted, rest, k, z, direction)


@dataclasses.dataclass(frozen=True)
class Bench:
    """One system and everything that the rules have in common."""

    system: Any
    inputs: PyTree
    dt: Any
    steps: int
    t0: Any
    integrator: AbstractIntegrator
    cost: Cost
    guess: Any
    repeats: int
    references: dict[int, tuple[AbstractBoundary, np.ndarray]] = dataclasses.field(default_factory=dict)
    reaches: dict[Any, tuple[int, int, str]] = dataclasses.field(default_factory=dict)

    @property
    def parameters(self) -> int:
        return sum(x.size for x in jax.tree.leaves(eqx.filter(self.system, eqx.is_inexact_array)))

    def program(
        self,
        boundary: AbstractBoundary,
        gradient: AbstractGradient,
        integrator: AbstractIntegrator,
        times: int = 1,
        of: Any = None,
    ) -> Any:
        """Return the compiled gradient over `times` as many steps, with respect to the leaves that `of` marks."""
        inputs = jax.tree.map(lambda u: jnp.tile(u, (times,) + (1,) * (jnp.ndim(u) - 1)), self.inputs)
        # A guess of N nodes does not fit a longer path, which is compiled only to see what memory it takes.
        unfit = isinstance(boundary, InitialValue) or (times > 1 and isinstance(self.guess, Trajectory))
        options: dict[str, Any] = {} if unfit else {"guess": self.guess}
        of = jax.tree.map(eqx.is_inexact_array, self.system) if of is None else of
        wanted, rest = eqx.partition(self.system, of)

        def loss(wanted: Any, rest: Any, inputs: Any) -> Array:
            return solve(
                eqx.combine(wanted, rest),
                boundary,
                inputs,
                dt=self.dt,
                steps=times * self.steps,
                t0=self.t0,
                integrator=integrator,
                gradient=gradient,
                save=FinalNode(),
                cost=self.cost,
                **options,
            ).cost

        jitted: Any = eqx.filter_jit(eqx.filter_grad(loss))
        compiled = jitted.lower(wanted, rest, inputs).compile()
        return compiled, lambda: compiled(wanted, rest, inputs)

    def row(self, name: str, boundary: AbstractBoundary, gradient: AbstractGradient, growth: bool) -> AuditRow:
        compiled, call = self.program(boundary, gradient, self.integrator)
        found = _flat(call())
        if gradient == Backprop():
            self.references[id(boundary)] = boundary, found
        expected = self.reference(boundary)
        times = []
        for _ in range(self.repeats):
            start = time.perf_counter()
            jax.block_until_ready(call())
            times.append(time.perf_counter() - start)
        memory = _memory(compiled)

        passes, (by_steps, by_parameters, memory_by_steps) = self.passes(boundary, gradient), (None, None, None)
        if growth:
            by_steps = math.log2(self.passes(boundary, gradient, times=2) / passes)
            by_parameters = self.passes_by_parameters(boundary, gradient, passes)
            memory_by_steps = self.memory_by_steps(boundary, gradient)

        like = _coordinates(boundary, self.guess)
        reversible = self.reversible(boundary)
        forward_only, reads_only, why = verdict(boundary, gradient, reversible)
        *touches, parameter = self.reach(like)
        if reads_only and not attached(*touches):
            why += f"; the reading of {parameter} takes {touches[0]} of {touches[1]} coordinates together"
        error, cosine = agreement(found, expected)
        return AuditRow(
            rule=name,
            boundary=type(boundary).__name__,
            gradient=type(gradient).__name__,
            defect=None if isinstance(self.system, Dissipative) else float(defect(boundary, like=like)),
            error=error,
            cosine=cosine,
            passes=passes,
            passes_by_steps=by_steps,
            passes_by_parameters=by_parameters,
            memory=memory,
            memory_by_steps=memory_by_steps,
            seconds=statistics.median(times),
            forward_only=forward_only,
            local=reads_only and attached(*touches),
            touches=(touches[0], touches[1]),
            why=why,
        )

    def reference(self, boundary: AbstractBoundary) -> np.ndarray:
        """Return the gradient by backpropagation under this boundary condition, computed once."""
        if id(boundary) not in self.references:
            found = _flat(self.program(boundary, Backprop(), self.integrator)[1]())
            self.references[id(boundary)] = boundary, found
        return self.references[id(boundary)][1]

    def passes(self, boundary: AbstractBoundary, gradient: AbstractGradient, times: int = 1, of: Any = None) -> float:
        """Return the number of steps taken for a gradient, over the number of steps of the trajectory."""
        tally = Tally()
        counted = Counted(self.integrator, tally)
        _, call = self.program(boundary, gradient, counted, times, of)
        jax.block_until_ready(call())
        jax.effects_barrier()
        return tally.count / (times * self.steps)

    def passes_by_parameters(
        self, boundary: AbstractBoundary, gradient: AbstractGradient, passes: float
    ) -> float | None:
        """Return the passes that a further parameter costs: all parameters against those of one array."""
        leaves, treedef = jax.tree.flatten(self.system)
        sizes = {i: x.size for i, x in enumerate(leaves) if eqx.is_inexact_array(x)}
        one = min(sizes, key=lambda i: sizes[i])
        others = self.parameters - sizes[one]
        if not others:
            return None
        of = jax.tree.unflatten(treedef, [i == one for i in range(len(leaves))])
        return float(f"{(passes - self.passes(boundary, gradient, of=of)) / others:.2g}")

    def memory_by_steps(self, boundary: AbstractBoundary, gradient: AbstractGradient) -> float:
        """Return the exponent with which the memory grows, from a length at which an echo keeps all its marks."""
        times = math.ceil(MARKS / self.steps)
        short, long = (
            _memory(self.program(boundary, gradient, self.integrator, times=n)[0]) for n in (times, 2 * times)
        )
        return math.log2(long / short)

    def reversible(self, boundary: AbstractBoundary) -> bool:
        """Return whether an echo of the machine would retrace, by what an echo asks of a system."""
        if isinstance(self.system, Dissipative):
            return False
        system = legendre(self.system) if isinstance(self.system, Lagrangian) else self.system
        q = _coordinates(boundary, self.guess)
        h, t0 = (jnp.asarray(x, jax.tree.leaves(q)[0].dtype) for x in (self.dt, self.t0))
        given = StepInputs(system, self.inputs, h, t0)
        return bool(reversible(given, self.steps, (q, _tree.zeros_like(q))))

    def reach(self, like: PyTree) -> tuple[int, int, str]:
        r"""Return the most coordinates that one reading takes together, how many there are, and of which parameter.

        Measured at three states without symmetry, for up to 32 coordinates against all.
        """
        shapes = str(jax.tree.map(jnp.shape, like))
        if shapes in self.reaches:
            return self.reaches[shapes]
        system = self.system
        wanted, rest = eqx.partition(system, eqx.is_inexact_array)
        records = 2 if isinstance(system, Dissipative) else 1
        flat, unravel = jax.flatten_util.ravel_pytree([(like, like)] * records)
        count, dtype = _tree.flat(like).size, flat.dtype
        t = jnp.asarray(self.t0, dtype)
        twist = twist_of(system, like) if isinstance(system, Dissipative) else None

        def reading(z: Array, u: Any) -> Float[Array, " parameters"]:
            def energy(wanted: Any) -> Float[Array, ""]:
                system = eqx.combine(wanted, rest)
                if twist is None:
                    return system(t, *unravel(z)[0], u)
                (a, da), (q, dq) = unravel(z)
                push = _tree.subtract(system.force(t, q, u), system.friction(dq))
                return _tree.dot(twist.undone(a), push) - _tree.dot(twist.undone(da), system.inertia(dq))

            found = jax.grad(energy)(wanted)
            return jnp.concatenate([part for _, x in _samples(found) for part in _parts(x)])

        def together(row: tuple[Array, Array, Any]) -> Float[Array, "parameters coordinates"]:
            """Return how strongly each reading takes a coordinate together with every one."""
            k, z, u = row
            entries = k + count * np.arange(2 * records, dtype=np.int32)
            directions = (jnp.arange(flat.size, dtype=jnp.int32)[None] == entries[:, None]).astype(dtype)

            def along(e: Array) -> Array:
                return jax.jacrev(lambda z: jax.jvp(lambda z: reading(z, u), (z,), (e,))[1])(z)

            found = jnp.abs(jax.vmap(along)(directions))
            return jnp.max(found.reshape(2 * records, -1, 2 * records, count), (0, 2))

        sites = np.unique(np.linspace(0, count - 1, _SAMPLES).astype(np.int32))
        probes = [(jnp.asarray(k), *self.probe(flat, seed)) for seed in range(3) for k in sites]
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *probes)
        found = np.asarray(jax.jit(lambda x: jax.lax.map(together, x))(stacked))
        # A probe outside the domain of the energy gives NaN: no evidence.
        found = np.nan_to_num(found).reshape(3, len(sites), -1, count).max(0)
        near = found > 100 * float(jnp.finfo(dtype).eps) * found.max((0, 2))[:, None]
        near[np.arange(len(sites)), :, sites] = False
        taken = 1 + near.sum(2).max(0)
        names = [name for name, x in _samples(wanted) for _ in _parts(x) for _ in range(x.size)]
        self.reaches[shapes] = int(taken.max()), count, names[int(taken.argmax())]
        return self.reaches[shapes]

    def probe(self, flat: Array, seed: int) -> tuple[Array, Any]:
        """Return a state, flattened, and inputs near the first ones, neither with any symmetry."""
        first = jax.tree.map(lambda u: u[0], self.inputs)
        numbers, rest = eqx.partition(first, eqx.is_inexact_array)
        numbers = _tree.add(numbers, _tree.scale(0.5, _tree.spread(numbers, seed)))
        return flat + 0.5 * _tree.spread(flat, seed), eqx.combine(numbers, rest)


def _samples(tree: PyTree) -> list[tuple[str, Array]]:
    """Return paths of arrays, with up to 256 of the elements of each."""
    found = []
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        index = np.unique(np.linspace(0, x.size - 1, min(x.size, 256)).astype(np.int32))
        found.append((jax.tree_util.keystr(path).lstrip("."), jnp.ravel(x)[index]))
    return found


def _parts(x: Array) -> list[Array]:
    """Return the real arrays that make up an array."""
    return [x.real, x.imag] if jnp.iscomplexobj(x) else [x]


def attached(taken: int, count: int) -> bool:
    """Return whether so many coordinates, of all, are a neighbourhood."""
    return taken <= 2 or taken < min(count, _NEIGHBOURS + 1)


def agreement(found: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """Return the relative error of a gradient and the cosine to what is expected; NaN unless both are finite."""
    if not (np.isfinite(found).all() and np.isfinite(expected).all()):
        return math.nan, math.nan
    scale, size = np.linalg.norm(expected), np.linalg.norm(found)
    error = np.linalg.norm(found - expected) / scale if scale > 0 else float(size > 0)
    return float(error), float(found @ expected / (scale * size)) if scale * size > 0 else 1.0


def verdict(boundary: AbstractBoundary, gradient: AbstractGradient, reversible: bool) -> tuple[bool, bool, str]:
    """Return whether a rule runs forward only, whether it takes nothing but readings, and why."""
    if isinstance(gradient, Reciprocal):
        return True, True, "the same lossy machine, from rest, runs forward on the reversed error, beside a record"
    if not isinstance(gradient, AbstractNudgedGradient):
        return False, False, "needs the transposed Jacobian of every step, which is another machine"
    sensitive = isinstance(gradient, SameBoundary) and gradient.correct
    if sensitive:
        return False, False, "the residual needs the sensitivity of the ends to every parameter"
    if isinstance(boundary, InitialValue):
        if isinstance(gradient, SameBoundary):
            return True, True, "nudged from the same start: causal, but a boundary residual is left"
        if reversible:
            return True, True, "the dual is a final value, which time reversal turns into a forward run: the echo"
        return False, True, "the dual is a final value, and the machine has no time reversal to reach it with"
    if isinstance(boundary, FinalValue):
        return False, True, "the free phase itself is anti-causal"
    return False, True, "both ends are tied: the path is found by relaxation or iteration, not by running it"


def _coordinates(boundary: AbstractBoundary, guess: Any) -> PyTree:
    like = boundary.structure()
    if like is not None:
        return like
    if isinstance(guess, Trajectory):
        return jax.tree.map(lambda x: x[0], guess.q)
    return jax.tree.map(jnp.asarray, guess[0])


def _flat(tree: PyTree) -> np.ndarray:
    return np.asarray(_tree.flat(eqx.filter(tree, eqx.is_inexact_array)))


def _memory(compiled: Any) -> int:
    return int(compiled.compiled.memory_analysis().temp_size_in_bytes)
