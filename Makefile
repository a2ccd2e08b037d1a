# Every task by name. `make` alone lists them.
.DEFAULT_GOAL := help
.NOTPARALLEL:
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

VENV := .tools/venv
export SAM_CLI_TELEMETRY := 0
# The emulator that AWS ships inside the aws-sam-cli wheel, for this machine's architecture.
RIE_ARCH := $(if $(filter aarch64 arm64,$(shell uname -m)),arm64,x86_64)
# Lambda's name for it.
SAM_ARCH := $(RIE_ARCH)
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
CONTAINER_FEATURES := --no-default-features --features docs-ui,sqlite,postgres,dynamodb
LAMBDA_FEATURES := --no-default-features --features lambda,docs-ui,postgres,dynamodb
# Inputs for each fuzz target in `make test`; raise it to search longer.
FUZZ_RUNS ?= 200000

.PHONY: help
help: ## List the tasks
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

.PHONY: run
run: ## Serve on http://localhost:8000
	cargo run --release

.PHONY: build
build: ## Build both binaries, each with the features that it ships
	cargo build --release --bin math-service $(CONTAINER_FEATURES)
	cargo build --release --bin lambda $(LAMBDA_FEATURES)

.PHONY: gateway
gateway: ## Serve the Lambda binary behind a local gateway on http://localhost:9000
	cargo build --release --bin lambda --example gateway
	target/release/examples/gateway target/release/lambda

.PHONY: test
test: lint test-rust test-rie test-deploy test-bench instructions fuzz ## Everything that needs no Docker, in 10 to 15 minutes; its tools go into .tools

.PHONY: lint
lint: ## Format, clippy and docs, warnings are errors
	@echo '== lint: format, clippy, docs'
	cargo fmt --check
	cargo clippy --quiet --all-targets -- -D warnings
	cargo clippy --quiet --bin math-service $(CONTAINER_FEATURES) -- -D warnings
	cargo clippy --quiet --bin lambda $(LAMBDA_FEATURES) -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --quiet --no-deps

.PHONY: postgres
postgres: ## Install Debian's PostgreSQL server, which the tests start for themselves
	apt-get install --yes --no-install-recommends postgresql

.PHONY: test-rust
test-rust: $(VENV)/.installed ## Unit tests, API tests on both binaries, parity through eight front doors
	@echo '== test-rust: units, API, parity'
	cargo test

.PHONY: test-rie
test-rie: $(VENV)/.installed ## The Lambda binary under AWS's Runtime Interface Emulator
	@echo '== test-rie: the Lambda binary under the Runtime Interface Emulator'
	@if [ "$$(uname -s)" != Linux ]; then scripts/skipped.sh 'the Runtime Interface Emulator runs on Linux only'; else \
	  RIE=$$(echo $(VENV)/lib/python3*/site-packages/samcli/local/rapid/aws-lambda-rie-$(RIE_ARCH)) \
	  cargo test --test api rie:: -- --ignored; fi

.PHONY: test-deploy
test-deploy: $(VENV)/.installed ## Manifests, templates, Dockerfile and scripts; Locust against both targets
	@echo '== test-deploy: manifests, templates, scripts, load'
	cargo build --quiet --bins --example gateway
	$(VENV)/bin/pytest --quiet -rs tests/deploy

.PHONY: test-container
test-container: $(VENV)/.installed ## The image and the Lambda bundle, run with Docker and SAM
	@echo '== test-container: the image, the bundle, SAM'
	$(VENV)/bin/pytest --quiet -rs tests/container

.PHONY: image
image: ## Build the container image as my-math-service
	DOCKER_BUILDKIT=1 docker build -t my-math-service --build-arg VERSION=$(VERSION) --build-arg REVISION=$$(git rev-parse HEAD) .

.PHONY: sam-local
sam-local: $(VENV)/.installed ## Serve the Lambda function with SAM on http://localhost:3000 (needs Docker)
	$(VENV)/bin/sam build --parameter-overrides Architecture=$(SAM_ARCH)
	$(VENV)/bin/sam local start-api --parameter-overrides Architecture=$(SAM_ARCH)

.PHONY: minikube
minikube: ## Run on this machine, in minikube [OVERLAY=minikube]
	scripts/minikube.sh

.PHONY: minikube-down
minikube-down: ## Delete that minikube cluster
	scripts/minikube-down.sh

.PHONY: eks
eks: ## Run on EKS, about 10 dollars a day: cluster, registry, image, service [OVERLAY=base]
	scripts/eks.sh

.PHONY: eks-down
eks-down: ## Delete all of that; the images too with DELETE_IMAGES=yes
	scripts/eks-down.sh

.PHONY: eks-pause
eks-pause: ## Take the nodes away, keep the cluster
	scripts/eks-pause.sh

.PHONY: eks-resume
eks-resume: ## Bring the nodes back
	scripts/eks-resume.sh

.PHONY: lambda
lambda: ## Run on AWS Lambda [ARCHITECTURE=arm64]
	scripts/lambda.sh

.PHONY: lambda-down
lambda-down: ## Delete that stack
	scripts/lambda-down.sh

# What the scripts read, from the command line or the environment.
export OVERLAY ARCHITECTURE DELETE_IMAGES

.PHONY: fuzz
fuzz: ## Fuzz the JSON body, the Lambda event and the lab's inputs, FUZZ_RUNS each
	@echo '== fuzz: $(FUZZ_RUNS) inputs a target'
	scripts/fuzz.sh $(FUZZ_RUNS)

.PHONY: parity
parity: ## Send the corpus to a live endpoint: make parity URL=https://…
	@test -n '$(URL)' || { echo 'usage: make parity URL=https://…' >&2; exit 2; }
	RUST_BACKTRACE=0 PARITY_URL='$(URL)' cargo test --quiet --test api parity::a_live -- --ignored --nocapture

BENCH := cargo run --quiet --release --locked --manifest-path bench/Cargo.toml -p bench --

.PHONY: bench
bench: ## Measure the service against its peers, about 25 minutes (docs/performance.md)
	$(BENCH) run

.PHONY: bench-quick
bench-quick: ## The same with less certainty, in under 3 minutes once built
	$(BENCH) run --quick

.PHONY: test-bench
test-bench: ## The benchmark's own tests: its statistics, its parsing
	@echo '== test-bench: the benchmark itself'
	cargo fmt --check --all --manifest-path bench/Cargo.toml
	cargo clippy --quiet --manifest-path bench/Cargo.toml --all-targets -- -D warnings
	cargo test --quiet --manifest-path bench/Cargo.toml -p bench
	cp Cargo.lock bench/instructions/Cargo.lock
	cargo fmt --check --manifest-path bench/instructions/Cargo.toml
	cargo clippy --quiet --manifest-path bench/instructions/Cargo.toml --target-dir $${CARGO_TARGET_DIR:-bench/target} --features container -- -D warnings
	cargo clippy --quiet --manifest-path bench/instructions/Cargo.toml --target-dir $${CARGO_TARGET_DIR:-bench/target} --features lambda -- -D warnings

.PHONY: instructions
instructions: ## What a request costs in instructions, against bench/budget.toml [UPDATE=yes]
	@echo '== instructions: what a request costs'
	@if [ "$$(uname -sm)" != 'Linux x86_64' ]; then scripts/skipped.sh 'the budget of instructions is for Linux on x86_64'; \
	elif ! bench/valgrind.sh --version >/dev/null; then scripts/skipped.sh 'there is no valgrind to count instructions with'; \
	else cargo run --quiet --locked --manifest-path bench/Cargo.toml -p bench -- \
	  instructions $(if $(filter yes,$(UPDATE)),--update); fi

.PHONY: clean
clean: ## Remove what was built and installed here
	rm -rf target bench/target bench/.venv fuzz/target fuzz/corpus fuzz/artifacts .tools .aws-sam

# pip installs into the tree; the stamp is newer than the list unless the list changed.
$(VENV)/.installed: tests/requirements.txt
	@echo '== tools: installing Python tools into $(VENV)'
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	@touch $@
