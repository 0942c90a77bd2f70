# One command is the truth: CI and people use the same targets. `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CODE := esim resources assets pipelines api cli sandbox bench chaos tests
WORKERS ?= auto
SEEDS ?= 20
ORDERS ?= 60
HISTORIES ?= 10000

.PHONY: help setup run demo check format test browser lock clean chaos histories \
	bench-api bench-catalogue bench-growth bench-intake bench-launch bench-orders bench-start bench-storage

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: $(READY) ## Create .venv and install everything from the lock

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "NumnaRoad needs Python 3.11 to 3.13; name one with make PYTHON=python3.12 setup")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true  # on all cores, unlike pip; some files are not meant to compile
	@touch $@

run: setup ## Run the whole platform on this machine; Ctrl-C ends it
	@exec $(BIN)/numnaroad run

demo: setup ## Run the main job once, end to end, and compare all sides
	@exec $(BIN)/numnaroad demo

check: setup ## Format, lint, types, import rules, SQL style
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy esim resources assets pipelines api cli sandbox bench chaos
	$(BIN)/lint-imports --no-cache
	$(BIN)/sqlfluff lint --disable-progress-bar dbt_like_sql

format: setup ## Rewrite the code in house style
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

browser: setup ## Make sure a Chromium is there for the page tests
	@$(BIN)/python -m tests.browser.install

# Files are given out in collection order, so that the demo, the longest, is not the last.
test: setup browser ## Run every test
	$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

lock: ## Pin the dependencies again (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-strip-extras --no-header --no-annotate --all-extras pyproject.toml -o requirements.lock

chaos: setup ## The fault campaign: SEEDS=20 seeds, every commit point, every fault, pauses, recovery, the platform
	$(BIN)/numnaroad chaos --seeds $(SEEDS) --orders $(ORDERS) --processes 2 --sweep --faults --pauses --recovery --platform

histories: setup ## HISTORIES=10000 random histories of an order on the real store
	HISTORIES=$(HISTORIES) $(BIN)/pytest -n 0 -q -s tests/chaos/test_histories.py

bench-catalogue: setup ## Catalogue sync and best price: figures and ratios
	$(BIN)/python -m bench.catalogue

bench-api: setup ## Catalogue API against a bare route: figures and ratios (needs wrk)
	$(BIN)/python -m bench.api

bench-start: setup ## Start-up times against their targets
	$(BIN)/python -m bench.start

bench-orders: setup ## The order path on the whole platform: figures against targets
	$(BIN)/python -m bench.orders warm cold throughput
	$(BIN)/python -m bench.default_path

bench-intake: setup ## Signed payment events at 500 a second, and the API killed on the way
	$(BIN)/python -m bench.orders intake

bench-growth: setup ## What an order costs as the tables grow to a million orders
	$(BIN)/python -m bench.orders growth

bench-storage: setup ## Growth of Dagster's storage by 10,000 orders against its budget
	$(BIN)/python -m bench.storage

bench-launch: setup ## From a run's creation to its op: warm and default launcher
	$(BIN)/python -m bench.launch

clean: ## Remove what can be made again; the data folder stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
