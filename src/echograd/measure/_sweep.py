"""Bias and variance of a gradient against the strength of the nudge."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._internal import _checks, _tree
from .._internal._errors import ArgumentError, ArgumentTypeError, said
from .._internal._table import Table, Tabled
from ..gradients import AbstractGradient, Echo
from ..nudge import AbstractFiniteNudge, Holomorphic, Infinitesimal, Noisy, Symmetric
from ..nudge._finite import joined

Loss = Callable[[Any, AbstractGradient], Float[Array, ""]]


class SweepRow(TypedDict):
    """What one strength of the nudge gives, all relative to the norm of the exact gradient."""

    beta: float | str
    error: float
    bias: float
    deviation: float
    estimate: float | None
    leak: float | None
    refused: str | None


@dataclass(frozen=True)
class NudgeSweep(Tabled):
    r"""What `nudge_sweep` found.

    With gradients $g_i$ from independent noise, their mean $\bar g$ and the exact gradient $g_0$, every number is
    relative to $\|g_0\|$, over all parameters together.

    Attributes:
        rows: one dictionary for every strength: `beta`; `error`, the root mean square of $\|g_i - g_0\|$; `bias`,
            $\|\bar g - g_0\|$ cleared of what is left of the noise in the mean; `deviation`, the root mean square of
            $\|g_i - \bar g\|$; `estimate`, what the nudge itself estimates its truncation error to be, without noise
            and without knowing $g_0$, `None` where that is lost in rounding; `leak`, the imaginary leak of a
            holomorphic nudge, `None` for others; `refused`, the reason why there is no gradient at this strength (the
            numbers are then NaN), else `None`.
        nudge: name of the nudge.
        noise: standard deviation of the noise on every reading.
        repeats: number of noises at each strength; 1 without noise.
    """

    rows: list[SweepRow]
    nudge: str
    noise: float
    repeats: int = 1

    @property
    def best(self) -> SweepRow:
        """The row of least error.

        Raises:
            ValueError: if every strength was refused.
        """
        rows = [row for row in self.rows if row["refused"] is None]
        if not rows:
            raise ArgumentError(f"nudge_sweep: every strength was refused, the last with: {self.rows[-1]['refused']}")
        return min(rows, key=lambda row: row["error"])

    def cells(self) -> Table:
        """Return the rows as texts in columns."""
        names = ("error", "bias", "deviation", "estimate", "leak")
        rows = []
        for row in self.rows:
            beta = row["beta"] if isinstance(row["beta"], str) else f"{row['beta']:.1e}"
            numbers = ["-" if row["refused"] or row[x] is None else f"{row[x]:.1e}" for x in names]
            rows.append((beta, *numbers, f"refused: {row['refused'].splitlines()[0][:100]}" if row["refused"] else ""))
        return Table(("beta", *names, ""), rows, ">>>>>><")


def nudge_sweep(
    loss: Loss,
    params: PyTree,
    betas: Sequence[float | Literal["auto"]] | np.ndarray | Array,
    *,
    nudge: Callable[[Any], AbstractFiniteNudge] = Symmetric,
    noise: float = 0.0,
    repeats: int = 16,
    reference: AbstractGradient | None = None,
    key: PRNGKeyArray | None = None,
) -> NudgeSweep:
    r"""Measure the error of an echo against the strength of its nudge: bias, and variance under noisy readings.

    A strong nudge is biased, by $O(\beta^{order})$. A weak one drowns: in rounding, and where readings are noisy with
    standard deviation $\sigma$, in a deviation of $O(\sigma/\beta)$. In between is the strength to use.

    Args:
        loss: function `(params, gradient) -> scalar` that hands `gradient` to `solve`.
        params: PyTree whose floating-point arrays are differentiated.
        betas: strengths to try, a sequence or an array; `"auto"` is one of them.
        nudge: function from a strength to a finite nudge: `Symmetric` (default), `OneSided`, or
            `lambda r: eg.Holomorphic(r, points=8)`.
        noise: standard deviation of Gaussian noise on every coordinate and momentum that is read (see `Noisy`).
        repeats: number of independent noises at each strength; not used without noise.
        reference: the exact gradient, `Echo(Infinitesimal())` by default.
        key: random key of the noise.

    Returns:
        `NudgeSweep` with `rows`, `best` and `table()`.

    Raises:
        TypeError: if `betas` are no numbers, or `nudge` does not return a finite nudge.
        ValueError: if there are no strengths or no parameters, if the loss makes no use of its `gradient`, for fewer
            than two repeats with noise, negative noise, or if the exact gradient is zero or not finite.

    Source: A. Laborieux et al. (2021) and A. Laborieux and F. Zenke, arXiv 2209.00530, for the bias of static nudges.

    Example:
        ```python
        sweep = eg.nudge_sweep(loss, system, [1e-3, 1e-2, 1e-1], noise=1e-4)
        print(sweep.table())
        gradient = eg.Echo(eg.Symmetric(sweep.best["beta"]))
        ```
    """
    strengths = _strengths(betas)
    why = "a standard deviation is zero or positive, and finite"
    noise = float(_checks.number("nudge_sweep", "noise", noise, _checks.not_negative, why))
    repeats = _checks.integer("nudge_sweep", "repeats", repeats, 2 if noise else 1, what="the number of noises")
    key = jax.random.key(0) if key is None else _checks.key("nudge_sweep", key)
    _checks.function("nudge_sweep", "loss", loss, "(params, gradient) -> scalar")
    if reference is not None:
        what = "a gradient object. Pass Echo(), with its parentheses"
        _checks.instance("nudge_sweep", "reference", reference, AbstractGradient, what)
    for beta in strengths:
        try:
            made = nudge(beta)
        except TypeError as error:
            made = error
        if not isinstance(made, AbstractFiniteNudge):
            raise ArgumentTypeError(
                f"nudge_sweep: nudge={_checks.shown(nudge)} makes no finite nudge of a strength: {made}. Pass "
                "Symmetric itself, or a function such as lambda beta: Richardson(beta, order=4)."
            )
    _tree.check_differentiable("nudge_sweep", "`params`", params)
    if _ignores_gradient(loss, params):
        raise ArgumentError(
            "nudge_sweep: the loss makes no use of its second argument, so that no nudge would ever be seen. Hand it "
            "on: solve(..., gradient=gradient)."
        )
    reference = Echo(Infinitesimal()) if reference is None else reference
    _checks.scalar("nudge_sweep", "loss(params, gradient)", loss, params, reference)
    exact = _gradient(loss, params, reference)
    size = float(np.linalg.norm(exact))
    if not (size > 0 and math.isfinite(size)):
        raise ArgumentError(f"nudge_sweep: the exact gradient has norm {size}, so no error is relative to it.")

    keys = jax.random.split(key, repeats) if noise else None
    rows = [_row(loss, params, beta, nudge, noise, keys, exact) for beta in strengths]
    return NudgeSweep(rows, type(nudge(strengths[0])).__name__, float(noise), repeats if noise else 1)


def _ignores_gradient(loss: Any, params: PyTree) -> bool:
    """Return whether a loss can do with what is no gradient."""
    try:
        eqx.filter_eval_shape(loss, params, "no gradient")
    except Exception:  # whatever it complains of
        return False
    return True


def _strengths(betas: Any) -> list[Any]:
    """Return the strengths as Python numbers, and `"auto"` as it is."""
    remedy = 'Pass a sequence or an array of numbers, such as [1e-3, 1e-2, 1e-1]; "auto" may be among them'
    betas = [betas] if isinstance(betas, str) else betas
    if not isinstance(betas, Sequence | np.ndarray | jax.Array) or not np.ndim(betas):
        raise ArgumentTypeError(f"nudge_sweep: betas={_checks.shown(betas)} are not strengths. {remedy}.")
    if not len(betas):
        raise ArgumentError(f"nudge_sweep: betas is empty. {remedy}.")

    def strength(beta: Any) -> Any:
        if isinstance(beta, str) and beta == "auto":
            return beta
        return float(_checks.number("nudge_sweep", "betas", beta, lambda x: (x != 0) & (abs(x) < math.inf), remedy))

    return [strength(beta) for beta in betas]


@np.errstate(over="ignore")  # what overflows is infinite, and is told so
def _row(
    loss: Loss, params: PyTree, beta: Any, nudge: Any, noise: float, keys: PRNGKeyArray | None, exact: np.ndarray
) -> SweepRow:
    # As arrays, one compiled program serves all strengths.
    scheme = nudge(beta if isinstance(beta, str) else jnp.asarray(beta, float))
    scale = jnp.asarray(noise, float)
    size = np.linalg.norm(exact)

    def quiet(nudge: AbstractFiniteNudge) -> np.ndarray:
        # Truncation alone, but at the strength that an automatic choice takes against this noise.
        return _gradient(loss, params, Echo(nudge if keys is None else Noisy(nudge, scale, keys[0], quiet=True)))

    def change(more: AbstractFiniteNudge) -> float | None:
        """Return how much the gradient changes if the nudge reads something more, unless rounding hides that."""
        # The gradient of what is read alone would be another: a loss may have other ways to its parameters, and several
        # solves in a row.
        try:
            return float(np.linalg.norm((quiet(joined(scheme, more)) - plain) / size))
        except eqx.EquinoxRuntimeError:
            return None

    try:
        plain = quiet(scheme)
        found = plain[None] if keys is None else _noisy_gradients(loss, params, scheme, scale, keys)
    except eqx.EquinoxRuntimeError as refusal:
        return _refused(beta, said(refusal))
    found = found / size
    if not np.linalg.norm(found) < math.inf:
        return _refused(beta, "the gradient is not finite. Likely causes: a nudge that is much too strong, or noise.")
    mean, exact = found.mean(0), exact / size
    count = len(found)
    variance = float(np.sum((found - mean) ** 2)) / (count - 1) if count > 1 else 0.0
    # What the noise leaves in the mean is no bias.
    bias = float(np.sum((mean - exact) ** 2)) - variance / count
    square = float(np.sum((found - exact) ** 2)) / count
    error, bias, deviation = (max(x, 0.0) ** 0.5 for x in (square, bias, variance))
    leak = change(scheme.leak()) if isinstance(scheme, Holomorphic) and scheme.power > 2 else None
    estimate = change(scheme.error())
    return SweepRow(beta=beta, error=error, bias=bias, deviation=deviation, estimate=estimate, leak=leak, refused=None)


def _refused(beta: Any, reason: str) -> SweepRow:
    nan = math.nan
    return SweepRow(beta=beta, error=nan, bias=nan, deviation=nan, estimate=nan, leak=None, refused=reason)


def _flat(gradient: PyTree, axes: int = 0) -> np.ndarray:
    """Return a gradient as real numbers in a row, behind some leading axes."""
    leaves = [np.asarray(x) for x in jax.tree.leaves(gradient)]
    parts = [part for x in leaves for part in ((x.real, x.imag) if np.iscomplexobj(x) else (x,))]
    return np.concatenate([x.reshape(*x.shape[:axes], -1).astype(float) for x in parts], -1)


@eqx.filter_jit
def _jitted(loss: Loss, params: PyTree, gradient: AbstractGradient) -> PyTree:
    return eqx.filter_grad(loss)(params, gradient)


def _gradient(loss: Loss, params: PyTree, gradient: AbstractGradient) -> np.ndarray:
    return _flat(_jitted(loss, params, gradient))


@eqx.filter_jit
def _sampled(loss: Loss, params: PyTree, nudge: AbstractFiniteNudge, noise: Array, keys: PRNGKeyArray) -> PyTree:
    return jax.lax.map(lambda key: eqx.filter_grad(loss)(params, Echo(Noisy(nudge, noise, key))), keys)


def _noisy_gradients(loss: Loss, params: PyTree, nudge: Any, noise: Array, keys: PRNGKeyArray) -> np.ndarray:
    return _flat(_sampled(loss, params, nudge, noise, keys), 1)
