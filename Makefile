# Everything happens in .venv, from a Python 3.11 to 3.13 with pip and the package index. Another one: make test PYTHON=python3.12
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The environments of server engines that tests use are part of .venv, and not those of the user.
ENGINES := LLMKIT_DATA=$(CURDIR)/$(VENV)/data
# Threads that wait for each other by turning take the cores of processes beside them, and tests have many.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-gpu test-engines test-vllm check format clean

help: ## Show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/installed ## Install llmkit and train a small model by reinforcement learning
	$(BIN)/llmkit train grpo --preset gsm8k-tiny

test: $(VENV)/installed-dev ## Run the tests
	$(PYTEST) -n 2 --dist loadfile

test-slow: $(VENV)/installed-dev ## Run the tests that take minutes, many processes or Node
	$(PYTEST) -m 'slow and not engines'

test-gpu: $(VENV)/installed-dev ## Run the tests that need an NVIDIA GPU
	$(PYTEST) -m gpu

test-engines: $(VENV)/data/engines/vllm.json $(VENV)/data/engines/sglang.json ## Install vLLM and SGLang, each in an environment of its own, and run the tests that need them
	$(ENGINES) $(PYTEST) -m engines

test-vllm: $(VENV)/data/engines/vllm.json ## Run those of them that need vLLM alone and take little time
	$(ENGINES) $(PYTEST) -m 'engines and not slow' -k 'not sglang'

$(VENV)/data/engines/%.json: | $(VENV)/installed-dev
	$(ENGINES) $(BIN)/llmkit engines install $*

check: $(VENV)/installed-dev ## Check format, lint, types and the direction of imports
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/pyright
	$(BIN)/lint-imports --no-logo

format: $(VENV)/installed-dev ## Format the code and mend what can be mended
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean: ## Remove .venv and caches; runs and caches in the home directory stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/installed: pyproject.toml constraints.txt
	@echo "Installing llmkit in $(VENV); the first time takes minutes."
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(INSTALL) --editable '.[dev,serve,math,tensorboard,wandb,adapters,quantization,torchao,gguf]' \
		--editable plugins/llmkit-vllm --editable plugins/llmkit-sglang
	touch $@
