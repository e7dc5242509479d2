# Everything here sets itself up: python3 and make are all a fresh machine needs. `make` alone lists the targets.
#
#   make install PYTHON=path/to/python3.12     another interpreter than the newest one found
#   make test PYTEST_ARGS="tests/nn -x"        arguments for pytest, in both precisions
#   make bench BENCH_ARGS="sequence --peer path/to/rhel"

BIN := .venv/bin
PYTHON ?=
PYTEST_ARGS ?=
BENCH_ARGS ?=
DEMO_ARGS ?=
export PYTHON

.PHONY: help install test test-fast lint demo bench constraints clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

install: ## make .venv, or bring it up to date
	@sh scripts/install.sh

test: lint ## lint, then all tests in float64 and in float32, on all cores
	@sh scripts/test.sh $(PYTEST_ARGS)

test-fast: install ## some of the tests, of every part of the package, in float64 only: within two minutes
	@sh scripts/test.sh --fast $(PYTEST_ARGS)

lint: install ## ruff's rules and formatting, types by pyright's rules
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/basedpyright

demo: install ## learn heart rhythms by echoes and write a report, the main job
	@$(BIN)/echograd demo $(DEMO_ARGS)

bench: install ## time, memory and error of gradients beside others; docs/benchmarks.md is the page
	@$(BIN)/echograd bench $(BENCH_ARGS)

constraints: ## resolve constraints.txt anew; needs Python 3.11, 3.12 and 3.13
	@sh scripts/refresh-constraints.sh

clean: ## remove .venv, builds and caches; results in runs/ and demo/ stay
	@rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
