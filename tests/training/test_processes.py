"""Several processes on one machine: the numbers of one device, one writer, and checkpoints that either can read."""

import socket

import jax
import numpy as np
import pytest

import echograd as eg
from echograd.workbench.training import Network, Run, fit, join
from waves import Killed, answers, killed_in_epoch_3, losses, smaller, start, waves

# How the gradient comes about makes no difference here; backprop compiles fastest.
CONFIG = smaller(precision="float64", gradient="backprop", network=Network(hidden=4, units=3, blocks=1, norm="batch"))

PROGRAM = """
import pathlib, sys

import jax, numpy as np
from echograd.workbench.training import Run, _files, fit, join
from waves import Killed, killed_in_epoch_3, waves
from test_processes import CONFIG

root, port, process = pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
join(f"127.0.0.1:{port}", 2, process)
assert jax.process_count() == 2 and len(jax.local_devices()) == 1
if process:
    def refuse(*_):
        raise AssertionError("only process 0 writes")
    _files.write_atomically = refuse
    from echograd.workbench.training import _fit, _trainer
    _fit.write_json = _fit.keep_lines = _trainer.write_json = _trainer.append_line = refuse
data = waves()
run = fit(CONFIG, data, out=root / "two")
try:
    fit(CONFIG, data, out=root / "two")
except (FileExistsError, RuntimeError) as error:
    assert ("not overwritten" if process == 0 else "Process 0") in str(error), error
else:
    raise AssertionError("overwritten")
try:
    fit(CONFIG, data, out=root / "killed", progress=killed_in_epoch_3)
except Killed:
    pass
try:
    fit(CONFIG.__class__(**{**vars(CONFIG), "batch_size": 7}), data, out=root / "none")
except ValueError as error:
    assert "2 processes" in str(error)
else:
    raise AssertionError("shared unevenly")
fit(CONFIG, data, out=root / "one", resume=True)
print("well")
"""


@pytest.fixture
def quickly_compiled():
    """Compile with the least effort, as the other processes do."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.mark.float64_only
@pytest.mark.usefixtures("quickly_compiled")
@pytest.mark.filterwarnings("ignore:.*resumed in another environment")
def test_two_processes_give_the_numbers_of_one_device(tmp_path):
    data = waves()
    fit(CONFIG, data, out=tmp_path / "alone")
    with pytest.raises(Killed):
        fit(CONFIG, data, out=tmp_path / "one", progress=killed_in_epoch_3)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for out, err in answers(*(start(PROGRAM, tmp_path, port, i) for i in range(2))):
        assert out.endswith("well\n"), err
    # What two began, one can end; what one began, two have ended.
    fit(CONFIG, data, out=tmp_path / "killed", resume=True)
    assert Run.open(tmp_path / "two").versions["device"].endswith("× 2")
    # The order of the sums over a batch is what differs.
    for name in ("two", "killed", "one"):
        np.testing.assert_allclose(losses(tmp_path / name), losses(tmp_path / "alone"), rtol=1e-10)
    a, b = (Run.open(tmp_path / name, data).predict("test") for name in ("two", "alone"))
    np.testing.assert_allclose(a, b, rtol=1e-8)


@pytest.mark.precision_free
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("127.0.0.1:1", None, None), "--processes"),
        (("127.0.0.1:1", 2, 2), "from 0 to that number minus 1"),
        (("nowhere", 2, 0), "host:port"),
        (("auto", 2, None), "Leave out --processes"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        join(*arguments)


def test_a_cluster_that_is_not_there_is_told_in_one_sentence():
    with pytest.raises(eg.RunError, match=r"could not be connected.*'auto' needs a cluster"):
        join("auto", None, None)
