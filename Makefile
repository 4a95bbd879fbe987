# Every target does its own set-up: a virtual environment in .venv beside this file.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
PYTEST := $(BIN)/python -m pytest -q --durations=10
# Test files beside each other: most of their time is waiting. Each makes namespaces of its own. They begin in
# the order of tests/conftest.py, the longest first.
BESIDE := --dist loadfile --no-loadscope-reorder
# A quick test that has not ended by then never will.
QUICK := -o faulthandler_timeout=120 -o faulthandler_exit_on_timeout=true
REAL := tests/interop tests/netns tests/process

.PHONY: help demo run check test soak bench packages prepared clean vm sim

help:
	@echo "make demo              two nodes and a client on this machine, in under a minute"
	@echo "make run CONF=FILE     kad in the foreground with this configuration (root)"
	@echo "make check             style, types, import rules, quick tests: under a minute, no root"
	@echo "make test              everything this machine can run; each skip says why"
	@echo "make packages          installs what the tests need on Debian (root)"
	@echo "make vm                of make test only IPVS, in virtual machines with Debian's kernel"
	@echo "make sim [SEED=..] [HOURS=..] [NODES=..]  routers on a simulated network where everything goes wrong"
	@echo "make soak [SECONDS=3600] [SEED=1]   two routers under reloads, kills, lost links (root)"
	@echo "make bench [NAMES=..]  beside keepalived, as a table (root)"

$(STAMP): pyproject.toml requirements-dev.lock
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "kad needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check --retries 5 -c requirements-dev.lock --config-settings editable_mode=compat -e '.[dev]'
	touch $@

demo: $(STAMP)
	@command -v ip >/dev/null || .ci/run packages iproute2
	$(BIN)/python -m tests.demo

run: $(STAMP)
	@test -n "$(CONF)" || { echo "usage: make run CONF=FILE"; exit 2; }
	$(BIN)/kad -n -l -f $(CONF)

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest $(QUICK) -p tests.support.garbage -q -n auto tests/unit tests/golden tests/property

# Root of a Debian gets what the tests compare with; without it they say what was skipped, and why.
prepared:
	@test "$$(id -u)" != 0 || ! command -v apt-get >/dev/null || .ci/run packages \
		|| echo "make test: goes on without what could not be installed"

test: prepared check
	$(PYTEST) $(BESIDE) -n 3 -m 'not pairs and not alone' $(REAL)
	$(PYTEST) $(BESIDE) -n 2 -m 'pairs and not alone' $(REAL)
	$(PYTEST) $(BESIDE) -n 2 tests/simulation
	$(PYTEST) -m alone $(REAL)
	$(PYTEST) tests/vm

vm: $(STAMP)
	$(PYTEST) -rA tests/vm

sim: $(STAMP)
	$(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED)) $(if $(HOURS),--hours $(HOURS)) $(if $(NODES),--nodes $(NODES))

packages:
	.ci/run packages

soak: $(STAMP)
	$(BIN)/python -m tests.soak --seconds $(or $(SECONDS),3600) --seed $(or $(SEED),1)

bench: $(STAMP)
	$(BIN)/python -m tests.bench $(NAMES)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
