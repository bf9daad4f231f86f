# `make help` lists the targets. Build products of SwiftPM lie outside the checkout (scripts/scratch), results in out/.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
export PATH := $(PATH):/opt/swift/usr/bin

out := $(CURDIR)/out
debug = $(shell scripts/scratch debug)
release = $(shell scripts/scratch release)

programs := baton batond baton-keep batond-held
images := baton-vmm baton-vmm-next baton-vmm-faulty
sources := Package.swift Sources Tests

# Test targets that need /dev/kvm or the lab, run several processes or take long: `make check` leaves them out.
not_unit := ^(KVM|VFIO|VMM|Process|Fault|Soak|EndToEnd)[A-Za-z]*Tests\.

.PHONY: help setup build images guest check format test lab lab-kernel lab-shell lab-long lab-bench bench bench-long bench-trace soak demo bare-test clean

help: ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: ## install what is missing on a Debian 12 with a Swift 6.3 toolchain
	@scripts/setup

build: setup ## everything in debug, tests included
	swift build --build-tests --scratch-path $(debug)
	@mkdir -p $(out) && ls $(debug)/debug/*PackageTests.xctest > $(out)/test-bundle

images: setup ## programs and worker images, each one static file: out/bin, out/images
	scripts/build-static $(release) $(out) "$(programs)" "$(images)"

guest: setup ## the guests that check themselves: out/guest
	@mkdir -p $(out)/guest
	@if [ -f guest/Makefile ]; then $(MAKE) --no-print-directory -C guest OUT=$(out)/guest; fi

check: setup ## formatting, warnings, import rules, unit tests
	swift format lint --strict --recursive $(sources)
	$(MAKE) --no-print-directory build
	swift test --skip-build --disable-xctest --scratch-path $(debug) --skip '$(not_unit)'

format: setup ## format the sources in place
	swift format --in-place --recursive $(sources)

test: build images guest ## all tests, here and in the lab, and what ran where
	scripts/test $(debug)

# The smoke suite runs nothing of ours, so it waits for nothing.
lab: $(if $(subst smoke,,$(or $(SUITE),all)),build images guest,setup) ## the lab's suites: SUITE="name…" for some, FILTER= for some tests
	lab/run $(SUITE)

lab-shell: setup ## a shell in the lab
	@lab/run --shell

lab-long: build images guest ## the lab's suites in their long form
	BATON_LONG=1 lab/run $(SUITE)

lab-bench: images guest ## throughput of virtio disk and network, beside QEMU's, in the lab
	lab/run linux-bench

lab-kernel: setup ## build the lab's kernel and QEMU, if they are not in the cache
	@lab/build-kernel
	@lab/build-qemu

bench: images guest ## handovers beside QEMU's and the floor, and every goal's figure: bench/results, README.md
	scripts/bench

bench-long: images guest ## the same with 1,000 handovers, 16 GiB, 16 vCPUs, 100 and 1,000 machines
	scripts/bench --long

bench-trace: images guest ## where each microsecond of the blackout goes: docs/performance.md
	scripts/bench trace

soak: images guest ## 1,000 handovers in a row: nothing lost, nothing grown
	scripts/soak

demo: images guest ## a running machine moves to a newer VMM, survives broken ones, goes back; then a Linux guest in the lab
	ACT=$(ACT) scripts/demo

bare-test: setup ## set-up and checks in a fresh Debian 12
	scripts/bare-test

clean: ## remove this checkout's build products (dependencies included)
	rm -rf $(out)
	scripts/scratch --forget
