"""The page: Markdown and plots, from stored results and nothing else."""

from pathlib import Path
from typing import Any

from echograd import ArgumentError
from echograd._internal._files import make_folder, write_atomically

from . import _results
from ._results import REMEDY
from ._rows import ROWS
from ._tables import TABLES

_HEAD = """# Benchmarks

Written by `make bench` from its results in JSON; do not edit. `echograd bench --page-only` writes it again.

Every contender lives in a process of its own, so that its peak memory is its own; they compile one after the other, and
then take turns, so that all see the same machine. Times are medians of the turns, and ratios compare times of one run.
*Compilation* includes tracing; *processor time* is that of all threads; *temporary memory* is what the compiled program
allocates besides its arguments and results; *resident* is the largest resident set of the process, interpreter and
compiler included. A contender that fails, takes too long or needs too much memory is listed with the reason.
"""


def write_page(results: str | Path, docs: str | Path = "docs") -> Path:
    """Write the page of stored results.

    Args:
        results: folder of the JSON files.
        docs: folder for `benchmarks.md`, and for its plots, `images/bench_*.png`.

    Returns:
        The page.

    Raises:
        FileNotFoundError: there are no results.
        ValueError: a file holds something else.
        ModuleNotFoundError: matplotlib is missing.

    Example:
        ```python
        from echograd import bench

        bench.write_page("benchmarks/results", "docs")
        ```
    """
    results, docs = Path(results), Path(docs)
    stored = {name: _results.read(results / f"{name}.json") for name in ROWS}
    if not any(stored.values()):
        raise FileNotFoundError(f"{results} holds no results to write a page of. Run `make bench` first.")
    images = docs / "images"
    make_folder(images, REMEDY)
    from ._figures import draw  # which needs matplotlib

    lines = [_HEAD]
    for name, cases in stored.items():
        if not cases:
            continue
        row = ROWS[name]
        lines += [f"## {row.title}", row.about]
        try:
            image = draw(name, cases)
            content = [*TABLES[name](cases)]
        except (KeyError, TypeError, AttributeError) as error:
            raise ArgumentError(
                f"{results / f'{name}.json'} lacks what the page needs ({type(error).__name__}: {error}). Restore it, "
                "or remove it and measure again."
            ) from error
        if image is not None:
            path = images / f"bench_{name}.png"
            write_atomically(path, lambda file, image=image: file.write(image))
            lines += [f"![{row.title}](images/{path.name})", ""]
        lines += [*content, "", *_machines(cases), ""]
    page = docs / "benchmarks.md"
    text = "\n".join(lines).rstrip() + "\n"
    write_atomically(page, lambda file: file.write(text.encode()))
    return page


def _machines(cases: list[dict[str, Any]]) -> list[str]:
    """Return what the cases were measured on and with: one line for each kind."""
    kinds: dict[str, list[str]] = {}
    for case in cases:
        m = case["machine"]
        versions = [f"{key} {m[key]}" for key in ("echograd", "jax", "equinox", "diffrax", "scipy") if m.get(key)]
        where = f"{m['cores']} × {m['processor']} ({m.get('device', 'cpu')})"
        said = ", ".join([where, f"Python {m['python']}", *versions])
        kinds.setdefault(said, []).append(case["name"])
    if len(kinds) == 1:
        return [f"Measured on {next(iter(kinds))}."]
    return [f"- {'; '.join(names)}: measured on {said}." for said, names in kinds.items()]
