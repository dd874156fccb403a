# make quickstart   the whole job at small scale, ending in quickstart/report.html
# make check        linter, type checker and, beside them, the quick tests, in under a minute on two
#                   cores
# make test         linter, type checker and all tests
# make bench        the benchmarks that need no GPU, and benchmarks/RESULTS.md
# All set up .venv first. PYTHON chooses the interpreter (3.11 or 3.12).

PYTHON ?= $(shell for p in python3.11 python3.12 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null \
	&& echo $$p && break; done)
BIN := .venv/bin
# Tests that download, render, train, decode, start processes or run whole commands; 'make check'
# leaves them to 'make test'.
WHOLE_JOBS := benchmarks common/test_workers.py data/test_store_memory.py decoding evaluation \
	prepare recipes released report training/vqgan world test_api.py

.PHONY: quickstart lint quick-tests check test bench clean

quickstart: .venv/.installed
	$(BIN)/python scripts/quickstart.py

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

quick-tests: .venv/.installed-dev
	$(BIN)/python -m pytest -n 2 -m "not slow" $(WHOLE_JOBS:%=--ignore=tests/%)

# Installed first, as two targets beside each other would both do it.
check: .venv/.installed-dev
	$(MAKE) --no-print-directory -j 2 lint quick-tests

test: lint
	$(BIN)/python -m pytest -n 2

bench: .venv/.installed-dev
	$(BIN)/python benchmarks/data_store.py --output benchmarks/results/data_store.json
	$(BIN)/python benchmarks/world.py --device cpu --output benchmarks/results/world-cpu.json
	$(BIN)/python benchmarks/vqgan.py --device cpu --config mini --output benchmarks/results/vqgan-cpu.json
	$(BIN)/python benchmarks/quickstart.py --output benchmarks/results/quickstart.json
	$(BIN)/python benchmarks/make_results.py

.venv/.installed: pyproject.toml requirements.txt
	@test -n "$(PYTHON)" || { echo "error: no Python 3.11 or 3.12 found; set PYTHON=..." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements.txt
	touch $@

.venv/.installed-dev: .venv/.installed
	$(BIN)/python -m pip install -q --disable-pip-version-check -e ".[dev]"
	touch $@

clean:
	rm -rf .venv quickstart
