"""One HTML page that says what a run learned, how well, and how its gradients came about."""

from ._write import write as write
