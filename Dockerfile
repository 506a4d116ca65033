# Certsitter's image: a Home Assistant app, and a container for Docker without
# the Supervisor (docs/docker.md). It is built with BuildKit.
ARG BUILD_FROM=ghcr.io/home-assistant/base:3.24-2026.06.1

# The programs. They are compiled on the builder's own architecture, whatever
# the image's is.
FROM --platform=$BUILDPLATFORM golang:1.26.8-alpine AS build
WORKDIR /src

# The modules are a layer of their own: they change less often than the sources.
COPY go.mod go.sum ./
RUN go mod download && find /go/pkg/mod/cache/download -name "*.zip" -delete

COPY . .

# BuildKit says TARGETARCH; BUILD_ARCH is the Supervisor's and the builder
# action's name for the same. Version, commit and date are those of the release.
ARG TARGETARCH
ARG BUILD_ARCH
ARG BUILD_VERSION=devel
ARG BUILD_COMMIT=
ARG BUILD_DATE=

# All DNS providers together are two million lines of Go. One compiler at a time
# for each 1.5 GB that are free, its memory bounded, nothing made for a debugger
# (the linker would throw that away), and nothing inlined in lego's copies of
# the largest clients: so it is built on a machine with 2 GB. docs/docker.md says
# how long that takes. The cache makes the next version's build a matter of
# minutes.
ENV CGO_ENABLED=0 GOMEMLIMIT=600MiB
RUN --mount=type=cache,target=/root/.cache/go-build,sharing=locked \
    case "${TARGETARCH:-$BUILD_ARCH}" in \
    amd64) export GOARCH=amd64 ;; \
    arm64 | aarch64) export GOARCH=arm64 ;; \
    *) echo "Certsitter is not made for ${TARGETARCH:-$BUILD_ARCH}." >&2; exit 1 ;; \
    esac; \
    jobs=$(awk '/^MemAvailable:/ { n = int($2 / 1500000) } END { print (n > 1 ? n : 1) }' /proc/meminfo); \
    [ "$jobs" -le "$(nproc)" ] || jobs=$(nproc); \
    stamp="-X main.version=$BUILD_VERSION -X main.commit=$BUILD_COMMIT -X main.built=${BUILD_DATE:-$(date -u +%Y-%m-%dT%H:%M:%SZ)}"; \
    set -ex; \
    go build -p "$jobs" -buildvcs=false -tags nethttpomithttp2 -trimpath -ldflags "-s -w $stamp" \
        -gcflags=all=-dwarf=false -o /out/ ./cmd/certsitter; \
    go build -p "$jobs" -buildvcs=false -trimpath -ldflags "-s -w $stamp" \
        -gcflags=all=-dwarf=false -gcflags='github.com/go-acme/...=-dwarf=false -l' -o /out/ ./cmd/certsitter-worker

FROM ${BUILD_FROM}

# The user as whom the daemon starts its worker.
RUN addgroup -S certsitter && adduser -S -D -H -h /nonexistent -s /sbin/nologin -G certsitter certsitter

COPY rootfs /
COPY --from=build /out/ /usr/bin/

# So the programs know that /data, /ssl and /config are theirs.
ENV CERTSITTER_IMAGE=1
# Once the daemon has ended nobody is left who could need s6's 3 seconds. Docker
# gives all together 10, see timeout-kill of the service.
ENV S6_KILL_GRACETIME=500

# The page. 80 and 443 answer a CA, while an order needs them.
EXPOSE 8099 80 443

# By a shell: from it the program gets its room in the AppArmor profile.
HEALTHCHECK --interval=30s --timeout=10s --start-period=1m --retries=3 \
    CMD certsitter healthcheck

ARG BUILD_VERSION=devel
ARG BUILD_COMMIT=
LABEL org.opencontainers.image.title="Certsitter" \
    org.opencontainers.image.description="Renews TLS certificates on schedule and warns before they expire" \
    org.opencontainers.image.url="https://github.com/certsitter/certsitter" \
    org.opencontainers.image.source="https://github.com/certsitter/certsitter" \
    org.opencontainers.image.documentation="https://github.com/certsitter/certsitter/tree/main/docs" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="$BUILD_VERSION" \
    org.opencontainers.image.revision="$BUILD_COMMIT"
