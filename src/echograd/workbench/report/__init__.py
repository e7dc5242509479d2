"""A report of a run as one HTML page: scores, examples, gradients, memory and time."""

from ._measure import measure as measure
from ._write import write as write
