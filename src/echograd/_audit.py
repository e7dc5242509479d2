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

from . import _tree
from ._files import finite
from ._solve import Trajectory, default_integrator, solve
from ._table import Table, Tabled
from ._words import memory
from .boundary import AbstractBoundary, FinalValue, InitialValue, defect
from .gradients import (
    AbstractGradient,
    AbstractNudgedGradient,
    Backprop,
    FinalNode,
    Reciprocal,
    SameBoundary,
    reversible,
    twist_of,
)
from .integrators import AbstractIntegrator, Direction, State, World
from .systems import Dissipative, Hamiltonian, Lagrangian, legendre

Cost = Callable[[Any, PyTree, PyTree], Float[Array, ""]]


@dataclasses.dataclass(frozen=True)
class AuditRow:
    """What was measured of one learning rule.

    Attributes:
        rule: its name.
        boundary: class of the boundary condition.
        gradient: class of the gradient.
        defect: how far the condition is from being its own dual, 0 to 1; `None` for a `Dissipative` system: duals are
            those of an action, and it has none.
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
        local: whether a parameter's reading takes only part of the state, and nothing else.
        touches: the most entries of the state that the reading of any one parameter takes, of how many.
        why: what decides `forward_only` and `local`.
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
    memory: int
    memory_by_steps: float | None
    seconds: float
    forward_only: bool
    local: bool
    touches: tuple[int, int]
    why: str


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
                f"{r.error:.0e}",
                f"{r.cosine:+.3f}",
                f"{r.passes:.1f}",
                "-" if r.passes_by_steps is None else f"{r.passes_by_steps:.1f}",
                "-" if r.passes_by_parameters is None else f"{r.passes_by_parameters:.2g}",
                memory(r.memory),
                "-" if r.memory_by_steps is None else f"{r.memory_by_steps:.1f}",
                f"{1e3 * r.seconds:.2f}",
                "yes" if r.forward_only else "no",
                "yes" if r.local else "no",
                f"{r.touches[0]}/{r.touches[1]}",
            )
            for r in self.rows
        ]
        return Table(head, rows)

    def json(self) -> str:
        """Return setting and rows as JSON; numbers that it lacks are null."""
        rows = [dataclasses.asdict(row) for row in self.rows]
        return json.dumps(finite({"setting": self.setting, "rows": rows}), indent=1, allow_nan=False)


def audit(
    system: Hamiltonian | Lagrangian | Dissipative,
    rules: Mapping[str, tuple[AbstractBoundary, AbstractGradient]],
    inputs: PyTree = None,
    *,
    dt: Any,
    steps: int,
    t0: Any = 0.0,
    integrator: AbstractIntegrator | None = None,
    cost: Cost | None = None,
    guess: Trajectory | State | None = None,
    growth: bool = True,
    repeats: int = 3,
) -> AuditReport:
    r"""Measure learning rules side by side on one system: exactness, passes, memory, time, and what hardware they need.

    The objective is a running cost summed over all nodes; the gradient is that with respect to all parameters of the
    system. Exactness is measured against `Backprop` through the same discrete map and boundary condition. Passes are
    counted by an integrator that counts its own steps. Memory is that of the compiled program. Whether the phases run
    forward is told from the boundary condition and the measured reversibility of the system; locality from the sparsity
    of $\partial^2 H / \partial\theta\,\partial z$. Of a `Dissipative` system it is that of the action in which
    `Reciprocal` pairs the records of the driven machine and of the path, each with its velocities.

    Args:
        system: a Hamiltonian, a Lagrangian or a `Dissipative` system with at least one array of parameters.
        rules: `(boundary, gradient)` by name.
        inputs: PyTree of arrays with a leading axis of N steps, or `None`.
        dt: step length.
        steps: number of steps N.
        t0: time of node 0.
        integrator: as for `solve`.
        cost: running cost `(t, q, p) -> scalar`; by default half the squared coordinates.
        guess: as for `solve`, for the conditions that involve both ends.
        growth: whether to measure also how passes and memory grow, which compiles each rule four more times.
        repeats: number of timed calls, of which the median counts.

    Returns:
        `AuditReport` with `rows`, `table()` and `json()`.

    Raises:
        TypeError: if the system is none, or a gradient is not made for it.
        ValueError: if there are no rules or no parameters.

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
        raise TypeError(
            f"audit: the system is a {type(system).__name__}, and not a Hamiltonian, a Lagrangian or a Dissipative "
            "system. Pass an instance of a subclass of one of them."
        )
    if not rules:
        raise ValueError("audit: there are no rules. Pass {name: (boundary, gradient)}.")
    _tree.check_differentiable("audit", "the system", system)
    if integrator is None:
        integrator = default_integrator(system)
    cost = _half_square if cost is None else cost
    bench = _Bench(system, inputs, dt, steps, t0, integrator, cost, guess, repeats)
    rows = [bench.row(name, boundary, gradient, growth) for name, (boundary, gradient) in rules.items()]
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

    def prepared(self, world: World, z0: State) -> tuple[World, State]:
        return self.inner.prepared(world, z0)

    def read(
        self, wanted: World, rest: World, k: Int[Array, ""], z: State, direction: Direction = "forward"
    ) -> tuple[State, World]:
        # An argument that is batched whenever the step is, so that a batch counts as many.
        mark = jnp.ravel(jax.tree.leaves(z)[0])[0].real
        jax.debug.callback(self.tally.add, jax.lax.stop_gradient(mark + 0 * k.astype(mark.dtype)))
        return self.inner.read(wanted, rest, k, z, direction)


@dataclasses.dataclass(frozen=True)
class _Bench:
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
        inputs = jax.tree.map(lambda u: jnp.tile(jnp.asarray(u), (times,) + (1,) * (jnp.ndim(u) - 1)), self.inputs)
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
            longer = _memory(self.program(boundary, gradient, self.integrator, times=2)[0])
            memory_by_steps = math.log2(longer / memory)

        like = _coordinates(boundary, self.guess)
        reversible = self.reversible(boundary)
        forward_only, reads_only, why = verdict(boundary, gradient, reversible)
        touches = self.touches(like)
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
            local=reads_only and touches[0] < touches[1],
            touches=touches,
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

    def reversible(self, boundary: AbstractBoundary) -> bool:
        """Return whether an echo of the machine would retrace, by what an echo asks of a system."""
        if isinstance(self.system, Dissipative):
            return False
        system = legendre(self.system) if isinstance(self.system, Lagrangian) else self.system
        q = _coordinates(boundary, self.guess)
        h, t0 = (jnp.asarray(x, jax.tree.leaves(q)[0].dtype) for x in (self.dt, self.t0))
        world = World(system, jax.tree.map(jnp.asarray, self.inputs), h, t0)
        return bool(reversible(world, self.steps, (q, _tree.zeros_like(q))))

    def touches(self, like: PyTree) -> tuple[int, int]:
        r"""Return how many entries of the state the reading of one parameter takes at most, and how many there are."""
        system = self.system
        wanted, rest = eqx.partition(system, eqx.is_inexact_array)
        u = jax.tree.map(lambda u: jnp.asarray(u)[0], self.inputs)
        records = 2 if isinstance(system, Dissipative) else 1
        flat, unravel = jax.flatten_util.ravel_pytree([(like, like)] * records)
        t = jnp.asarray(self.t0, flat.dtype)
        twist = twist_of(system, like) if isinstance(system, Dissipative) else None

        def energy(wanted: Any, z: Array) -> Float[Array, ""]:
            system = eqx.combine(wanted, rest)
            if twist is None:
                return system(t, *unravel(z)[0], u)
            (a, da), (q, dq) = unravel(z)
            push = _tree.subtract(system.force(t, q, u), system.friction(dq))
            return _tree.dot(twist.undone(a), push) - _tree.dot(twist.undone(da), system.inertia(dq))

        used = np.zeros((self.parameters, flat.size // records), bool)
        for seed in range(3):
            there = flat + 0.5 * _tree.spread(flat, seed)
            slopes = jax.jacfwd(lambda z: _tree.flat(jax.grad(energy)(wanted, z)))(there)
            used |= (np.asarray(slopes).reshape(self.parameters, records, -1) != 0).any(1)
        return int(used.sum(1).max()), used.shape[1]


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
