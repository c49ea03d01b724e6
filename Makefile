# `make demo` and `make test` do all their own set-up in .venv; they need Python 3.11+, pip, git and make.

# The first Python on the path that is new enough; `make PYTHON=/path/to/python demo` takes another.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test test-fast test-all lint types collected docs man bench bench-peers crash clean

# A pod does a task on real files, is killed in the middle of a tool, is resumed, and ends right.
demo: $(VENV)/.ready
	$(BIN)/polypod demo

# Five at once for two cores: much of what is tested waits for processes and sockets.
test: $(VENV)/.ready-dev
	$(MAKE) --no-print-directory -j 2 lint types collected
	$(BIN)/pytest -n 5

# The tests alone, without those that are marked as slow: for between two edits.
test-fast: $(VENV)/.ready-dev
	$(BIN)/pytest -n 5 -m "not slow"

# The tests on every Python that is installed, with the oldest and with the newest allowed dependencies;
# make test-all ONLY="3.12 3.13-oldest" picks some, and ONLY may hold options of pytest.
test-all: $(VENV)/.ready-dev
	$(BIN)/python -m tests.matrix $(ONLY)

lint: $(VENV)/.ready-dev
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .

types: $(VENV)/.ready-dev
	$(BIN)/mypy --no-error-summary
	$(BIN)/mypy --no-error-summary tests/typing/*.py
	$(BIN)/python -m tests.readme_programs build/readme
	$(BIN)/mypy --no-error-summary build/readme/*.py

# The tests as pytest compiles them, which it keeps: else each of the five would do so for itself. What is
# wrong with them, the tests say.
collected: $(VENV)/.ready-dev
	-$(BIN)/pytest --collect-only > /dev/null

# The documentation with the API reference, as pages in build/docs.
docs: $(VENV)/.ready-docs
	$(BIN)/sphinx-build -q -W --keep-going -b html docs build/docs
	@echo "build/docs/index.html"

# The manual page, from the commands themselves; pip installs it as share/man/man1/polypod.1.
man: $(VENV)/.ready
	$(BIN)/python -m actors.cli.man_page > man/polypod.1.new
	@mv man/polypod.1.new man/polypod.1

# Every claim beside its floor, measured anew.
bench: $(VENV)/.ready
	$(BIN)/python -m bench

# The same beside other runtimes, each in an environment of its own that is made when it is missing;
# one that cannot be made is left out.
bench-peers: $(VENV)/.ready
	-$(BIN)/python -m bench.peers
	$(BIN)/python -m bench --peers

# Kills, and disks that fail, for each store: what was told must be there.
crash: $(VENV)/.ready
	$(BIN)/python -m bench crash

clean:
	rm -rf $(VENV) .venvs build dist *.egg-info .mypy_cache .ruff_cache .hypothesis .coverage

# Where the venv module has no pip to put in (some distributions split it off), the pip that is there does.
$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "polypod needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	@echo "setting up $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 \
		|| { $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --quiet --python $(BIN)/python install pip; }

$(VENV)/.ready: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.ready-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.ready

$(VENV)/.ready-docs: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@ $(VENV)/.ready
