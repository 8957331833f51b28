# make serve: the main job. make test: every test. Both set up what they need once, in .venv.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.PHONY: help serve test test-long test-gpu wheels-gpu test-docker check format docs notebooks zoo bench clean

VENV ?= .venv
PORT ?= 8000
BIN := $(VENV)/bin
# the newest Python of 3.11 or above that this machine has
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v $$p; break; }; done)

# cuML alone is 870 MB: GPU_EXTRAS=gpu,boosting does without, and so do its tests
GPU_EXTRAS ?= gpu,cuml,boosting
GPU_TESTS := hypothesis pytest pytest-timeout

# not compiled: half of the time and a fifth of the room, for modules of which most are never imported
PIP = set -o pipefail; $(BIN)/python -m pip install --disable-pip-version-check --no-compile -c constraints.txt
# one line that counts, instead of a page
COUNTED = | awk '/^Collecting /{printf "\r  %d packages found", ++n; fflush()} \
	/^Installing collected/{printf "\r  installing %d packages  ", n; fflush()} /^Successfully/{print "\r  done                    "}'

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

serve: $(VENV)/.serve ## the demo model (trained and logged once) behind the API, at PORT (8000)
	@$(BIN)/fin-pyfunc demo --if-missing
	@echo "the commands fin-pyfunc, mlflow and python are in $(VENV): . $(BIN)/activate"
	@exec $(BIN)/fin-pyfunc serve -m models:/eurusd_rf@champion --port $(PORT)

test: $(VENV)/.dev ## every test that this machine can run, but those that take minutes and those of Docker
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not docker and not long" $(PYTEST_ARGS)

test-long: $(VENV)/.dev ## the tests that take minutes: guides, notebooks, Spark, endurance under load, made-up requests
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "long and not docker" $(PYTEST_ARGS)

test-gpu: $(VENV)-gpu/.gpu ## what only a GPU can show (an environment of its own; no network where .whl/ is filled)
	FIN_PYFUNC_TEST_NVFOREST=installed $(VENV)-gpu/bin/python -m pytest -m gpu $(PYTEST_ARGS)

wheels-gpu: $(VENV)/bin/python ## fill .whl/ with all that test-gpu installs, on any Linux machine with the same Python
	$(BIN)/python -m pip download --disable-pip-version-check -d .whl 'setuptools>=77' wheel '.[$(GPU_EXTRAS)]' $(GPU_TESTS)

test-docker: $(VENV)/.dev ## the tests of images and of compose.yaml; they want a Docker daemon (and BASE_IMAGE, if not python:3.11-slim)
	@docker version >/dev/null 2>&1 || { echo "no Docker daemon answers: start it, or name it with DOCKER_HOST" >&2; exit 1; }
	$(BIN)/python -m pytest tests/docker -m docker $(PYTEST_ARGS)

check: $(VENV)/.dev ## lint, types and the import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --config setup.cfg

format: $(VENV)/.dev ## put the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.dev ## write docs/configuration.md from the settings
	$(BIN)/python docs/generate.py

notebooks: $(VENV)/.dev ## run the notebooks and keep what they show
	$(BIN)/python notebooks/run.py

zoo: $(VENV)/.dev ## log, serve and compare every kind of model, and write docs/models.md (ZOO_ARGS=…)
	@$(MAKE) --no-print-directory $(VENV)-zoo/.zoo || echo "docs/models.md keeps what it says of CatBoost and the like" >&2
	$(BIN)/python -m tests.zoo $$([ ! -e $(VENV)-zoo/.zoo ] || echo --further $(VENV)-zoo/bin/python) $(ZOO_ARGS)

bench: $(VENV)/.dev ## every benchmark, side by side with other servers, into benchmarks/results (BENCH_ARGS=…)
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

clean: ## remove what set-up and tests made; the embedded store (mlflow.db, mlartifacts) stays
	rm -rf $(VENV) $(VENV)-gpu $(VENV)-zoo build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "fin_pyfunc needs Python 3.11 or newer; none was found (set PYTHON=/path/to/python3)." >&2; exit 1; }
	@echo "creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "Python's venv module did not work; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }

# a stamp per set of packages: made again only when what it depends on has changed
IN_C := fin_pyfunc/model/backends/_trees.c fin_pyfunc/serving/_lines.c

$(VENV)/.serve: $(VENV)/bin/python pyproject.toml setup.cfg setup.py $(IN_C) constraints.txt
	@echo "installing fin_pyfunc (700 MB; a minute or two the first time)"
	@$(PIP) -e . $(COUNTED)
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml setup.cfg setup.py $(IN_C) constraints.txt tests/gpu/requirements.txt
	@echo "installing fin_pyfunc with its test and lint tools (1.9 GB; one to four minutes the first time)"
	@$(PIP) -e '.[dev]' $(COUNTED)
	@$(NVFOREST) || echo "  nvForest could not be installed here ($(VENV)/nvforest.log says why): its tests will skip"
	@touch $@ $(VENV)/.serve

# nvForest's CPU mode, for the tests alone: in a folder of its own, since everything is to work without it
NVFOREST = rm -rf $(VENV)/nvforest; $(BIN)/python -m pip install --disable-pip-version-check --no-deps --only-binary :all: \
	--target $(VENV)/nvforest -r tests/gpu/requirements.txt >$(VENV)/nvforest.log 2>&1

# what the zoo's further models need; all else is in the first environment
$(VENV)-zoo/.zoo: $(VENV)/.dev tests/zoo/requirements.txt
	@echo "installing CatBoost, imbalanced-learn and InterpretML into $(VENV)-zoo"
	@$(BIN)/python -m venv --without-pip $(VENV)-zoo
	@$(BIN)/python -c 'import sysconfig; print("import site; site.addsitedir({!r})".format(sysconfig.get_path("purelib")))' \
		>"$$($(VENV)-zoo/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/all-else.pth"
	@set -o pipefail; $(VENV)-zoo/bin/python -m pip install --disable-pip-version-check -c constraints.txt \
		-r tests/zoo/requirements.txt $(COUNTED)
	@touch $@

$(VENV)-gpu/.gpu: pyproject.toml setup.cfg setup.py $(IN_C)
	@test -n "$(PYTHON)" || { echo "fin_pyfunc needs Python 3.11 or newer; none was found (set PYTHON=/path/to/python3)." >&2; exit 1; }
	@echo "installing fin_pyfunc with $(GPU_EXTRAS) into $(VENV)-gpu$(if $(wildcard .whl), from .whl,)"
	@$(PYTHON) -m venv $(VENV)-gpu
	@set -o pipefail; $(VENV)-gpu/bin/python -m pip install --disable-pip-version-check $(if $(wildcard .whl),--no-index --find-links .whl,) \
		-e '.[$(GPU_EXTRAS)]' $(GPU_TESTS) $(COUNTED)
	@touch $@
