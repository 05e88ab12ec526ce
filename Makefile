# Every target creates .venv and installs the project when needed; `make run` is the whole tool in one command.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run real smollm2 test check audit format docs tiny-model reports torture
run: .venv/.installed
	$(BIN)/cst-bench run

# A real model on the paper's suite: SmolLM2-135M-Instruct, on the first LIMIT prompts or documents of each task, from DATA
# (a folder with the tasks' data) or from the Hub.
LIMIT ?= 10
real: .venv/.installed
	$(BIN)/cst-bench run $$($(BIN)/python scripts/fetch_smollm2.py runs/smollm2) --suite paper --limit $(LIMIT) \
	  $(if $(DATA),--data-dir $(DATA)) --judge local --judge identity_rules --out runs/real

# The paper's experiment on that model: DPO and CST of a part of the released pairs, two seeds, Tables II and III (about two
# hours on two cores, continued if it was cut off). DATA holds the released pairs, too.
smollm2: .venv/.installed
	test -d runs/smollm2-135m || $(BIN)/cst-bench convert $$($(BIN)/python scripts/fetch_smollm2.py runs/smollm2) runs/smollm2-135m
	$(BIN)/cst-bench reproduce smollm2 --models scripts/smollm2/models.yaml $(if $(DATA),--data-dir $(DATA))

# The fast tests, in two processes; SLOW=1 adds the slow ones (as .ci/run does).
test: .venv/.installed
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(if $(SLOW),-m "slow or not slow") $(ARGS)

check: .venv/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Known vulnerabilities of the installed packages, by the Python Packaging Advisory Database (needs the network).
audit: .venv/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/python -m pip_audit --skip-editable

format: .venv/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The documentation, into site/: strict, executes the notebook; a broken link or an undocumented public name fails.
docs: .venv/.docs
	$(BIN)/python -m mkdocs build --strict

# Rebuilds the embedded world's data and checkpoint from seeds (about ten minutes on one core).
tiny-model: .venv/.installed
	$(BIN)/python scripts/tiny_world/make.py

# The published reports: the embedded world's whole chain (about a quarter of an hour on two cores, continued if it was
# cut off), then the leaderboard, the judges' cards and the table of benchmarks.
reports: .venv/.installed
	$(BIN)/cst-bench reproduce tiny --out runs/reproduce-tiny
	$(BIN)/python scripts/publish.py --reproduction runs/reproduce-tiny

# SIGKILL at KILLS random moments over all long verbs, each continued by the same command: do they end with the same bytes?
# Then CALLS verdicts of a judge's endpoint that fails 30 % of the requests: does each come once, paid for once?
# JSON=reports/benchmarks/torture.json is the file that scripts/publish.py makes its table of.
KILLS ?= 200
CALLS ?= 10000
JSON ?= runs/torture.json
torture: .venv/.installed
	$(BIN)/python scripts/torture.py --kills $(KILLS) --calls $(CALLS) --json $(JSON)

.venv/.installed: pyproject.toml
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

.venv/.docs: .venv/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	touch $@
