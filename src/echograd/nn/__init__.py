"""Hamiltonian sequence models: recurrent units whose gradient is an echo, and stacks of them."""

from ._damped import DampedHRU as DampedHRU
from ._hopfield import HopfieldClassifier as HopfieldClassifier, HopfieldNet as HopfieldNet
from ._hssm import HSSM as HSSM
from ._hssm_block import HSSMBlock as HSSMBlock
from ._norm import BatchNorm as BatchNorm, LayerNorm as LayerNorm
from ._oscillators import (
    AbstractBank as AbstractBank,
    AbstractOscillators as AbstractOscillators,
    DampedOscillators as DampedOscillators,
    LinearOscillators as LinearOscillators,
    NonlinearOscillators as NonlinearOscillators,
    log_cosh as log_cosh,
)
from ._resistive import ResistiveNet as ResistiveNet
from ._units import AbstractHRU as AbstractHRU, LinearHRU as LinearHRU, NonlinearHRU as NonlinearHRU
