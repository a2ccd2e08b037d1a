# Each platform builds itself: natively on a machine of its kind, else under buildx's emulation.
FROM rust:1-bookworm AS build
# The musl compiler is for dependencies that carry C code; Rust alone would link without it.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends musl-tools \
    && rm -rf /var/lib/apt/lists/* \
    && rustup target add "$(uname -m)-unknown-linux-musl"
# Writes the list of what it compiles into the binary; unoptimised, it is there in half a minute.
RUN CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --locked --debug --root /usr/local cargo-auditable@0.7.7
WORKDIR /src
COPY . .
ARG TARGETARCH
# The caches keep the compiled dependencies between builds; they are in no layer, so the script copies the binary out.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,id=target-$TARGETARCH,target=/src/target \
    scripts/build.sh math-service container /math-service
RUN mkdir /data

# No shell, no package manager, no libc: the certificates, a user and one static binary.
FROM gcr.io/distroless/static-debian12:nonroot
ARG VERSION=dev
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="math-service" \
      org.opencontainers.image.description="One axum router that runs unchanged as a container on Kubernetes/EKS and as an AWS Lambda function" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.source="$SOURCE" \
      org.opencontainers.image.base.name="gcr.io/distroless/static-debian12:nonroot"
COPY --from=build /math-service /math-service
# A volume that Docker makes for this folder takes its owner over: without it, it would be root's, who is not there to write.
COPY --from=build --chown=65532:65532 /data /data
# By number, so that Kubernetes can see that it is not root.
USER 65532:65532
# checkov:skip=CKV_DOCKER_2:Kubernetes and the balancers probe over HTTP, and the image has no program to ask itself with.
EXPOSE 8000
ENTRYPOINT ["/math-service"]
