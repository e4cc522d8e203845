# Everything one does with this project. `make help` lists it; only Python 3.11+ and make are needed.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
ARGS ?=
TORCH := $(shell grep '^torch==' constraints.txt)

# Without bytecode caches every command would compile torch's and transformers' sources again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install audit test check bench docs bundled clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 12

install: $(STAMP) ## make .venv with everything pinned in constraints.txt

# torch goes first and alone: asked for by its exact version, pip takes the CPU wheel where one is
# at hand, instead of several GB of CUDA packages that the range in pyproject.toml would admit.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt $(TORCH)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

audit: $(STAMP) ## the main job, without network: audit the bundled model, write out/audit/report.html
	HF_HUB_OFFLINE=1 $(BIN)/modelassay audit --force $(ARGS)

test: $(STAMP) ## the test suite (at most 12 minutes on two cores)
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -n 2 $(ARGS)

check: $(STAMP) ## format, lint, types, layers, spelling
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/codespell

bench: $(STAMP) ## print the figures in benchmarks/
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks $(ARGS)

docs: $(STAMP) ## build the documentation into site/, strictly
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bundled: $(STAMP) ## train the bundled model anew (under an hour on two cores)
	$(BIN)/python -m tools.bundled.train $(ARGS)
	$(BIN)/python -m tools.bundled.card
	$(BIN)/python -m tools.bundled.checksums

clean: ## remove everything that was built, but not .venv
	rm -rf out site dist build .pytest_cache .ruff_cache .hypothesis .import_linter_cache
