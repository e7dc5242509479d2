"""Friction: what takes energy out of a system, and the system that has it."""

from ._border import Border as Border
from ._damped import Damped as Damped
from ._drag import Drag as Drag
from ._matrix import FrictionMatrix as FrictionMatrix
from ._moves import (
    AbstractAction as AbstractAction,
    AbstractFriction as AbstractFriction,
    Decrease as Decrease,
    Instant as Instant,
    Scaling as Scaling,
    Shear as Shear,
)
from ._thermostats import Langevin as Langevin, NoseHoover as NoseHoover
