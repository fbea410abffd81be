# Two commands: `make demo` classifies the shipped examples, `make test` checks everything.
# Each makes and keeps its own needs in .venv; nothing else on the machine is touched, but for the system packages that
# `make test` says aloud before it installs them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
SUDO := $(shell [ "$$(id -u)" = 0 ] && echo env || (sudo -n true 2>/dev/null && echo sudo))
SYSTEM_PACKAGES := g++

.PHONY: demo test clean

demo: $(VENV)/.base
	$(BIN)/pointcentroid classify data/examples

test: $(VENV)/.all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.base: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing what classifying needs: about 220 MB to download with a CPU build of torch, some GB with a CUDA build"
	$(PIP) --editable .
	@touch $@

$(VENV)/.all: $(VENV)/.base | .system
	@echo "installing the extras and the tools of development"
	$(PIP) --editable '.[dev]'
	@touch $@

# The decoder of meshopt-compressed glTF is compiled by pip.
.PHONY: .system
.system:
	@if command -v g++ >/dev/null; then true; \
	elif [ -n "$(SUDO)" ] && command -v apt-get >/dev/null; then \
		echo "installing system packages: $(SYSTEM_PACKAGES)"; \
		$(SUDO) apt-get update -qq && $(SUDO) apt-get install -qq --yes --no-install-recommends $(SYSTEM_PACKAGES) >/dev/null; \
	else \
		echo "g++ is missing and cannot be installed here (no root): the extra gltf cannot be built"; exit 1; \
	fi

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
