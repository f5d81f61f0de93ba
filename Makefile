# Shortcuts for a checkout without conda or Slurm. `make help` lists them; README.md tells what they do.
# Variables: VENV (folder of the environment), PYTHON (interpreter to make it with), CORES (parallel jobs of `make demo`),
# ARGS (more arguments for snakemake, pytest or the benchmarks, for example make test ARGS="-k equalization"), TESTS (which
# tests by their marks: TESTS= for all, with those on a Slurm cluster or a GPU, TESTS="not slow" for the quick ones), ENV=none (make gpu
# with PYTHON and the packages that it has, without making an environment).
SHELL := bash
.SHELLFLAGS := -euo pipefail -c

VENV ?= .venv
CORES ?= all
ARGS ?=
TESTS ?= not slurm and not gpu
ENV ?=
ENVIRONMENT := workflow/environment
# Every recipe that runs Python starts with this, so that the jobs of a workflow find the same interpreter on their PATH.
ACTIVATE := . "$(VENV)/bin/activate" &&

# Packages of other interpreters (module systems of clusters set PYTHONPATH) must not come before the pinned ones.
unexport PYTHONPATH PYTHONHOME
export PYTHONNOUSERSITE := 1

.DEFAULT_GOAL := help
.PHONY: help demo test test-slurm gpu lint format bench env lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' "$(lastword $(MAKEFILE_LIST))"

demo: env ## the whole recipe on the embedded mini data set, on the CPU; results in results/mini
	@# Our own lock instead of Snakemake's: it cannot be left behind by a run that was killed.
	@mkdir -p .snakemake && exec 8>.snakemake/make-demo.lock && \
	if command -v flock >/dev/null && ! flock --nonblock 8; then \
	  echo "make demo: already running in this folder; wait for it, or stop it" >&2; exit 1; \
	fi && \
	$(ACTIVATE) snakemake --configfile config/mini.yaml --cores $(CORES) --nolock $(ARGS) all
	@# A run that made the table has shown it; one that found nothing to do has not.
	@if [ -f results/mini/report/summary.md ] && [ ! results/mini/report/summary.md -nt .snakemake/make-demo.lock ]; then \
	  printf '\n' && cat results/mini/report/summary.md && \
	  printf '\n%-12s %s\n' submission results/mini/submission/submission.json report results/mini/report/index.html; \
	fi

test: env lint ## the checks of `make lint`, then all tests but those on a Slurm cluster
	@$(ACTIVATE) OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} python -m pytest -m "$(TESTS)" $(ARGS)

test-slurm: env ## the smallest recipe, with faults, on a Slurm cluster on this machine (root; apt-get install slurm-wlm munge)
	@$(ACTIVATE) OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} python -m pytest -m slurm $(ARGS)

# With ENV=none PYTHONPATH is the user's own: the packages may lie there.
gpu: $(if $(filter none,$(ENV)),,env) ## on a machine with a GPU: tests and benchmarks at real sizes, as one table
ifeq ($(ENV),none)
	@PYTHONPATH="$(PYTHONPATH)" $(or $(PYTHON),python3) -m tests.gpu $(ARGS)
else
	@$(ACTIVATE) python -m tests.gpu $(ARGS)
endif

lint: env ## style and types of the Python and Snakemake files, without changing them
	@$(ACTIVATE) ruff check && ruff format --check && mypy && snakefmt --check workflow && snakemake --lint

format: env ## format the Python and Snakemake files
	@$(ACTIVATE) ruff check --fix && ruff format && snakefmt workflow

bench: env ## benchmark the hot paths against what people use today
	@$(ACTIVATE) python -m tests.benchmarks $(ARGS)

env: ## create or repair the pinned environment in .venv
	@$(ENVIRONMENT)/make_venv.sh "$(VENV)"

lock: ## update requirements.lock after changing workflow/environment/requirements.in
	@$(ENVIRONMENT)/lock.sh $(ARGS)

clean: ## remove results of the small recipes and of the tests, nothing else
	rm -rf results/mini results/smoke datasets/mini datasets/smoke .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -not -path "./.venv/*" -prune -exec rm -rf {} +
