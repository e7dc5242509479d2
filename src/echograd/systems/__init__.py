"""Systems: base classes of Hamiltonians and Lagrangians, and ready-made systems."""

from ._acoustic import AcousticField as AcousticField
from ._base import (
    AbstractSystem as AbstractSystem,
    Hamiltonian as Hamiltonian,
    Lagrangian as Lagrangian,
    SeparableHamiltonian as SeparableHamiltonian,
)
from ._charge import ChargedParticle as ChargedParticle
from ._circuits import LCLadder as LCLadder
from ._dissipative import Dissipative as Dissipative, LinearDamped as LinearDamped
from ._fields import SineGordon as SineGordon, WaveField as WaveField
from ._fput import FPUTChain as FPUTChain
from ._gravity import Kepler as Kepler, NBody as NBody
from ._legendre import (
    legendre as legendre,
)
from ._mass_damped import Envelope as Envelope, MassDamped as MassDamped
from ._moving import MovingParameters as MovingParameters
from ._networks import DuffingNetwork as DuffingNetwork, OscillatorNetwork as OscillatorNetwork
from ._pendulums import (
    DoublePendulum as DoublePendulum,
    PendulumChain as PendulumChain,
    SphericalPendulum as SphericalPendulum,
)
from ._split import (
    AbstractPart as AbstractPart,
    Dispersion as Dispersion,
    Drive as Drive,
    Hopping as Hopping,
    Intensities as Intensities,
    Kinetic as Kinetic,
    Potential as Potential,
    SplitHamiltonian as SplitHamiltonian,
)
from ._waves import (
    KerrLattice as KerrLattice,
    NonlinearSchroedinger as NonlinearSchroedinger,
    canonical as canonical,
    wave as wave,
)
