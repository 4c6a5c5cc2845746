# `make demo` and `make test` set up what they need. PYTHON=... picks another interpreter (3.11 to 3.13).
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
OUT    ?= demo_output
# Test processes: one more than two cores, as many tests wait.
TESTERS ?= 3

# A local Ray asks for a token that it makes in the home folder; tests and the demo talk to their own Ray only.
export RAY_AUTH_MODE ?= disabled
export RAY_USAGE_STATS_ENABLED ?= 0
export RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S ?= 300

.PHONY: help setup demo audit test test-unit test-integration format docs site observability promtool clean
.PHONY: check check-format check-lint check-types check-layout check-site

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

setup: $(STAMP)  ## make .venv and install tinyface with everything that its tests need

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,test,heic,iceberg,site]'
	touch $@

demo: $(STAMP)  ## find the faces of the bundled sample archive; the report lies in demo_output/
	$(BIN)/python jobs/detect_archive.py --input demo/archive --output $(OUT) --report-pictures 24
	@echo "Report to open in a browser: $(abspath $(OUT))/report.html"

test: test-unit test-integration  ## every test: unit, then integration (a Ray and an S3 server of their own)

test-unit: $(STAMP)
	$(BIN)/python -m pytest --numprocesses $(TESTERS) --dist worksteal -m "not slow" tests/unit

# A file at a time and process: its tests share a Ray or an S3 server, and much of their time is waiting.
test-integration: $(STAMP)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile tests/integration
	$(BIN)/python -m pytest --numprocesses $(TESTERS) --dist worksteal -m slow tests/unit

check: check-format check-lint check-types check-layout check-site  ## format, lint, types, layout, the site

check-format: $(STAMP)
	$(BIN)/ruff format --check .

check-lint: $(STAMP)
	$(BIN)/ruff check .

check-types: $(STAMP)
	$(BIN)/mypy

check-layout: $(STAMP)
	$(BIN)/python -m pytest -q tests/layout

check-site: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

audit: $(STAMP)  ## known holes in what is installed; asks PyPI's service
	$(BIN)/python -m pip install --quiet --target $(VENV)/audit pip-audit
	PYTHONPATH=$(VENV)/audit $(BIN)/python -m pip_audit --path $$($(BIN)/python -c 'import site; print(site.getsitepackages()[0])') --skip-editable --strict

format: $(STAMP)  ## put code into the house's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(STAMP)  ## render docs/schema.md and the tables of docs/cli.md from the code
	$(BIN)/python -m tinyface_core.tables.schema_doc > docs/schema.md
	$(BIN)/python jobs/cli_doc.py

site: $(STAMP)  ## build the documentation as a site: out/site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

observability: $(STAMP)  ## render the dashboard and the operator's rules from cluster/observability
	$(BIN)/python cluster/observability/render.py

# Debian's package holds the server too; only the tool is kept. Where apt has none, its tests say so and are skipped.
promtool:  ## Prometheus' own checker of rules, from Debian, into .venv
	cd $(VENV) && apt-get download prometheus && dpkg-deb --fsys-tarfile prometheus_*.deb | tar -xO ./usr/bin/promtool > bin/promtool
	chmod +x $(BIN)/promtool
	rm $(VENV)/prometheus_*.deb

clean:  ## remove what make made, .venv too
	rm -rf $(VENV) $(OUT) build out runs *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
