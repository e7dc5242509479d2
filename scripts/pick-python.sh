#!/bin/sh
# Print the path of a Python that can make the virtual environment.
#
#   pick-python.sh [VERSION ...]     the first VERSION found, "3.13 3.12 3.11" when none is named
#   PYTHON=... pick-python.sh        that interpreter, if it is suitable
#
# Candidates come from PATH and from pyenv. A name is not enough: a pyenv shim called python3.13 fails unless that version
# is active, and Debian's Python has no ensurepip until python3-venv is installed. So every candidate is run. It must report
# the right version and make a virtual environment with pip.
set -u

[ $# -gt 0 ] || set -- 3.13 3.12 3.11
trial=$(mktemp -d) || exit 1
trap 'rm -rf "$trial"' EXIT
trap 'exit 1' HUP INT TERM
rejected=''

# version_of PATH: "3.13", or nothing if it does not run or is not CPython with a GIL.
version_of() {
    "$1" -c 'import sys, sysconfig
if sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED"):
    print("%d.%d" % sys.version_info[:2])' 2>/dev/null </dev/null
}

makes_venv() {
    rm -rf "$trial/venv"
    "$1" -m venv "$trial/venv" >/dev/null 2>&1 </dev/null && "$trial/venv/bin/python" -m pip --version >/dev/null 2>&1
}

reject() {
    rejected="$rejected
  $1: $2"
}

# candidates NAME: every executable NAME in PATH order, then in pyenv's versions, newest first.
candidates() {
    echo "$PATH" | tr ':' '\n' | while IFS= read -r directory; do
        [ -x "${directory:-.}/$1" ] && echo "${directory:-.}/$1"
    done
    for directory in "${PYENV_ROOT:-}" "${HOME:-}/.pyenv"; do
        [ -d "$directory/versions" ] && ls -d "$directory"/versions/*/bin/"$1" 2>/dev/null | sort -rV
    done
}

fail() {
    cat >&2 <<MESSAGE
echograd: $1
Why: it needs CPython $(echo "$versions" | sed 's/ /, /g; s/, \([^,]*\)$/ or \1/') with a working venv module.${rejected:+ Tried:$rejected}
Remedy: install one, for instance
  Debian, Ubuntu:  sudo apt install python3 python3-venv
  macOS:           brew install python@3.13
  pyenv:           pyenv install 3.13
or name one in another place:  make install PYTHON=path/to/python3.13
MESSAGE
    exit 1
}

versions=$*

if [ -n "${PYTHON:-}" ]; then
    found=$(command -v "$PYTHON") || fail "PYTHON=$PYTHON is not an executable."
    version=$(version_of "$found")
    case " $versions " in *" ${version:-none} "*) ;; *) fail "PYTHON=$PYTHON does not run as a supported Python${version:+, it is $version}." ;; esac
    makes_venv "$found" || fail "PYTHON=$PYTHON ($version) cannot make a virtual environment."
    echo "$found"
    exit 0
fi

for wanted in "$@"; do
    for name in "python$wanted" python3 python; do
        IFS='
'
        for found in $(candidates "$name"); do
            unset IFS
            version=$(version_of "$found")
            if [ "$version" != "$wanted" ]; then
                [ "$name" != "python$wanted" ] || reject "$found" "does not run as Python $wanted"
            elif makes_venv "$found"; then
                echo "$found"
                exit 0
            else
                reject "$found" "Python $version, but \`-m venv\` fails"
            fi
        done
    done
done
fail "no suitable Python found."
