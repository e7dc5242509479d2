#!/bin/sh
# Make a virtual environment with echograd[dev] in it, or bring it up to date. Do nothing if it is up to date.
#
#   install.sh                     .venv, with the newest supported Python
#   install.sh FOLDER VERSION      FOLDER, with Python VERSION ("3.11")
#   PYTHON=... install.sh          with that interpreter
#
# The stamp FOLDER/.installed is written last. It records the root of the checkout (a virtual environment contains
# absolute paths, so a moved checkout needs a new one), the checksums of the files installed from, and the Python. An
# interrupted installation leaves no stamp, and the next one starts from an empty environment.
set -eu
cd "$(dirname "$0")/.."

venv=${1:-.venv}
[ $# -eq 0 ] || shift
stamp=$venv/.installed
wanted=$(echo "root $(pwd -P)" && cksum pyproject.toml constraints.txt)
recorded() { sed -n "s/^python //p" "$stamp"; }

whole=no
if [ -f "$stamp" ] && "$venv/bin/python" -c '' 2>/dev/null && grep -qxF "root $(pwd -P)" "$stamp"; then
    if [ -z "${PYTHON:-}" ] || [ "$(command -v "$PYTHON")" = "$(recorded)" ]; then
        [ "$(grep -v '^python ' "$stamp")" != "$wanted" ] || exit 0
        whole=yes
    fi
fi

if [ $whole = yes ]; then
    python=$(recorded)
    echo "Updating $venv after a change of pyproject.toml or constraints.txt ..."
    rm -f "$stamp"
else
    python=$(sh scripts/pick-python.sh "$@")
    echo "Installing echograd into $venv with $("$python" --version) ($python), one to three minutes ..."
    rm -rf "$venv"
    "$python" -m venv "$venv"
fi

"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]' || {
    cat >&2 <<MESSAGE
echograd: the installation into $venv failed.
Why: see pip's message above. Most often the package index could not be reached.
Remedy: solve that and run the same command again. It starts from an empty environment.
MESSAGE
    exit 1
}
printf '%s\npython %s\n' "$wanted" "$python" >"$stamp.new"
mv "$stamp.new" "$stamp"
echo "Installed: $venv/bin/echograd"
