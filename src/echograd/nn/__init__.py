"""Hamiltonian sequence models: recurrent units whose gradient is an echo, and stacks of them."""

from ._hopfield import HopfieldClassifier as HopfieldClassifier, HopfieldNet as HopfieldNet
from ._hssm import HSSM as HSSM
from ._norm import BatchNorm as BatchNorm, LayerNorm as LayerNorm
from ._resistive import ResistiveNet as ResistiveNet
from ._units import DampedHRU as DampedHRU, LinearHRU as LinearHRU, NonlinearHRU as NonlinearHRU
