# make test | demo | bench | bench-scale | bench-memory | bench-maps | lint: each sets up what it needs by itself.
#
# A Python that has DIALS (an active conda environment, or PYTHON=...) is used as it is; elsewhere Debian's or Ubuntu's
# packages are installed (root or sudo needed) and a virtual environment is made over them. Chromium, where it is to be
# had, is for the tests of HTML reports, which are skipped without it.

SHELL := /bin/bash
PYTHON ?= $(shell command -v python3)
NPROC ?= $(shell nproc)
HAS_DIALS := $(shell $(PYTHON) -c 'import dials.util' >/dev/null 2>&1 && echo yes)
APT := dials python3-numba python3-h5py python3-scipy python3-matplotlib python3-plotly python3-jinja2 python3-tqdm \
       python3-mrcfile python3-gemmi python3-xraylib python3-dask python3-distributed python3-hypothesis python3-pytest \
       python3-pytest-xdist python3-setuptools python3-wheel python3-pip python3-venv

ifeq ($(HAS_DIALS)$(filter /usr/bin/% /bin/%,$(PYTHON)),yes)
BASE := $(PYTHON)
BIN := $(dir $(PYTHON))
READY := .ready-$(shell echo $(PYTHON) | md5sum | cut -c1-8)
else
BASE := /usr/bin/python3
BIN := .venv/bin/
READY := .venv/.ready
endif
RUN := $(BIN)python3
export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: setup test demo bench bench-scale bench-memory bench-maps lint clean
setup: $(READY)

.venv/.ready: setup.py pyproject.toml $(wildcard command_line/*.py)
	@missing=$$(for p in $(APT); do dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
	if [ -n "$$missing" ]; then \
	  sudo=$$([ $$(id -u) = 0 ] || echo sudo); $$sudo apt-get -qq update; \
	  DEBIAN_FRONTEND=noninteractive $$sudo apt-get -qq install -y --no-install-recommends $$missing; fi
	-@command -v chromium >/dev/null || { sudo=$$([ $$(id -u) = 0 ] || echo sudo); $$sudo apt-get -qq update; \
	  DEBIAN_FRONTEND=noninteractive $$sudo apt-get -qq install -y --no-install-recommends chromium; }
	[ -x .venv/bin/python3 ] || /usr/bin/python3 -m venv --system-site-packages .venv
	.venv/bin/python3 -m pip install -q --disable-pip-version-check --no-build-isolation --no-deps -e .
	-.venv/bin/python3 -m pip install -q --disable-pip-version-check ruff
	touch $@

.ready-%: setup.py pyproject.toml $(wildcard command_line/*.py)
	$(PYTHON) -m pip install -e '.[test]'
	touch $@

test: $(READY)
	@if $(RUN) -m ruff --version >/dev/null 2>&1; then $(RUN) -m ruff check .; fi
	OPENBLAS_NUM_THREADS=1 $(RUN) -m pytest -n $(NPROC) --dist loadgroup

demo: $(READY)
	$(RUN) docs/demo.py demo

bench: $(READY)
	$(RUN) benchmarks/run.py

bench-scale: $(READY)
	-[ -e bench/mdx2 ] || $(MAKE) bench/mdx2
	for bench in peers cost scale machine; do $(RUN) benchmarks/bench_$$bench.py || exit 1; done

# A peer to compare with; without it that comparison is left out.
bench/mdx2:
	$(BASE) -m venv --system-site-packages $@
	$@/bin/python3 -m pip install -q --disable-pip-version-check --no-deps mdx2 nexusformat simple-parsing loguru \
	  papermill 'pandas<2.3' 'joblib>=1.4' docstring-parser colored hdf5plugin nbclient || { rm -rf $@; exit 1; }

bench-memory: $(READY)
	$(RUN) benchmarks/bench_memory.py

bench-maps: $(READY)
	for bench in maps map_operations view; do $(RUN) benchmarks/bench_$$bench.py || exit 1; done

lint: $(READY)
	$(RUN) -m ruff check . && $(RUN) -m ruff format --check .

clean:
	rm -rf .venv .ready-* demo bench *.egg-info
