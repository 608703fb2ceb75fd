# Every target works as the first command on a fresh clone. For CUDA: make setup TORCH="torch==2.13.0"
PYTHON ?= python3
TORCH ?= torch==2.13.0
RECIPE ?= export/recipes/quickstart.toml
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready


.PHONY: setup check test test-slow test-arm64 export bench bench-api report ladder clean help

help: ## this list
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY) ## make the virtual environment and install everything

# torch first: with it present nothing else pulls the CUDA build.
$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check "$(TORCH)"
	$(BIN)/pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $(READY)

check: $(READY) ## ruff, mypy strict, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest tests/test_layers.py

test: $(READY) ## the fast tests, without a GPU
	$(BIN)/pytest

test-slow: $(READY) ## training to accuracy, kills, real clips: tens of minutes
	$(BIN)/pytest -m slow

test-arm64: $(READY) ## bundles in an emulated aarch64 root (BUNDLES=...; needs root and qemu-user-static)
	$(BIN)/python tests/arm64/emulated.py $(BUNDLES)

export: $(READY) ## a recipe to checked bundles and a trade-off table (RECIPE=...)
	$(BIN)/edgelip export $(RECIPE)

SUITE ?= benchmarks/suites/x86.toml
TIER ?= quick
bench: $(READY) ## the bundles of the last export measured in one sitting (SUITE=... TIER=quick|standard|full DEVICE=...)
	$(BIN)/edgelip bench $(SUITE) --tier $(TIER) $(if $(DEVICE),--device $(DEVICE)) $(BENCH_OPTIONS)

bench-api: $(READY) ## speed of the public functions (pytest-benchmark)
	$(BIN)/pytest benchmarks --benchmark-only

# Folders of exports, without that of the joint table itself.
LADDER ?= $(filter-out export/dist/ladder,$(patsubst %/tradeoff.json,%,$(wildcard export/dist/*/tradeoff.json)))
ladder: $(READY) ## one table and one Pareto front over the exports in export/dist/*/
	$(BIN)/edgelip report $(LADDER) --out export/dist/ladder

report: $(READY) ## table and page of the last sitting, or the last export's table before one
	$(BIN)/edgelip report

clean: ## remove what export made
	rm -rf export/dist
