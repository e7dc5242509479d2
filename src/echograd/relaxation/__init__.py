"""Relaxation: ways of finding the state where an energy is stationary."""

from ._base import AbstractRelaxation as AbstractRelaxation, rest as rest, resting as resting
from ._follow import LayerwiseRelaxation as LayerwiseRelaxation, Relaxation as Relaxation
from ._landscape import (
    Equilibrium as Equilibrium,
    Landscape as Landscape,
    only as only,
    symmetric as symmetric,
)
from ._newton import Newton as Newton
