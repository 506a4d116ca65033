# Certsitter. The two commands that matter: make demo, make test.

GO         ?= go
VERSION    ?= $(shell ./scripts/version 2>/dev/null || echo devel)
COMMIT     ?= $(shell git rev-parse HEAD 2>/dev/null)
BUILT      ?= $(shell date -u +%Y-%m-%dT%H:%M:%SZ)
LDFLAGS    := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT) -X main.built=$(BUILT)
# The daemon speaks to CAs, to Home Assistant and to its page's readers one
# request at a time: HTTP/2 would be half a megabyte for nothing.
DAEMON     := -tags nethttpomithttp2

.PHONY: build demo test test-homeassistant test-packages deb pictures image check bench fuzz tools clean

build: ## both programs, into bin/
	CGO_ENABLED=0 $(GO) build $(DAEMON) -trimpath -ldflags "$(LDFLAGS)" -o bin/ ./cmd/certsitter
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags "$(LDFLAGS)" -o bin/ ./cmd/certsitter-worker

# Not go run, for which the Ctrl-C that ends the demo is an error.
demo: ## the main job with a test CA and a broker of its own
	@$(GO) build -o bin/demo ./cmd/demo && bin/demo

test: tools ## everything: installs what the tests need, then format, vet, staticcheck, race and end-to-end tests
	./scripts/test

test-homeassistant: ## the tests with a real Home Assistant Core; installs it once, as root, on Debian and Ubuntu
	./scripts/as-root ./scripts/test-homeassistant

deb: ## packages for Debian, into dist/; one architecture alone by ARCH=amd64, arm64 or armhf
	./scripts/deb $(ARCH)

test-packages: ## the tests of the package on a Debian that boots; as root, on Debian and Ubuntu
	./scripts/test-packages

pictures: tools ## the documentation's pictures, from a real Home Assistant; as root, on Debian and Ubuntu
	./internal/homeassistant/harness/home-assistant install
	TZ=UTC $(GO) run ./cmd/internal/pictures

image: tools ## what the image holds, for both architectures, into dist/image/, and its tests
	CERTSITTER_LAYOUT=$(CURDIR)/dist/image $(GO) test -count=1 -timeout 60m ./cmd/internal/image

check: ## the quick part of test: format, vet, staticcheck
	./scripts/check

bench: ## speed, memory and size beside their lower bounds
	./scripts/bench

fuzz: ## every fuzz test for half a minute
	./scripts/fuzz 30s

tools: ## what the tests need beside Go
	./scripts/tools

clean:
	rm -rf bin dist
