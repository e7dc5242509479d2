"""Two-point problems: paths whose boundary condition involves both ends, found by Newton's method."""

from ._two_point import (
    Condition as Condition,
    Convergence as Convergence,
    TwoPoint as TwoPoint,
    TwoPointNewton as TwoPointNewton,
)
