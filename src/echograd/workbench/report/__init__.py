"""A report of a run as one HTML page: scores, hard cases, oscillators, gradients, costs. Or a page of several runs."""

# Without matplotlib, this import raises first and names the extra that is missing.
from echograd import plot as _plot  # noqa: F401

from ._compare import compare as compare
from ._costs import measure as measure
from ._write import write as write
