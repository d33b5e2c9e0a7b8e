# make quickstart: install into .venv and run the main job.   make test: install and run the suite.
# make test-slow: the slow tests, real trainings for the most part; .ci/run runs both.
# .venv/train and .venv/dev are empty files that say which extra of the package is installed.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: quickstart test test-slow check docs clean

quickstart: .venv/train
	$(BIN)/vrft run recipes/quickstart.yaml --resume

test: .venv/dev
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile -m "not slow"

test-slow: .venv/dev
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile -m slow tests

check: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/dev
	$(BIN)/python docs/reference.py

.venv/train .venv/dev: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[$(@F)]'
	touch $@

clean:
	rm -rf .venv runs
