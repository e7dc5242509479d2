"""A report of a run as one HTML page: scores, examples, gradients, memory and time."""

from ._compare import compare as compare
from ._costs import measure as measure
from ._write import write as write
