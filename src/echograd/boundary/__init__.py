"""Boundary conditions as values."""

from ._base import AbstractBoundary as AbstractBoundary
from ._initial import InitialValue as InitialValue
