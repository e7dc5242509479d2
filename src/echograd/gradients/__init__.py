"""Gradients: what differentiating a trajectory means."""

from ._backprop import Backprop as Backprop, checkpointed_scan as checkpointed_scan
from ._base import (
    AbstractGradient as AbstractGradient,
    AbstractNudgedGradient as AbstractNudgedGradient,
    AbstractPathGradient as AbstractPathGradient,
    constant as constant,
    is_holomorphic as is_holomorphic,
)
from ._echo import (
    Echo as Echo,
    mixed_input as mixed_input,
    readings_are_even as readings_are_even,
    retrace_error as retrace_error,
    retraces as retraces,
    reversible as reversible,
    surely_even as surely_even,
    tolerance_for as tolerance_for,
)
from ._glep import Glep as Glep
from ._nudged import nudged_run as nudged_run
from ._problem import Outcome as Outcome, Problem as Problem
from ._reciprocal import (
    Reciprocal as Reciprocal,
    Reciprocity as Reciprocity,
    dense as dense,
    reciprocal_tolerance as reciprocal_tolerance,
    reciprocity as reciprocity,
    twist_of as twist_of,
)
from ._same_boundary import SameBoundary as SameBoundary
from ._save import (
    AbstractSave as AbstractSave,
    AllNodes as AllNodes,
    EveryNode as EveryNode,
    FinalNode as FinalNode,
    SaveFunction as SaveFunction,
)
from ._static import EP as EP, AbstractStaticGradient as AbstractStaticGradient, Implicit as Implicit
from ._two_point import (
    Condition as Condition,
    Convergence as Convergence,
    TwoPoint as TwoPoint,
    TwoPointNewton as TwoPointNewton,
    two_point as two_point,
)
