"""The error of a gradient for each imperfection: machines against exact gradients."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._internal import _checks, _tree
from .._internal._errors import ArgumentError, ArgumentTypeError
from .._internal._fit import exponent
from .._internal._table import Table, Tabled
from .._solve import Trajectory, solve
from ..boundary import InitialValue
from ..gradients import Backprop
from ..nudge import AbstractFiniteNudge
from ..problem._posing import initial_value_problem
from ._echo import forward_order
from ._imperfections import (
    AbstractImperfection,
    Drift,
    ForceNoise,
    Friction,
    ImperfectMirror,
    Mismatch,
    Quantisation,
    ReadoutNoise,
)
from ._run import run
from ._simulated import Simulated

Loss = Callable[[Trajectory], Float[Array, ""]]
Make = Callable[[Any, PRNGKeyArray], AbstractImperfection]


class SurveyRow(TypedDict):
    """The error of the gradient for one imperfection at one strength; see `Survey`."""

    imperfection: str
    strength: float
    retrace: float
    error: float
    cosine: float
    norm_ratio: float
    bias: float
    ideal_error: float
    ideal_cosine: float
    ideal_norm_ratio: float


@dataclass(frozen=True)
class Survey(Tabled):
    r"""The result of `survey`.

    Every gradient $g$ of a machine is compared with two exact gradients: $g_0$, that of the machine *as realised*,
    which training in situ needs, and that of the *ideal* model, which the owner would compute.

    Attributes:
        rows: one dictionary for every imperfection and strength: `imperfection` and `strength`; `retrace`, the mean
            retrace error; `error`, the root mean square of $\|g - g_0\|$ over that of $\|g_0\|$; `cosine` and
            `norm_ratio`, the mean cosine and the mean ratio of norms of $g$ and $g_0$; `bias`,
            $\|\overline{g - g_0}\|$ over the root mean square of $\|g_0\|$, less the remaining noise of the mean;
            `ideal_error`, `ideal_cosine`, `ideal_norm_ratio`, the same against the ideal model.
        floor: `error` of a perfect machine, which comes from the finite nudge alone.
        exponents: for every imperfection the exponents of `error` and `ideal_error` as powers of the strength, fitted
            over strengths where the error is above twice the floor and below 0.5; `None` for fewer than two of these.
        nudge: the nudge that was used.
        repeats: number of random keys for machines and noise.

    Example: see `device.survey`.
    """

    rows: list[SurveyRow]
    floor: float
    exponents: dict[str, tuple[float | None, float | None]]
    nudge: str
    repeats: int

    def cells(self) -> Table:
        """Return the rows as a table of texts."""
        head = ("imperfection", "strength", "retrace", "error", "cosine", "ratio", "bias", "power")
        head = (*head, "vs. ideal", "cosine", "ratio", "power")
        body = []
        for row in self.rows:
            powers = ["-" if x is None else f"{x:.2f}" for x in self.exponents[row["imperfection"]]]
            found, ideal = ("error", "cosine", "norm_ratio"), ("ideal_error", "ideal_cosine", "ideal_norm_ratio")
            numbers = [[f"{row[x]:{form}}" for x, form in zip(y, _FORMS, strict=True)] for y in (found, ideal)]
            first = row["imperfection"], f"{row['strength']:.0e}", f"{row['retrace']:.1e}"
            body.append((*first, *numbers[0], f"{row['bias']:.1e}", powers[0], *numbers[1], powers[1]))
        return Table(head, body)


_FORMS = (".1e", ".4f", ".3f")


def survey(
    loss: Loss,
    model: Any,
    boundary: InitialValue,
    inputs: PyTree = None,
    *,
    dt: Any,
    steps: int | None = None,
    t0: Any = 0.0,
    nudge: AbstractFiniteNudge,
    strengths: Sequence[float] = (1e-3, 1e-2, 1e-1),
    imperfections: Mapping[str, Make] | None = None,
    machine: Simulated | None = None,
    repeats: int = 8,
    key: PRNGKeyArray | None = None,
) -> Survey:
    r"""Measure the error of a machine's gradient for each imperfection.

    For every imperfection and strength, a simulated machine with this imperfection measures the gradient of a loss with
    respect to the parameters of its model, by echoes. It is compared with two exact gradients, both by backpropagation:
    through the machine's own run, with its noise and friction, and through the run of the ideal model.

    Args:
        loss: `trajectory -> scalar`.
        model: the owner's model; its floating-point arrays are the parameters.
        boundary: an `InitialValue`.
        inputs: inputs with a leading axis of steps, or `None`.
        dt: step length.
        steps: number of steps N; optional if `inputs` has that length.
        t0: time of node 0.
        nudge: a finite nudge.
        strengths: strengths of the imperfections, positive.
        imperfections: functions `(strength, key) -> imperfection` by name, without effect at strength 0. By default all
            kinds, in comparable units: `Mismatch` and `Drift` by the relative spread; `Friction` by the relative loss
            in a run, $\gamma T$; `ForceNoise` by the spread of momenta after a run, $\sigma \sqrt T$, and
            `ReadoutNoise` and `Quantisation` by $\sigma$ and the step, all three in units of the root mean square of
            coordinates and momenta of the ideal run; `ImperfectMirror` by $1 - g$.
        machine: the machine to which the imperfections are added, `Simulated()` by default; it may have others already.
        repeats: number of random keys, at least 2; each draws one machine and its noise.
        key: random key from which those keys are split.

    Returns:
        `Survey` with `rows`, `exponents` and `table()`.

    Raises:
        ArgumentTypeError: if the machine is not `Simulated`, or an argument has the wrong type.
        ArgumentError: if a strength is not positive, there are fewer than two repeats, the gradient of the ideal model
            is zero, or a gradient is not finite; the message names the imperfection and its strength.

    Example:
        ```python
        found = eg.device.survey(
            lambda sol: jnp.sum(sol.q[-1] ** 2), system, start, dt=0.1, steps=20, nudge=eg.Symmetric(0.1), repeats=2
        )
        print(found.table())
        ```
    """
    machine = Simulated() if machine is None else machine
    if not isinstance(machine, Simulated):
        raise ArgumentTypeError(
            f"device.survey: the machine is a {type(machine).__name__}. Pass a Simulated one: only its exact gradient "
            "is known for comparison."
        )
    strengths = _strengths(strengths)
    repeats = _checks.integer("device.survey", "repeats", repeats, 2, what="the number of machines")
    key = jax.random.key(0) if key is None else _checks.key("device.survey", key)
    _checks.function("device.survey", "loss", loss, "trajectory -> scalar")
    what = "a finite nudge with real strengths, such as Symmetric(beta)"
    _checks.instance("device.survey", "nudge", nudge, AbstractFiniteNudge, what)
    if imperfections is not None:
        what = "a dictionary of functions (strength, key) -> imperfection, by name"
        _checks.instance("device.survey", "imperfections", imperfections, Mapping, what)
        for name, make in imperfections.items():
            made = make(0.1, key) if callable(make) else make
            _checks.instance(
                "device.survey", f"imperfections[{name!r}](0.1, key)", made, AbstractImperfection, "an imperfection"
            )
    problem = {"boundary": boundary, "inputs": inputs, "dt": dt, "steps": steps, "t0": t0}
    ideal, size, duration = _ideal(loss, model, problem, machine)
    if not bool(jnp.all(jnp.isfinite(ideal))):
        raise ArgumentError(
            "device.survey: the gradient of the ideal model holds a NaN or an infinity, so nothing can be compared "
            "with it. The loss may have no derivative where the run ends, or the model or the inputs hold a NaN."
        )
    if not float(jnp.linalg.norm(ideal)) > 0:
        raise ArgumentError(
            "device.survey: the gradient of the ideal model is zero, so relative errors are undefined. Pass a loss "
            "that depends on the parameters."
        )
    if imperfections is None:
        imperfections = _catalogue(float(size), float(duration))

    # One compiled program for all rows: every machine has all imperfections, at most one with a strength above zero.
    kinds = len(imperfections)
    table = [np.zeros(kinds), *(strength * np.eye(kinds)[i] for i in range(kinds) for strength in strengths)]
    keys = jax.random.split(key, repeats)
    makers = tuple(imperfections.values())
    found = _gradients(loss, model, problem, nudge, machine, makers, jnp.asarray(np.stack(table), ideal.dtype), keys)
    g, exact, retrace = map(np.asarray, found)
    ideal = np.broadcast_to(np.asarray(ideal), exact.shape)
    names = [(name, float(strength)) for name in imperfections for strength in strengths]
    lost = [f"{name} at {x:g}" for i, (name, x) in enumerate(names, 1) if not _sound(g[i], exact[i], retrace[i])]
    if not _sound(g[0], exact[0], retrace[0]) or lost:
        raise ArgumentError(
            "device.survey: gradients are not finite, or those of the machine as realised are zero, for "
            f"{', '.join(lost) or 'a perfect machine'}. The machine runs away, or stands still, with this "
            "imperfection. Pass smaller strengths, a shorter run, or other imperfections."
        )
    rows = [_row(*name, float(np.mean(retrace[i])), g[i], exact[i], ideal[i]) for i, name in enumerate(names, start=1)]
    # Errors near the rounding error are not fitted.
    floors = [max(_compared(g[0], x)[0], 1e3 * float(np.finfo(g.dtype).eps)) for x in (exact[0], ideal[0])]
    exponents = {
        name: (_power(rows, name, "error", floors[0]), _power(rows, name, "ideal_error", floors[1]))
        for name in imperfections
    }
    return Survey(rows, _compared(g[0], exact[0])[0], exponents, repr(nudge), repeats)


def _strengths(strengths: Any) -> list[float]:
    """Return the strengths as a list of positive numbers, or raise."""
    if not isinstance(strengths, Sequence | np.ndarray | jax.Array) or isinstance(strengths, str) or not len(strengths):
        raise ArgumentError(
            f"device.survey: strengths={_checks.shown(strengths)}; give a sequence of positive numbers."
        )
    why = "strengths are positive and finite"
    return [float(_checks.number("device.survey", "strengths", x, _checks.positive, why)) for x in strengths]


def _sound(found: np.ndarray, exact: np.ndarray, retrace: np.ndarray) -> bool:
    """Return whether gradients can be compared: all are finite, and all exact ones differ from zero."""
    return all(np.all(np.isfinite(x)) for x in (found, exact, retrace)) and bool(np.all(np.any(exact != 0, axis=1)))


def _catalogue(size: float, duration: float) -> dict[str, Make]:
    """Return all kinds of imperfections, in units of the root mean square state and the duration of a run."""
    return {
        "mismatch": Mismatch,
        "drift": Drift,
        "friction": lambda s, key: Friction(s / duration),
        "force noise": lambda s, key: ForceNoise(s * size / duration**0.5, key),
        "readout noise": lambda s, key: ReadoutNoise(s * size, key),
        "imperfect mirror": lambda s, key: ImperfectMirror(1 - s),
        "quantised readout": lambda s, key: Quantisation(readout=s * size),
    }


@eqx.filter_jit
def _ideal(loss: Loss, model: Any, problem: dict[str, Any], machine: Simulated) -> Any:
    """Return the gradient of the ideal model, the root mean square of its state, and the duration of its run."""

    def value(model: Any) -> Any:
        sol = solve(model, **problem, integrator=machine.integrator, gradient=Backprop())
        _checks.scalar("device.survey", "loss(trajectory)", loss, sol)
        return loss(sol), sol

    gradient, sol = eqx.filter_grad(value, has_aux=True)(model)
    count = sum(x.size for x in jax.tree.leaves((sol.q, sol.p)))
    return _tree.flat(gradient), _tree.norm((sol.q, sol.p)) / count**0.5, sol.t[-1] - sol.t[0]


@eqx.filter_jit
def _gradients(
    loss: Loss,
    model: Any,
    problem: dict[str, Any],
    nudge: AbstractFiniteNudge,
    machine: Simulated,
    makers: tuple[Make, ...],
    table: Float[Array, "rows kinds"],
    keys: PRNGKeyArray,
) -> tuple[
    Float[Array, "rows repeats parameters"], Float[Array, "rows repeats parameters"], Float[Array, "rows repeats"]
]:
    """Return the machine's gradients, those of the machine as realised, and retrace errors."""

    def one(strengths: Float[Array, " kinds"], key: PRNGKeyArray) -> Any:
        more = [make(s, jax.random.fold_in(key, i)) for i, (make, s) in enumerate(zip(makers, strengths, strict=True))]
        here = Simulated((*machine.imperfections, *more), plant=machine.plant, integrator=machine.integrator)

        def measured(arguments: Any) -> Float[Array, ""]:
            model, probe = arguments
            options = {"retrace_tolerance": math.inf, "probe": probe, "throw": False}
            return loss(run(here, model, **problem, nudge=nudge, **options))

        def realised(model: Any) -> Float[Array, ""]:
            checked, z0 = initial_value_problem(model, **problem)
            given, n = checked.given, checked.steps
            q, p = here.run(forward_order(given, z0, n)).nodes
            t = given.time(jnp.arange(n + 1, dtype=jnp.int32))
            return loss(Trajectory(t, q, p, jnp.zeros_like(given.h)))

        found, retrace = eqx.filter_grad(measured)((model, jnp.zeros((), table.dtype)))
        return _tree.flat(found), _tree.flat(eqx.filter_grad(realised)(model)), retrace

    return jax.lax.map(lambda strengths: jax.lax.map(lambda key: one(strengths, key), keys), table)


def _row(
    name: str, strength: float, retrace: float, found: np.ndarray, exact: np.ndarray, ideal: np.ndarray
) -> SurveyRow:
    error, cosine, ratio = _compared(found, exact)
    ideal_error, ideal_cosine, ideal_ratio = _compared(found, ideal)
    off = found - exact
    mean = off.mean(0)
    left = np.sum((off - mean) ** 2) / (len(off) - 1) / len(off)
    bias = math.sqrt(max(float(np.sum(mean**2) - left), 0.0) / float(np.mean(np.sum(exact**2, 1))))
    return SurveyRow(
        imperfection=name,
        strength=strength,
        retrace=retrace,
        error=error,
        cosine=cosine,
        norm_ratio=ratio,
        bias=bias,
        ideal_error=ideal_error,
        ideal_cosine=ideal_cosine,
        ideal_norm_ratio=ideal_ratio,
    )


def _compared(found: np.ndarray, exact: np.ndarray) -> tuple[float, float, float]:
    """Return the relative error, the mean cosine and the mean norm ratio of rows of gradients."""
    sizes, exact_sizes = np.linalg.norm(found, axis=1), np.linalg.norm(exact, axis=1)
    error = math.sqrt(np.mean(np.sum((found - exact) ** 2, 1)) / np.mean(exact_sizes**2))
    # A zero gradient has no direction: its cosine is 0.
    cosine = float(np.mean(np.sum(found * exact, 1) / (np.where(sizes > 0, sizes, 1) * exact_sizes)))
    return error, cosine, float(np.mean(sizes / exact_sizes))


def _power(rows: Sequence[SurveyRow], name: str, what: str, floor: float) -> float | None:
    """Return the exponent of an error as a power of the strength, from errors above the floor and below 0.5."""
    points = [(row["strength"], row[what]) for row in rows if row["imperfection"] == name]
    points = [(x, y) for x, y in points if 2 * floor < y < 0.5]
    return exponent(*zip(*points, strict=True)) if len(dict(points)) >= 2 else None
