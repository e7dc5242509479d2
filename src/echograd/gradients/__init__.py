"""Gradients: what differentiating a trajectory means."""

from ._backprop import Backprop as Backprop
from ._base import (
    AbstractGradient as AbstractGradient,
    AbstractNudgedGradient as AbstractNudgedGradient,
)
from ._echo import Echo as Echo
from ._glep import Glep as Glep
from ._nudged import nudged_run as nudged_run
from ._reciprocal import Reciprocal as Reciprocal
from ._rewind import Rewind as Rewind
from ._same_boundary import SameBoundary as SameBoundary
