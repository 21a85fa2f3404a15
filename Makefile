# Relight: recovery environment toolkit.
# SPDX-License-Identifier: GPL-3.0-or-later
#
#   make demo       the main job, shown from an empty disk to a booting restored one
#   make test       unit tests and a representative set of VM tests
#   make test-full  everything, and the table of results
#   make build      build/relight, one static binary
#   make iso        build/relight.iso
#   make bench      ratios against the peers, interleaved (Tests/Benchmarks/README.md)
#   make used-maps  used bytes against the formats' own tools and partclone: docs/used-maps.md
#   make fuzz       the fuzzers, FUZZ_SECONDS each (Tests/Fuzz/README.md)
#   make lint       formatting, one-way imports, size of the binary

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

# What building needs; the second line is what a Swift toolchain unpacked from its archive needs on Debian 12.
BUILD_PACKAGES := binutils ca-certificates git libblkid-dev libext2fs-dev liblz4-dev liblzma-dev libparted-dev \
	libssl-dev libzstd-dev make ntfs-3g-dev pkg-config uuid-dev zlib1g-dev \
	libc6-dev libcurl4 libedit2 libgcc-12-dev libncurses6 libsqlite3-0 libstdc++-12-dev libxml2 tzdata
# What the tests and the demo need besides.
TEST_PACKAGES := attr btrfs-progs coreutils cpio cryptsetup-bin diffutils dosfstools e2fsprogs efibootmgr exfat-fuse \
	exfatprogs f2fs-tools fdisk fuse3 gdisk grub-common libhivex-bin lvm2 lz4 mdadm mmdebstrap mount mtools nbdkit \
	ntfs-3g ovmf partclone parted procps python3 python3-cryptography python3-hivex python3-zstandard qemu-system-x86 \
	qemu-utils seabios strace uidmap xfsprogs xz-utils zstd

# The programs that `make bench` compares with; nothing else needs them.
BENCH_PACKAGES := borgbackup e2fsprogs fsarchiver mount ntfs-3g partclone procps qemu-utils restic tar xfsprogs zstd

# The largest binary that is accepted, in bytes. One use of the full Foundation costs 44 MB.
BINARY_LIMIT := 35000000

SWIFT ?= $(firstword $(wildcard $(shell command -v swift) /opt/swift/usr/bin/swift))
SWIFT_FLAGS := --explicit-target-dependency-import-check error
RELEASE_FLAGS := -c release -Xswiftc -static-executable $(SWIFT_FLAGS)

.PHONY: deps deps-test deps-bench build iso test test-unit test-vm test-full demo bench bench-table used-maps used-maps-speed fuzz fuzz-planted fuzz-seeds lint clean

# Installs the packages named in $(1) that are missing.
define install
@missing=""; for package in $(1); do \
  [ "$$(dpkg-query -W -f='$${db:Status-Status}' $$package 2>/dev/null || true)" = installed ] || missing="$$missing $$package"; \
done; \
if [ -n "$$missing" ]; then \
  root=""; \
  if [ "$$(id -u)" != 0 ]; then \
    if ! command -v sudo >/dev/null; then \
      echo "Debian packages are missing. Install them as root, then call make again:"; \
      echo "  apt-get update && apt-get install --no-install-recommends$$missing"; exit 1; \
    fi; \
    root=sudo; \
  fi; \
  echo "Installing Debian packages:$$missing"; \
  $$root apt-get -o DPkg::Lock::Timeout=300 -qq update; \
  $$root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 -qq install -y \
    --no-install-recommends $$missing >/dev/null; \
fi
endef

deps:
	$(call install,$(BUILD_PACKAGES))
	@if [ -z "$(SWIFT)" ]; then \
	  echo "There is no Swift toolchain. Relight needs Swift 6.2 or newer: get it from swift.org/install (the archive for"; \
	  echo "Debian 12 unpacks anywhere; add its usr/bin to PATH, or call make SWIFT=/where/it/is/usr/bin/swift)."; \
	  exit 1; \
	fi

deps-test: deps
	$(call install,$(TEST_PACKAGES))

build: deps
	$(SWIFT) build $(RELEASE_FLAGS) --product relight
	@mkdir -p build
	@strip --strip-all -o build/relight.new .build/release/relight && mv build/relight.new build/relight
	@size=$$(stat -c %s build/relight); echo "build/relight: $$size bytes"; \
	  if [ $$size -gt $(BINARY_LIMIT) ]; then \
	    echo "The binary is larger than $(BINARY_LIMIT) bytes: something imports the full Foundation."; exit 1; fi
	@if readelf -l build/relight | grep -q INTERP; then echo "build/relight is not statically linked."; exit 1; fi

# The medium as it is given out. Packages are kept in build/cache/media.
iso: build
	build/relight media iso

# Unit tests, then machines: the quick set of scenarios on a medium that is compressed less.
test: test-unit test-vm

# Some tests mount images. Mounts of their own, shared with the namespaces that others of them make, are not held by these.
OWN_MOUNTS = $(shell [ "$$(id -u)" = 0 ] && unshare --mount --propagation shared true 2>/dev/null && \
	echo unshare --mount --propagation shared)

test-unit: deps-test lint
	$(SWIFT) build --build-tests $(SWIFT_FLAGS)
	$(OWN_MOUNTS) $(SWIFT) test --skip-build

test-vm: deps-test build
	build/relight --quiet media iso --fast --out build/test/relight.iso --boot build/test/boot
	$(SWIFT) build --product relight-vm $(SWIFT_FLAGS)
	.build/debug/relight-vm run --set quick --iso build/test/relight.iso --boot build/test/boot --out build/vm

# Everything: the unit tests without sampling, and the whole matrix on the medium as it is given out; writes
# docs/results.md.
test-full: export RELIGHT_TESTS := full
test-full: test-unit iso
	$(SWIFT) build --product relight-vm $(SWIFT_FLAGS)
	.build/debug/relight-vm run --set full --results docs/results.md

# The main job, told step by step.
demo: deps-test iso
	$(SWIFT) build --product relight-vm $(SWIFT_FLAGS)
	.build/debug/relight-vm demo

deps-bench: deps
	$(call install,$(BENCH_PACKAGES))

# A short try: make bench BENCH="--size 256M --rounds 1"
BENCH ?=
bench: deps-bench build
	$(SWIFT) build $(RELEASE_FLAGS) --product relight-bench
	.build/release/relight-bench build/relight --dir build/bench $(BENCH)

# The same, and docs/benchmarks.md from it.
bench-table:
	$(MAKE) bench BENCH="$(BENCH) --table docs/benchmarks.md --json build/bench.json"

# One table of used bytes by Relight, the format's own tools and partclone; and how long mapping 4 TiB takes.
used-maps: deps-test build
	Tests/UsedMaps/used-maps build/relight build/used-maps docs/used-maps.md

used-maps-speed: deps-test build
	Tests/UsedMaps/used-maps build/relight build/used-maps-speed --speed docs/used-maps-speed.md

# The fuzzers one after the other, or some of them: make fuzz FUZZ_TARGETS="tables ext" FUZZ_SECONDS=600
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?= tables ext fat ntfs swap survey structures point set plan job media environment kernel names xfs \
	locked protected moved archive catalogue btrfs exfat f2fs hfsplus lvm md luks efi \
	initramfs hive trees systemfiles
fuzz: deps
	Tests/Fuzz/run "$(SWIFT)" build/fuzz "$(FUZZ_SECONDS)" $(FUZZ_TARGETS)

# Whether the fuzzer finds a bug that is planted for it.
fuzz-planted: deps
	Tests/Fuzz/run "$(SWIFT)" build/fuzz-planted planted

# The committed inputs without a fuzzer, as in test-unit.
fuzz-seeds: deps
	$(SWIFT) test $(SWIFT_FLAGS) --filter FuzzTests

lint: deps
	$(SWIFT) format lint --strict --recursive Package.swift Sources Tests
	@if grep -rnE '^(@preconcurrency |internal |public )?import Foundation$$' Sources; then \
	  echo "Import FoundationEssentials: the full Foundation brings 44 MB of ICU."; exit 1; fi

clean:
	rm -rf .build build
