#!/bin/sh
# Make .venv at the root of the checkout, or bring it up to date; do nothing when it is.
#
# The stamp .venv/.installed is written last and says what was installed: where (a virtual environment holds absolute
# paths, so a moved checkout needs a new one), from which files, with which Python. An interrupted installation leaves
# no stamp, and the next one starts from an empty environment.
set -eu
cd "$(dirname "$0")/.."

venv=.venv
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
    python=$(sh scripts/pick-python.sh)
    echo "Installing echograd into $venv with $("$python" --version) ($python), one to three minutes ..."
    rm -rf "$venv"
    "$python" -m venv "$venv"
fi

"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]' || {
    cat >&2 <<'MESSAGE'
echograd: the installation into .venv failed.
Why: pip's own message is above; most often the package index could not be reached.
Remedy: mend that and run `make install` again. It starts afresh; nothing half-installed is used.
MESSAGE
    exit 1
}
printf '%s\npython %s\n' "$wanted" "$python" >"$stamp.new"
mv "$stamp.new" "$stamp"
echo "Installed: $venv/bin/echograd"
