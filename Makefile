# `make demo` and `make test` need Python 3.11+ and make; everything else they install into .venv.
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTHON ?= python3

.PHONY: demo evidence test check clean

demo: $(READY)
	$(BIN)/editr1 demo --run runs/demo

evidence: $(READY)  # what each part of the verifier is worth: 3 seeds, 80 minutes on two cores; continues where it stopped
	$(BIN)/editr1 study recipes/evidence.yaml --run runs/evidence --out docs/results/evidence

test: $(READY)
	$(BIN)/python -m pytest

check: $(READY)
	$(BIN)/ruff check src tests benchmarks research examples
	$(BIN)/ruff format --check src tests benchmarks research examples
	$(BIN)/mypy

$(READY): pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Edit-R1 needs Python 3.11 or newer, found ' + sys.version.split()[0] + '; set PYTHON=')"
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $(READY)

clean:
	rm -rf $(VENV) runs
