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

from .gradients import AbstractGradient, Echo
from .nudge import AbstractFiniteNudge, AbstractNudge, Holomorphic, Infinitesimal, Noisy, Symmetric

Loss = Callable[[Any, AbstractGradient], Float[Array, ""]]


class SweepRow(TypedDict):
    """What one strength of the nudge gives, all relative to the norm of the exact gradient."""

    beta: float | str
    error: float
    bias: float
    deviation: float
    estimate: float
    leak: float | None
    refused: str | None


@dataclass(frozen=True)
class NudgeSweep:
    r"""What `nudge_sweep` found.

    With gradients $g_i$ from independent noise, their mean $\bar g$ and the exact gradient $g_0$, every number is
    relative to $\|g_0\|$, over all parameters together.

    Attributes:
        rows: one dictionary for every strength: `beta`; `error`, the root mean square of $\|g_i - g_0\|$; `bias`,
            $\|\bar g - g_0\|$ cleared of what is left of the noise in the mean; `deviation`, the root mean square of
            $\|g_i - \bar g\|$; `estimate`, what the nudge itself estimates its truncation error to be, without noise
            and without knowing $g_0$; `leak`, the imaginary leak of a holomorphic nudge, `None` for others; `refused`,
            the reason why there is no gradient at this strength (the numbers are then NaN), else `None`.
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
            raise ValueError(f"nudge_sweep: every strength was refused, the last with: {self.rows[-1]['refused']}")
        return min(rows, key=lambda row: row["error"])

    def table(self) -> str:
        """Return the rows as a table in plain text."""
        head = ("beta", "error", "bias", "deviation", "estimate", "leak")
        lines = ["  ".join(x.rjust(10) for x in head), "  ".join(["-" * 10] * len(head))]
        for row in self.rows:
            beta = row["beta"] if isinstance(row["beta"], str) else f"{row['beta']:.1e}"
            if row["refused"] is not None:
                lines.append(f"{beta.rjust(10)}  refused: {row['refused'].splitlines()[0][:100]}")
                continue
            numbers = (row["error"], row["bias"], row["deviation"], row["estimate"], row["leak"])
            cells = ["-" if x is None else f"{x:.1e}" for x in numbers]
            lines.append("  ".join(x.rjust(10) for x in (beta, *cells)))
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.table()


def nudge_sweep(
    loss: Loss,
    params: PyTree,
    betas: Sequence[float | Literal["auto"]],
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
        betas: strengths to try; `"auto"` is one of them.
        nudge: function from a strength to a finite nudge: `Symmetric` (default), `OneSided`, or
            `lambda r: eg.Holomorphic(r, points=8)`.
        noise: standard deviation of Gaussian noise on every coordinate and momentum that is read (see `Noisy`).
        repeats: number of independent noises at each strength; not used without noise.
        reference: the exact gradient, `Echo(Infinitesimal())` by default.
        key: random key of the noise.

    Returns:
        `NudgeSweep` with `rows`, `best` and `table()`.

    Raises:
        TypeError: if `nudge` does not return a finite nudge.
        ValueError: if there are no strengths, fewer than two repeats with noise, negative noise, or if the exact
            gradient is zero or not finite.

    Source: A. Laborieux et al. (2021) and A. Laborieux and F. Zenke, arXiv 2209.00530, for the bias of static nudges.

    Example:
        ```python
        sweep = eg.nudge_sweep(loss, system, [1e-3, 1e-2, 1e-1], noise=1e-4)
        print(sweep.table())
        gradient = eg.Echo(eg.Symmetric(sweep.best["beta"]))
        ```
    """
    if not betas:
        raise ValueError("nudge_sweep: no strengths. Pass a sequence such as [1e-3, 1e-2, 1e-1].")
    if not (noise >= 0 and math.isfinite(noise)):
        raise ValueError(f"nudge_sweep: noise={noise!r} is a standard deviation, zero or positive and finite.")
    if noise and repeats < 2:
        raise ValueError(f"nudge_sweep: repeats={repeats!r}; a deviation needs at least two.")
    for beta in betas:
        if not isinstance(nudge(beta), AbstractFiniteNudge):
            raise TypeError(
                f"nudge_sweep: nudge({beta!r}) is {nudge(beta)!r}, not a finite nudge. Pass Symmetric itself, or a "
                "function such as lambda beta: Richardson(beta, order=4)."
            )
    exact = _gradient(loss, params, Echo(Infinitesimal()) if reference is None else reference)
    size = float(np.linalg.norm(exact))
    if not (size > 0 and math.isfinite(size)):
        raise ValueError(f"nudge_sweep: the exact gradient has norm {size}, so no error is relative to it.")

    keys = jax.random.split(jax.random.key(0) if key is None else key, repeats) if noise else None
    rows = [_row(loss, params, beta, nudge, noise, keys, exact) for beta in betas]
    return NudgeSweep(rows, type(nudge(betas[0])).__name__, float(noise), repeats if noise else 1)


def _row(
    loss: Loss, params: PyTree, beta: Any, nudge: Any, noise: float, keys: PRNGKeyArray | None, exact: np.ndarray
) -> SweepRow:
    # As an array, one compiled program serves all strengths.
    scheme = nudge(beta if isinstance(beta, str) else jnp.asarray(beta, exact.dtype))
    name = beta if isinstance(beta, str) else float(beta)
    size = np.linalg.norm(exact)

    def norm(nudge: AbstractNudge) -> float:
        return float(np.linalg.norm(_gradient(loss, params, Echo(nudge))) / size)

    try:
        if keys is None:
            found = _gradient(loss, params, Echo(scheme))[None]
        else:
            found = _noisy_gradients(loss, params, scheme, jnp.asarray(noise, exact.dtype), keys)
        # Truncation alone, but at the strength that an automatic choice takes against this noise.
        error = scheme.error()
        estimate = norm(error if keys is None else Noisy(error, jnp.asarray(noise, exact.dtype), keys[0], quiet=True))
        leak = norm(scheme.leak()) if isinstance(scheme, Holomorphic) and scheme.power > 2 else None
    except eqx.EquinoxRuntimeError as refusal:
        reason = str(refusal).split("equinox.EquinoxRuntimeError: ")[-1].split("\n\n")[0].strip()
        nan = math.nan
        return SweepRow(beta=name, error=nan, bias=nan, deviation=nan, estimate=nan, leak=None, refused=reason)
    mean = found.mean(0)
    count = len(found)
    variance = float(np.sum((found - mean) ** 2)) / (count - 1) if count > 1 else 0.0
    # What the noise leaves in the mean is no bias.
    bias = float(np.sum((mean - exact) ** 2)) - variance / count
    square = float(np.sum((found - exact) ** 2)) / count
    numbers = [float(np.sqrt(max(x, 0.0)) / size) for x in (square, bias, variance)]
    return SweepRow(
        beta=name, error=numbers[0], bias=numbers[1], deviation=numbers[2], estimate=estimate, leak=leak, refused=None
    )


def _flat(gradient: PyTree) -> Array:
    return jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(gradient)])


@eqx.filter_jit
def _jitted(loss: Loss, params: PyTree, gradient: AbstractGradient) -> Array:
    return _flat(eqx.filter_grad(loss)(params, gradient))


def _gradient(loss: Loss, params: PyTree, gradient: AbstractGradient) -> np.ndarray:
    return np.asarray(_jitted(loss, params, gradient))


@eqx.filter_jit
def _sampled(loss: Loss, params: PyTree, nudge: AbstractFiniteNudge, noise: Array, keys: PRNGKeyArray) -> Array:
    def one(key: PRNGKeyArray) -> Array:
        return _flat(eqx.filter_grad(loss)(params, Echo(Noisy(nudge, noise, key))))

    return jax.lax.map(one, keys)


def _noisy_gradients(loss: Loss, params: PyTree, nudge: Any, noise: Array, keys: PRNGKeyArray) -> np.ndarray:
    return np.asarray(_sampled(loss, params, nudge, noise, keys))
