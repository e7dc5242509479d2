"""Layered Hopfield networks: the standard models of equilibrium propagation."""

import itertools
from collections.abc import Sequence
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from .._internal import _checks
from .._internal._errors import ArgumentError
from ..statics import (
    EP,
    AbstractRelaxation,
    AbstractStaticGradient,
    Equilibrium,
    LayerwiseRelaxation,
    Relaxation,
    equilibrium,
)

Layers = tuple[Float[Array, "..."], ...]


def _clipped(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return clip(x, 0, 1) with slope 1 at the bounds too, so that a unit at a bound can leave it."""
    return jnp.where(x < 0, 0, jnp.where(x > 1, 1, x))


class HopfieldNet(eqx.Module):
    r"""A deep Hopfield network: layers of units coupled to their neighbours by symmetric weights.

    $$E(s, u) = \sum_{l=1}^{L} \Bigl( \tfrac12 |s_l|^2 - \rho(s_{l-1})^T W_l\, \rho(s_l) - b_l^T \rho(s_l) \Bigr),
    \quad \rho(s_0) = u$$

    With `"hard-sigmoid"` units $\rho(s) = {\rm clip}(s, 0, 1)$ and the state stays in the box $[0, 1]$, where
    $\rho(s) = s$. With `"tanh"` units $\rho = \tanh$, smooth and without a box. The network is an energy: call `rest`,
    or pass it to `equilibrium` with `bounds=net.bounds`. Without its box, a hard-sigmoid unit that is driven beyond 1
    does not come to rest. The derivative of the energy with respect to a weight is the product of the two activities
    that it couples, so equilibrium propagation is local.

    A state is a tuple with one array per layer; inputs are one array. All may have the same leading axes for a batch,
    whose energies are summed.

    Args:
        sizes: numbers of units, from the inputs to the outputs.
        activation: `"hard-sigmoid"` or `"tanh"`.
        key: random key; weights are uniform in $\pm\sqrt{6 / (n_{l-1} + n_l)}$, biases zero.

    Raises:
        ArgumentError: if there are fewer than two sizes, a size is not positive, or the activation is unknown.
        ArgumentTypeError: if the key is not one random key.

    Source: B. Scellier and Y. Bengio, Front. Comput. Neurosci. 11 (2017) 24, eq. 1; J. Hopfield, PNAS 81
    (1984) 3088.

    Example:
        ```python
        net = eg.nn.HopfieldNet([784, 512, 10], key=jax.random.key(0))
        scores = net.rest(jnp.zeros((5, 784)), gradient=eg.EP(eg.Symmetric(0.1))).state[-1]
        ```
    """

    weights: tuple[Float[Array, "below above"], ...]
    biases: tuple[Float[Array, " units"], ...]
    activation: Literal["hard-sigmoid", "tanh"] = eqx.field(static=True)

    def __init__(
        self,
        sizes: Sequence[int],
        activation: Literal["hard-sigmoid", "tanh"] = "hard-sigmoid",
        *,
        key: PRNGKeyArray,
    ) -> None:
        if not isinstance(sizes, Sequence) or isinstance(sizes, str) or len(sizes) < 2:
            raise ArgumentError(
                f"HopfieldNet: sizes={_checks.shown(sizes)}; give the numbers of inputs and of units of every layer."
            )
        sizes = [_checks.integer("HopfieldNet", f"sizes[{i}]", n, what="a size") for i, n in enumerate(sizes)]
        _checks.choice("HopfieldNet", "activation", activation, ("hard-sigmoid", "tanh"))
        _checks.key("HopfieldNet", key)
        pairs = list(itertools.pairwise(sizes))
        limits = [(6 / (below + above)) ** 0.5 for below, above in pairs]
        self.weights = tuple(
            jax.random.uniform(k, pair, minval=-a, maxval=a)
            for k, pair, a in zip(jax.random.split(key, len(pairs)), pairs, limits, strict=True)
        )
        self.biases = tuple(jnp.zeros(n) for n in sizes[1:])
        self.activation = activation

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The bounds of the state, or `None`."""
        return (0.0, 1.0) if self.activation == "hard-sigmoid" else None

    def activity(self, s: Layers) -> Layers:
        """Return ρ(s), layer by layer."""
        return tuple(map(_clipped if self.activation == "hard-sigmoid" else jnp.tanh, s))

    def __call__(self, s: Layers, u: Float[Array, "*batch inputs"]) -> Float[Array, ""]:
        """Return the energy, summed over leading axes."""
        active = self.activity(s)
        total = jnp.zeros((), s[0].dtype)
        for x, below, above, w, b in zip(s, (u, *active[:-1]), active, self.weights, self.biases, strict=True):
            total = total + 0.5 * jnp.sum(x**2) - jnp.sum((below @ w) * above) - jnp.sum(above @ b)
        return total

    def start(self, u: Float[Array, "*batch inputs"]) -> Layers:
        """Return the state in which all units are off."""
        return tuple(jnp.zeros((*u.shape[:-1], b.size), b.dtype) for b in self.biases)

    def rest(
        self,
        u: Float[Array, "*batch inputs"],
        *,
        start: Layers | None = None,
        gradient: AbstractStaticGradient | None = None,
        solver: AbstractRelaxation | None = None,
        throw: bool = True,
    ) -> Equilibrium:
        """Return the equilibrium under inputs `u`; see `equilibrium` for the other arguments and the errors.

        By default all units are off at the start, and hard-sigmoid layers relax by `LayerwiseRelaxation()`, one layer
        after another.
        """
        inputs = self.weights[0].shape[0]
        u = _checks.signed("HopfieldNet", "u", u)
        if jnp.shape(u)[-1:] != (inputs,):
            raise ArgumentError(
                f"HopfieldNet: u={_checks.shown(u)}, and an array with {inputs} inputs on its last axis is needed."
            )
        if solver is None:
            solver = LayerwiseRelaxation() if self.activation == "hard-sigmoid" else Relaxation()
        start = self.start(u) if start is None else start
        return equilibrium(self, start, u, gradient=gradient, solver=solver, bounds=self.bounds, throw=throw)


class HopfieldClassifier(eqx.Module):
    r"""A Hopfield network of clipped units whose outputs at rest are logits of classes.

    $$y = \kappa\, s_L, \quad s = \arg\min_{0 \le s \le 1} E(s, u)$$

    The relaxation stops at tolerance 1e-3 or after 100 sweeps and never raises: a few units that still move do not
    matter for training. For exact gradients call `net.rest`.

    Args:
        sizes: numbers of units, from the inputs to the classes.
        gradient: `EP()` by default. Units at a bound do not respond to an infinitesimal nudge, so learning may stop
            there. For training use `EP(Symmetric(beta))`, with a strength that moves them.
        sharpness: $\kappa$, the logit of a unit that is fully on.
        key: random key.

    Raises:
        ArgumentError: if there are fewer than two sizes, or a number is out of range.
        ArgumentTypeError: if an argument has the wrong type.

    Source: B. Scellier and Y. Bengio, Front. Comput. Neurosci. 11 (2017) 24; A. Laborieux et al., Front. Neurosci. 15
    (2021) 633674, for symmetric nudges and the cross-entropy.

    Example:
        ```python
        model = eg.nn.HopfieldClassifier([784, 512, 10], gradient=eg.EP(eg.Symmetric(0.4)), key=jax.random.key(0))
        logits = model(jnp.zeros((5, 784)))  # (5, 10)
        ```
    """

    net: HopfieldNet
    gradient: AbstractStaticGradient
    sharpness: float = eqx.field(static=True)
    solver: AbstractRelaxation

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        gradient: AbstractStaticGradient | None = None,
        sharpness: float = 5.0,
        key: PRNGKeyArray,
    ) -> None:
        why = "the logit of a unit that is on is positive"
        self.sharpness = _checks.constant("HopfieldClassifier", "sharpness", sharpness, _checks.positive, why)
        self.net = HopfieldNet(sizes, key=key)
        gradient = EP() if gradient is None else gradient
        what = "a gradient of states of rest. Pass EP(nudge), Implicit() or Backprop()"
        self.gradient = _checks.instance("HopfieldClassifier", "gradient", gradient, AbstractStaticGradient, what)
        self.solver = LayerwiseRelaxation(tolerance=1e-3, max_steps=100)

    def __call__(self, u: Float[Array, "*batch inputs"]) -> Float[Array, "*batch classes"]:
        """Return the logits of the classes."""
        found = self.net.rest(u, gradient=self.gradient, solver=self.solver, throw=False)
        return self.sharpness * found.state[-1]
