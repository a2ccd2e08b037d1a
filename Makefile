# Every task by name. `make` alone lists them.
.DEFAULT_GOAL := help
.NOTPARALLEL:
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

VENV := .tools/venv
# Where cargo puts releases.
BUILT := $(or $(CARGO_TARGET_DIR),target)/release
CHECKOV := .tools/checkov
include scripts/tools.mk
export SAM_CLI_TELEMETRY := 0
# The emulator that AWS ships inside the aws-sam-cli wheel, for this machine's architecture.
RIE_ARCH := $(if $(filter aarch64 arm64,$(shell uname -m)),arm64,x86_64)
# Lambda's name for it.
SAM_ARCH := $(RIE_ARCH)
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
CONTAINER_FEATURES := --no-default-features --features container
LAMBDA_FEATURES := --no-default-features --features function
LAB_FEATURES := --no-default-features --features math-lab
# Inputs for each fuzz target in `make test`; raise it to search longer.
FUZZ_RUNS ?= 200000

.PHONY: help
help: ## List the tasks
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

.PHONY: version
version: ## Print the version, which Cargo.toml alone says
	@echo $(VERSION)

.PHONY: tools
tools: $(VENV)/.installed ## Install the Python tools of the tests into .tools

.PHONY: run
run: ## Serve on http://localhost:8000
	cargo run --release

.PHONY: build
build: ## Build both binaries, each with the features that it ships
	cargo build --release --bin math-service $(CONTAINER_FEATURES)
	cargo build --release --bin lambda $(LAMBDA_FEATURES)

.PHONY: gateway
gateway: ## Serve the Lambda binary behind a local gateway on http://localhost:9000
	cargo build --release --bin lambda $(LAMBDA_FEATURES)
	cargo build --release --example gateway $(LAB_FEATURES)
	$(BUILT)/examples/gateway $(BUILT)/lambda

.PHONY: demo
demo: ## Show both targets here, without AWS: load, profiles, a simulated day, one page (2 minutes once built)
	scripts/demo.sh

.PHONY: demo-build
demo-build: build
	cargo build --release --bin math-lab --example gateway $(LAB_FEATURES)

.PHONY: test
test: lint lint-workflows deny test-rust test-rie test-terraform test-deploy test-browser test-bench instructions fuzz ## Everything that needs no Docker, in 35 to 40 minutes on two cores; its tools go into .tools

.PHONY: lint
lint: ## Format, clippy and docs, warnings are errors
	@echo '== lint: format, clippy, docs'
	cargo fmt --check
	cargo clippy --quiet --all-targets -- -D warnings
	cargo clippy --quiet --bin math-service $(CONTAINER_FEATURES) -- -D warnings
	cargo clippy --quiet --bin lambda $(LAMBDA_FEATURES) -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --quiet --no-deps

.PHONY: lint-workflows
lint-workflows: $(VENV)/.installed ## The workflows of .github: their schema, and what zizmor finds dangerous in them
	@echo '== lint-workflows: schema, zizmor'
	$(VENV)/bin/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(VENV)/bin/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml
	$(VENV)/bin/zizmor --offline --quiet .github

.PHONY: deny
deny: $(CARGO_DENY) ## Dependencies: licences, one TLS stack, no duplicates, where they come from, known flaws
	@echo '== deny: dependencies'
	CARGO_DENY='$(CARGO_DENY)' scripts/deny.sh

.PHONY: openapi
openapi: ## Renew src/http/openapi.json, which is served, from the handlers' attributes
	@mkdir -p target
	cargo run --quiet --example openapi > target/openapi.json
	mv target/openapi.json src/http/openapi.json

.PHONY: postgres
postgres: ## Install Debian's PostgreSQL server, which the tests start for themselves
	apt-get update --quiet
	apt-get install --yes --no-install-recommends postgresql

.PHONY: chromium
chromium: ## Install Debian's Chromium, which the tests of the pages drive
	apt-get update --quiet
	apt-get install --yes --no-install-recommends chromium

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

.PHONY: test-terraform
test-terraform: ## terraform/ by terraform itself: format, validity, its tests on mocked AWS
	@echo '== test-terraform: format, validity, tests on mocked AWS'
	scripts/check-terraform.sh

.PHONY: test-deploy
test-deploy: $(VENV)/.installed $(CHECKOV)/.installed ## Manifests, templates, Dockerfile and scripts; Locust against both targets
	@echo '== test-deploy: manifests, templates, scripts, load'
	cargo build --quiet --bins --example gateway
	$(VENV)/bin/pytest --quiet -rs tests/deploy

.PHONY: test-browser
test-browser: $(VENV)/.installed ## The pages in a headless Chromium, on both targets; screenshots in target/screenshots
	@echo '== test-browser: the pages in Chromium'
	cargo build --quiet --bins --example gateway
	$(VENV)/bin/pytest --quiet -rs tests/browser

.PHONY: screenshots
screenshots: $(VENV)/.installed ## docs/images by headless Chromium: the last demo's page, and /lab of a running service [URL=http://localhost:8000]
	@if test -e target/demo/report.html; then \
	  $(VENV)/bin/python scripts/screenshot.py target/demo/report.html docs/images/report.png --width 1000 --height 1370; \
	else echo 'docs/images/report.png stays as it is: make demo makes the page that it shows'; fi
	$(VENV)/bin/python scripts/screenshot.py '$(or $(URL),http://localhost:8000)/lab?hours=3&traffic.shape=spike&traffic.from=5&traffic.at_hours=0.5&traffic.for_hours=0.5' docs/images/lab.png --width 1280 --height 1500

.PHONY: test-container
test-container: $(VENV)/.installed ## The image and the Lambda bundle, run with Docker and SAM
	@echo '== test-container: the image, the bundle, SAM'
	cargo build --quiet --example gateway $(LAB_FEATURES)
	$(VENV)/bin/pytest --quiet -rs tests/container

.PHONY: test-kube
test-kube: $(VENV)/.installed ## The Jobs API on a real Kubernetes API server, both targets (CONTRIBUTING.md)
	@echo '== test-kube: the Jobs API on a real Kubernetes API server'
	cargo build --quiet --bins --example gateway
	$(VENV)/bin/pytest --quiet -rs tests/kube

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

.PHONY: jobs-access
jobs-access: ## Let the service manage Jobs on the EKS cluster
	scripts/jobs-access.sh

.PHONY: jobs-access-down
jobs-access-down: ## Shut it out again
	scripts/jobs-access-down.sh

.PHONY: lambda
lambda: ## Run on AWS Lambda [ARCHITECTURE=arm64; scripts/lambda.sh --help has those of Jobs]
	scripts/lambda.sh

.PHONY: lambda-down
lambda-down: ## Delete that stack
	scripts/lambda-down.sh

.PHONY: terraform-bootstrap
terraform-bootstrap: ## Once in an AWS account: the bucket of Terraform's states [GITHUB_REPOSITORY=owner/name]
	scripts/terraform-bootstrap.sh

.PHONY: terraform-plan
terraform-plan: ## Show what terraform/ would change: make terraform-plan ENV=dev
	scripts/terraform-plan.sh

.PHONY: terraform-apply
terraform-apply: ## Do what that showed, about 11 dollars a day: make terraform-apply ENV=dev
	scripts/terraform-apply.sh

.PHONY: terraform-database
terraform-database: ## The service's user in that database, and its Secret: make terraform-database ENV=dev
	scripts/terraform-database.sh

.PHONY: terraform-destroy
terraform-destroy: ## Delete all of that: make terraform-destroy ENV=dev [DELETE_IMAGES=yes]
	scripts/terraform-destroy.sh

# What the scripts read, from the command line or the environment.
export OVERLAY ARCHITECTURE DELETE_IMAGES EKS_CLUSTER_NAME EKS_CLUSTERS JOBS_NAMESPACES JOBS_IMAGES OIDC_ISSUER OIDC_AUDIENCE
export ENV GITHUB_REPOSITORY STACK PARAMETERS ROLE_ARN BUILD EXPECT IMAGE CONTEXT URL KEEP CLUSTER STATE_URL CERTIFICATE_ARN

.PHONY: bundle
bundle: $(VENV)/.installed ## Build the Lambda bundle for `make lambda BUILD=no` [ARCHITECTURE=arm64]
	PATH=$$PATH:$$PWD/$(VENV)/bin sam build --parameter-overrides Architecture=$(or $(ARCHITECTURE),arm64)

.PHONY: smoke
smoke: ## Ask a deployed service for a sum, its version and its health: make smoke URL=https://… [EXPECT=1.2.3]
	scripts/smoke.sh

.PHONY: rollout
rollout: ## Update the pods to an image, and back if it fails: make rollout IMAGE=… [EXPECT OVERLAY CONTEXT URL CLUSTER STATE_URL CERTIFICATE_ARN]
	scripts/rollout.sh

.PHONY: kind
kind: ## The manifests on a kind cluster: an update under load, the autoscaler (needs Docker and kind) [KEEP=yes]
	scripts/kind.sh

.PHONY: reproducible
reproducible: $(CARGO_AUDITABLE) ## Build the server and the bundle twice each, in folders of their own; compare the bytes (10 minutes)
	PATH='$(dir $(CARGO_AUDITABLE))':$$PATH scripts/reproducible.sh container
	scripts/reproducible.sh bundle

.PHONY: sbom
sbom: $(AUDITABLE2CDX) ## Read the bill of materials out of a binary: make sbom BINARY=… SBOM=….cdx.json
	@test -n '$(BINARY)' -a -n '$(SBOM)' || { echo 'usage: make sbom BINARY=… SBOM=….cdx.json' >&2; exit 2; }
	'$(AUDITABLE2CDX)' '$(BINARY)' >'$(SBOM)'

.PHONY: release
release: ## Write a new version into every file that names it: make release VERSION=1.2.3
	scripts/release.sh '$(VERSION)'

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

.PHONY: bench-jobs
bench-jobs: $(VENV)/.installed ## Creating a Job through the service, beside a bare kube call (needs KUBE_UP, see CONTRIBUTING.md)
	cargo build --quiet --release --bin math-service $(CONTAINER_FEATURES)
	cargo build --quiet --release --example kube-create
	MATH_SERVICE_BIN=$${MATH_SERVICE_BIN:-$(BUILT)/math-service} $(VENV)/bin/python tests/kube/latency.py

.PHONY: test-bench
test-bench: ## The benchmark's own tests: its statistics, its parsing
	@echo '== test-bench: the benchmark itself'
	cargo fmt --check --all --manifest-path bench/Cargo.toml
	cargo clippy --quiet --manifest-path bench/Cargo.toml --all-targets -- -D warnings
	cargo test --quiet --manifest-path bench/Cargo.toml -p bench
	cp Cargo.lock bench/instructions/Cargo.lock
	cargo fmt --check --manifest-path bench/instructions/Cargo.toml
	cargo clippy --quiet --manifest-path bench/instructions/Cargo.toml --target-dir $${CARGO_TARGET_DIR:-bench/target} --features container -- -D warnings
	cargo clippy --quiet --manifest-path bench/instructions/Cargo.toml --target-dir $${CARGO_TARGET_DIR:-bench/target} --features function -- -D warnings

.PHONY: instructions
instructions: ## What a request costs in instructions, against bench/budget.toml [UPDATE=yes]
	@echo '== instructions: what a request costs'
	@if [ "$$(uname -sm)" != 'Linux x86_64' ]; then scripts/skipped.sh 'the budget of instructions is for Linux on x86_64'; \
	elif ! bench/valgrind.sh --version >/dev/null; then scripts/skipped.sh 'there is no valgrind to count instructions with'; \
	else cargo run --quiet --locked --manifest-path bench/Cargo.toml -p bench -- \
	  instructions $(if $(filter yes,$(UPDATE)),--update); fi

.PHONY: layout
layout: $(CARGO_AUDITABLE) ## Write anew which functions are laid side by side in what ships (Linux on x86_64, 10 minutes)
	PATH='$(dir $(CARGO_AUDITABLE))':$$PATH scripts/layout.py

.PHONY: clean
clean: ## Remove what was built and installed here
	rm -rf target bench/target bench/.venv fuzz/target fuzz/corpus fuzz/artifacts .tools .aws-sam

# pip installs into the tree; the stamp is newer than the list unless the list changed.
$(VENV)/.installed: tests/requirements.txt
	@echo '== tools: installing Python tools into $(VENV)'
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	@touch $@

$(CHECKOV)/.installed: tests/checkov-requirements.txt
	@echo '== tools: installing checkov into $(CHECKOV)'
	python3 -m venv $(CHECKOV)
	$(CHECKOV)/bin/pip install --quiet --disable-pip-version-check -r tests/checkov-requirements.txt
	@touch $@
