# make demo    install, then segment a phantom          make test      run the fast tests
# make lint    ruff and import-linter                   make test-all  run all tests
# make types   mypy --strict                            make bench     time the engines and whole scans
VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin

.PHONY: demo test test-all lint types bench clean

demo: $(VENV)/.runs
	$(BIN)/groundglass demo -o demo

test: $(VENV)/.develops
	$(BIN)/pytest -m "not slow" -n 2 --dist loadfile

test-all: $(VENV)/.develops
	$(BIN)/pytest -n 2 --dist loadfile

lint: $(VENV)/.develops
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.develops
	$(BIN)/mypy

bench: $(VENV)/.develops
	$(BIN)/python bench/engine.py networks
	$(BIN)/python bench/engine.py scan
	$(BIN)/python bench/engine.py startup

clean:
	rm -rf $(VENV) demo build dist

# Debian's Python puts no pip into a new environment unless python3-venv is installed; pip itself can.
$(BIN)/pip:
	$(PYTHON) -m venv --without-pip $(VENV)
	$(PYTHON) -m pip --python $(BIN)/python install --quiet --upgrade pip

$(VENV)/.runs: pyproject.toml | $(BIN)/pip
	$(BIN)/pip install --quiet -e .
	touch $@

$(VENV)/.develops: pyproject.toml | $(BIN)/pip
	$(BIN)/pip install --quiet -e ".[dev]"
	touch $@ $(VENV)/.runs
