"""Friction in proportion to the momentum: constant rates, and rates that depend on time, coordinates and inputs."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from .._internal import _checks, _tree
from .._internal._errors import ArgumentError
from ..systems import SeparableHamiltonian
from ._moves import AbstractAction, AbstractFriction, Instant, Move, Scaling, Shear


class ConstantRates(AbstractFriction):
    r"""The friction $\dot p = -\gamma p$ with constant rates."""

    rate: PyTree

    def over_one_step(self, system: SeparableHamiltonian, h: Float[Array, ""], p: PyTree) -> "Loss":
        return Loss(lost(self.rate, h, p))


class VaryingRates(AbstractFriction):
    r"""The friction $\dot p = -\gamma(t, q, u)\, p$."""

    rates: Callable[[Any, PyTree, Any], PyTree]

    def over_one_step(self, system: SeparableHamiltonian, h: Float[Array, ""], p: PyTree) -> "VaryingLoss":
        return VaryingLoss(self.rates)


class Loss(AbstractAction):
    r"""The factor $1 - \varepsilon$ on every momentum, then a kick by the same random numbers in every run.

    Attributes:
        lost: $\varepsilon$, in the tree of the momenta, with `None` for those without friction.
        noise: standard deviations of the kicks, likewise, or `None`.
        key: of the kicks.
    """

    lost: PyTree
    noise: PyTree = None
    key: Any = None

    def moves(self, now: Instant) -> tuple[Move, ...]:
        scaling = Scaling(lambda p: self.lost)
        return (scaling,) if self.noise is None else (scaling, Shear(lambda p: self._kick(now)))

    def strongest(self) -> Float[Array, ""]:
        return jnp.max(jnp.stack([jnp.max(x).astype(float) for x in jax.tree.leaves(self.lost)]))

    def _kick(self, now: Instant) -> PyTree:
        leaves, structure = jax.tree.flatten(self.noise)
        keys = jax.random.split(jax.random.fold_in(self.key, now.k), len(leaves))

        def draw(data: Array) -> list[Array]:
            keys = jax.random.wrap_key_data(data, impl=jax.random.key_impl(self.key))
            return [jax.random.normal(key, x.shape, x.dtype) for key, x in zip(keys, leaves, strict=True)]

        draws = _tree.isolated(draw, jax.random.key_data(keys))
        return jax.tree.unflatten(structure, [x * draw for x, draw in zip(leaves, draws, strict=True)])


class VaryingLoss(AbstractAction):
    """The factors of rates that are evaluated at every step."""

    rates: Callable[[Any, PyTree, Any], PyTree]

    def moves(self, now: Instant) -> tuple[Move, ...]:
        def found(p: PyTree) -> PyTree:
            return _tree.isolated(lambda t, q, u: lost(self.rates(t, q, u), now.h, p), now.t, now.q, now.u)

        return (Scaling(found),)


def rates_of(owner: str, name: str, rate: PyTree) -> PyTree:
    """Return rates as arrays, with `None` for momenta without friction."""
    rate = _checks.array(owner, name, rate)
    if not jax.tree.leaves(rate):
        raise ArgumentError(f"{owner}: {name}={_checks.shown(rate)} holds no rate. Pass a number, for example.")
    return rate


def lost(rate: PyTree, h: Float[Array, ""], p: PyTree) -> PyTree:
    r"""Return $1 - e^{-\gamma h}$ for every momentum, with `None` for those without friction."""

    def part(rate: Any, x: Array) -> Array:
        return -jnp.expm1(-jnp.asarray(rate, x.dtype) * h.astype(x.dtype))

    return jax.tree.map(lambda x, r: None if r is None else part(r, x), p, per_momentum("Damped", rate, p))


def per_momentum(owner: str, rate: PyTree, p: PyTree) -> PyTree:
    """Return one rate for every leaf of the momenta, or raise."""
    leaves, structure = jax.tree.flatten(p)
    if eqx.is_array_like(rate) and jnp.shape(rate) == ():
        return jax.tree.unflatten(structure, [rate] * len(leaves))
    try:
        rates = structure.flatten_up_to(rate)
        sound = all(r is None or jnp.shape(r) in ((), x.shape) for r, x in zip(rates, leaves, strict=True))
    except (ValueError, TypeError):
        rates, sound = [], False
    if not sound:
        raise ArgumentError(
            f"{owner}: the rates are {_checks.shown(rate)} and the momenta {_checks.shown(p)}. Give one number, or a "
            "tree like the momenta with a number, an array of their shape or None (no friction) for each of its arrays."
        )
    return jax.tree.unflatten(structure, rates)
