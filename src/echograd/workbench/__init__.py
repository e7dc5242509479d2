"""The workbench, an application of echograd: data sets, training, estimators, reports and the command line.

It uses the library through its public names only. It needs the extra `workbench`:
`pip install "echograd[workbench]"`.
"""

import importlib as _importlib
from types import ModuleType as _ModuleType
from typing import TYPE_CHECKING as _TYPE_CHECKING

if _TYPE_CHECKING:
    from . import data as data, estimators as estimators, report as report, training as training

_LAZY = frozenset({"data", "estimators", "report", "training"})


def __getattr__(name: str) -> _ModuleType:
    if name in _LAZY:
        return _importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
