"""Two-point problems: paths whose boundary condition involves both ends, found by Newton's method."""

from ._newton import TwoPointNewton as TwoPointNewton
