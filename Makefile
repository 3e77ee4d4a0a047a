.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ENGINE ?= $(shell command -v docker || command -v podman)
PROTOS := $(sort $(shell find protos -name "*.proto"))
STUBS = --python_out=$(1) --grpc_python_out=$(1) --mypy_out=quiet,readable_stubs:$(1) --mypy_grpc_out=quiet,only_async,readable_stubs:$(1)

.PHONY: help
help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: install
install: $(VENV)/.installed ## Make the private environment in .venv

# What the locks in requirements/ name, and nothing else: wheels with these hashes. Boatyard itself needs nothing more.
LOCKED := install --quiet --disable-pip-version-check --require-hashes --only-binary :all:

$(VENV)/.installed: pyproject.toml requirements/build.txt requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Boatyard needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 install"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' || { echo "This Python cannot make virtual environments: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip $(LOCKED) -r requirements/build.txt -r requirements/dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

TOOLS := build/tools

$(TOOLS)/.installed: requirements/tools.txt
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/pip $(LOCKED) -r requirements/tools.txt
	@touch $@

# Each lock gets the versions of the one before. ARGS can change them: see requirements/README.md.
COMPILE = $(TOOLS)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	  --custom-compile-command "make lock" $(ARGS)

.PHONY: lock
lock: $(TOOLS)/.installed ## Write the locks in requirements/ (ARGS=--upgrade renews all versions)
	$(COMPILE) pyproject.toml --extra dev --output-file requirements/dev.txt
	$(COMPILE) pyproject.toml --constraint requirements/dev.txt --output-file requirements/runtime.txt
	@$(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"])' >build/build.in
	$(COMPILE) build/build.in --constraint requirements/dev.txt --output-file requirements/build.txt
	$(COMPILE) requirements/tools.in --output-file requirements/tools.txt

.PHONY: prices
prices: install ## Write the table of what models cost, from the package in requirements/dev.txt
	$(BIN)/python -m tests.kit.prices

.PHONY: sbom
sbom: $(TOOLS)/.installed ## Write the list of parts, as CycloneDX, to build/boatyard.cdx.json
	$(TOOLS)/bin/cyclonedx-py requirements --pyproject pyproject.toml --mc-type application --output-reproducible \
	  --output-file build/boatyard.cdx.json requirements/runtime.txt

.PHONY: proto
proto: install ## Generate the stubs next to their protos
	@find protos -name '*_pb2*.py*' -delete
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -Iprotos $(call STUBS,protos) $(PROTOS)

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

.PHONY: proto-check
proto-check: install ## Check that the stubs match the protos
	@rm -rf build/stubs && mkdir -p build/stubs
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -Iprotos $(call STUBS,build/stubs) $(PROTOS)
	@for stub in $$(cd build/stubs && find . -type f); do cmp "build/stubs/$$stub" "protos/$$stub" || exit 1; done || \
	  { echo "The stubs do not match the protos: make proto"; exit 1; }

# What the protos are compared with: what they were when somebody last ran `make breaking-baseline`.
BASELINE := protos/baseline.binpb.gz

.PHONY: breaking
breaking: install ## Check that clients and stored messages of the baseline still understand the protos
	$(BIN)/buf breaking --against $(BASELINE)

.PHONY: breaking-baseline
breaking-baseline: install ## Promise the protos as they are now: from here on a change must be compatible with them
	$(BIN)/buf build --exclude-source-info --output $(BASELINE)

# Tests use a directory of their own, kept when a test fails: the one that pytest shares between all runs of a user may
# still contain mounts of a run that was killed.
PYTEST = kept=$$(mktemp -d) && \
	  $(BIN)/pytest --numprocesses 3 --dist loadfile --basetemp "$$kept/pytest" -m $(1) $(PYTEST_ARGS) && \
	  rm -rf --one-file-system "$$kept"

.PHONY: test
test: install ## Run the tests (PYTEST_ARGS="-k name" for some of them)
	@$(call PYTEST,"not slow")

.PHONY: test-slow
test-slow: install ## Run the tests that take longer
	@$(call PYTEST,slow)

AGENTS ?= $(HOME)/.cache/boatyard/agents

.PHONY: test-agents
test-agents: install ## Run the real agents against a scripted model (AGENTS=directory that they are installed into and kept in)
	@tests/agents/install.sh $(AGENTS)
	@BOATYARD_TEST_AGENTS=$(AGENTS) .venv/bin/pytest -q -p no:xdist tests/agents

.PHONY: check
check: lint types imports proto-check breaking test test-slow ## Run everything that CI runs

.PHONY: demo
demo: install ## Run an agent on a small repository, from nothing to a pushed branch (ARGS="--sandbox none")
	@examples/demo/demo.sh $(ARGS)

.PHONY: up
up: install ## Start a cell in the foreground
	$(BIN)/boatyard up

.PHONY: down
down: install ## Stop the cell and its agents
	$(BIN)/boatyard down

.PHONY: bench
bench: install ## Measure, and print ratios (python -m bench.NAME for one, with --help)
	@for name in $(filter-out chaos,$(patsubst bench/%.py,%,$(wildcard bench/[a-z]*.py))); do \
	  echo "== $$name"; $(BIN)/python -m bench.$$name || exit 1; done

.PHONY: chaos
chaos: install ## Kill, pause and cut off processes for 10 min, and check what holds (ARGS="--seed 7")
	$(BIN)/python -m bench.chaos $(ARGS)

.PHONY: image
image: ## Build the image of a cell and test it (ENGINE=podman, BUILD_ARGS="--build-arg BASE=…")
	$(ENGINE) build --file deploy/image/Dockerfile --tag boatyard $(BUILD_ARGS) .
	deploy/try.sh $(ENGINE) boatyard

.PHONY: clean
clean: ## Remove what was built
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
