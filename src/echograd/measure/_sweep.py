"""Bias and variance of a gradient against the strength of the nudge."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PRNGKeyArray, PyTree

from .._internal import _checks, _tree
from .._internal._errors import ArgumentError, ArgumentTypeError, said
from .._internal._table import Table, Tabled
from ..gradients import AbstractGradient, Echo
from ..nudge import AbstractFiniteNudge, Holomorphic, Infinitesimal, Noisy, Symmetric
from ..nudge._finite import joined
from ._compare import Loss, flatten, value_and_grad


class SweepRow(TypedDict):
    """The errors at one strength of the nudge, relative to the norm of the exact gradient."""

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

    The gradients $g_i$ come from independent noise and have the mean $\bar g$; $g_0$ is the exact gradient. All numbers
    are relative to $\|g_0\|$, over all parameters together.

    Attributes:
        rows: one dictionary for every strength: `beta`; `error`, the root mean square of $\|g_i - g_0\|$; `bias`,
            $\|\bar g - g_0\|$ without the part that the noise leaves in the mean; `deviation`, the root mean square of
            $\|g_i - \bar g\|$; `estimate`, the truncation error as the nudge estimates it, without noise and without
            knowing $g_0$, or `None` if rounding hides it; `leak`, the imaginary leak of a holomorphic nudge, or `None`
            for other nudges; `refused`, why this strength gave no gradient (the numbers are then NaN), or `None`.
        nudge: name of the nudge.
        noise: standard deviation of the noise on every reading.
        repeats: number of noise samples at each strength; 1 without noise.

    Example: see `nudge_sweep`.
    """

    rows: list[SweepRow]
    nudge: str
    noise: float
    repeats: int = 1

    @property
    def best(self) -> SweepRow:
        """The row with the smallest error.

        Raises:
            ArgumentError: if every strength was refused.
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

    A strong nudge has a bias of $O(\beta^{order})$. The signal of a weak one is lost in rounding and, if readings have
    noise of standard deviation $\sigma$, in a deviation of $O(\sigma/\beta)$. The best strength lies in between.

    Args:
        loss: function `(params, gradient) -> scalar` that passes `gradient` to `solve`.
        params: PyTree whose floating-point arrays are differentiated.
        betas: strengths to try, a sequence or an array of numbers other than 0; `"auto"` may be among them.
        nudge: function from a strength to a finite nudge: `Symmetric` (default), `OneSided`, or
            `lambda r: eg.Holomorphic(r, points=8)`.
        noise: standard deviation of Gaussian noise on every coordinate and momentum that is read (see `Noisy`).
        repeats: number of independent noise samples at each strength; not used without noise.
        reference: the exact gradient, `Echo(Infinitesimal())` by default.
        key: random key of the noise.

    Returns:
        `NudgeSweep` with `rows`, `best`, `table()` and `json()`.

    Raises:
        ArgumentTypeError: if `betas` is not a sequence of numbers, or `nudge` does not return a finite nudge.
        ArgumentError: if there are no strengths or no parameters, if the loss does not use its `gradient`, for fewer
            than two repeats with noise, for negative noise, or if the exact gradient is zero or not finite.

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
    repeats = _checks.integer("nudge_sweep", "repeats", repeats, 2 if noise else 1, what="the number of noise samples")
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
                f"nudge_sweep: nudge={_checks.shown(nudge)} does not return a finite nudge for a strength: {made}. "
                "Pass Symmetric itself, or a function such as lambda beta: Richardson(beta, order=4)."
            )
    _tree.check_differentiable("nudge_sweep", "`params`", params)
    if _ignores_gradient(loss, params):
        raise ArgumentError(
            "nudge_sweep: the loss does not use its second argument, the gradient, so the nudge has no effect. Pass it "
            "on: solve(..., gradient=gradient)."
        )
    reference = Echo(Infinitesimal()) if reference is None else reference
    _checks.scalar("nudge_sweep", "loss(params, gradient)", loss, params, reference)
    exact = _gradient(loss, params, reference)
    size = float(np.linalg.norm(exact))
    if not (size > 0 and math.isfinite(size)):
        raise ArgumentError(f"nudge_sweep: the exact gradient has norm {size}, so there are no relative errors.")

    keys = jax.random.split(key, repeats) if noise else None
    rows = [_row(loss, params, beta, nudge, noise, keys, exact) for beta in strengths]
    return NudgeSweep(rows, type(nudge(strengths[0])).__name__, float(noise), repeats if noise else 1)


def _ignores_gradient(loss: Any, params: PyTree) -> bool:
    """Return whether a loss accepts any object as its gradient."""
    try:
        eqx.filter_eval_shape(loss, params, "no gradient")
    except Exception:  # any error shows that the gradient is used
        return False
    return True


def _strengths(betas: Any) -> list[Any]:
    """Return the strengths as Python numbers, and `"auto"` as it is."""
    remedy = 'Pass a sequence or an array of numbers, such as [1e-3, 1e-2, 1e-1]; "auto" may be among them'
    betas = [betas] if isinstance(betas, str) else betas
    if not isinstance(betas, Sequence | np.ndarray | jax.Array) or not np.ndim(betas):
        raise ArgumentTypeError(f"nudge_sweep: betas={_checks.shown(betas)} is not a sequence of strengths. {remedy}.")
    if not len(betas):
        raise ArgumentError(f"nudge_sweep: betas is empty. {remedy}.")

    def strength(beta: Any) -> Any:
        if isinstance(beta, str) and beta == "auto":
            return beta
        return float(_checks.number("nudge_sweep", "betas", beta, lambda x: (x != 0) & (abs(x) < math.inf), remedy))

    return [strength(beta) for beta in betas]


@np.errstate(over="ignore")  # an overflow is reported as a gradient that is not finite
def _row(
    loss: Loss, params: PyTree, beta: Any, nudge: Any, noise: float, keys: PRNGKeyArray | None, exact: np.ndarray
) -> SweepRow:
    # With the strength as an array, one compiled program serves all strengths.
    scheme = nudge(beta if isinstance(beta, str) else jnp.asarray(beta, float))
    scale = jnp.asarray(noise, float)
    size = np.linalg.norm(exact)

    def quiet(nudge: AbstractFiniteNudge) -> np.ndarray:
        # Without noise, but with the strength that "auto" would choose for this noise.
        return _gradient(loss, params, Echo(nudge if keys is None else Noisy(nudge, scale, keys[0], quiet=True)))

    def change(more: AbstractFiniteNudge) -> float | None:
        """Return how much the gradient changes if the nudge also reads `more`; `None` if rounding hides it."""
        # The gradient from `more` alone would not be this change, because the loss may depend on its parameters in
        # other ways, or call `solve` several times.
        try:
            return float(np.linalg.norm((quiet(joined(scheme, more)) - plain) / size))
        except eqx.EquinoxRuntimeError:
            return None

    try:
        plain = quiet(scheme)
        found = plain[None] if keys is None else flatten(_sampled(loss, params, scheme, scale, keys), 1)
    except eqx.EquinoxRuntimeError as refusal:
        return _refused(beta, said(refusal))
    found = found / size
    if not np.linalg.norm(found) < math.inf:
        return _refused(beta, "the gradient is not finite. The nudge or the noise is probably much too strong.")
    mean, exact = found.mean(0), exact / size
    count = len(found)
    variance = float(np.sum((found - mean) ** 2)) / (count - 1) if count > 1 else 0.0
    # Subtract the variance of the mean, which is not bias.
    bias = float(np.sum((mean - exact) ** 2)) - variance / count
    square = float(np.sum((found - exact) ** 2)) / count
    error, bias, deviation = (max(x, 0.0) ** 0.5 for x in (square, bias, variance))
    leak = change(scheme.leak()) if isinstance(scheme, Holomorphic) and scheme.power > 2 else None
    estimate = change(scheme.error())
    return SweepRow(beta=beta, error=error, bias=bias, deviation=deviation, estimate=estimate, leak=leak, refused=None)


def _refused(beta: Any, reason: str) -> SweepRow:
    nan = math.nan
    return SweepRow(beta=beta, error=nan, bias=nan, deviation=nan, estimate=nan, leak=None, refused=reason)


def _gradient(loss: Loss, params: PyTree, gradient: AbstractGradient) -> np.ndarray:
    return flatten(value_and_grad(loss, params, gradient)[1])


@eqx.filter_jit
def _sampled(loss: Loss, params: PyTree, nudge: AbstractFiniteNudge, noise: Array, keys: PRNGKeyArray) -> PyTree:
    return jax.lax.map(lambda key: eqx.filter_grad(loss)(params, Echo(Noisy(nudge, noise, key))), keys)
