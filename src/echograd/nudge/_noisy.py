"""Readings through a noisy instrument."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import PRNGKeyArray, PyTree

from .._internal import _checks, _tree
from .._internal._errors import ArgumentTypeError
from ._base import AbstractNudge, Pushed, Scalar
from ._finite import AbstractFiniteNudge, balanced_strength


def _deviation(scale: Any) -> Any:
    """Return the standard deviation, a Python float or an array."""
    why = "the standard deviation of the noise must be zero or positive, and finite"
    return _checks.number("Noisy", "scale", scale, _checks.not_negative, why, at_run_time=True)


class Noisy(AbstractNudge):
    r"""A finite nudge whose readings see every state through additive Gaussian noise.

    The echo itself runs without noise. The *reading* of every member at every step is $r(z + \sigma \xi)$, with
    independent $\xi \sim \mathcal N(0, 1)$ per coordinate and momentum; the final state is read likewise. The
    difference of readings is divided by $\beta$, so the error from noise falls as $\sigma/\beta$ while truncation grows
    as a power of $\beta$. `nudge_sweep` shows both.

    Args:
        nudge: the finite nudge that is read; with `beta="auto"` its strength is balanced against this noise.
        scale: standard deviation $\sigma$ of the noise, in the units of the state.
        key: random key. The same key gives the same noise.
        quiet: omit the noise but keep the automatic strength chosen for it.

    Raises:
        ArgumentTypeError: for a nudge that is not finite: infinitesimal readings would have infinite variance.
        ArgumentError: if the scale is negative or not finite.

    Example:
        ```python
        eg.Echo(eg.Noisy(eg.Symmetric(0.1), 1e-3, jax.random.key(0)))
        ```
    """

    nudge: AbstractFiniteNudge
    scale: Any = eqx.field(converter=_deviation)
    key: PRNGKeyArray
    quiet: bool = eqx.field(
        static=True, default=False, kw_only=True, converter=_checks.converter(_checks.flag, "Noisy", "quiet")
    )

    def __check_init__(self) -> None:
        if not isinstance(self.nudge, AbstractFiniteNudge):
            raise ArgumentTypeError(
                f"Noisy(nudge={self.nudge!r}): only a finite nudge can be read with noise, such as Symmetric(beta); "
                "the variance of an infinitesimal difference of noisy readings is infinite."
            )
        _checks.key("Noisy", self.key)

    def strength(self, z: PyTree, load: Scalar, steps: int) -> Scalar:
        if not isinstance(self.nudge.beta, str):
            return self.nudge.strength(z, load, steps)
        size, count = _tree.norm(z), sum(x.size for x in jax.tree.leaves(z))
        rounding = _tree.rounding(z) * max(steps, 1) ** 0.5
        noise = jnp.asarray(self.scale, size.dtype) * count**0.5 / jnp.where(size > 0, size, 1)
        return balanced_strength(z, load, jnp.maximum(noise, rounding), self.nudge.power)

    def start(self, z: PyTree) -> PyTree:
        return self.nudge.start(z), self.key

    def advance(self, beta: Scalar, pushed: Pushed, ensemble: PyTree) -> tuple[PyTree, PyTree]:
        members, key = ensemble
        key, now = jax.random.split(key)
        after, _ = self.nudge.advance(beta, pushed, members)
        _, reading = self.nudge.advance(beta, pushed, self._with_noise(members, now))
        return (after, key), reading

    def response(self, beta: Scalar, ensemble: PyTree) -> PyTree:
        members, key = ensemble
        return self.nudge.response(beta, self._with_noise(members, key))

    def retraced(self, ensemble: PyTree) -> tuple[PyTree, PyTree]:
        return self.nudge.retraced(ensemble[0])

    def check(self, x: Any, beta: Scalar, ensemble: PyTree, load: Scalar, steps: int, sizes: PyTree = None) -> Any:
        return self.nudge.check(x, beta, ensemble[0], load, steps, sizes)

    def _with_noise(self, members: PyTree, key: PRNGKeyArray) -> PyTree:
        if self.quiet:
            return members
        leaves, treedef = jax.tree.flatten(members)
        seen = [
            x + jnp.asarray(self.scale, x.dtype) * jax.random.normal(jax.random.fold_in(key, i), x.shape, x.dtype)
            for i, x in enumerate(leaves)
        ]
        return jax.tree.unflatten(treedef, seen)
