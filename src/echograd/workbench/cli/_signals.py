"""Signals that ask a process to end, as exceptions and exit codes."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

INTERRUPTED = 128 + signal.SIGINT

# SIGTERM comes from a batch system or a shutdown, SIGHUP from a closing terminal. Windows has no SIGHUP.
_ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Stopped(KeyboardInterrupt):
    """A signal asked the process to end. Like Ctrl-C, it leaves a run that can be resumed."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Raise `Stopped` for these signals in a block of code, instead of ending the process at once."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in _ENDING:
            if signal.getsignal(number) is signal.SIG_DFL:  # under `nohup` SIGHUP stays ignored
                before[number] = signal.signal(number, _raise)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise(number: int, frame: FrameType | None) -> None:
    raise Stopped(number)


def told(stop: KeyboardInterrupt) -> str:
    """Return a word for a message: "Interrupted", or "Stopped by SIGTERM"."""
    return f"Stopped by {stop}" if isinstance(stop, Stopped) else "Interrupted"


def exit_code(stop: KeyboardInterrupt) -> int:
    """Return the exit code of an interrupted process: 128 plus the number of the signal."""
    return 128 + stop.number if isinstance(stop, Stopped) else INTERRUPTED
