# syntax=docker/dockerfile:1
# The controller and the agent in one image: two static programs and nothing else.
#   docker build --tag clustertracing:dev .
#   docker buildx build --platform linux/amd64,linux/arm64 --tag … --push .
# Everything runs as user 65532 but the agent, whose DaemonSet asks for uid 0.

FROM docker.io/library/rust:1.95.0-slim-bookworm AS build
ARG TARGETARCH
WORKDIR /src
COPY rust-toolchain.toml Cargo.toml Cargo.lock ./
COPY src src
# gnu and not musl: glibc's allocator, and the same target as every test. crt-static makes the programs need no library all the same.
RUN --mount=type=cache,id=cargo-$TARGETARCH,target=/usr/local/cargo/registry \
    --mount=type=cache,id=target-$TARGETARCH,target=/src/target \
    case "$TARGETARCH" in \
      amd64) target=x86_64-unknown-linux-gnu ;; \
      arm64) target=aarch64-unknown-linux-gnu ;; \
      *) echo "no build for architecture '$TARGETARCH'" >&2; exit 1 ;; \
    esac; \
    RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --release --target "$target" \
      --bin clustertracing-controller --bin clustertracing-agent && \
    mkdir /out && \
    cp "target/$target/release/clustertracing-controller" "target/$target/release/clustertracing-agent" /out/

FROM scratch
ARG VERSION=dev
LABEL org.opencontainers.image.title="clustertracing" \
      org.opencontainers.image.description="Turns tracing of kube-apiserver and etcd on across a Kubernetes cluster, safely" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION"
COPY --from=build /out/clustertracing-controller /out/clustertracing-agent /
USER 65532:65532
