"""Problems: what is posed when a system is run from a boundary condition, and which nodes are kept."""

from ._problem import Outcome as Outcome, Problem as Problem
from ._results import RESULTS as RESULTS
from ._save import (
    AllNodes as AllNodes,
    AtNodes as AtNodes,
    AtTimes as AtTimes,
    EveryNode as EveryNode,
    FinalNode as FinalNode,
)
