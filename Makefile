# Every verb sets up what it needs: `make demo` and `make test` work on a fresh clone with Python 3.11 or later.
.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-web test-matrix check format constraints docs bench report quality quality-train \
	e2e e2e-data soak sbom clean

VENV := .venv
BIN := $(VENV)/bin
# The first of these that is there and new enough; or say it: make test PYTHON=/path/to/python
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
# Versions are fixed in constraints.txt, so that pip has nothing to search for.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# Installed first and alone: nothing else may choose another build of it.
TORCH ?= torch==2.13.0
CODE := src tests benchmarks experiments

help:  ## Show the verbs
	@sed -n 's/^\([a-z0-9-]*\):.*## /  make \1\t/p' Makefile | expand -t 16

demo: $(VENV)/.base  ## Install the base package, predict the example proteins into ./demo (no torch)
	@echo "Predicting the example proteins:"
	@$(BIN)/deepgps predict example --out demo --overwrite
	@echo "The images are in demo/images; demo/report.html shows them all."

# One process for each core; a file's tests stay together, so that they share what the file sets up.
WORKERS ?= logical
PYTEST := $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile

test: $(VENV)/.test  ## Install what the tests need (torch included) and run all but the slow ones
	@$(PYTEST) -m 'not slow and not services and not browser'

test-slow: $(VENV)/.test  ## Run the slow tests: training, killed processes, tutorials, the built packages
	@$(PYTEST) -m 'slow and not services and not browser'

# Which of them, as pytest's -m says it; all where empty.
WEB_TESTS ?=

test-web: $(VENV)/.test  ## Run the tests of the website, PostgreSQL and a browser included (from Debian)
	@tests/opengps/debian.sh
	@$(PYTEST) tests/opengps -m '$(WEB_TESTS)'

# Where tox looks beside the PATH: the Pythons of pyenv and of uv.
PYTHONS ?= $(wildcard $(HOME)/.pyenv/versions/3.1?.*/bin/python $(HOME)/.local/share/uv/python/*/bin/python3)

test-matrix: | $(VENV)/bin/python  ## Run the tests on each Python from 3.11 to 3.14 that this machine has
	@$(PIP) tox
	@TORCH='$(TORCH)' WORKERS='$(WORKERS)' $(BIN)/tox run $(if $(PYTHONS),--discover $(PYTHONS))

check: $(VENV)/.test  ## Lint, formatting, types and the layering of packages
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.docs  ## Build the documentation site into ./site; a broken link or reference fails
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "site/index.html; to read it: $(BIN)/python -m http.server --directory site"

format: $(VENV)/.test  ## Format the code
	$(BIN)/ruff check --fix-only $(CODE)
	$(BIN)/ruff format $(CODE)

# torch is left out: which build of it is installed is said by TORCH.
constraints: | $(VENV)/bin/python  ## Renew constraints.txt: the newest versions that fit together, on each Python
	@$(PIP) uv
	@echo "torch ; python_version < '3'" | $(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 \
		--extra train --extra scale --extra web-cluster --extra test --extra docs --override /dev/stdin --no-annotate \
		--custom-compile-command 'make constraints' --output-file constraints.txt pyproject.toml

bench: $(VENV)/.test  ## Measure start-up, speed and memory on this machine
	@$(BIN)/python benchmarks/bench.py

report: $(VENV)/.test  ## Evaluate deepgps-mini on the data at hand into ./report
	@$(BIN)/python experiments/deepgps-mini/report.py

quality: $(VENV)/.base  ## Print every figure of deepgps-mini beside its bar (trains nothing)
	@$(BIN)/python experiments/deepgps-mini/quality.py

quality-train: $(VENV)/.test  ## Train deepgps-mini anew and measure it, from ../shared/data into ./runs (hours)
	@$(BIN)/python experiments/deepgps-mini/measure.py labels
	@$(BIN)/python experiments/deepgps-mini/measure.py benchmark
	@$(BIN)/deepgps train mini --data ../shared/data --out runs/mini --resume
	@$(BIN)/deepgps export runs/mini --to runs/deepgps-mini
	@$(BIN)/python experiments/deepgps-mini/measure.py images --model runs/deepgps-mini --run runs/mini
	@$(BIN)/python experiments/deepgps-mini/measure.py opencell --model runs/deepgps-mini --run runs/mini
	@$(BIN)/python experiments/deepgps-mini/measure.py halves --run runs/mini
	@$(BIN)/python experiments/deepgps-mini/measure.py crowds --model runs/deepgps-mini
	@$(BIN)/python experiments/deepgps-mini/measure.py structure --model runs/deepgps-mini --run runs/mini
	@$(BIN)/deepgps export runs/mini --to runs/deepgps-mini --metrics experiments/deepgps-mini/figures.json
	@$(BIN)/python experiments/deepgps-mini/known_proteins.py --run runs/mini --bundle runs/deepgps-mini

# Which seed, and for how many seconds.
SOAK_SEED ?= 1
SOAK_SECONDS ?= 600

soak: $(VENV)/.test  ## Attack a website on this machine for ten minutes, and check that honest jobs come out right
	@$(BIN)/python tests/opengps/soak.py --seed $(SOAK_SEED) --seconds $(SOAK_SECONDS)

# What a site runs, without torch and the test tools.
sbom: | $(VENV)/bin/python  ## Write sbom.json, CycloneDX: all that a website installs, with versions and licences
	@rm -rf .sbom && $(BIN)/python -m venv .sbom
	@.sbom/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt '.[web-cluster]'
	@$(PIP) 'cyclonedx-bom>=6'
	@$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-format JSON \
		--output-file sbom.json .sbom/bin/python
	@rm -rf .sbom
	@echo "sbom.json"

e2e-data: $(VENV)/.test  ## Run the tutorial on datasets into ./e2e-data, on sources that answer from this machine
	@$(BIN)/python tests/docs/e2e_data.py e2e-data

e2e: $(VENV)/.test  ## Run the tutorial on training into ./e2e: from fetching to predictions, with small networks
	@$(BIN)/python tests/docs/e2e.py e2e

clean:  ## Remove the environment and what the verbs made
	rm -rf $(VENV) .tox .sbom sbom.json demo report e2e e2e-data site

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "deepGPS needs Python 3.11 or later; none was found. Name one: make PYTHON=..."; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)

# The stamps make a second call fast; a change of the dependencies makes them stale.
$(VENV)/.base: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing deepGPS and what it needs (no torch) into $(VENV)"
	@$(PIP) --editable .
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing $(TORCH), then what training, clusters, the website and the tests need, into $(VENV)"
	@$(PIP) '$(TORCH)'
	@$(PIP) --editable '.[train,scale,web-cluster,test]'
	@touch $@ $(VENV)/.base

$(VENV)/.docs: pyproject.toml constraints.txt | $(VENV)/.test
	@$(PIP) --editable '.[docs]'
	@touch $@
