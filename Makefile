# Every target sets up what it needs in .venv; nothing else has to be installed first
# but Python 3.11 or newer. `make test-setup` adds what the tests want from apt and PyPI.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
ARGS   ?=

# Hundreds of processes start in the tests: without it each would compile the modules again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help

help: ## show this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 15

$(BIN)/.emulator: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[emulator]'
	@touch $@

$(BIN)/.dev: pyproject.toml $(BIN)/.emulator
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: $(BIN)/.emulator ## swap a face live, with no account (ARGS="--seconds 30 --record out.mp4")
	$(BIN)/relayd demo $(ARGS)

check: $(BIN)/.dev ## format, lint, types and import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

hooks: $(BIN)/.dev ## run `make check` at each commit
	$(BIN)/pre-commit install

test-setup: $(BIN)/.dev ## fetch what tests use: an RTSP server (apt), real faces (PyPI)
	tests/setup.sh $(BIN)/python

# Nearly half of its time a test waits, for servers and limits: three keep two processors busy.
test: test-setup ## unit and contract tests, the demo and the commands
	$(BIN)/pytest -n 3 --dist worksteal --cov --cov-report= $(ARGS)
	$(BIN)/python tests/coverage_by_room.py $(if $(filter -k tests/%,$(ARGS)),,--floor 90)

test-relay: test-setup ## whole relays: each kind of source, each fault, money, privacy
	$(BIN)/pytest -m relay $(ARGS)

test-browser: test-setup ## the page in a real Chromium (apt)
	tests/setup.sh --browser $(BIN)/python
	$(BIN)/pytest -m browser $(ARGS)

test-vm: test-setup ## real cameras in a real kernel, in virtual machines (apt: qemu, Chromium)
	tests/setup.sh --browser $(BIN)/python
	$(BIN)/python -m compileall -q relayd tests  # else the emulated machine would, in minutes
	$(BIN)/python -m tests.vm.run --prepare || echo "NO VIRTUAL MACHINE: THE REAL CAMERA WILL NOT BE TESTED" >&2
	$(BIN)/pytest -m vm $(ARGS)

test-debian13: ## demo, media and microphone on a fresh Debian 13: PyAV 19 and 18, PipeWire 1.4 (needs root)
	tests/debian13/run.sh tests/debian13/inside.sh $(ARGS)

test-live: $(BIN)/.dev ## one paid session with the real service, if the environment has a key
	$(BIN)/pytest -m live -s --timeout 400 $(ARGS)

deb: $(BIN)/.emulator ## a Debian package for this release of Debian, in dist/
	config/deb/build.sh --pip $(BIN)/python

bench: $(BIN)/.dev ## timings against a peer, as ratios
	for script in tests/bench/bench_*.py; do $(BIN)/python $$script || exit 1; done

corpus: test-setup ## sample files of Debian's and PyPI's packages, by relayd and by ffmpeg (fetches 1.2 GB)
	$(BIN)/python -m tests.corpus.run $(ARGS)

clean: ## remove what the other targets made
	rm -rf $(VENV) dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis tests/media

.PHONY: help demo check hooks test-setup test test-relay test-browser test-vm test-debian13 test-live deb bench corpus clean
