"""Boundary conditions as values, and the algebra of their duals."""

from ._base import AbstractBoundary as AbstractBoundary, End as End
from ._duality import (
    defect as defect,
    dual as dual,
    dual_rows as dual_rows,
    omega as omega,
)
from ._ends import (
    FixedEnds as FixedEnds,
    FreeEnds as FreeEnds,
    LinearBoundary as LinearBoundary,
    MixedEnds as MixedEnds,
    Periodic as Periodic,
    Robin as Robin,
)
from ._states import (
    AbstractStateValue as AbstractStateValue,
    FinalValue as FinalValue,
    InitialValue as InitialValue,
)
