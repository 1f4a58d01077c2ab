# A fresh machine needs Python 3.11 or newer and make; everything else is set up in .venv, once.
# `make` alone lists what there is.

.DEFAULT_GOAL := help
.SUFFIXES:

VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.set-up
# The developers' packages are installed over the others: both locks have the same versions.
DEVELOP := $(VENV)/.set-up-develop
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13 python3.14 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)

.PHONY: help setup develop scenarios lint test check clocks bench lock proto clean nightly tools cluster

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

setup: $(STAMP) ## make .venv with what scenarios need (requirements.lock); nothing to do the second time

$(STAMP): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { \
		echo "meshwake needs Python 3.11 or newer, and none was found." >&2; \
		echo "Install one (Debian, Ubuntu: apt install python3 python3-venv) or say which: make PYTHON=/path/to/python3" >&2; \
		exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) cannot make a virtual environment: its modules venv and ensurepip are missing." >&2; \
		echo "Debian, Ubuntu: apt install python3-venv" >&2; \
		exit 1; }
	@rm -rf $(VENV)
	"$(PYTHON)" -m venv $(VENV)
	$(INSTALL) --require-hashes -r requirements.lock
	$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

develop: $(DEVELOP) ## setup, and everything that the tests use (requirements-dev.lock)

$(DEVELOP): $(STAMP) requirements-dev.lock
	$(INSTALL) --require-hashes -r requirements-dev.lock
	@touch $@

scenarios: $(STAMP) ## run all scenarios on the most real lab that can run here
	$(BIN)/pytest scenarios/

lint: $(DEVELOP) ## format, lint, layers and types
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/lint-imports
	$(BIN)/mypy

# At the same time as the tests: mypy and lint-imports are one process each, and the tests wait for
# one worker at their start and end. One after the other, a core would be idle for a fifth of it.
TOGETHER := @$(MAKE) --no-print-directory --jobs=2 lint

test: $(DEVELOP) ## lint and all tests
	$(TOGETHER) all-tests

check: $(DEVELOP) ## lint and the tests that are quick: under a minute on two idle cores, for while one is writing
	$(TOGETHER) quick-tests

.PHONY: all-tests quick-tests
all-tests:
	$(BIN)/pytest tests/ -n auto --dist worksteal

quick-tests:
	$(BIN)/pytest tests/unit tests/repository -m "not slow" -n auto --dist worksteal

clocks: $(DEVELOP) ## measure what a suspend does in a real kernel, and write docs/clocks-measured.md and docs/timers.md
	$(BIN)/meshwake clocks
	$(BIN)/meshwake timers

bench: $(DEVELOP) ## how fast the labs are, as ratios
	$(BIN)/python -m tests.bench

# UPGRADE= keeps every version that still fits.
UPGRADE ?= --upgrade
COMPILE := uv pip compile pyproject.toml --universal --generate-hashes --no-emit-index-url --quiet \
	--custom-compile-command "make lock" $(UPGRADE)

lock: ## rewrite both locks from pyproject.toml (needs uv; UPGRADE= keeps versions)
	$(COMPILE) --all-extras --group dev --output-file requirements-dev.lock
	$(COMPILE) --extra fetch --extra pytest --group build --constraint requirements-dev.lock \
		--output-file requirements.lock

proto: ## regenerate *_pb2.py from the .proto files (needs grpcio-tools; its protobuf must not be newer than the locked one)
	python3 -m grpc_tools.protoc -Iharness --python_out=harness --pyi_out=harness harness/meshwake/authority/proto/*.proto

clean: ## remove .venv and caches; runs/ stays
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

LABS  ?= model,process
NIGHT ?= nightly/$(shell date -u +%F)

# make itself ends with 2 whatever failed; the exit code of the night is in $(NIGHT)/exit_code.
nightly: $(DEVELOP) ## all scenarios on all versions (LABS=model,process NIGHT=directory); a broken off night goes on
	MESHWAKE_RUNS=$(NIGHT)/runs $(BIN)/meshwake nightly --labs $(LABS) --out $(NIGHT) --resume $(NIGHTLY)

CLUSTER ?= trial

# UP='--profile full --nodes 1'   TRY='-m "not slow"'
cluster: $(DEVELOP) ## bring up a cluster on kind and try everything on it (CLUSTER=name UP=words TRY=words); it stays up
	$(BIN)/meshwake up --name $(CLUSTER) $(UP)
	MESHWAKE_TEST_CLUSTER=$(CLUSTER) MESHWAKE_TEST_RUNS=$(NIGHT)/runs $(BIN)/pytest tests/cluster $(TRY)

# The newest helm of the major that clusters/stack.toml asks for and tests were run with; kind as pinned there.
HELM_TO_INSTALL := v3.22.0

tools: $(STAMP) ## kind and helm for lab kind, built with Go into meshwake's cache
	@command -v go >/dev/null || { \
		echo "make tools builds kind and helm with Go, and there is no 'go' on PATH." >&2; \
		echo "Install Go (https://go.dev/dl), or kind and helm themselves: https://kind.sigs.k8s.io, https://helm.sh" >&2; \
		exit 1; }
	@place="$$($(BIN)/python -c 'from meshwake.ztunnel.binaries import cache_dir; print(cache_dir() / "tools" / "bin")')" && \
	kind="$$($(BIN)/python -c 'from meshwake.cluster.stack.pins import read_pins; print(read_pins().tools.kind)')" && \
	mkdir -p "$$place" && \
	echo "installing kind v$$kind and helm $(HELM_TO_INSTALL) into $$place" && \
	GOBIN="$$place" go install "sigs.k8s.io/kind@v$$kind" && \
	GOBIN="$$place" go install "helm.sh/helm/v3/cmd/helm@$(HELM_TO_INSTALL)"

.PHONY: injectors
injectors: $(DEVELOP) ## measure which injector moves which program's clocks, and write docs/injectors.md
	$(BIN)/python -m tests.conformance.matrix
