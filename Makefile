# Every target that a person calls says what it does after `##`; `make` lists them.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
IMAGES ?=
, := ,

define install
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt -e '.[$(1)]'
	touch $@
endef

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.cpu: pyproject.toml constraints.txt
	$(call install,cpu$(,)demo)
$(VENV)/.dev: pyproject.toml constraints.txt
	$(call install,cpu$(,)demo$(,)dev)
$(VENV)/.torch: pyproject.toml constraints.txt
	$(call install,cpu$(,)demo$(,)dev$(,)openvino$(,)torch$(,)train)

install: $(VENV)/.cpu  ## Install into .venv what indexing and searching need
	@echo "ready: $(BIN)/retrieval --help"

demo: $(VENV)/.cpu  ## Index and search real photos; IMAGES=/path takes yours
	@$(BIN)/retrieval demo $(if $(IMAGES),"$(IMAGES)")

test: $(VENV)/.dev  ## Run the tests (a few minutes; no network, no GPU)
	$(BIN)/python -m pytest -n auto

test-slow: $(VENV)/.torch  ## Run the slow tests, with the reference networks in torch
	$(BIN)/python -m pytest -n auto -m "slow and not gpu and not network"

check: $(VENV)/.dev  ## Check format, lint, types and the direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/test_house.py

bench: $(VENV)/.torch  ## Run the benchmarks, for an hour or more; results go to benchmarks/results
	for script in $(basename $(notdir $(wildcard benchmarks/[a-z]*.py))); do \
		$(BIN)/python -m benchmarks.$$script || exit 1; done

train-pocket: $(VENV)/.torch  ## Train the pocket text encoder again (DATA=../shared/data)
	$(BIN)/python -m retrieval.encoders.pocket.train $(or $(DATA),../shared/data)

constraints:  ## Pin what today's newest compatible packages are
	rm -rf build/pins && $(PYTHON) -m venv build/pins
	build/pins/bin/python -m pip --quiet install '.[api,cpu,demo,dev,heif,lancedb,map,openvino,pandas,ray,torch,train,ui]'
	build/pins/bin/python -m pip freeze --exclude retrieval > constraints.txt

clean:  ## Remove what was built, installed and cached here
	rm -rf $(VENV) build dist demo-out .pytest_cache .mypy_cache .ruff_cache .hypothesis

.PHONY: help install demo test test-slow check bench train-pocket constraints clean
