# Onebox: `make serve` and `make test` each set up whatever is still missing. `make help` lists all.

PYTHON ?= python3
MODEL ?=
CUDA ?=
ARGS ?=
MINUTES ?= 60

LOCK = build/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate --constraint constraints.txt
SETUP = $(PYTHON) -m setup --cuda "$(CUDA)"
BIN = .venv/bin

.DEFAULT_GOAL := help
.PHONY: help install dev serve test test-0.6b lint lock audit bench soak train clean

help: ## List the targets
	@sed -n 's/^\([a-z0-9.-]*\):.*## /\1: /p' $(MAKEFILE_LIST) | while IFS=: read -r target text; \
	do printf '  make %-10s %s\n' "$$target" "$$text"; done

install: ## Make the environment only (.venv); CUDA=1 builds for NVIDIA GPUs, CUDA=0 for the CPU again
	@$(SETUP)

dev: ## Make the environment with the tools that test and lint need
	@$(SETUP) --extra dev

serve: install ## Serve MODEL (a name of models.yaml or a path to a GGUF), further options in ARGS
	@$(BIN)/onebox serve $(MODEL) $(ARGS)

test: dev ## Run the tests, options of pytest in ARGS
	@$(PYTHON) -m setup.debian
	@$(BIN)/python -m pytest $(ARGS)

test-0.6b: dev ## Pull the real Qwen3-0.6B and run the end-to-end tests on it (needs the hub)
	@$(BIN)/onebox pull qwen3-0.6b
	@ONEBOX_TEST_MODEL=qwen3-0.6b $(BIN)/python -m pytest tests/test_end_to_end.py $(ARGS)

lint: dev ## Check style (ruff) and types (mypy, strict)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lock: ## Write locks/ again after a change of pyproject.toml or constraints.txt (needs the network)
	@$(PYTHON) -m venv build/lock
	@build/lock/bin/python -m pip install --quiet uv==0.13.9
	@$(LOCK) pyproject.toml --output-file locks/serve.txt
	@$(LOCK) pyproject.toml --extra bench --output-file locks/bench.txt
	@$(LOCK) pyproject.toml --extra dev --output-file locks/dev.txt
	@echo llama-cpp-python | $(LOCK) --no-deps - --output-file locks/llama.txt
	@printf '%s\n' cmake editables hatchling ninja scikit-build-core | $(LOCK) - --output-file locks/build.txt

audit: ## Look the locked packages up in the database of known vulnerabilities (needs the network)
	@$(PYTHON) -m venv build/audit
	@build/audit/bin/python -m pip install --quiet pip-audit==2.10.1 truststore==0.10.5
	@build/audit/bin/python -m setup.audit

bench: ## Measure running servers, options of onebox bench in ARGS (by default: the one of make serve)
	@$(SETUP) --extra bench
	@$(BIN)/onebox bench $(ARGS)

soak: install ## Use a server for MINUTES (60) with hang-ups, slow readers and killed workers, and report
	@$(BIN)/python -m benchmarks.soak --minutes $(MINUTES) $(ARGS)

train: ## Make qwen3-demo again from nothing (about half an hour on two cores)
	@$(SETUP) --extra train
	@$(BIN)/python -m training

clean: ## Remove .venv and all that tools left behind; built wheels stay in the user's cache
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
