"""Gradients of whole trajectories, measured like a physicist, exact like backprop."""

from ._guard import check_jaxlib as _check_jaxlib

_check_jaxlib()

from . import nn as nn
from ._check import GradientReport as GradientReport, check_gradients as check_gradients
from ._solve import Trajectory as Trajectory, retrace_error as retrace_error, solve as solve
from .boundary import InitialValue as InitialValue
from .gradients import (
    AllNodes as AllNodes,
    Backprop as Backprop,
    Echo as Echo,
    EveryNode as EveryNode,
    FinalNode as FinalNode,
)
from .integrators import Leapfrog as Leapfrog, VelocityVerlet as VelocityVerlet, Yoshida as Yoshida
from .nudge import Infinitesimal as Infinitesimal, OneSided as OneSided, Symmetric as Symmetric
from .systems import SeparableHamiltonian as SeparableHamiltonian
