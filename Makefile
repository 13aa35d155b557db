# Each target makes the virtual environment it needs: python3 (3.11 or newer) and make are enough.
PYTHON ?= python3
BIN := .venv/bin
VENV := .venv/.stamp
GENERATOR := .venv-generate/.stamp

# The tests start hundreds of processes, which begin in two thirds of the time where the code was compiled before; some
# environments say that nothing compiled is to be kept.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo serve test simulate mutants chaos oldest check format generate bench lock clean

demo: $(VENV)
	$(BIN)/amends demo

serve: $(VENV)
	$(BIN)/amends serve

# Two workers: the machines this runs on have two cores, and the tests start servers of their own.
# STORE=postgresql runs the acceptance tests alone, over PostgreSQL: what else is about that store is in every run.
test: $(VENV) $(GENERATOR)
	AMENDS_TEST_STORE=$(STORE) $(BIN)/python -m pytest -n 2 $(if $(STORE),tests/acceptance)

# SEEDS is how many; FIRST the first one; SEED=7 runs one and tells its story. A failing one is shrunk.
simulate: $(VENV)
	PYTHONPATH=. $(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),10000) --first $(or $(FIRST),0) --jobs 2)

# Puts faults into copies of the server, one at a time: a test must catch each. About ten minutes.
mutants: $(VENV)
	PYTHONPATH=. $(BIN)/python -m tests.mutants

# Real processes, and a nemesis that follows from the seed. SEEDS is how many, FIRST the first one, SECONDS of faults each;
# SEED=7 runs one and tells its story; STORE=postgresql has three orchestrators share a database. About two minutes.
chaos: $(VENV)
	PYTHONPATH=. $(BIN)/python -m tests.chaos --seconds $(or $(SECONDS),20) --store $(or $(STORE),sqlite) \
		$(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),4) --first $(or $(FIRST),0))

check: $(VENV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	BUF=$(BIN)/buf tools/check_breaking.sh

format: $(VENV)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/buf format --write

generate: $(GENERATOR)
	.venv-generate/bin/python tools/generate.py

# JSON=FILE writes one object a row to FILE; QUICK=1 takes the first workload only, and less than a minute; GROWTH=1
# measures with up to a million sagas instead; STORE=postgresql up to three orchestrators on a database of its own.
bench: $(VENV)
	$(if $(STORE),PYTHONPATH=. $(BIN)/python -m tests.postgres) $(BIN)/amends bench $(if $(STORE),--shared URL) $(if $(QUICK),--quick) $(if $(GROWTH),--growth) $(if $(JSON),--json $(JSON))

# Newest versions that pyproject.toml and tools/generate.in allow, for every platform, with hashes.
lock: .venv-lock/.stamp
	.venv-lock/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --extra dev --generate-hashes \
		--no-emit-index-url --custom-compile-command "make lock" --output-file requirements.lock pyproject.toml
	.venv-lock/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-deps --generate-hashes \
		--no-emit-index-url --custom-compile-command "make lock" --output-file tools/generate.lock tools/generate.in

# All tests with the oldest dependencies that pyproject.toml allows; what only the tests need is new.
oldest: .venv-lock/.stamp $(GENERATOR)
	$(PYTHON) -m venv .venv-oldest
	.venv-lock/bin/uv pip compile --quiet --resolution lowest-direct --no-emit-index-url \
		--extra metrics --extra postgres --extra uvloop --output-file .venv-oldest/oldest.txt pyproject.toml
	.venv-lock/bin/uv pip install --quiet --python .venv-oldest/bin/python --constraints .venv-oldest/oldest.txt --editable '.[dev]'
	.venv-oldest/bin/python -m pytest -n 2

clean:
	rm -rf .venv .venv-generate .venv-lock .venv-oldest .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis dist htmlcov
	find sdk server participants tests tools -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# The build backend is in the lock, so nothing is fetched that has no hash.
$(VENV): pyproject.toml requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "amends needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

$(GENERATOR): tools/generate.lock
	$(PYTHON) -m venv .venv-generate
	.venv-generate/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r tools/generate.lock
	touch $@

.venv-lock/.stamp:
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --disable-pip-version-check uv
	touch $@
