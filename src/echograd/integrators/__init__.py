"""Self-adjoint (palindromic) integrators: the step maps that an echo can retrace."""

from ._base import (
    AbstractIntegrator as AbstractIntegrator,
    Direction as Direction,
    State as State,
    StepInputs as StepInputs,
    sign as sign,
    time_reversed as time_reversed,
)
from ._midpoint import ImplicitMidpoint as ImplicitMidpoint
from ._palindrome import Substep as Substep, palindrome as palindrome
from ._schemes import Leapfrog as Leapfrog, VelocityVerlet as VelocityVerlet, Yoshida as Yoshida
from ._split_step import SplitStep as SplitStep
from ._splitting import AbstractSplitting as AbstractSplitting
