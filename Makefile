.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PROTOS := $(sort $(shell find protos -name "*.proto"))

.PHONY: help
help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: install
install: $(VENV)/.installed ## Make the private environment in .venv

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Boatyard needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 install"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' || { echo "This Python cannot make virtual environments: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

.PHONY: proto
proto: install ## Generate the stubs beside their protos
	@find protos -name '*_pb2*.py*' -delete
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -Iprotos --python_out=protos --grpc_python_out=protos \
	  --mypy_out=quiet,readable_stubs:protos --mypy_grpc_out=quiet,only_async,readable_stubs:protos $(PROTOS)

.PHONY: fmt
fmt: install ## Format code and protos
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/buf format -w

.PHONY: lint
lint: install ## Check style of code and protos
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code

.PHONY: types
types: install ## Check types
	$(BIN)/mypy

.PHONY: imports
imports: install ## Check the borders between services
	$(BIN)/lint-imports

.PHONY: test
test: install ## Run the tests
	$(BIN)/pytest
