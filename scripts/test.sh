#!/bin/sh
# Run the tests in float64, then in float32, on all cores; each process takes whole modules. Arguments go to both runs. At
# most four processes: more need memory and save little time. Pass `-n 0` to debug, in one process. With `--fast` as the
# first argument, run only what is marked `fast`, in float64.
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
# pytest exits with 5 if no test is left: the chosen ones may all belong to the float64 run.
[ $single -ne 5 ] || single=0
[ $double -eq 0 ] && [ $single -eq 0 ]
