# One command per task; `make` alone lists them. Every target makes the virtual environment that it needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Where `make demo` writes.
DEMO_DIR ?= demo
# How many seeds the benchmarks of methods run; they write to runs/.
SEEDS ?= 3

.DEFAULT_GOAL := help
.PHONY: help install format lint types test test-all bench bench-volume-fusion bench-adaptation bench-localization bench-maco demo verify package new-bundle clean

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-22s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(READY) ## Make the virtual environment .venv with everything that developers need

$(READY): setup.cfg pyproject.toml .constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "The pinned environment needs Python 3.11 or newer, found " + sys.version.split()[0] + "; name another with make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint .constraints.txt --editable '.[dev]'
	@touch $@

format: $(READY) ## Format code and bundle JSON in place
	$(BIN)/ruff check --fix-only --quiet common tests
	$(BIN)/ruff format common tests
	$(BIN)/python -m common.tools format_json

lint: $(READY) ## Check style, spelling and the form of the bundle JSON
	$(BIN)/ruff check common tests
	$(BIN)/ruff format --check common tests
	$(BIN)/codespell common tests bundles docs README.md CONTRIBUTING.md CHANGELOG.md
	$(BIN)/python -m common.tools format_json --check

types: $(READY) ## Check types in common/
	$(BIN)/mypy

test: $(READY) ## Run the tests that take minutes (two processes, one thread each)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not slow and not gpu and not weights"

test-all: $(READY) ## Run every test that this machine can run
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

bench: $(READY) ## Measure speed as ratios against plain implementations in the same run
	$(BIN)/python -m tests.benchmarks.bench_fusion
	$(BIN)/python -m tests.benchmarks.bench_pct_net
	$(BIN)/python -m tests.benchmarks.bench_adaptation
	$(BIN)/python -m tests.benchmarks.bench_maco
	$(BIN)/python -m tests.benchmarks.bench_box_prompt
	$(BIN)/python -m tests.benchmarks.bench_localization
	$(BIN)/python -m tests.benchmarks.bench_evaluation

bench-volume-fusion: $(READY) ## Does pretraining pay? Phantoms, SEEDS seeds, scratch against pretrained
	$(BIN)/python -m common.tools bench_volume_fusion --seeds $(SEEDS)

bench-adaptation: $(READY) ## Does adaptation pay? Five methods, two protocols, four camera domains, SEEDS seeds
	$(BIN)/python -m common.tools bench_adaptation --seeds $(SEEDS)

bench-localization: $(READY) ## Boxes from one and from three templates, regression alone and with search, SEEDS seeds
	$(BIN)/python -m common.tools bench_localization --seeds $(SEEDS)

bench-maco: $(READY) ## Scribbles against full labels: eight methods, four amounts of scribbles, SEEDS seeds
	$(BIN)/python -m common.tools bench_maco --seeds $(SEEDS)

demo: $(READY) ## Phantoms, then every bundle (or one: B=name) through its real JSON, then a report with pictures
	$(BIN)/python -m common.tools demo --output_dir $(DEMO_DIR) $(if $(B),--bundle $(B))

verify: $(READY) ## Check every bundle (or one: B=name) as before a release; with the extra `onnx`, that export too
	OMP_NUM_THREADS=1 $(BIN)/python -m common.release verify $(if $(B),--bundle $(B))

package: $(READY) ## Write dist/<bundle>_v<version>.zip and checksums (one: B=name; no weights: WEIGHTS=False; release: REPO=owner/name/tag)
	$(BIN)/python -m common.release package --output_dir dist $(if $(B),--bundle $(B)) $(if $(REPO),--repo $(REPO)) $(if $(WEIGHTS),--with_weights $(WEIGHTS))

new-bundle: $(READY) ## Make the next bundle from a template: N=name
	@test -n "$(N)" || { echo 'error: name it, make new-bundle N=name'; exit 1; }
	$(BIN)/python -m common.release new_bundle --name $(N)

clean: ## Remove the environment, caches, demo and benches; data, weights and output of your runs stay
	rm -rf $(VENV) $(DEMO_DIR) runs dist build *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find common tests bundles -name __pycache__ -type d -prune -exec rm -rf {} +
