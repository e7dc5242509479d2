"""The short name of `echograd.workbench.training`: both are one module."""

import sys

from .workbench import training

sys.modules[__name__] = training
