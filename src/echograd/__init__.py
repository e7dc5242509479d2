"""Gradients of whole trajectories, measured like a physicist, exact like backprop."""

import importlib as _importlib
from typing import TYPE_CHECKING as _TYPE_CHECKING, Any as _Any

from ._internal._guard import check_jaxlib as _check_jaxlib

_check_jaxlib()

from . import device as device, friction as friction, nn as nn, systems as systems
from ._internal._errors import (
    ArgumentError as ArgumentError,
    ArgumentTypeError as ArgumentTypeError,
    EchogradError as EchogradError,
    RunError as RunError,
    plain_errors as plain_errors,
)
from ._learning import SelfLearningMachine as SelfLearningMachine
from ._observables import energy as energy, velocity as velocity
from ._solutions import solutions as solutions
from ._solve import Trajectory as Trajectory, retrace_error as retrace_error, solve as solve
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
from .friction import Damped as Damped
from .gradients import (
    Backprop as Backprop,
    Echo as Echo,
    Glep as Glep,
    Reciprocal as Reciprocal,
    Rewind as Rewind,
    SameBoundary as SameBoundary,
)
from .integrators import (
    ImplicitMidpoint as ImplicitMidpoint,
    Leapfrog as Leapfrog,
    SplitStep as SplitStep,
    VelocityVerlet as VelocityVerlet,
    Yoshida as Yoshida,
)
from .measure import (
    AuditReport as AuditReport,
    Diagnosis as Diagnosis,
    EquivalenceReport as EquivalenceReport,
    GradientReport as GradientReport,
    NudgeSweep as NudgeSweep,
    audit as audit,
    check_gradients as check_gradients,
    diagnose as diagnose,
    equivalence as equivalence,
    nudge_sweep as nudge_sweep,
)
from .nudge import (
    Holomorphic as Holomorphic,
    Infinitesimal as Infinitesimal,
    Noisy as Noisy,
    OneSided as OneSided,
    Richardson as Richardson,
    Symmetric as Symmetric,
)
from .problem import (
    RESULTS as RESULTS,
    AllNodes as AllNodes,
    AtNodes as AtNodes,
    AtTimes as AtTimes,
    EveryNode as EveryNode,
    FinalNode as FinalNode,
)
from .statics import (
    EP as EP,
    Equilibrium as Equilibrium,
    Implicit as Implicit,
    LayerwiseRelaxation as LayerwiseRelaxation,
    Newton as Newton,
    Relaxation as Relaxation,
    equilibrium as equilibrium,
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
from .two_point import TwoPointNewton as TwoPointNewton

if _TYPE_CHECKING:
    from . import plot as plot, workbench as workbench
    from .workbench import data as data, estimators as estimators, training as training
    from .workbench.estimators import (
        SequenceClassifier as SequenceClassifier,
        SequenceForecaster as SequenceForecaster,
        SequenceRegressor as SequenceRegressor,
    )

# Imported on first use: they need extras, and say which where one is missing.
_LAZY = {name: f".{name}" for name in ("data", "estimators", "plot", "training", "workbench")}
_ESTIMATORS = ("SequenceClassifier", "SequenceForecaster", "SequenceRegressor")


def __getattr__(name: str) -> _Any:
    if name in _LAZY:
        return _importlib.import_module(_LAZY[name], __name__)
    if name in _ESTIMATORS:
        return getattr(_importlib.import_module(".workbench.estimators", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY, *_ESTIMATORS})
