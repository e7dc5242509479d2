"""One HTML page that says what a run learned, how well, and how its gradients came about."""

from ._measure import measure as measure
from ._write import write as write
