# Every target installs what it needs; you need make and Python. `make` alone lists the targets.
#
#   make install PYTHON=path/to/python3.12     use this interpreter; by default the newest one found
#   make test PYTEST_ARGS="tests/nn -x"        pass arguments to pytest, in both precisions
#   make bench BENCH_ARGS="sequence --peer path/to/rhel"

BIN := .venv/bin
PYTHON ?=
PYTEST_ARGS ?=
BENCH_ARGS ?=
DEMO_ARGS ?=
# For the oldest Python: exactness on all kinds of problems, in about a minute on two cores.
OLDEST_TESTS := tests/oracle/test_boundaries.py::test_every_condition \
	tests/oracle/test_boundaries.py::test_a_lagrangian_that_does_not_separate \
	tests/oracle/test_boundaries.py::test_a_batch_of_boundary_problems tests/oracle/test_exact.py::test_every_leaf \
	tests/oracle/test_exact.py::test_inside_control_flow tests/oracle/test_second_order.py tests/physics/test_two_point.py \
	tests/nn/test_units.py::test_the_echo_equals_backprop \
	tests/nn/test_units.py::test_the_memory_of_a_gradient_does_not_grow_with_the_sequence \
	tests/nn/test_hssm.py::test_the_echo_equals_backprop_for_every_leaf tests/boundary
export PYTHON

.PHONY: help install test test-all test-fast test-oldest lint demo bench constraints clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

install: ## make .venv or update it
	@sh scripts/install.sh

test: lint ## lint, then all tests in float64 and in float32, on all cores
	@sh scripts/test.sh $(PYTEST_ARGS)

test-all: lint ## the tests of `make test` and the combinations that it leaves out
	@sh scripts/test.sh --exhaustive $(PYTEST_ARGS)

test-fast: install ## some tests of every package, in float64; about two minutes
	@sh scripts/test.sh --fast $(PYTEST_ARGS)

test-oldest: ## a part of the tests in float64 on the oldest Python and jax, in .venv-3.11
	@PYTHON= sh scripts/install.sh .venv-3.11 3.11
	@ECHOGRAD_TEST_X64=1 .venv-3.11/bin/python -m pytest -n auto --maxprocesses 4 --dist loadfile \
		-k "not (finite_nudges or scipy or streaming or robin or Yoshida or batches)" $(OLDEST_TESTS)

lint: install ## ruff's rules and formatting, basedpyright's types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/basedpyright

demo: install ## train on heart rhythms by echoes and write demo/report.html
	@$(BIN)/echograd demo $(DEMO_ARGS)

bench: install ## measure time, memory and error of gradients; see docs/benchmarks.md
	@$(BIN)/python -m benchmarks $(BENCH_ARGS)

constraints: ## update the pins in constraints.txt; needs Python 3.11, 3.12 and 3.13
	@sh scripts/refresh-constraints.sh

clean: ## remove environments, builds and caches; keep runs/ and demo/
	@rm -rf .venv .venv-3.11 build dist .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
