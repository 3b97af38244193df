# Every target sets up what it needs: a clone, make and Python 3.11 or newer are enough.
#   make demo ARGS="--help"        make test ARGS="tests/app -k orientation"        make PYTHON=python3.12 test

PYTHONS := $(or $(PYTHON),python3.11 python3.12 python3.13 python3.14 python3 python)
BIN := .venv/bin

.PHONY: help demo test app lint bench
.DELETE_ON_ERROR:

help:
	@echo "make demo    restore the sample pictures; writes out/demo"
	@echo "make test    run the tests"
	@echo "make app     the front end"
	@echo "make lint    style, types and the order of the rooms"
	@echo "make bench   measure the overhead of samplers and operators"
	@echo "Words for the program go in ARGS: make demo ARGS=--help"

demo: .venv/.installed
	$(BIN)/preimage demo $(ARGS)

test: .venv/.installed
	$(BIN)/python -m pytest $(ARGS)

app:
	@echo "The front end is not written yet; until it is, use 'make demo', the preimage command or Python."

lint: .venv/.installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/.installed
	$(BIN)/python -m benchmarks.overhead $(ARGS)

# The stamp is written last, so an interrupted set-up is done again.
.venv/.installed: pyproject.toml
	@found=; for name in $(PYTHONS); do \
		if "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then found=$$name; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "Expected Python 3.11 or newer, found none as: $(PYTHONS); install it or name it with PYTHON=." >&2; exit 1; \
	fi; \
	if ! "$$found" -c 'import ensurepip, venv' >/dev/null 2>&1; then \
		echo "Expected a Python with the venv module, $$found lacks it; install python3-venv." >&2; exit 1; \
	fi; \
	echo "Setting up .venv with $$found; the first time takes some minutes."; \
	"$$found" -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
