"""Statics: states of rest, the ways of relaxing to them, and their gradients."""

from ._base import AbstractRelaxation as AbstractRelaxation
from ._descent import LayerwiseRelaxation as LayerwiseRelaxation, Relaxation as Relaxation
from ._equilibrium import equilibrium as equilibrium
from ._gradients import EP as EP, AbstractStaticGradient as AbstractStaticGradient, Implicit as Implicit
from ._newton import Newton as Newton
from ._static_problem import Equilibrium as Equilibrium
