# How `sam build` makes the function's bundle.
#
# SAM runs the Makefile of the folder that CodeUri names, and the template's CodeUri ends in the architecture:
# one parameter decides what is built and where it runs, so the two cannot differ. SAM copies that folder to a
# scratch place first, which is why it holds nothing but a Makefile, and why paths here start from this file.
here := $(dir $(abspath $(lastword $(MAKEFILE_LIST))))
root := $(abspath $(here)../..)
architecture := $(notdir $(abspath $(dir $(firstword $(MAKEFILE_LIST)))))
target := $(if $(filter arm64,$(architecture)),aarch64,x86_64)-unknown-linux-musl

include $(root)/scripts/tools.mk

# ring (TLS, signatures) carries C and assembly, and the allocator is C too.
# zig does that for either architecture on any machine, because it brings musl's headers; `make` installs it into
# .tools. A compiler that CC_<target> names is used instead. By name, on the PATH, because cargo splits the command at
# spaces.
export PATH := $(root)/deploy/lambda:$(PATH):$(root)/.tools/venv/bin
export CC_aarch64_unknown_linux_musl ?= zig-cc
export CC_x86_64_unknown_linux_musl ?= zig-cc
export PATH := $(dir $(CARGO_AUDITABLE)):$(PATH)

.PHONY: build-MathServiceFunction
build-MathServiceFunction: $(CARGO_AUDITABLE)
	@test -f '$(root)/Cargo.toml' || { echo 'build.mk: no Cargo.toml in $(root); run sam build without --use-container' >&2; exit 1; }
	@$(CC_$(subst -,_,$(target))) --version >/dev/null || { echo 'build.mk: no C compiler for $(target)' >&2; exit 1; }
	! command -v rustup >/dev/null || rustup target add $(target)
	'$(root)/scripts/build.sh' lambda function '$(ARTIFACTS_DIR)/bootstrap' $(target)
