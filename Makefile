# Every target sets up what it needs: a clone, make and Python 3.11 or newer are enough.
#   make demo ARGS="--help"        make test ARGS="tests/app -k orientation"        make PYTHON=python3.12 test

PYTHONS := $(or $(PYTHON),python3.11 python3.12 python3.13 python3.14 python3 python)
BIN := .venv/bin

.PHONY: help python demo test e2e app lint bench bench-calibration
.DELETE_ON_ERROR:

help:
	@echo "make demo    restore the sample pictures; writes out/demo"
	@echo "make test    run the tests"
	@echo "make e2e     try the page in a browser (Chromium)"
	@echo "make app     the page, in a browser on this machine"
	@echo "make lint    style, types and the order of the rooms"
	@echo "make bench   measure the overhead of samplers and operators"
	@echo "make bench-calibration   measure whether the samplers sample the posterior"
	@echo "Words for the program go in ARGS: make demo ARGS=--help"

demo: .venv/.installed
	$(BIN)/preimage demo $(ARGS)

test: .venv/.installed
	$(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

# One after the other: the page is tried against the clock, as a person would.
e2e: .venv/.installed
	$(BIN)/python -m pytest -m e2e tests/e2e $(ARGS)

app: .venv/.installed
	$(BIN)/preimage gui $(ARGS)

lint: .venv/.installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/.installed
	$(BIN)/python -m benchmarks.overhead $(ARGS)

bench-calibration: .venv/.installed
	$(BIN)/python -m benchmarks.calibration $(ARGS)

# Prints the first Python that can make the environment.
FIND_PYTHON = for name in $(PYTHONS); do \
		if "$$name" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
			echo "$$name"; exit 0; \
		fi; \
	done; \
	echo "Expected Python 3.11 or newer with its venv module, found none as: $(PYTHONS);" \
		"install it (and python3-venv) or name it with PYTHON=." >&2; exit 1

# For .ci/run, which installs what is missing.
python:
	@$(FIND_PYTHON)

# The stamp is written last, so an interrupted set-up is done again.
.venv/.installed: pyproject.toml
	@found=$$($(FIND_PYTHON)) || exit 1; \
	echo "Setting up .venv with $$found; the first time takes some minutes."; \
	"$$found" -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
