# What people type; `make` alone lists it. Needs Python 3.11 or newer with pip, and make (3.81 or newer).
# Every path is relative and nothing asks make for a list of absolute ones: a space in the folder's name is fine.

PYTHON ?= python3
JOBS ?= 2
INSTALL = .venv/bin/python -m pip install -qq --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run test check format faults soak bench clean

# A virtual environment holds absolute paths: in a folder that was moved or copied it is made anew.
$(shell [ -x .venv/bin/python ] && [ "$$(cat .venv/.embedded 2>&1)" = "$$(pwd -P)" ] || rm -f .venv/.embedded .venv/.test)

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

run: .venv/.embedded ## reconcile manifests/ with an embedded Valkey and workspace/ until Ctrl-C; ONCE=1 stops after one round
	@mkdir -p workspace
	.venv/bin/reconciler --root workspace --manifests manifests --redis embedded: run$(if $(filter-out 0,$(ONCE)), --once)

test: .venv/.test ## run all tests, real Valkey included; ARGS="-k merge -x" goes to pytest
	.venv/bin/python -m pytest -n $(JOBS) $(ARGS)

check: .venv/.test ## what CI runs: format, lint, strict types, then all tests
	.venv/bin/python -m ruff format --check .
	.venv/bin/python -m ruff check .
	.venv/bin/python -m mypy
	.venv/bin/python -m pytest -n $(JOBS) $(ARGS)

format: .venv/.test ## format the code and mend what the linter can mend
	.venv/bin/python -m ruff format .
	.venv/bin/python -m ruff check --fix .

faults: .venv/.test ## all that is known to go wrong, tried at length, and docs/faults.md written; ARGS="--scale 0.01" for a look
	.venv/bin/python -m tests.faults $(ARGS)

soak: .venv/.test ## random writers and faults for HOURS=1, with the judge every few minutes; Ctrl-C ends it well
	.venv/bin/python -m tests.faults.soak --hours $(or $(HOURS),1) $(ARGS)

bench: .venv/.embedded ## time everything beside the limit and the peers, and write docs/performance.md; ARGS="--only read" for a part
	.venv/bin/python -m benchmarks $(ARGS)

clean: ## remove .venv, builds and caches; workspace/ stays
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find reconciler tests benchmarks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# The stamp's name is the extra that it stands for, and `test` contains `embedded`. A stamp is written last and
# taken away first: where there is none, an install never ended or failed, and the next one starts from nothing.
.venv/.embedded .venv/.test: pyproject.toml constraints.txt
	@[ -e .venv/.embedded ] || "$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed; '$(PYTHON) --version' says: $$("$(PYTHON)" --version 2>&1)" >&2; \
	  echo "name another one: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@[ -e .venv/.embedded ] || "$(PYTHON)" -m venv --clear .venv
	@rm -f .venv/.embedded .venv/.test
	@echo "installing into .venv"
	@$(INSTALL) -e '.[$(patsubst .%,%,$(@F))]'
	@touch $@ && pwd -P >.venv/.embedded
