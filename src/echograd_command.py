"""The command `echograd`. This module imports little, so Ctrl-C works while the package is being imported."""

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

_INTERRUPTED = 128 + signal.SIGINT


def main() -> int:
    """Import the package and run the command; exit without a traceback on Ctrl-C, or if the package cannot run here."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # a background process keeps ignoring Ctrl-C
        signal.signal(signal.SIGINT, _leave)
    try:
        from echograd.workbench.cli import main as run
    except ImportError as error:
        if not str(error).startswith("echograd refuses"):
            raise
        print(error, file=sys.stderr)
        return 1
    signal.signal(signal.SIGINT, before)
    return run()


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    # Exit at once: some half-imported extension modules replace an exception by another one.
    os.write(2, b"Interrupted.\n")
    os._exit(_INTERRUPTED)
