"""Finite nudges: runs at several strengths, combined with fixed weights."""

import abc
import math
from typing import Any, ClassVar, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from .._internal import _checks, _tree
from .._internal._errors import ArgumentError, refuse_if
from ._base import AbstractNudge, Pushed, Scalar

Strength = float | Scalar | Literal["auto"]


def check_strength(name: str, beta: Any, what: str = "beta", *, negative: bool = False) -> Any:
    """Return the strength of a nudge: a Python float, an array, or "auto"."""
    if isinstance(beta, str):
        if beta != "auto":
            raise ArgumentError(f'{name}: {what}={beta!r}; it must be a number or "auto".')
        return beta
    # A Python number stays one, so that a model that holds this nudge does not train the strength.
    limit, holds = ("not zero", _not_zero) if negative else ("positive", _checks.positive)
    why = f'it must be "auto", or finite and {limit}: the estimate divides by it. For zero use Infinitesimal()'
    return _checks.number(name, what, beta, holds, why, at_run_time=True)


def _not_zero(x: Any) -> Any:
    return (x != 0) & (abs(x) < math.inf)


def balanced_strength(z: PyTree, load: Scalar, noise: Any, power: int) -> Scalar:
    r"""Return the strength at which the truncation error $\delta^{power}$ and the noise error noise/δ are equal.

    δ, β times the load, is the size of the response relative to the state; `noise` is that of the noise.
    """
    dtype = jax.tree.leaves(z)[0].dtype
    delta = jnp.asarray(noise, dtype) ** (1 / (power + 1))
    # Without a nudge every strength gives zero.
    load = load.astype(dtype)
    return jnp.where(load > 0, delta / jnp.where(load > 0, load, 1), 1)


class AbstractFiniteNudge(AbstractNudge):
    r"""Runs at several strengths of the nudge, combined with weights.

    With strengths $\beta n_i$ and weights $w_i$,

    $$\frac{d f}{d\beta} \approx \frac1\beta\, {\rm Re} \sum_i w_i f(\beta n_i), \quad
    {\rm Re} \sum_i w_i = 0, \ {\rm Re} \sum_i w_i n_i = 1.$$

    All members of the ensemble advance together, and their readings are combined at every step. So the subtraction is
    between neighbouring numbers, not between long sums. If a node is complex, all members are. A complex node stands
    for its conjugate, too, whose run would be the conjugate.

    Example:
        ```python
        class Central(eg.nudge.AbstractFiniteNudge):
            beta: float = eqx.field(static=True)
            nodes, weights, power = (-1.0, 1.0), (-0.5, 0.5), 2

            def error(self):
                raise NotImplementedError

        eqx.filter_grad(loss)(system, eg.Echo(Central(1e-3)))
        ```
    """

    beta: eqx.AbstractVar[Any]
    nodes: eqx.AbstractVar[tuple[Any, ...]]
    weights: eqx.AbstractVar[tuple[Any, ...]]
    # The error falls as β to this power.
    power: eqx.AbstractVar[int]

    @abc.abstractmethod
    def error(self) -> "AbstractFiniteNudge":
        r"""Return a nudge that reads, instead of $d/d\beta$, an estimate of the error of this one.

        It runs at additional strengths for the next order, and reads the difference of the two orders. A gradient taken
        with it is the estimated error of the gradient, parameter by parameter, with its sign.
        """

    def strength(self, z: PyTree, load: Scalar, steps: int) -> Scalar:
        dtype = jax.tree.leaves(z)[0].dtype
        if not isinstance(self.beta, str):
            return jnp.asarray(self.beta).astype(dtype)
        return balanced_strength(z, load, _tree.rounding(z) * max(steps, 1) ** 0.5, self.power)

    def start(self, z: PyTree) -> PyTree:
        return jax.tree.map(lambda x: jnp.broadcast_to(self._typed(x), (len(self.nodes), *x.shape)), z)

    def advance(self, beta: Scalar, pushed: Pushed, ensemble: PyTree) -> tuple[PyTree, PyTree]:
        beta_i = self._typed(beta)
        ensemble, readings = jax.vmap(pushed)(beta_i * jnp.asarray(self.nodes, beta_i.dtype), ensemble)
        return ensemble, self._combined(beta, readings, self.weights)

    def response(self, beta: Scalar, ensemble: PyTree) -> PyTree:
        return self._combined(beta, ensemble, self.weights)

    def retraced(self, ensemble: PyTree) -> tuple[PyTree, PyTree]:
        if 0.0 in self.nodes:
            free = jax.tree.map(lambda x: x[self.nodes.index(0.0)].real, ensemble)
            return free, free
        # The members extrapolated to β = 0, up to O(β^power), which is less than their spread.
        centre = jax.tree.map(lambda x: jnp.tensordot(jnp.asarray(self._extrapolation, x.dtype), x, 1).real, ensemble)
        apart = jax.tree.map(lambda x, c: jnp.max(jnp.abs(x - c[None].astype(x.dtype)), 0), ensemble, centre)
        return centre, _tree.add(centre, apart)

    def check(self, x: Any, beta: Scalar, ensemble: PyTree, load: Scalar, steps: int, sizes: PyTree = None) -> Any:
        centre, _ = self.retraced(ensemble)
        noise = _tree.rounding(ensemble) * max(steps, 1) ** 0.5
        # A given strength must yield three digits, or as many as this order can at its best strength. An automatic one
        # is at its best, so the response only has to exceed rounding.
        least = 4 * noise if isinstance(self.beta, str) else min(1e3 * noise, 0.25 * noise ** (1 / (self.power + 1)))
        apart = jax.tree.map(lambda a, b: a - b[None].astype(a.dtype), ensemble, centre)
        # Coordinates and momenta each in units of their own size; at this time one of them may be unchanged.
        known = sizes is not None
        parts, sizes = (apart, sizes) if known else ((apart,), (centre,))

        def relative(part: PyTree, size: PyTree) -> Scalar:
            spread, size = _tree.max_abs(part), _tree.max_abs(size)
            beside_nothing = jnp.where(spread == 0, 0, jnp.inf)
            return jnp.where(size > 0, spread / jnp.where(size > 0, size, 1), beside_nothing)

        spreads = [relative(part, size) for part, size in zip(parts, sizes, strict=True)]
        spreads = jnp.stack([spread.astype(load.dtype) for spread in spreads])
        strongest = jnp.max(spreads)
        x = refuse_if(
            x,
            (load > 0) & ~(strongest >= least),
            f"{type(self).__name__}: the nudge is lost in rounding. The nudged runs differ by {{}} of the size of the "
            f"state; they must differ by {least:.1g} or more, because rounding errors accumulate over the steps. Raise "
            'beta, pass beta="auto" (which scales it to the cotangents), use float64, or use Infinitesimal().',
            strongest,
        )
        if not known:  # the last state may be near zero
            return x
        most, strongest = 1e-3 / noise, jnp.max(jnp.where(jnp.isinf(spreads), 0, spreads))
        return refuse_if(
            x,
            (load > 0) & ~(strongest <= most),
            f"{type(self).__name__}: the nudge is too strong. The nudged runs are apart by {{}} times the size of the "
            f"state, and above {most:.1g} the difference of their readings is lost in the rounding of its even part. "
            'Lower beta, or pass beta="auto", which scales it to the cotangents.',
            strongest,
        )

    @property
    def _extrapolation(self) -> tuple[Any, ...]:
        """The weights of the members in their extrapolation to β = 0; their real parts sum to one."""
        return tuple(w * n for w, n in zip(self.weights, self.nodes, strict=True))

    @property
    def _complex(self) -> bool:
        return any(isinstance(node, complex) for node in self.nodes)

    def _typed(self, x: Array) -> Array:
        """Return `x`, as a complex array if the members are complex."""
        return x.astype(_tree.complexified(x.dtype)) if self._complex else x

    def _combined(self, beta: Scalar, members: PyTree, weights: tuple[Any, ...]) -> PyTree:
        def combine(x: Array) -> Array:
            x = self._typed(x)
            total = jnp.tensordot(jnp.asarray(weights, x.dtype), x, 1)
            # With complex nudges the derivatives of real readings are the real parts. With real nudges readings of
            # complex parameters stay complex.
            total = total.real if self._complex else total
            return total / beta.astype(total.dtype)

        return jax.tree.map(combine, members)


class Stencil(AbstractFiniteNudge):
    """A nudge with explicit nodes and weights. The other schemes use it to estimate their own error."""

    beta: Any
    nodes: tuple[Any, ...] = eqx.field(static=True)
    weights: tuple[Any, ...] = eqx.field(static=True)
    power: int = eqx.field(static=True)

    def error(self) -> "AbstractFiniteNudge":
        raise NotImplementedError("The estimate of an error has no error estimate itself.")

    @property
    def _extrapolation(self) -> tuple[Any, ...]:
        # The weights of a difference of two schemes extrapolate to zero.
        return (1 / len(self.nodes),) * len(self.nodes)


def joined(nudge: AbstractFiniteNudge, other: AbstractFiniteNudge) -> Stencil:
    """Return the nudge that reads the sum of the readings of two nudges of the same strength."""
    weights = dict.fromkeys((*nudge.nodes, *other.nodes), 0.0)
    for node, weight in zip((*nudge.nodes, *other.nodes), (*nudge.weights, *other.weights), strict=True):
        weights[node] += weight
    return Stencil(nudge.beta, tuple(weights), tuple(weights.values()), nudge.power)


def central_weights(nodes: tuple[float, ...]) -> tuple[float, ...]:
    r"""Return the weights of $f(n_j) - f(-n_j)$ that give $f'(0)$ exactly for odd polynomials of degree < 2 len.

    $w_j = \frac{1}{2 n_j} \prod_{i \ne j} n_i^2 / (n_i^2 - n_j^2)$: symmetric differences, extrapolated to zero.
    """
    return tuple(
        math.prod(a**2 / (a**2 - n**2) for i, a in enumerate(nodes) if i != j) / (2 * n) for j, n in enumerate(nodes)
    )


class Symmetric(AbstractFiniteNudge):
    r"""Two echoes at $\pm\beta$: error $O(\beta^2)$; exact at any $\beta$ for linear systems.

    An echo raises if the mean of its members misses the start of the path by more than 0.3 of the state's size.
    On the systems of `eg.systems`, this catches most strengths whose gradient is off by tens of percent, and none whose
    gradient is right to 1 %. It cannot detect errors that are odd in $\beta$; use `error()` for these.

    Args:
        beta: strength, in units of coordinate × momentum over cost; or `"auto"`, which balances truncation and rounding
            for the given cotangents and dtype.

    Raises:
        ArgumentError: if `beta` is another string or not a scalar.
        RunError: (at run time) if the nudge is zero, not finite, lost in rounding, or found too strong.

    Source: A. Laborieux et al. (2021) for equilibrium propagation; RHEL, arXiv 2506.05259, eq. 7.

    Example:
        ```python
        eg.solve(system, boundary, dt=0.01, steps=100, gradient=eg.Echo(eg.Symmetric(1e-3)))
        ```
    """

    beta: Any
    nodes: ClassVar[tuple[float, ...]] = (1.0, -1.0)
    weights: ClassVar[tuple[float, ...]] = (0.5, -0.5)
    power: ClassVar[int] = 2

    def __init__(self, beta: Strength = "auto") -> None:
        self.beta = check_strength("Symmetric", beta)

    def error(self) -> "AbstractFiniteNudge":
        return _central_error(self.beta, (1.0,))


class OneSided(AbstractFiniteNudge):
    r"""One echo at $\beta$ and one without nudge: error $O(\beta)$.

    Args:
        beta: strength, or `"auto"` (see `Symmetric`).

    Raises:
        ArgumentError: if `beta` is another string or not a scalar.
        RunError: (at run time) if the nudge is zero, not finite, or lost in rounding.

    Source: B. Scellier and Y. Bengio (2017), eq. 9, for equilibrium propagation.

    Example:
        ```python
        eg.solve(system, boundary, dt=0.01, steps=100, gradient=eg.Echo(eg.OneSided(1e-3)))
        ```
    """

    beta: Any
    nodes: ClassVar[tuple[float, ...]] = (1.0, 0.0)
    weights: ClassVar[tuple[float, ...]] = (1.0, -1.0)
    power: ClassVar[int] = 1

    def __init__(self, beta: Strength = "auto") -> None:
        self.beta = check_strength("OneSided", beta, negative=True)

    def error(self) -> "AbstractFiniteNudge":
        # One-sided less symmetric: half the second difference.
        return Stencil(self.beta, (1.0, -1.0, 0.0), (0.5, 0.5, -1.0), self.power)


class Richardson(AbstractFiniteNudge):
    r"""Symmetric nudges at $m$ = `order`/2 strengths, extrapolated to zero: error $O(\beta^{order})$.

    $$\frac{df}{d\beta} \approx \sum_j c_j \frac{f(\beta n_j) - f(-\beta n_j)}{2 \beta n_j}, \quad n_j = \frac jm, \quad
    c_j = \prod_{i \ne j} \frac{n_i^2}{n_i^2 - n_j^2}$$

    It takes `order` echoes with real nudges, so a physical machine can do it. The strengths are equally spaced, which
    keeps the weights of the smallest ones, and with them the noise, small.

    Args:
        beta: the largest strength, or `"auto"` (see `Symmetric`).
        order: an even number of at least 4; order 2 is `Symmetric(beta)`.

    Raises:
        ArgumentError: if `beta` is another string or not a scalar, or `order` is not even or below 4.
        RunError: (at run time) if the nudge is zero, not finite, lost in rounding, or found too strong.

    Source: L. F. Richardson, Phil. Trans. R. Soc. A 226 (1927) 299; B. Fornberg, Math. Comp. 51 (1988) 699, table 1.

    Example:
        ```python
        eg.solve(system, boundary, dt=0.01, steps=100, gradient=eg.Echo(eg.Richardson(1e-2, order=4)))
        ```
    """

    beta: Any
    power: int = eqx.field(static=True)

    def __init__(self, beta: Strength = "auto", order: int = 4) -> None:
        self.beta = check_strength("Richardson", beta)
        self.power = _checks.integer("Richardson", "order", order, 4, what="the order")
        if self.power % 2:
            raise ArgumentError(
                f"Richardson: order={order} is odd. Pairs of strengths are extrapolated: pass an even order."
            )

    @property
    def nodes(self) -> tuple[float, ...]:
        return (*self._half, *(-n for n in self._half))

    @property
    def weights(self) -> tuple[float, ...]:
        half = central_weights(self._half)
        return (*half, *(-w for w in half))

    @property
    def _half(self) -> tuple[float, ...]:
        m = self.power // 2
        return tuple(j / m for j in range(1, m + 1))

    def error(self) -> "AbstractFiniteNudge":
        return _central_error(self.beta, self._half)


def _central_error(beta: Any, half: tuple[float, ...]) -> Stencil:
    """Return the error of symmetric nudges at these strengths, estimated by one more pair at half the smallest one."""
    more = (*half, 0.5 * min(half))
    change = [w - v for w, v in zip((*central_weights(half), 0.0), central_weights(more), strict=True)]
    nodes, weights = (*more, *(-n for n in more)), (*change, *(-w for w in change))
    return Stencil(beta, nodes, weights, 2 * len(half))
