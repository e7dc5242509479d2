"""The short name of `echograd.workbench.estimators`: both are one module."""

import sys

from .workbench import estimators

sys.modules[__name__] = estimators
