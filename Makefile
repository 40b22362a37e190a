# Everything a fresh machine needs: Python 3.11 or newer, make, a compiler.
#
#   make tour    make the environment, explain a behaviour of the embedded network, name the report
#   make test    make the environment if need be, run the whole test suite
#   make check   test, tour, lint, types, floors: what a change must pass

PYTHON ?= python3
VENV ?= .venv
WORKERS ?= 2
TOUR ?= build/tour

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help env tour test lint types floors check clean

help:
	@sed -n 's/^#   //p' Makefile

env: $(STAMP)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Cutaway needs Python 3.11 or newer; '$(PYTHON)' is older or missing. Try: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch comes first, with its exact pin: a range would let pip choose another build of several gigabytes.
$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	@echo "Installing into $(VENV) (a few minutes the first time)"
	$(PIP) install -q -q -c constraints.txt "$$(grep '^torch==' constraints.txt)"
	$(PIP) install -q -q -c constraints.txt -e ".[dev]"
	@touch $@

tour: $(STAMP)
	$(BIN)/cutaway explain zoo:tales --behaviour pronoun --out $(TOUR) --overwrite

test: $(STAMP)
	$(BIN)/python -m pytest -n $(WORKERS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/python -m pyright --pythonpath $(BIN)/python

floors: $(STAMP)
	$(BIN)/lint-imports

check: test tour lint types floors

clean:
	rm -rf build .pytest_cache .ruff_cache .import_linter_cache .hypothesis
