"""The command line: `echograd train`, `evaluate`, `check`, `datasets`."""

from ._main import main as main
