# The two commands that a newcomer needs are `make demo` and `make test`; both make the environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.complete

# Tests start thousands of our processes; without bytecode on disk each would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test laws lint bench golden pictures docs clean

help: ## show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

setup: $(STAMP) ## make the environment in .venv

$(STAMP): pyproject.toml constraints.txt build_protos.py $(wildcard proto/policyd/v1/*.proto proto/spiffe/*.proto)
	@$(PYTHON) -c 'import sys; sys.exit("policyd needs Python 3.11 or newer, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

demo: $(STAMP) ## run Bookinfo in a mesh: policyd up examples/bookinfo
	$(BIN)/policyd up examples/bookinfo

test: $(STAMP) ## every test, the real Envoy included
	$(BIN)/python -m pytest -m "not e2e" --numprocesses 3 --dist loadfile
	$(BIN)/python -m pytest -m "e2e and not alone" --numprocesses 3 --dist loadfile --durations 25
	$(BIN)/python -m pytest -m "e2e and alone"

laws: $(STAMP) ## the property tests on cases that no run has seen
	$(BIN)/python -m pytest -m "hypothesis and not e2e" --hypothesis-profile laws --numprocesses 3 --dist loadfile

lint: $(STAMP) ## ruff, mypy and the floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP) ## every benchmark, or one: make bench ONLY=proxy
	$(BIN)/python -m bench $(ONLY)

golden: $(STAMP) ## rewrite the golden files from what the code makes now
	$(BIN)/python -m pytest -q --update-golden tests

pictures: $(STAMP) ## take the pictures of the console's pages from a running demo; needs chromium
	$(BIN)/python -m docs.pictures

docs: $(STAMP) ## rewrite docs/reference from the code
	$(BIN)/python docs/generate.py

clean: ## remove the environment and what tools left
	rm -rf $(VENV) policyd/_pb build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
