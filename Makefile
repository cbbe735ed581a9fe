# `make demo` and `make test` are the two commands of the README; both set up .venv on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install demo test lint types contract check soak bench bench-huge wheel clean

# torch first and alone: the pinned CPU build must win before anything else asks for torch
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

install: $(VENV)/.installed

demo: $(VENV)/.installed
	$(BIN)/convlora demo --output runs/demo

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadgroup

soak: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m soak

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/ruff format --check src tests benchmarks

types: $(VENV)/.installed-dev
	$(BIN)/mypy

contract: $(VENV)/.installed-dev
	$(BIN)/lint-imports

check: test lint types contract

bench: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.layer
	$(BIN)/python -m benchmarks.startup
	$(BIN)/python -m benchmarks.speed
	$(BIN)/python -m benchmarks.reading

# a raster of 20,000 x 20,000 pixels; half an hour on two cores
bench-huge: $(VENV)/.installed-dev
	$(BIN)/python -m benchmarks.huge_raster

wheel: $(VENV)/.installed-dev
	$(BIN)/python -m build --wheel

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
