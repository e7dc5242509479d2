#!/bin/sh
# Run the tests in float64, then in float32, each on all cores, a test module at a time; arguments go to both. More than
# four processes would want more memory than they save time. `-n 0` is for debuggers: one process, the terminal its own.
# `--fast`, the first of the arguments, runs what is marked `fast`, in float64.
set -u
cd "$(dirname "$0")/.."

leg() {
    precision=$1
    shift
    ECHOGRAD_TEST_X64=$precision .venv/bin/python -m pytest \
        -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder "$@"
}

if [ "${1:-}" = --fast ]; then
    shift
    leg 1 -m fast "$@"
    exit
fi
leg 1 "$@"
double=$?
[ $double -ne 2 ] || exit 2 # interrupted
leg 0 "$@"
single=$?
# All chosen tests may be of the kinds that are not run in float32: pytest calls that 5.
[ $single -ne 5 ] || single=0
[ $double -eq 0 ] && [ $single -eq 0 ]
