# Every target does its own set-up: a virtual environment in .venv beside this file.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp

.PHONY: demo run check test bench clean lock

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -c requirements-dev.lock -e '.[dev]'
	touch $@

demo: $(STAMP)
	$(BIN)/python -m tests.demo

run: $(STAMP)
	@test -n "$(CONF)" || { echo "usage: make run CONF=FILE"; exit 2; }
	$(BIN)/kad -n -l -f $(CONF)

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/unit tests/golden tests/property

test: check
	$(BIN)/python -m pytest -q tests --ignore=tests/unit --ignore=tests/golden --ignore=tests/property --ignore=tests/bench

bench: $(STAMP)
	$(BIN)/python -m pytest -q -s tests/bench

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
