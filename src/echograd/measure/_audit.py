"""Measure learning rules: what each pair of a boundary condition and a gradient costs, and whether it is right."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float, PyTree

from .._internal import _checks, _tree
from .._internal._errors import RUNTIME_ERRORS, ArgumentError, ArgumentTypeError, EchogradError, said
from .._internal._format import memory
from .._internal._table import Table, Tabled
from .._solve import Trajectory
from ..boundary import AbstractBoundary, defect
from ..friction import Damped
from ..gradients import AbstractGradient, Backprop
from ..integrators import AbstractIntegrator, State
from ..problem._posing import default_integrator, step_count
from ..systems import Dissipative, Hamiltonian, Lagrangian
from ._bench import Bench, Cost
from ._compare import compare, flatten
from ._verdict import verdict


@dataclasses.dataclass(frozen=True)
class AuditRow:
    """The measurements of one learning rule. If the rule failed, its numbers are NaN.

    Attributes:
        rule: name of the rule.
        boundary: class of the boundary condition.
        gradient: class of the gradient.
        defect: how far the condition is from being its own dual, 0 to 1. `None` if the rule failed, and for a
            `Damped` or `Dissipative` system: duals belong to an action, and it has no action.
        error: relative error of the gradient, compared with backpropagation through the same discrete map; NaN if
            either gradient is not finite.
        cosine: cosine of the angle between the two gradients; NaN likewise.
        passes: all steps taken, free and nudged, counted while they were taken, divided by the number of steps N. The
            reverse sweep of backpropagation does not count: it is not a run of the machine.
        passes_by_steps: exponent with which the passes grow with N; `None` if not measured.
        passes_by_parameters: passes for each further parameter, to two significant digits; `None` if not measured, or
            if all parameters are in one array.
        memory: working memory of the compiled program, in bytes.
        memory_by_steps: exponent with which the memory, without inputs, grows with N; `None` if not measured.
        seconds: median time of a compiled call.
        forward_only: whether free and nudged phase both run forward in time on the same machine.
        local: whether readings suffice, and every parameter is read where it acts; see `audit`.
        touches: the most coordinates that the reading of one parameter takes together, and the number of all
            coordinates; see `audit`.
        why: the reason for `forward_only` and `local`.
        refused: the message of the error if the rule failed, or `None`.
    """

    rule: str
    boundary: str
    gradient: str
    defect: float | None = None
    error: float = math.nan
    cosine: float = math.nan
    passes: float = math.nan
    passes_by_steps: float | None = None
    passes_by_parameters: float | None = None
    memory: float = math.nan
    memory_by_steps: float | None = None
    seconds: float = math.nan
    forward_only: bool = False
    local: bool = False
    touches: tuple[int, int] = (0, 0)
    why: str = ""
    refused: str | None = None


@dataclasses.dataclass(frozen=True)
class AuditReport(Tabled):
    """What `audit` found.

    Attributes:
        rows: an `AuditRow` for every learning rule.
        setting: system, sizes, integrator, dtype, JAX version and device of the measurement.

    Example: see `audit`.
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


def _yes(verdict: bool) -> str:
    return "yes" if verdict else "no"


def audit(
    system: Hamiltonian | Lagrangian | Dissipative | Damped,
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

    The objective is a running cost summed over all nodes. Its gradient with respect to all parameters of the system is
    compared with that of `Backprop` through the same discrete map and boundary condition. An integrator that counts its
    own steps counts the passes. Memory is that of the compiled program. Whether both phases run forward follows from
    the boundary condition and the measured time reversal of the system. A rule that fails gets a row with the reason;
    the other rules are still measured.

    A rule is *local* if it needs nothing but readings, and each parameter is read where it acts. The reading
    $r = \partial H/\partial\theta$ of one parameter takes two coordinates $i \ne k$ (each with its momentum)
    *together* if $\partial^2 r / \partial z_i\,\partial z_k \ne 0$ somewhere. Otherwise $r$ is a sum of terms that
    depend on one or the other; each term is measured at its own place, and the results are added up. A stiffness that
    all springs of a chain share, for example, is read spring by spring. `touches` counts the coordinates that are taken
    together with any one coordinate, including itself. It is 2 for the element $J_{ij}$ of a coupling matrix and 3 for
    the shared stiffness of a chain. For a mean field $g\,(\sum_i q_i)^2$ it is the number of all coordinates, because
    all of them must be known at one place. Local means at most 2, or at most 12 and fewer than all coordinates. The
    reading of a `Dissipative` system is that of the action in which `Reciprocal` pairs the records of the driven
    machine and of the path.

    Args:
        system: a Hamiltonian, a Lagrangian, a `Damped` or a `Dissipative` system with at least one array of parameters.
        rules: pairs `(boundary, gradient)` by name.
        inputs: PyTree of arrays with a leading axis of N steps, or `None`.
        dt: step length.
        steps: number of steps N; not needed beside `inputs`.
        t0: time of node 0.
        integrator: as for `solve`.
        cost: running cost `(t, q, p) -> scalar`; by default half the squared coordinates.
        guess: as for `solve`, for conditions that involve both ends.
        growth: whether to measure how passes and memory grow. This compiles each rule four more times.
        repeats: number of timed calls; their median is reported.
        progress: function that is called with a line of text before each rule is measured.

    Returns:
        `AuditReport` with `rows`, `table()` and `json()`.

    Raises:
        ArgumentTypeError: if an argument has the wrong type.
        ArgumentError: if there are no rules or no parameters, or a number is out of range.

    Source: arXiv 2506.06248, which leaves open which of its boundary conditions are practical.

    Example:
        ```python
        rules = {"echo": (start, eg.Echo()), "naive": (start, eg.SameBoundary())}
        print(eg.audit(system, rules, dt=0.1, steps=20, growth=False))
        ```
    """
    if not isinstance(system, Hamiltonian | Lagrangian | Dissipative | Damped):
        raise ArgumentTypeError(
            f"audit: the system is a {type(system).__name__}, not a Hamiltonian, a Lagrangian, a Damped or a "
            "Dissipative system. Pass an instance of a subclass of one of them."
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
    bench = Bench(system, inputs, dt, steps, t0, integrator, cost, guess)
    rows = []
    for i, (name, (boundary, gradient)) in enumerate(rules.items(), start=1):
        if progress is not None:
            progress(f"{i} of {len(rules)}: {name}")
        try:
            rows.append(_measured(bench, name, boundary, gradient, growth, repeats))
        # JAX, or a rule of the user's, raises NotImplementedError for a derivative that it does not have.
        except (EchogradError, *RUNTIME_ERRORS, NotImplementedError) as error:
            kinds = type(boundary).__name__, type(gradient).__name__
            rows.append(AuditRow(name, *kinds, why=f"the rule failed: {said(error)}", refused=said(error)))
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


def _measured(
    bench: Bench, name: str, boundary: AbstractBoundary, gradient: AbstractGradient, growth: bool, repeats: int
) -> AuditRow:
    program = bench.program(boundary, gradient)
    found = flatten(program())
    if gradient == Backprop():
        bench.references[id(boundary)] = boundary, found
    agreement = compare(found, bench.reference(boundary))
    passes = bench.passes(boundary, gradient)
    reach = bench.reach(boundary)
    forward_only, readings_only, why = verdict(boundary, gradient, bench.reversible(boundary))
    if readings_only and not reach.is_local:
        why += f"; the reading of {reach.parameter} takes {reach.touched} of {reach.coordinates} coordinates together"
    like = bench.coordinates(boundary)
    return AuditRow(
        rule=name,
        boundary=type(boundary).__name__,
        gradient=type(gradient).__name__,
        defect=None if isinstance(bench.system, Dissipative | Damped) else float(defect(boundary, like=like)),
        error=agreement.relative_error,
        cosine=agreement.cosine,
        passes=passes,
        memory=program.memory,
        seconds=program.seconds(repeats),
        **(bench.growth(boundary, gradient, passes) if growth else {}),
        forward_only=forward_only,
        local=readings_only and reach.is_local,
        touches=(reach.touched, reach.coordinates),
        why=why,
    )


def _half_square(t: Any, q: PyTree, p: PyTree) -> Float[Array, ""]:
    return 0.5 * _tree.dot(q, q)
