# Two commands: `make run` and `make test`. Both build their own environment from the hashed lock first.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
WORKSPACE ?= workspace
# make run DATA=binance:BTCUSDT:30d | DATA=path/to/file FORMAT=binance-klines
DATA   ?=
FORMAT ?=
UV     := $(shell command -v uv 2>/dev/null)
RUN_ARGS := $(if $(DATA),--data $(DATA)) $(if $(FORMAT),--format $(FORMAT))

.PHONY: run test lint bench lock clean

run: $(VENV)/.run
	$(BIN)/probatum run --workspace $(WORKSPACE) $(RUN_ARGS)

test: $(VENV)/.dev lint
	$(BIN)/python -m pytest -n 2 --dist worksteal $(PYTEST_ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check src tests bench
	$(BIN)/ruff format --check src tests bench
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: $(VENV)/.dev
	for file in bench/bench_*.py; do $(BIN)/python $$file || exit 1; done

$(VENV)/bin/python:
ifneq ($(UV),)
	uv venv --quiet --seed --python $(PYTHON) $(VENV)
else
	$(PYTHON) -m venv $(VENV)
endif

define install
	$(if $(UV),VIRTUAL_ENV=$(VENV) uv pip install --quiet --require-hashes -r $(1),$(BIN)/python -m pip install --quiet --require-hashes -r $(1))
	$(if $(UV),VIRTUAL_ENV=$(VENV) uv pip install --quiet --no-deps --no-build-isolation -e .,$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .)
endef

$(VENV)/.run: locks/run.txt pyproject.toml | $(VENV)/bin/python
	$(call install,locks/run.txt)
	touch $@

$(VENV)/.dev: locks/dev.txt pyproject.toml | $(VENV)/bin/python
	$(call install,locks/dev.txt)
	touch $@ $(VENV)/.run

# Locks carry names, versions and hashes only, never a registry's address.
lock:
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links --annotation-style line --all-extras --group dev pyproject.toml -o locks/dev.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links --annotation-style line -c locks/dev.txt pyproject.toml --group build -o locks/run.txt
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-index-url --no-emit-find-links --annotation-style line -c locks/dev.txt pyproject.toml --extra dask --extra live --extra notify --extra postgres --extra retrain --extra sign --group build -o locks/image.txt

clean:
	rm -rf $(VENV) $(WORKSPACE) .mypy_cache .ruff_cache .pytest_cache
