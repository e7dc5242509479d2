"""Signals that ask a process to end: what they become, and the exit codes that tell of them."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

INTERRUPTED = 128 + signal.SIGINT

# A batch system or a shutdown sends the first, a terminal that closes the second; Windows lacks the latter.
_ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Stopped(KeyboardInterrupt):
    """A signal asked the process to end. It is an interrupt like Ctrl-C, after which a run is left whole."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Raise `Stopped` in a block of code where a signal would end the process at once."""
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in _ENDING:
            if signal.getsignal(number) is signal.SIG_DFL:  # `nohup` ignores it, and that stays so
                before[number] = signal.signal(number, _raise)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise(number: int, frame: FrameType | None) -> None:
    raise Stopped(number)


def told(stop: KeyboardInterrupt) -> str:
    """Return what happened, in a word."""
    return f"Stopped by {stop}" if isinstance(stop, Stopped) else "Interrupted"


def exit_code(stop: KeyboardInterrupt) -> int:
    """Return the exit code of a process that was asked to end: 128 and the number of the signal."""
    return 128 + stop.number if isinstance(stop, Stopped) else INTERRUPTED
