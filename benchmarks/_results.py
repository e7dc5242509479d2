"""Files of results: one for each row, written atomically after every case."""

import dataclasses
import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from echograd._internal._files import write_json
from echograd._internal._format import cores, processor
from echograd.workbench.data import DataError

from ._case import Case

FORMAT = 1
REMEDY = "Choose another folder (--out, --docs), or remove the obstacle."
_NEEDED = ("name", "sizes", "base", "dtype", "machine", "results")


def read(path: Path) -> list[dict[str, Any]]:
    """Return the cases of a file; an empty list if there is no file.

    Raises:
        DataError: the file does not hold results of this suite.
    """
    if not path.exists():
        return []
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise DataError(f"format {content['format']}, but this version reads format {FORMAT}")
        for case in content["cases"]:
            missing = [key for key in _NEEDED if key not in case]
            if missing:
                raise DataError(f"a case without {', '.join(missing)}")
            if not all("contender" in result for result in case["results"]):
                raise DataError(f"{case['name']}: a result without its contender")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(
            f"{path} does not hold results of `make bench` ({what}). Restore it, or remove it and measure again."
        ) from error
    return content["cases"]


def write(path: Path, row: str, cases: list[dict[str, Any]]) -> None:
    """Write the cases of a row, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"format": FORMAT, "row": row, "cases": cases})


def serves(stored: dict[str, Any], case: Case) -> bool:
    """Return whether a stored case replaces this one: the same size, all contenders, and a timed base."""
    there = {result["contender"]: result for result in stored["results"]}
    same = stored["sizes"] == case.sizes and stored["dtype"] == case.dtype
    return same and set(case.contenders) <= there.keys() and "run_s" in there[case.base]


def merged(stored: list[dict[str, Any]], new: dict[str, Any], order: list[str]) -> list[dict[str, Any]]:
    """Return the cases with `new` added or replaced, in the given order; other cases come last."""
    kept = [case for case in stored if case["name"] != new["name"]] + [new]
    rank = {name: i for i, name in enumerate(order)}
    return sorted(kept, key=lambda case: rank.get(case["name"], len(rank)))


def record(case: Case, results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a case and its results as they are stored."""
    fields = dataclasses.asdict(case)
    about = {key: fields[key] for key in ("name", "sizes", "base", "dtype")}
    return {**about, "machine": machine(), "results": results}


def machine() -> dict[str, Any]:
    """Return the machine and the versions of the measurement."""
    import jax

    found: dict[str, Any] = {
        "cores": cores(),
        "processor": processor(),
        "device": jax.devices()[0].device_kind,
        "python": platform.python_version(),
    }
    for name in ("echograd", "jax", "equinox", "diffrax", "scipy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found
