"""The short name of `echograd.workbench.data`: both are one module."""

import sys

from .workbench import data

sys.modules[__name__] = data
