"""Gradients of whole trajectories, measured like a physicist, exact like backprop."""

import importlib as _importlib
from types import ModuleType as _ModuleType
from typing import TYPE_CHECKING as _TYPE_CHECKING

from ._guard import check_jaxlib as _check_jaxlib

_check_jaxlib()

from . import device as device, nn as nn, systems as systems
from ._audit import AuditReport as AuditReport, AuditRow as AuditRow, audit as audit
from ._check import GradientReport as GradientReport, check_gradients as check_gradients
from ._diagnose import Diagnosis as Diagnosis, diagnose as diagnose
from ._equilibrium import equilibrium as equilibrium
from ._equivalence import EquivalenceRow as EquivalenceRow, equivalence as equivalence
from ._learning import Lesson as Lesson, SelfLearningMachine as SelfLearningMachine
from ._observables import energy as energy, velocity as velocity
from ._solutions import solutions as solutions
from ._solve import Trajectory as Trajectory, retrace_error as retrace_error, solve as solve
from ._sweep import NudgeSweep as NudgeSweep, nudge_sweep as nudge_sweep
from .boundary import (
    FinalValue as FinalValue,
    FixedEnds as FixedEnds,
    FreeEnds as FreeEnds,
    InitialValue as InitialValue,
    LinearBoundary as LinearBoundary,
    MixedEnds as MixedEnds,
    Periodic as Periodic,
    Robin as Robin,
    defect as defect,
    dual as dual,
)
from .gradients import (
    EP as EP,
    AllNodes as AllNodes,
    Backprop as Backprop,
    Echo as Echo,
    EveryNode as EveryNode,
    FinalNode as FinalNode,
    Glep as Glep,
    Implicit as Implicit,
    Reciprocal as Reciprocal,
    SameBoundary as SameBoundary,
    TwoPointNewton as TwoPointNewton,
)
from .integrators import (
    ImplicitMidpoint as ImplicitMidpoint,
    Leapfrog as Leapfrog,
    SplitStep as SplitStep,
    VelocityVerlet as VelocityVerlet,
    Yoshida as Yoshida,
)
from .nudge import (
    Holomorphic as Holomorphic,
    Infinitesimal as Infinitesimal,
    Noisy as Noisy,
    OneSided as OneSided,
    Richardson as Richardson,
    Symmetric as Symmetric,
)
from .relaxation import (
    Equilibrium as Equilibrium,
    LayerwiseRelaxation as LayerwiseRelaxation,
    Newton as Newton,
    Relaxation as Relaxation,
)
from .systems import (
    Dissipative as Dissipative,
    Envelope as Envelope,
    Hamiltonian as Hamiltonian,
    Lagrangian as Lagrangian,
    LinearDamped as LinearDamped,
    MassDamped as MassDamped,
    MovingParameters as MovingParameters,
    SeparableHamiltonian as SeparableHamiltonian,
    SplitHamiltonian as SplitHamiltonian,
    canonical as canonical,
    legendre as legendre,
    wave as wave,
)

if _TYPE_CHECKING:
    from . import bench as bench, data as data, plot as plot, report as report, training as training

# Imported on first use: they need extras, and say which where one is missing.
_LAZY = frozenset({"bench", "data", "plot", "report", "training"})


def __getattr__(name: str) -> _ModuleType:
    if name in _LAZY:
        return _importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
