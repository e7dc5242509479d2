"""The command line, `echograd COMMAND`; `echograd --help` lists the commands."""

from ._main import main as main
