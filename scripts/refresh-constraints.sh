#!/bin/sh
# Write the newest versions that pyproject.toml allows on every supported Python to constraints.txt.
set -eu
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset PYTHON
for version in 3.11 3.12 3.13; do
    python=$(sh scripts/pick-python.sh $version)
    echo "Resolving on Python $version ..."
    "$python" -m venv "$work/$version"
    "$work/$version/bin/python" -m pip install --quiet --disable-pip-version-check --dry-run --ignore-installed \
        --report "$work/$version.json" '.[dev]' >/dev/null
done
"$work/3.13/bin/python" scripts/constraints_from_reports.py "$work"/3.11.json "$work"/3.12.json "$work"/3.13.json \
    >"$work/constraints.txt"
mv "$work/constraints.txt" constraints.txt
echo "Wrote constraints.txt with $(grep -c == constraints.txt) pins. Now: make test"
