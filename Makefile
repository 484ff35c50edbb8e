# Targets a user needs: demo, test. For development: check, bench, boot-root, clean.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BOOT_ROOT ?= build/boot-root

# What failed while several files ran at once is run again with the machine to itself: what needs quiet passes then, and
# what is wrong fails again. Nothing is run, and that is a failure, if it was the machine that was found changed.
# Tests wait as much as they work, so there is one of them more than there are processors.
TOGETHER := $(BIN)/python -m pytest --numprocesses $(shell expr $$(nproc) + 1) --maxprocesses 4 --dist loadfile
ALONE := $(BIN)/python -m pytest --last-failed --last-failed-no-failures none $(PYTEST_ARGS)

.PHONY: demo test check format bench boot-root clean

demo: $(VENV)/run
	$(BIN)/lcinit demo

test: $(VENV)/dev
	tests/lab/install
	$(TOGETHER) $(PYTEST_ARGS) || $(ALONE)

check: $(VENV)/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/dev
	tests/lab/install
	tests/bench/install
	$(BIN)/python -m tests.bench $(BENCH_ARGS)

boot-root: $(VENV)/run
	tests/lab/install
	$(BIN)/lcinit image $(BOOT_ROOT)

$(VENV)/bin/python:
	contrib/make-venv $(PYTHON) $(VENV)

$(VENV)/run: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/dev: $(VENV)/run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
