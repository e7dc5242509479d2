"""Compare gradients with a reference gradient, and with the loss itself."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray, PyTree

from .._internal import _checks, _tree
from .._internal._errors import ArgumentError
from .._internal._fit import exponent
from .._internal._table import Table, Tabled
from ..gradients import AbstractGradient, Backprop, Echo
from ._compare import Loss, compare_parameters, rate_along, value_and_grad

# Lengths h of the Taylor test, relative to the size of the parameter.
_LENGTHS = tuple(2.0**-k for k in range(4, 16))
# Rounding errors up to this many machine epsilons are expected.
_ROUNDING = 100


class Row(TypedDict):
    """A candidate gradient with respect to one parameter, compared with the reference."""

    candidate: str
    parameter: str
    relative_error: float
    cosine: float
    norm_ratio: float
    reference_norm: float
    taylor_slope: float | None


@dataclass(frozen=True)
class GradientReport(Tabled):
    """What `check_gradients` found.

    Attributes:
        rows: one dictionary for every candidate and parameter, with the keys `candidate` (its name), `parameter` (its
            path in the tree), `relative_error`, `cosine`, `norm_ratio`, `reference_norm` and `taylor_slope` (`None` if
            it cannot be determined).

    Example: see `check_gradients`.
    """

    rows: list[Row]

    @property
    def worst(self) -> float:
        """The largest relative error; NaN if any of them is NaN."""
        return float(np.max([row["relative_error"] for row in self.rows]))

    def ok(self, tolerance: float) -> bool:
        """Return whether every relative error is at most `tolerance`. A NaN is not."""
        return self.worst <= tolerance

    def cells(self) -> Table:
        """Return the rows as texts in columns."""
        head = ("gradient", "parameter", "rel. error", "cosine", "norm ratio", "norm", "Taylor slope")
        rows = [
            (
                row["candidate"],
                row["parameter"],
                f"{row['relative_error']:.1e}",
                f"{row['cosine']:.6f}",
                f"{row['norm_ratio']:.6f}",
                f"{row['reference_norm']:.3e}",
                "-" if row["taylor_slope"] is None else f"{row['taylor_slope']:.2f}",
            )
            for row in self.rows
        ]
        return Table(head, rows, "<<")


def check_gradients(
    loss: Loss,
    params: PyTree,
    gradients: Mapping[str, AbstractGradient] | None = None,
    *,
    reference: AbstractGradient | None = None,
    taylor: bool = True,
    key: PRNGKeyArray | None = None,
) -> GradientReport:
    r"""Compare gradients of a loss, parameter by parameter, with a reference and with the loss itself.

    For every array $\theta$ in `params`, a candidate gradient $g$ and the reference $g_0$ give the relative error
    $\|g - g_0\| / \|g_0\|$, the cosine of the angle between them and the norm ratio $\|g\| / \|g_0\|$. The Taylor
    test needs no reference: along a random direction $v$ in that parameter alone,

    $$R_1(h) = |C(\theta + h v) - C(\theta) - h \langle g, v\rangle|$$

    falls as $h^2$ if $g$ is the gradient, and as $h$ if it is not. The slope is fitted at the smallest $h$ at which
    $R_1$ still falls and exceeds rounding. It is `None` if fewer than three such $h$ are left, as for a loss that is
    linear in the parameter.

    If both gradients of a parameter are below 100 rounding units of the norm of the whole gradient, both count as zero,
    and two zeros agree. If either gradient is not finite, all numbers are NaN.

    Args:
        loss: function `(params, gradient) -> scalar` that passes `gradient` to `solve` or to a model.
        params: PyTree whose floating-point arrays are differentiated: a system, a model, or inputs and an initial
            state.
        gradients: candidate gradient objects by name; `{"echo": Echo()}` by default.
        reference: the gradient to compare with, `Backprop()` by default.
        taylor: whether to run the Taylor test: twelve evaluations of the loss for every array in `params`.
        key: random key of the directions.

    Returns:
        `GradientReport` with `rows`, `worst`, `ok(tolerance)`, `table()` and `json()`.

    Raises:
        ArgumentTypeError: if an argument has the wrong type, for example a candidate that is not a gradient object.
        ArgumentError: if there are no candidates or no parameters, or the loss is not one real number.

    Source: P. E. Farrell et al., SIAM J. Sci. Comput. 35 (2013) C369, for the Taylor test.

    Example:
        ```python
        import echograd as eg, jax.numpy as jnp

        class Oscillator(eg.SeparableHamiltonian):
            stiffness: jnp.ndarray

            def kinetic(self, t, p):
                return 0.5 * jnp.sum(p**2)

            def potential(self, t, q, u):
                return 0.5 * jnp.sum(self.stiffness * q**2)

        def loss(system, gradient):
            start = eg.InitialValue(jnp.ones(2), jnp.zeros(2))
            sol = eg.solve(system, start, dt=0.1, steps=50, gradient=gradient)
            return jnp.mean(sol.q**2)

        report = eg.check_gradients(loss, Oscillator(jnp.array([1.0, 2.0])))
        print(report.table())
        assert report.ok(1e-3)
        ```
    """
    gradients = {"echo": Echo()} if gradients is None else gradients
    reference = Backprop() if reference is None else reference
    _checks.function("check_gradients", "loss", loss, "(params, gradient) -> scalar")
    _checks.instance("check_gradients", "gradients", gradients, Mapping, "a dictionary of gradient objects by name")
    _checks.flag("check_gradients", "taylor", taylor)
    key = jax.random.key(0) if key is None else _checks.key("check_gradients", key)
    if not gradients:
        raise ArgumentError('check_gradients: no candidates. Pass gradients={"echo": Echo()}, or leave it out.')
    what = "a gradient object. Pass Echo(), Backprop() or another one, with its parentheses"
    for name, gradient in {**gradients, "reference": reference}.items():
        _checks.instance("check_gradients", name, gradient, AbstractGradient, what)
    _tree.check_differentiable("check_gradients", "`params`", params)
    if not sum(x.size for x in jax.tree.leaves(params) if eqx.is_inexact_array(x)):
        raise ArgumentError("check_gradients: the arrays of `params` are empty. Pass some that hold numbers.")
    _checks.scalar("check_gradients", "loss(params, gradient)", loss, params, reference)

    value, expected = value_and_grad(loss, params, reference)
    directions = _directions(params, key)
    changes = [_changes(loss, reference, params, float(value), v) for v in directions] if taylor else None
    eps = _tree.rounding((value, params))

    rows = []
    for name, gradient in gradients.items():
        _, found = value_and_grad(loss, params, gradient)
        compared = compare_parameters(found, expected, _ROUNDING * eps)
        for i, (g, (parameter, size, numbers)) in enumerate(zip(jax.tree.leaves(found), compared, strict=True)):
            slope = None
            if changes is not None:
                rate = rate_along(g, jax.tree.leaves(directions[i])[i])
                slope = _slope(changes[i], rate, abs(float(value)), eps)
            row = {"candidate": name, "parameter": parameter, **numbers._asdict()}
            rows.append(Row(**row, reference_norm=size, taylor_slope=slope))
    return GradientReport(rows)


@eqx.filter_jit
def _shifted(
    loss: Loss, gradient: AbstractGradient, params: PyTree, direction: PyTree, h: Float[Array, ""]
) -> Float[Array, ""]:
    """Return the loss at `params + h * direction`."""
    return loss(eqx.apply_updates(params, _tree.scale(h, direction)), gradient)


def _directions(params: PyTree, key: PRNGKeyArray) -> list[PyTree]:
    """Return a random direction for every array: as large as its entries, and zero in all other arrays."""
    leaves, treedef = jax.tree.flatten(eqx.filter(params, eqx.is_inexact_array))
    zeros = [jnp.zeros_like(x) for x in leaves]
    directions = []
    for i, x in enumerate(leaves):
        size = float(jnp.sqrt(jnp.mean(jnp.abs(x) ** 2))) if x.size else 0.0
        draw = jax.random.normal(jax.random.fold_in(key, i), x.shape, x.dtype)
        v = draw * jnp.asarray(size if size > 0 else 1.0, x.dtype)
        directions.append(jax.tree.unflatten(treedef, [*zeros[:i], v, *zeros[i + 1 :]]))
    return directions


def _changes(loss: Loss, gradient: AbstractGradient, params: PyTree, value: float, direction: PyTree) -> list[float]:
    """Return C(θ + h v) - C(θ) for all lengths; NaN if the loss cannot be evaluated."""
    changes = []
    for h in _LENGTHS:
        try:
            changes.append(float(_shifted(loss, gradient, params, direction, jnp.asarray(h))) - value)
        except eqx.EquinoxRuntimeError:
            # The loss may raise far from the point (because a step is unstable, say) and not close to it.
            changes.append(math.nan)
    return changes


def _slope(changes: list[float], rate: float, size: float, eps: float) -> float | None:
    """Return the slope of R₁ at the smallest lengths at which it still falls and exceeds rounding."""
    points: list[tuple[float, float]] = []
    # Go up from the smallest length. At large h the term in h² dominates and hides a wrong gradient.
    for h, change in zip(reversed(_LENGTHS), reversed(changes), strict=True):
        r = abs(change - h * rate)
        if r > _ROUNDING * eps * max(size, abs(h * rate)) and (not points or r > points[-1][1]):
            points.append((h, r))
        elif points:
            break
    if len(points) < 3:
        return None
    return exponent(*zip(*points[:4], strict=True))
