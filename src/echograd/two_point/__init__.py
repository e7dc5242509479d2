"""Two-point problems: paths whose boundary condition involves both ends, found by Newton's method."""

from ._newton import Convergence as Convergence, TwoPointNewton as TwoPointNewton
from ._problem import Condition as Condition, TwoPoint as TwoPoint
