# Each target makes its own environment in .venv and installs what it needs: Python 3.11 or later
# and make are enough. Another interpreter: make test PYTHON=/path/to/python
#
#   make demo    segment a photo with the shipped model, into ./demo
#   make test    style, types and every test: what CI runs
#   make lint    style alone           make types   types alone
#   make clean   remove what these made

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

# Tests run on up to four worker processes. Each holds its own TensorFlow (seconds to import, about
# a gigabyte), so more workers than cores, or dozens of them, lose. worksteal: a worker that is out
# of tests takes over half of another's, since a test lasts from a millisecond to a minute.
PYTEST := $(BIN)/pytest --numprocesses=auto --maxprocesses=4 --dist=worksteal

.PHONY: demo test lint types clean

# Installed again only when what is to be installed has changed. Two stamps: the demo does with the
# package as users get it, the tests want the developers' tools too.
.venv/installed: setup.py pyproject.toml
	@echo "Installing into .venv; TensorFlow takes a few minutes the first time."
	"$(PYTHON)" -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $@

demo: .venv/installed
	$(BIN)/deeplab-tf demo

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed-dev
	$(BIN)/python tools/link_types.py
	$(BIN)/mypy

# pytest comes last: its closing line is the last line.
test: lint types
	$(PYTEST)

clean:
	rm -rf .venv build dist demo *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
