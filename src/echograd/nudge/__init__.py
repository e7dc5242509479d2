"""Nudges: ways of taking d/dβ of an echo."""

from ._base import AbstractNudge as AbstractNudge
from ._finite import (
    AbstractFiniteNudge as AbstractFiniteNudge,
    OneSided as OneSided,
    Richardson as Richardson,
    Symmetric as Symmetric,
)
from ._holomorphic import Holomorphic as Holomorphic
from ._infinitesimal import Infinitesimal as Infinitesimal
from ._noisy import Noisy as Noisy
