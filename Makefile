# `make demo` and `make test` need Python 3.11+ and make; everything else they install into .venv.
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PYTHON ?= python3
WORKERS ?= 2

.PHONY: demo evidence test check bounds trainers engines clean

demo: $(READY)
	$(BIN)/editr1 demo --run runs/demo

evidence: $(READY)  # what each part of the verifier is worth: 3 seeds, 80 minutes on two cores; continues where it stopped
	$(BIN)/editr1 study recipes/evidence.yaml --run runs/evidence --out docs/results/evidence

test: $(READY)  # whole files to each worker, the longest first (tests/conftest.py); `make test WORKERS=0` is one process
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

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
# torchvision are what the installer picks, unless TORCH names others: their lowest builds are gigabytes of CUDA, with or without a GPU.
bounds:
	test -x $(VENV)-bounds/bin/python || $(PYTHON) -m venv $(VENV)-bounds
	$(VENV)-bounds/bin/python -m pip install --quiet uv
	$(VENV)-bounds/bin/uv pip compile --quiet --no-deps --resolution lowest-direct --no-emit-package torch --no-emit-package torchvision \
		--extra serve --output-file $(VENV)-bounds/lowest.txt pyproject.toml
	$(VENV)-bounds/bin/python -m pip install --quiet --constraint $(VENV)-bounds/lowest.txt --editable ".[serve]" $(TORCH) pytest hypothesis duckdb
	$(VENV)-bounds/bin/python benchmarks/bounds.py --out docs/results/bounds.md

# An environment whose own packages stand before those of .venv and src/. `import editr1` lets any torchvision live beside a CPU torch.
define behind
	test -x $(1)/bin/python || $(PYTHON) -m venv $(1)
	( $(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))"; echo $(CURDIR)/src; echo import editr1 ) > \
		$$($(1)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/zz_base.pth
endef

# Other trainers' packages, without their dependencies.
$(VENV)-trainers/.ready: benchmarks/trainers.txt | $(READY)
	$(call behind,$(VENV)-trainers)
	$(VENV)-trainers/bin/python -m pip install --quiet --no-deps --requirement benchmarks/trainers.txt
	touch $@

# UniRL needs Python 3.12 or newer, with a torch of its own (3 GB); without one its row says so.
PYTHON312 ?= $(shell python3.12 -c "import sys; print(sys.executable)" 2>/dev/null)

$(VENV)-unirl/.ready: benchmarks/unirl.txt
	test -x $(VENV)-unirl/bin/python || $(PYTHON312) -m venv $(VENV)-unirl
	$(VENV)-unirl/bin/python -m pip install --quiet --requirement benchmarks/unirl.txt
	touch $@

# PEERS=DIR: a folder with the trees of Flow-Factory, verl-omni and flow_grpo, which are on no registry.
trainers: $(VENV)-trainers/.ready $(if $(PYTHON312),$(VENV)-unirl/.ready)
	$(VENV)-trainers/bin/python benchmarks/trainers.py --out docs/results/trainers.md \
		$(if $(PYTHON312),--unirl $(VENV)-unirl/bin/python) $(if $(PEERS),--peers $(PEERS))

# vLLM for CPUs with its dependencies, but for two that read sound and video: their builds are CUDA's, and break imports beside a CPU torch.
$(VENV)-engines/.ready: benchmarks/engines.txt benchmarks/vllm_cpu/pyproject.toml | $(READY)
	$(call behind,$(VENV)-engines)
	$(VENV)-engines/bin/python -m pip install --quiet --requirement benchmarks/engines.txt
	$(VENV)-engines/bin/python -m pip uninstall --quiet --yes torchaudio torchcodec
	touch $@

engines: $(VENV)-engines/.ready $(VENV)-trainers/.ready  # about 11 minutes on two cores, after the install
	$(VENV)-engines/bin/python benchmarks/engines.py --swift $(VENV)-trainers/bin/python --out docs/results/engines.md

clean:
	rm -rf $(VENV) $(VENV)-bounds $(VENV)-trainers $(VENV)-unirl $(VENV)-engines runs
