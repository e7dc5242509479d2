"""Nudges: the ways of taking d/dβ of an echo."""

from ._base import AbstractNudge as AbstractNudge
from ._finite import AbstractFiniteNudge as AbstractFiniteNudge, OneSided as OneSided, Symmetric as Symmetric
from ._infinitesimal import Infinitesimal as Infinitesimal
