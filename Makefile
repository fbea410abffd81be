# Two commands: `make demo` classifies the shipped examples, `make test` checks everything.
# Each makes and keeps its own needs in .venv; nothing else on the machine is touched, but for the system packages that
# `make test` says aloud before it installs them.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
SUDO := $(shell [ "$$(id -u)" = 0 ] && echo env || (sudo -n true 2>/dev/null && echo sudo))
# g++ compiles the decoder of meshopt-compressed glTF; open3d draws with the libraries; the rest is for tests of windows and pages.
SYSTEM_PACKAGES := g++ libusb-1.0-0 libgl1 libegl1 libgomp1 libx11-6 libvulkan1 mesa-vulkan-drivers xvfb xdotool chromium
MISSING = $(shell for p in $(SYSTEM_PACKAGES); do dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done)

.PHONY: demo test clean

demo: $(VENV)/.base
	$(BIN)/pointcentroid classify data/examples

test: $(VENV)/.all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.base: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing what classifying needs: about 60 MB to download"
	$(PIP) --editable .
	@touch $@

$(VENV)/.all: $(VENV)/.base | .system
	@echo "installing the extras and the tools of development: torch, and on Linux perhaps its CUDA build of some GB"
	$(PIP) --editable '.[dev]'
	@touch $@

.PHONY: .system
.system:
	@if [ -z "$(strip $(MISSING))" ]; then true; \
	elif [ -n "$(SUDO)" ] && command -v apt-get >/dev/null; then \
		echo "installing system packages: $(strip $(MISSING))"; \
		$(SUDO) apt-get update -qq && \
		$(SUDO) apt-get install -qq --yes --no-install-recommends $(MISSING) >/dev/null; \
	elif command -v g++ >/dev/null; then \
		echo "not root, or not Debian: tests that need one of these are skipped: $(SYSTEM_PACKAGES)"; \
	else \
		echo "g++ is missing and cannot be installed here (no root): the extra gltf cannot be built"; exit 1; \
	fi

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
