# Usage: make demo | test | test-ui | screenshots | lint | check | bench-setup | bench | bench-full | bench-memcache | bench-check | soak | clean

PYTHON ?= python3
VENV ?= .venv
DEMO_VENV ?= .demo
BENCH_RIVALS ?= $(basename $(notdir $(wildcard benchmarks/requirements/*.txt)))
PYTEST_ARGS ?=
REPEAT ?= 3
SOAK_MINUTES ?= 10
SIM_FIRST ?= 100000
SIM_SEEDS ?= 100000
SIM_RESULTS ?= benchmarks/results/simulation.json

# Debian keeps what `python -m venv` needs in a package of its own.
NEED_VENV = $(PYTHON) -c 'import venv, ensurepip' 2>/dev/null \
	|| { test "$$(id -u)" = 0 && apt-get update -q && apt-get install -q -y --no-install-recommends python3-venv; } \
	|| { echo "Please install the Debian package python3-venv (as root: apt-get install python3-venv)." >&2; exit 1; }
# Tests build the executor in C and compile an example.
NEED_CC = command -v cc >/dev/null \
	|| { test "$$(id -u)" = 0 && apt-get update -q && apt-get install -q -y --no-install-recommends gcc libc6-dev; } \
	|| { echo "Please install a C compiler (as root: apt-get install gcc libc6-dev)." >&2; exit 1; }
# Partitions are tested in network namespaces, which root may make; for others these tests are skipped, with a notice.
NEED_TC = command -v tc >/dev/null || test "$$(id -u)" != 0 \
	|| { apt-get update -q && apt-get install -q -y --no-install-recommends iproute2; }
# The Memcached client is tested with real servers, with TLS and passwords; without root these tests are skipped.
NEED_MEMCACHED = { command -v memcached && command -v openssl && PATH="$$PATH:/usr/sbin" command -v saslpasswd2; } >/dev/null \
	|| { test "$$(id -u)" != 0 && echo "Tests with real memcached servers are skipped; for them, as root: apt-get install memcached sasl2-bin openssl" >&2; } \
	|| { apt-get update -q && apt-get install -q -y --no-install-recommends memcached sasl2-bin openssl; }
# The dashboard is tested in a real browser.
NEED_BROWSER = test -x /usr/bin/chromium -a -x /usr/bin/chromedriver \
	|| { test "$$(id -u)" = 0 && apt-get update -q && apt-get install -q -y --no-install-recommends chromium chromium-driver; } \
	|| { echo "Please install the Debian packages chromium and chromium-driver (as root: apt-get install chromium chromium-driver)." >&2; exit 1; }

.PHONY: demo test test-ui screenshots lint check bench-setup bench bench-full bench-memcache bench-check soak clean

demo: $(DEMO_VENV)/.installed
	$(DEMO_VENV)/bin/python examples/census.py --out $(DEMO_VENV)/census

$(DEMO_VENV)/.installed: pyproject.toml setup.py $(shell find rain -name '*.py' -o -name '*.capnp')
	@$(NEED_VENV)
	$(PYTHON) -m venv $(DEMO_VENV)
	$(DEMO_VENV)/bin/python -m pip install --quiet --disable-pip-version-check .
	touch $@

$(VENV)/.test-installed: pyproject.toml setup.py
	@$(NEED_VENV)
	@$(NEED_CC)
	@$(NEED_TC)
	@$(NEED_MEMCACHED)
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $@

$(VENV)/.lint-installed: $(VENV)/.test-installed
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[lint]'
	touch $@

test: $(VENV)/.test-installed
	$(VENV)/bin/python -m pytest tests $(PYTEST_ARGS)

$(VENV)/.ui-installed: $(VENV)/.test-installed
	@$(NEED_BROWSER)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[ui]'
	touch $@

test-ui: $(VENV)/.ui-installed
	$(VENV)/bin/python -m pytest tests/ui -m ui $(PYTEST_ARGS)

screenshots: $(VENV)/.ui-installed
	$(VENV)/bin/python -m tests.ui.screenshots docs/images

lint: $(VENV)/.lint-installed
	$(VENV)/bin/python -m ruff check rain tests benchmarks examples setup.py
	$(VENV)/bin/python -m mypy

check: lint test

# Each rival lives in an environment of its own: they must not decide which versions Rain or another one is tested with.
bench-setup: $(VENV)/.test-installed $(BENCH_RIVALS:%=benchmarks/.envs/%/.installed)

benchmarks/.envs/%/.installed: benchmarks/requirements/%.txt
	@$(NEED_VENV)
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

# What `pip install` does for a package; where Rain is installed in place, the environment may forbid it.
COMPILE = $(VENV)/bin/python -m compileall -q rain

# Rivals that are not installed (`make bench-setup`) are left out.
bench: $(VENV)/.test-installed
	$(COMPILE)
	$(VENV)/bin/python -m benchmarks run all --main --repeat $(REPEAT) --minutes 10
	$(VENV)/bin/python -m benchmarks report

bench-full: bench-setup
	$(COMPILE)
	$(VENV)/bin/python -m benchmarks run all --repeat $(REPEAT) --minutes 90
	$(VENV)/bin/python -m benchmarks report

bench-memcache: bench-setup
	$(VENV)/bin/python -m benchmarks.memcache --repeat $(REPEAT)

bench-check: $(VENV)/.test-installed
	$(COMPILE)
	$(VENV)/bin/python -m benchmarks check

soak: $(VENV)/.test-installed
	$(VENV)/bin/python -m rain.testing.simruns --first $(SIM_FIRST) --seeds $(SIM_SEEDS) --results $(SIM_RESULTS)
	RAIN_SOAK_LOG=benchmarks/results/soak.jsonl RAIN_CHAOS_MINUTES=$(SOAK_MINUTES) \
		$(VENV)/bin/python -m pytest tests -m slow $(PYTEST_ARGS)
	RAIN_SOAK_LOG=benchmarks/results/soak.jsonl RAIN_PROPERTY_SEQUENCES=20000 \
		$(VENV)/bin/python -m pytest tests/property/test_server_core.py --timeout 0 $(PYTEST_ARGS)
	$(VENV)/bin/python -m benchmarks soak --minutes $(SOAK_MINUTES)

clean:
	rm -rf $(VENV) $(DEMO_VENV) benchmarks/.envs build dist rain.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find rain tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +
