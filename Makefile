# make demo   simulate GPT2-medium on PIM-GPT; tables and pictures in out/demo
# make study  sweep PIM-GPT one parameter at a time over eight models (two minutes on two cores); the figures of docs/study.md
# make test   the test suite without the slow tests
# make slow   the slow tests and the benchmarks
# make lint   style, types, layers
# make lock   take the newest versions that the bounds allow, and write them to constraints.txt
# make clean  remove everything that make has made
# Each target installs what it needs into .venv first. Another Python: make PYTHON=/path/to/python3 test

SHELL := /bin/sh
BIN := .venv/bin
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(or $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c '$(NEW_ENOUGH)' 2>/dev/null && echo $$p && break; done),python3)

.PHONY: demo study test slow lint lock clean

demo: .venv/installed-test
	$(BIN)/pimloom simulate gpt2-medium pim-gpt --prompt 1 --generate 256 --out out/demo

study: .venv/installed-test
	$(BIN)/pimloom sweep pim-gpt-study --out out/study
	$(BIN)/pimloom plot out/study --kind line --format png --out docs/images/study
	$(BIN)/pimloom plot out/study --grid tokens --kind bars --format png --out docs/images/study

test: .venv/installed-test
	$(BIN)/python -m pytest -n 2 -m "not slow and not bench"

# One process, so that nothing disturbs the measured times. pytest's code 5: no test is marked so.
slow: .venv/installed-test
	$(BIN)/python -m pytest -m "slow or bench" || test $$? -eq 5

lint: .venv/installed-dev
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check
	$(BIN)/python -m mypy
	$(BIN)/lint-imports

lock:
	"$(PYTHON)" -m venv --clear .venv
	$(BIN)/python -m pip install --quiet -e '.[test,dev]'
	{ sed -n '/^#/p' constraints.txt; $(BIN)/python -m pip freeze --exclude-editable; } > .venv/lock
	mv .venv/lock constraints.txt

clean:
	rm -rf .venv out build dist pimloom.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find pimloom tests -type d -name __pycache__ -prune -exec rm -rf {} +

.venv/installed-test: pyproject.toml constraints.txt
	@"$(PYTHON)" -c '$(NEW_ENOUGH)' 2>/dev/null || { \
	  echo 'pimloom needs Python 3.11 or newer; found: "$(PYTHON)"' "$$("$(PYTHON)" --version 2>&1)." >&2; \
	  echo 'Install one, or name it: make PYTHON=/path/to/python3 $(MAKECMDGOALS)' >&2; exit 1; }
	@test -x $(BIN)/pip || "$(PYTHON)" -m venv --clear .venv
	@echo 'Installing pimloom and its libraries into .venv (a minute or so) ...'
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test]'
	@touch $@

.venv/installed-dev: .venv/installed-test
	@echo 'Installing the development tools into .venv ...'
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[test,dev]'
	@touch $@
