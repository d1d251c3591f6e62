# Two commands do all the set-up on a fresh Debian 12 machine as root: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

RUN_PACKAGES := docker.io etcd-server docker-registry iptables nftables iproute2 conntrack libnftables1 \
	wireguard-go wireguard-tools mmdebstrap procps hostname ca-certificates python3-venv
TEST_PACKAGES := $(RUN_PACKAGES) busybox-static prometheus postgresql

# docs/decisions/0021-a-test-that-fails-is-tried-twice.md
TWICE := --reruns 1 -rR --rerun-show-tracebacks

.PHONY: demo test bench fuzz lint unit compatibility lab-down clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    the story: three hosts, one compose file, one power cut (leaves build/demo/report.json)"
	@echo "make test    lint, types, layers, and the whole test suite on real parts"
	@echo "make fuzz    whatever reads what others wrote, fed with what it never saw (a minute for each reader)"
	@echo "make bench   measured against Docker Swarm on the same engines (leaves build/bench/)"

$(VENV)/.done: pyproject.toml
	scripts/packages.sh python3-venv
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check -e '.[test,demo]'
	touch $@

demo: $(VENV)/.done
	scripts/packages.sh $(RUN_PACKAGES)
	$(BIN)/python -u examples/tbcare/demo.py $(DEMO)

lint: $(VENV)/.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: $(VENV)/.done
	$(BIN)/pytest -q -n 4 -m 'not real and not lab' $(PYTEST)

test: lint
	scripts/packages.sh $(TEST_PACKAGES)
	$(BIN)/pytest -n 4 -m 'not real and not lab' $(TWICE) $(PYTEST)
	$(BIN)/pytest -m 'real or lab' $(TWICE) $(PYTEST)

compatibility: $(VENV)/.done
	$(BIN)/python scripts/compatibility.py

bench: $(VENV)/.done
	scripts/packages.sh $(RUN_PACKAGES)
	$(BIN)/python -u bench/swarm.py $(BENCH)
	$(BIN)/python -u bench/network.py

fuzz: $(VENV)/.done
	$(BIN)/pip install -q --disable-pip-version-check atheris
	$(BIN)/python scripts/fuzz.py $(FUZZ)

lab-down: $(VENV)/.done
	$(BIN)/afterswarm lab down
