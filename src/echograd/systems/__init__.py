"""Systems: Hamiltonians and Lagrangians to derive from."""

from ._base import (
    AbstractSystem as AbstractSystem,
    Hamiltonian as Hamiltonian,
    Lagrangian as Lagrangian,
    SeparableHamiltonian as SeparableHamiltonian,
)
from ._legendre import (
    LegendreHamiltonian as LegendreHamiltonian,
    LegendreLagrangian as LegendreLagrangian,
    legendre as legendre,
)
