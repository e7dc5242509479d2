"""Boundary conditions as values, and the algebra of their duals."""

from ._base import AbstractBoundary as AbstractBoundary, End as End
from ._duality import (
    defect as defect,
    dual as dual,
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
    FinalValue as FinalValue,
    InitialValue as InitialValue,
)
