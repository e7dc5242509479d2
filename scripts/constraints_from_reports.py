"""Merge pip's installation reports, one per Python version, into the lines of constraints.txt.

Usage: `python constraints_from_reports.py 3.11.json 3.12.json 3.13.json`, oldest Python first, as
refresh-constraints.sh calls it. Only names and versions are kept: addresses and hashes depend on the index.
"""

import itertools
import json
import re
import sys
from pathlib import Path

HEADER = """\
# Pins for `make install`: every direct and indirect dependency of echograd[dev]. Written by `make constraints`.
"""


def pins(report: Path) -> dict[str, str]:
    """Return the versions of the packages in one report by normalised name, without echograd."""
    installed = (item["metadata"] for item in json.loads(report.read_text())["install"])
    versions = {re.sub(r"[-_.]+", "-", entry["name"]).lower(): entry["version"] for entry in installed}
    return {name: version for name, version in versions.items() if name != "echograd"}


def lines(resolved: dict[str, dict[str, str]]) -> list[str]:
    """Return constraint lines, with a marker where the Python versions (the keys, in order) differ.

    Examples:
        >>> lines({"3.11": {"a": "1", "b": "1"}, "3.12": {"a": "1", "b": "2"}})
        ['a==1', "b==1; python_version < '3.12'", "b==2; python_version >= '3.12'"]
    """
    pythons = list(resolved)
    result = []
    for name in sorted(set().union(*resolved.values())):
        for version, group in itertools.groupby(pythons, key=lambda python: resolved[python].get(name)):
            members = list(group)
            after = pythons[pythons.index(members[-1]) + 1 :]
            marker = [f"python_version >= '{members[0]}'"] if members[0] != pythons[0] else []
            marker += [f"python_version < '{after[0]}'"] if after else []
            if version is not None:
                result.append("; ".join([f"{name}=={version}", *filter(None, [" and ".join(marker)])]))
    return result


if __name__ == "__main__":
    reports = [Path(argument) for argument in sys.argv[1:]]
    print(HEADER + "\n".join(lines({report.stem: pins(report) for report in reports})))
