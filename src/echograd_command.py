"""The command `echograd`, so small that Ctrl-C is heard before the package is imported, which takes a second or two."""

import os
import signal
import sys
from types import FrameType
from typing import NoReturn

_INTERRUPTED = 128 + signal.SIGINT


def main() -> int:
    """Import the package and run the command; leave quietly if Ctrl-C or a refusal of the package comes first."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # a process in the background ignores Ctrl-C, and goes on to
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
    # An exception would go through half-imported extensions, some of which make another one of it.
    os.write(2, b"Interrupted.\n")
    os._exit(_INTERRUPTED)
