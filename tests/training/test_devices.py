"""More than one device: the same numbers, and checkpoints that either can read. In a process with two CPU devices."""

import pytest

from waves import answers, start

PROGRAM = """
import pathlib, sys, warnings

import jax, numpy as np
from waves import Killed, killed_in_epoch_3, losses, smaller, waves
from echograd.workbench.training import Network, Run, fit

root, data = pathlib.Path(sys.argv[1]), waves()
assert len(jax.local_devices()) == 2
compiled = []
jax.monitoring.register_event_duration_secs_listener(
    lambda name, _, **__: compiled.append(name) if name == "/jax/core/compile/backend_compile_duration" else None
)
config = smaller(precision="float64", network=Network(hidden=4, units=3, blocks=1, norm="batch"))
for devices in (1, 2):
    counts = []
    fit(config, data, out=root / f"{devices}", devices=devices, progress=lambda _: counts.append(len(compiled)))
    assert len(set(counts[4:])) == 1, "recompiled after the first epoch"
try:
    fit(config, data, out=root / "both", devices=2, progress=killed_in_epoch_3)
except Killed:
    pass
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    fit(config, data, out=root / "both", resume=True)
assert any("resumed in another environment" in str(warning.message) for warning in caught)
assert Run.open(root / "2").versions["device"].endswith("2")
np.testing.assert_allclose(losses(root / "2"), losses(root / "1"), rtol=1e-10)
np.testing.assert_allclose(losses(root / "both"), losses(root / "1"), rtol=1e-10)
a, b = (Run.open(root / name, data).predict("test") for name in "12")
np.testing.assert_allclose(a, b, rtol=1e-8)
for devices, batch_size, message in ((3, 9, "has 2"), (2, 7, "evenly")):
    try:
        fit(smaller(batch_size=batch_size), data, out=root / "none", devices=devices)
    except ValueError as error:
        assert message in str(error)
    else:
        raise AssertionError(message)
print("all the same")
"""


@pytest.mark.float64_only  # the precision of this process does not reach the other process
def test_two_devices_give_the_numbers_of_one(tmp_path):
    ((out, err),) = answers(start(PROGRAM, tmp_path, XLA_FLAGS="--xla_force_host_platform_device_count=2"))
    assert out == "all the same\n", err
