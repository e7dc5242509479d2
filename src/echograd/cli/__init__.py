"""The command line: `echograd demo`, `train`, `evaluate`, `report`, `check`, `datasets`."""

from ._main import main as main
