# make install | demo | test | test-kernels | test-engines | hostile | check | validate | coverage | bench
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Example data sets that are not committed: next to the checkout, unless the environment says otherwise.
ifneq ($(wildcard ../shared/data),)
export MLMED_DATA ?= $(abspath ../shared/data)
endif
# The small matrices of a mixed model are slower with several BLAS threads.
export OMP_NUM_THREADS ?= 1
export OPENBLAS_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help install demo test hostile test-kernels test-engines check lint types imports validate validate-locscale validate-predictions validate-optima validate-recovery coverage bench clean

help:                 ## show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed  ## build the environment in .venv

$(VENV)/.installed: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev,io,plots]"
	@touch $@

demo: install         ## the main job on the data set that ships with the package
	@$(BIN)/mlmed mediate yuan_mackinnon_sim \
	  --mediator "Med ~ X + (1 + X | group)" \
	  --outcome "y ~ Med + X + (1 + Med + X | group)"

test: install         ## all tests, on two workers
	$(BIN)/python -m pytest -n 2 -q

test-kernels: install ## the numerical core under each kernel of OpenBLAS that runs here, or KERNELS="Prescott Haswell"
	$(BIN)/python tests/kernels.py $(KERNELS)

test-engines: install ## Spark and Ibis against rows in memory, in an environment of their own (450 MB, needs Java)
	test -x .venv-engines/bin/python || $(PYTHON) -m venv .venv-engines
	.venv-engines/bin/python -m pip install --quiet --disable-pip-version-check -e ".[io,scale]" "pyspark>=4" "ibis-framework[duckdb]>=12"
	.venv-engines/bin/python tests/far_engines.py $(ENGINES)

hostile: install      ## the long attack: formulas, every argument, every table, every option of every command; ONLY=part of a name
	MLMED_EXAMPLES=$(or $(MLMED_EXAMPLES),20000) $(BIN)/python -m pytest -q tests/hostile/test_code_execution.py tests/hostile/test_formula_fuzz.py
	$(BIN)/python -m tests.hostile.long --only "$(ONLY)"

check: lint types imports  ## lint, types, the import contracts and files that import each other in a circle

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

imports: install
	$(BIN)/lint-imports
	$(BIN)/python tests/circles.py

validate: install     ## recompute every published and reference number, write validation/report.md
	$(BIN)/python validation/run.py

validate-locscale: install  ## bias and coverage of the location-scale model on simulated data (minutes)
	$(BIN)/python validation/locscale/run.py

validate-predictions: install  ## coverage of predictions by number of clusters (a minute)
	$(BIN)/python validation/predictions/run.py

validate-optima: install  ## are certified optima the best? 3,600 data sets against an independent search (40 minutes; goes on where it stopped)
	$(BIN)/python validation/optima/run.py

validate-recovery: install  ## bias and coverage of effects of several mediators and moderators on simulated data (ten minutes)
	$(BIN)/python validation/recovery/run.py

coverage: install     ## simulate the coverage of every interval (hours; goes on where it stopped)
	$(BIN)/python validation/coverage/run.py

bench: install        ## timings against the peers that are installed, and by size (a part in benchmarks/partial)
	$(BIN)/python benchmarks/run.py
	$(BIN)/python benchmarks/scale.py --small
	$(BIN)/python benchmarks/intervals.py
	$(BIN)/python benchmarks/causal.py
	$(BIN)/python benchmarks/multivariate.py
	$(BIN)/python benchmarks/size.py

clean:                ## remove the environment and caches
	rm -rf $(VENV) .venv-engines .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
