# Tools in Rust, named by their path: .tools/NAME-VERSION/bin/NAME, so that another version is another file. Built once
# without optimisation, each in under a minute of CPU.
TOOLS := $(abspath $(dir $(abspath $(lastword $(MAKEFILE_LIST))))../.tools)
CARGO_DENY := $(TOOLS)/cargo-deny-0.20.2/bin/cargo-deny
# Writes the list of what it compiles into the binary.
CARGO_AUDITABLE := $(TOOLS)/cargo-auditable-0.7.7/bin/cargo-auditable
# Reads that list as a CycloneDX bill of materials.
AUDITABLE2CDX := $(TOOLS)/auditable2cdx-0.1.0/bin/auditable2cdx

tool_root = $(patsubst %/bin/$(notdir $@),%,$@)

$(CARGO_DENY) $(CARGO_AUDITABLE) $(AUDITABLE2CDX):
	@echo '== tools: building $(notdir $@)'
	@env -u CARGO_TARGET_DIR -u RUSTFLAGS CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --locked --debug --root '$(tool_root)' \
	  '$(notdir $@)@$(lastword $(subst -, ,$(notdir $(tool_root))))'
	@touch '$@'
