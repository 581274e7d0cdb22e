# make demo    install, then segment a phantom          make test        run the fast tests
# make lint    ruff and import-linter                   make test-all    run all tests
# make types   mypy --strict                            make coverage    run all but the slow tests, refuse low coverage
# make docs    build the documentation into site/       make test-lowest run the clinical tests with the lowest versions
# make bench   time the engines and whole scans         make sbom        list what a plain installation holds
# make tables  write the documentation's tables of results from bench/results/
# Tests start many processes, each of which would otherwise compile the package anew.
unexport PYTHONDONTWRITEBYTECODE
VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin
LOWEST ?= .lowest-venv
PLAIN ?= .plain-venv
# These import torch or a browser.
BEYOND = tests/inference/test_open_model.py tests/report/test_report_page.py \
  tests/apps/batch/test_overview.py
CLINICAL = tests/scan tests/io tests/inference tests/report tests/apps/batch tests/test_files.py tests/test_tables.py

.PHONY: demo test test-all coverage test-lowest lint types docs serve-docs tables sbom bench clean

demo: $(VENV)/.runs
	$(BIN)/groundglass demo -o demo

test: $(VENV)/.develops
	$(BIN)/pytest -m "not slow and not thorough" -n 2 --dist loadfile

test-all: $(VENV)/.develops
	$(BIN)/pytest -n 2 --dist loadfile

coverage: $(VENV)/.develops
	$(BIN)/pytest -m "not slow" -n 2 --dist loadfile --cov --cov-report=term:skip-covered

# `constraints-lowest.txt` names the lowest versions; torch is not installed, nor any library of training.
test-lowest: $(LOWEST)/.installed
	$(LOWEST)/bin/pytest -m "not slow" -n 2 --dist loadfile $(CLINICAL) $(addprefix --ignore=,$(BEYOND))

lint: $(VENV)/.develops
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.develops
	$(BIN)/mypy

# Needs no network; the notebooks of the tutorials are executed.
docs: $(VENV)/.develops
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

serve-docs: $(VENV)/.develops
	NO_MKDOCS_2_WARNING=1 GROUNDGLASS_EXECUTE=false $(BIN)/mkdocs serve

tables: $(VENV)/.develops
	$(BIN)/python bench/result_tables.py

sbom: $(PLAIN)/.installed $(VENV)/.develops
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible -o sbom.json $(PLAIN)/bin/python

bench: $(VENV)/.develops
	$(BIN)/python bench/engine.py networks
	$(BIN)/python bench/engine.py scan
	$(BIN)/python bench/engine.py startup

clean:
	rm -rf $(VENV) $(LOWEST) $(PLAIN) demo build dist site sbom.json

# Debian's Python puts no pip into a new environment unless python3-venv is installed; pip itself can.
%/bin/pip:
	$(PYTHON) -m venv --without-pip $*
	$(PYTHON) -m pip --python $*/bin/python install --quiet --upgrade pip

$(VENV)/.runs: pyproject.toml | $(BIN)/pip
	$(BIN)/pip install --quiet -e .
	touch $@

$(VENV)/.develops: pyproject.toml | $(BIN)/pip
	$(BIN)/pip install --quiet -e ".[dev]"
	touch $@ $(VENV)/.runs

$(LOWEST)/.installed: pyproject.toml constraints-lowest.txt | $(LOWEST)/bin/pip
	$(LOWEST)/bin/pip install --quiet -c constraints-lowest.txt -e ".[serve,batch]" --group clinical-tests
	touch $@

$(PLAIN)/.installed: pyproject.toml | $(PLAIN)/bin/pip
	$(PLAIN)/bin/pip install --quiet .
	touch $@
