# Every target makes its own environment. `make test` and `make demo` work as the first command on a fresh Debian 12
# with python3, make and git.
PYTHON ?= python3
JOBS ?= 4
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

# Every run starts hundreds of programs in Python: none of them compiles what another one has compiled already.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test check bench screenshots clean env

demo: $(STAMP)
	$(BIN)/mastovault demo

test: $(STAMP)
	scripts/test-servers
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)
	scripts/test-servers
	$(BIN)/python -m tests.bench

screenshots: $(STAMP)
	$(BIN)/python -m tests.screenshots

env: $(STAMP)

$(STAMP): pyproject.toml constraints.txt scripts/make-env
	PYTHON="$(PYTHON)" scripts/make-env $(VENV)
	touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
