"""Find the command, run it, and turn an error that a user can act on into one message and an exit code."""

import difflib
import importlib
import importlib.metadata
import os
import sys
from collections.abc import Callable, Sequence

from echograd import EchogradError
from echograd._internal._errors import RUNTIME_ERRORS, said

from ._signals import exit_code, stoppable, told

# A command is a private module of this package with a function `main(argv) -> exit code`. It is imported on use.
COMMANDS = {
    "train": ("_train", "train a model on a data set or on your own files, or resume a run"),
    "predict": ("_predict", "predict the cases of a file with the best model of a run"),
    "evaluate": ("_evaluate", "score the best model of a run"),
    "datasets": ("_datasets", "list the known data sets and the folder of their files"),
    "check": ("_check", "compare echo gradients with backprop, parameter by parameter"),
    "audit": ("_audit", "measure which boundary conditions and gradients are practical"),
    "diagnose": ("_diagnose", "measure which gradient is exact for a system, and why"),
    "report": ("_report", "write a report of a run: scores, examples, gradients, memory and time"),
    "demo": ("_demo", "learn heart rhythms from real ECGs by echoes, and write a report"),
}

FAILED, USAGE = 1, 2

# Errors that a user can act on: those that echograd raises on purpose, those of compiled programs, files and memory.
# Any other error is a bug and keeps its traceback.
_ACTIONABLE = (EchogradError, *RUNTIME_ERRORS, OSError, MemoryError)

_EXTRA = {"matplotlib", "optax", "pooch", "rich", "tyro"}

_TRACEBACK = "ECHOGRAD_TRACEBACK"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command of `echograd`.

    Args:
        argv: the command and its arguments; by default those of the process.

    Returns:
        The exit code: 0 for success; 1 if the command failed; 2 for wrong usage; 130 after Ctrl-C, 143 after SIGTERM.

    Example:
        ```python
        main(["datasets"])
        ```
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_usage(), file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else USAGE
    if arguments[0] == "--version":
        print(f"echograd {importlib.metadata.version('echograd')}")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f" Did you mean `echograd {close[0]}`?" if close else ""
        print(f"echograd: there is no command {name!r}.{hint}\n\n{_usage()}", file=sys.stderr)
        return USAGE
    return guarded(f"echograd {name}", lambda: importlib.import_module(f".{COMMANDS[name][0]}", __package__).main(rest))


def guarded(name: str, command: Callable[[], int]) -> int:
    """Run a command and return its exit code; print one message for an error that a user can act on."""
    try:
        with stoppable():
            return command()
    except KeyboardInterrupt as stop:
        print(f"{told(stop)}.", file=sys.stderr)
        return exit_code(stop)
    except SystemExit as stop:  # from the parser
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else FAILED
    except BrokenPipeError:
        # The reader of the output has closed it, as `head` does. Redirect it, or Python prints an error at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (*_ACTIONABLE, ModuleNotFoundError) as error:
        missing_extra = isinstance(error, ModuleNotFoundError) and _package(error) in _EXTRA
        if os.environ.get(_TRACEBACK) or not (isinstance(error, _ACTIONABLE) or missing_extra):
            raise
        print(f"{name}: {_message(error)}", file=sys.stderr)
        return FAILED


def _package(error: ModuleNotFoundError) -> str:
    """Return the name of the package that could not be imported."""
    return (error.name or "").partition(".")[0]


def _usage() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name.ljust(width)}  {summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: echograd COMMAND ...",
            "",
            "Gradients of whole trajectories, measured like a physicist, exact like backprop.",
            "",
            *lines,
            "",
            "`echograd COMMAND --help` describes a command. `echograd --version` prints the version.",
            f"Set {_TRACEBACK}=1 in the environment to see the traceback of an error.",
        ]
    )


def _message(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError) and _package(error) != "pooch":  # its message has another remedy
        return f"this command needs {_package(error)}: pip install 'echograd[workbench]'"
    if isinstance(error, MemoryError):
        return f"out of memory ({error}). Use smaller sizes." if str(error) else "out of memory. Use smaller sizes."
    if isinstance(error, OSError) and error.strerror:
        if error.filename is None:  # raised by echograd, with a whole sentence
            return error.strerror
        return f"{error.filename} cannot be used ({error.strerror}). Fix that, or choose another file, and try again."
    return said(error)
