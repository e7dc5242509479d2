"""All rows of the suite."""

from . import _boundary, _growth, _sequence, _simulation, _unit
from ._case import Row

ROWS: dict[str, Row] = {
    row.name: row for row in (_simulation.ROW, _sequence.ROW, _unit.ROW, _boundary.ROW, _growth.ROW)
}
