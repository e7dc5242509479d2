"""Self-adjoint (palindromic) integrators: the step maps that an echo can retrace."""

from ._base import AbstractIntegrator as AbstractIntegrator, State as State, World as World
from ._schemes import Leapfrog as Leapfrog, VelocityVerlet as VelocityVerlet, Yoshida as Yoshida
from ._splitting import AbstractSplitting as AbstractSplitting
