"""An absorbing border of a field on a grid: friction that acts on strips along its sides."""

import itertools
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array, Float, PyTree

from .._internal import _checks
from .._internal._errors import ArgumentError
from ..systems import SeparableHamiltonian
from ..systems._parameter import converted
from ._moves import AbstractAction, AbstractFriction, Instant, Move, Scaling

Strip = tuple[tuple[int, int], ...]


class Border(AbstractFriction):
    r"""Friction in strips along the sides of a field: waves that enter a strip lose their energy.

    $$\dot p = -\frac{\partial V}{\partial q} - \gamma p, \qquad \gamma = \sum_{\rm sides} \gamma_d$$

    in the $d$-th cell of a strip, counted from its inner edge, and $\gamma = 0$ elsewhere. A wave of speed $c$ that
    enters at a right angle and returns from the outer edge has lost $\sum_d \gamma_d\, a / c$ nepers at a spacing $a$.
    Rates that rise too fast reflect. Steps and `Rewind` compute friction, and keep its bits, in the strips only.

    Args:
        rates: $\gamma_d$ from the inner to the outer edge, 1/time, shape (cells,). Trainable.
        sides: pairs `(axis, end)` of the sides that absorb, with the end 0 (first cells) or 1 (last cells); by default
            all sides.

    Raises:
        ArgumentError: if a rate is negative, if a side is not such a pair, or (when it is solved) if the strips do not
            fit into the field.

    Source: C. Cerjan, D. Kosloff, R. Kosloff, M. Reshef, Geophysics 50 (1985) 705.

    Example:
        ```python
        pond = eg.systems.WaveField(speed=jnp.ones((64, 64)))
        rates = 0.3 * jnp.linspace(0.0, 1.0, 12) ** 2
        damped = eg.Damped(pond, eg.friction.Border(rates))
        sol = eg.solve(damped, eg.InitialValue(*pond.start()), dt=0.5, steps=100)
        ```
    """

    rates: Float[Array, " cells"]
    sides: tuple[tuple[int, int], ...] | None = eqx.field(static=True)

    def __init__(self, rates: Any, sides: Any = None) -> None:
        self.rates = _checks.signed("Border", "rates", converted(rates), "not negative")
        if self.rates.ndim != 1 or not self.rates.size:
            raise ArgumentError(
                f"Border: rates has shape {self.rates.shape}; give one number per cell, shape (cells,)."
            )
        if sides is not None:
            if not isinstance(sides, tuple | list):
                raise ArgumentError(f"Border: sides={_checks.shown(sides)} is not a list of pairs (axis, end).")
            sides = tuple(_side(i, side) for i, side in enumerate(sides))
            if len(set(sides)) < len(sides) or not sides:
                raise ArgumentError(f"Border: sides={sides}; list every side that absorbs once.")
        self.sides = sides

    @classmethod
    def quadratic(cls, cells: int, speed: Any, spacing: Any, sides: Any = None, nepers: Any = 6.5) -> "Border":
        r"""Return a border whose rates rise with the square of the depth, $\gamma_d \propto (d - 1/2)^2$.

        The default loss was found by measurement: 20 cells reflect less than -50 dB of a wave at normal incidence if
        they hold two wavelengths or more (5 to 10 cells per wavelength). Longer waves reflect more: -45 dB at 15 cells
        per wavelength, -32 dB at 20.

        Args:
            cells: width of the border.
            speed: of the waves, length/time; the largest one, where it varies.
            spacing: of the cells, a length.
            sides: as for `Border`.
            nepers: loss of a wave that enters at a right angle and comes back.
        """
        cells = _checks.integer("Border.quadratic", "cells", cells, what="the width of the border")
        numbers = [("speed", speed), ("spacing", spacing), ("nepers", nepers)]
        why = "it must be positive"
        c, a, loss = (_checks.constant("Border.quadratic", n, x, _checks.positive, why) for n, x in numbers)
        shape = (jnp.arange(cells, dtype=float) + 0.5) ** 2
        return cls(loss * c / a * shape / jnp.sum(shape), sides)

    def over_one_step(self, system: SeparableHamiltonian, h: Float[Array, ""], p: PyTree) -> "BorderOverStep":
        if not eqx.is_array(p) or not p.ndim:
            raise ArgumentError(
                f"Border: the momenta are {_checks.shown(p)}, and it acts on a field: one array with an axis for each "
                "direction. Give Damped rates of your own for other states."
            )
        cells = self.rates.size
        sides = self.sides or tuple(itertools.product(range(p.ndim), (0, 1)))
        for axis, end in sides:
            room = p.shape[axis] // (2 if (axis, 1 - end) in sides else 1) if axis < p.ndim else 0
            if cells > room:
                raise ArgumentError(
                    f"Border: {cells} cells on side {(axis, end)} do not fit into a field of shape {p.shape}. Give "
                    "fewer rates, or a larger field."
                )
        strips = strips_of(p.shape, cells, sides)
        lost = [-jnp.expm1(-rate * h.astype(p.dtype)) for rate in self._in_strips(p, sides, strips)]
        return BorderOverStep(strips, lost)

    def _in_strips(self, p: Array, sides: Any, strips: tuple[Strip, ...]) -> list[Array]:
        rates = self.rates.astype(p.dtype)
        along = []
        for axis, n in enumerate(p.shape):
            rate = jnp.zeros(n, p.dtype)
            rate = rate.at[: rates.size].add(rates[::-1]) if (axis, 0) in sides else rate
            rate = rate.at[n - rates.size :].add(rates) if (axis, 1) in sides else rate
            along.append(rate)
        found = []
        for strip in strips:
            parts = [
                rate[start:stop].reshape([-1 if i == axis else 1 for i in range(p.ndim)])
                for axis, (rate, (start, stop)) in enumerate(zip(along, strip, strict=True))
            ]
            shape = [stop - start for start, stop in strip]
            found.append(jnp.broadcast_to(sum(parts[1:], parts[0]), shape))
        return found


class BorderOverStep(AbstractAction):
    """What a border does in one step.

    Attributes:
        strips: disjoint parts of the field, with a start and a stop for every axis.
        lost: the part of the momenta that friction takes, for every strip.
    """

    strips: tuple[Strip, ...] = eqx.field(static=True)
    lost: list[Array]

    def cut(self, p: PyTree) -> list[Array]:
        return [p[_slices(strip)] for strip in self.strips]

    def pasted(self, p: PyTree, part: list[Array]) -> PyTree:
        for strip, x in zip(self.strips, part, strict=True):
            p = p.at[_slices(strip)].set(x)
        return p

    def moves(self, now: Instant) -> tuple[Move, ...]:
        return (Scaling(lambda _: self.lost),)

    def strongest(self) -> Float[Array, ""]:
        return jnp.max(jnp.stack([jnp.max(x).astype(float) for x in self.lost]))


def strips_of(shape: tuple[int, ...], cells: int, sides: tuple[tuple[int, int], ...]) -> tuple[Strip, ...]:
    """Return disjoint strips that cover the cells at the sides."""
    inner, strips = [(0, n) for n in shape], []
    for axis, n in enumerate(shape):
        start, stop = (cells if (axis, 0) in sides else 0), (n - cells if (axis, 1) in sides else n)
        for low, high in ((0, start), (stop, n)):
            if low < high:
                strips.append(tuple((low, high) if i == axis else x for i, x in enumerate(inner)))
        inner[axis] = (start, stop)
    return tuple(strip for strip in strips if all(a < b for a, b in strip))


def _slices(strip: Strip) -> tuple[slice, ...]:
    return tuple(slice(*bounds) for bounds in strip)


def _side(i: int, side: Any) -> tuple[int, int]:
    if isinstance(side, Tracer) or not isinstance(side, tuple | list) or len(side) != 2:
        raise ArgumentError(f"Border: sides[{i}]={_checks.shown(side)} is not a pair (axis, end), such as (0, 1).")
    axis = _checks.integer("Border", f"sides[{i}][0]", side[0], 0, what="an axis of the field")
    return axis, _checks.integer("Border", f"sides[{i}][1]", side[1], 0, 1, "the end of an axis")
