# Every target sets up what it needs: a virtual environment from the hashed lock, nothing outside this folder but package caches.
.DEFAULT_GOAL := help
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.14; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2])' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin

.PHONY: help install demo test unit check format faults model bench schemas lock clean

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.venv/installed: requirements.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "aibroker needs Python 3.11 or newer on the PATH; name one with PYTHON=/path/to/python"; exit 3; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

# Libraries are compiled by pip; ours are here, so that no process does it at its start: each would, where Python is told to write no bytecode.
install: .venv/installed ## make .venv with everything in it
	@$(BIN)/python -m compileall -q broker deploy schemas workers

demo: install ## send 1,000 mixed jobs through a real Kafka and a real MongoDB
	$(BIN)/aibroker demo

test: install ## unit, contract and integration tests
	$(BIN)/python -m pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder

unit: install ## the tests that need no service
	$(BIN)/python -m pytest tests/unit tests/test_architecture.py

check: install ## format, lint, types, architecture
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py

format: install ## rewrite files as the linters want them
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

faults: install ## disturb workers, services and lines in every way, or some: ONLY=r1,r4; SHORT=1 takes minutes; writes deploy/evidence/faults.json
	$(BIN)/python -m tests.faults $(if $(ONLY),--only $(ONLY)) $(if $(SHORT),--short)

model: install ## check the models of the protocol and of the quotas with TLC, and that each rule is needed
	$(BIN)/python -m tests.model

bench: install ## measure the targets, or some: ONLY=P1,P7; writes build/bench.json
	$(BIN)/python -m tests.benchmarks $(if $(ONLY),--only $(ONLY))

schemas: install ## write JSON Schema and AsyncAPI from the models
	$(BIN)/python -m schemas.generate

lock: ## resolve the dependencies anew, with hashes
	@test -x $(BIN)/uv || $(MAKE) install
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate \
		--extra local --extra parquet --extra plot --extra dev pyproject.toml --output-file requirements.txt

clean: ## remove what the targets made
	rm -rf .venv build .mypy_cache .ruff_cache .pytest_cache .hypothesis
