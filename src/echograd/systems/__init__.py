"""Systems: Hamiltonians to derive from."""

from ._base import AbstractHamiltonian as AbstractHamiltonian, SeparableHamiltonian as SeparableHamiltonian
