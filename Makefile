# `make demo` and `make test` need Python 3.11+ and make; everything else they install into .venv.
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTHON ?= python3

.PHONY: demo evidence test check bounds trainers clean

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

# The lowest version of everything that pyproject.toml names, in an environment of its own, and a quick part of the tests. torch and
# torchvision are what the installer picks: their lowest builds are gigabytes of CUDA on a machine without a GPU.
bounds:
	test -x $(VENV)-bounds/bin/python || $(PYTHON) -m venv $(VENV)-bounds
	$(VENV)-bounds/bin/python -m pip install --quiet uv
	$(VENV)-bounds/bin/uv pip compile --quiet --no-deps --resolution lowest-direct --no-emit-package torch --no-emit-package torchvision \
		--extra serve --output-file $(VENV)-bounds/lowest.txt pyproject.toml
	$(VENV)-bounds/bin/python -m pip install --quiet --constraint $(VENV)-bounds/lowest.txt --editable ".[serve]" pytest hypothesis
	$(VENV)-bounds/bin/python -m pytest -q tests/test_cli.py tests/test_config.py tests/judge tests/store tests/vlm/test_local.py \
		tests/stages/test_sft.py tests/stages/test_gcpo.py tests/training tests/editors/test_adapters.py tests/flow/test_training.py

# Other trainers' packages in an environment of their own, without their dependencies: torch and the rest come from .venv.
trainers: $(READY)
	test -x $(VENV)-trainers/bin/python || $(PYTHON) -m venv $(VENV)-trainers
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" > \
		$$($(VENV)-trainers/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/zz_base.pth
	echo $(CURDIR)/src >> $$($(VENV)-trainers/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/zz_base.pth
	$(VENV)-trainers/bin/python -m pip install --quiet --no-deps --requirement benchmarks/trainers.txt
	$(VENV)-trainers/bin/python benchmarks/trainers.py --out docs/results/trainers.md

clean:
	rm -rf $(VENV) $(VENV)-bounds runs
