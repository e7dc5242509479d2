"""The bodies of loops over time, rearranged so that the compiler of a CPU makes fast code of them."""

from ._summed import summed as summed
