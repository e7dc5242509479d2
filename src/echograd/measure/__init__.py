"""Measuring instruments: how exact a gradient is, what it costs, and which one suits a system."""

from ._audit import AuditReport as AuditReport, audit as audit
from ._check import GradientReport as GradientReport, check_gradients as check_gradients
from ._diagnose import diagnose as diagnose
from ._diagnosis import Diagnosis as Diagnosis
from ._equivalence import EquivalenceReport as EquivalenceReport, equivalence as equivalence
from ._sweep import NudgeSweep as NudgeSweep, nudge_sweep as nudge_sweep
