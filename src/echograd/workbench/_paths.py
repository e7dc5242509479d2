"""Paths as arguments."""

import os
import pathlib
from typing import Any

from echograd import ArgumentError, ArgumentTypeError
from echograd._internal._checks import shown


def as_path(owner: str, name: str, x: Any) -> pathlib.Path:
    """Return a path, or raise if `x` is not one or no file can have that name."""
    try:
        text = os.fspath(x)
    except TypeError:
        text = None
    if not isinstance(text, str):
        raise ArgumentTypeError(f"{owner}: {name}={shown(x)} is not a path. Pass a str or a pathlib.Path.")
    if not text or "\0" in text:
        raise ArgumentError(f"{owner}: {name}={shown(text)} names no file. Pass the name of a file or folder.")
    return pathlib.Path(text)
