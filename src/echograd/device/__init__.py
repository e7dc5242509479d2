"""Black-box machines, which can be set, prepared, driven, kicked, reversed and read, but not differentiated.

`run` still gives their gradients, by echoes on the machine itself.
"""

from ._hosted import Hosted as Hosted
from ._imperfections import (
    AbstractImperfection as AbstractImperfection,
    Drift as Drift,
    ForceNoise as ForceNoise,
    Friction as Friction,
    ImperfectMirror as ImperfectMirror,
    Mismatch as Mismatch,
    Quantisation as Quantisation,
    ReadoutNoise as ReadoutNoise,
    RunId as RunId,
)
from ._machine import AbstractMachine as AbstractMachine, Order as Order, Record as Record
from ._run import retrace_error as retrace_error, run as run
from ._simulated import Simulated as Simulated
from ._survey import Survey as Survey, survey as survey
