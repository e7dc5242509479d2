"""The page: Markdown and plots of stored results."""

from pathlib import Path
from typing import Any

from echograd._internal._files import make_folder, write_atomically
from echograd.workbench.data import DataError

from . import _results
from ._results import REMEDY
from ._suite import ROWS
from ._tables import TABLES

_HEAD = """# Benchmarks

Written by `make bench` from its results in JSON; do not edit. `make bench BENCH_ARGS=--page-only` writes it again.

Every contender has its own process, so its peak memory is measured separately. The contenders compile one after the
other and then take turns, so all run under the same conditions. Times are medians of the turns; ratios compare times of
one run. *Compilation* includes tracing. *Processor time* is the sum over all threads. *Temporary memory* is the memory
that the compiled program allocates besides its arguments and results. *Resident* is the largest resident set of the
process, with interpreter and compiler. A contender that fails, takes too long or needs too much memory is listed with
the reason.
"""


def write_page(results: str | Path, docs: str | Path = "docs") -> Path:
    """Write the page of stored results.

    Args:
        results: folder of the JSON files.
        docs: folder for `benchmarks.md` and its plots `images/bench_*.png`.

    Returns:
        The path of the page.

    Raises:
        FileNotFoundError: there are no results.
        DataError: a file does not hold results of this suite.
        ModuleNotFoundError: matplotlib is missing.

    Example:
        ```python
        import benchmarks

        benchmarks.write_page("benchmarks/results", "docs")
        ```
    """
    results, docs = Path(results), Path(docs)
    stored = {name: _results.read(results / f"{name}.json") for name in ROWS}
    if not any(stored.values()):
        raise FileNotFoundError(f"{results} holds no results. Run `make bench` first.")
    images = docs / "images"
    make_folder(images, REMEDY)
    from ._figures import draw  # needs matplotlib

    lines = [_HEAD]
    for name, cases in stored.items():
        if not cases:
            continue
        row = ROWS[name]
        lines += [f"## {row.title}", row.about]
        try:
            image = draw(name, cases)
            content = [*TABLES[name](cases)]
        except KeyError as error:
            raise DataError(
                f"{results / f'{name}.json'} lacks {error}, which the page needs. Restore it, or remove it and measure "
                "again."
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
    """Return the machines and versions of the cases, one line for each."""
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
