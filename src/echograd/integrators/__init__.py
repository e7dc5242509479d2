"""Self-adjoint (palindromic) integrators: the step maps that an echo can retrace."""

from ._base import (
    AbstractIntegrator as AbstractIntegrator,
    State as State,
    StepInputs as StepInputs,
)
from ._midpoint import ImplicitMidpoint as ImplicitMidpoint
from ._palindrome import palindrome as palindrome
from ._schemes import Leapfrog as Leapfrog, VelocityVerlet as VelocityVerlet, Yoshida as Yoshida
from ._split_step import SplitStep as SplitStep
from ._splitting import AbstractSplitting as AbstractSplitting
