# `make demo` shows vifd at work, `make test` runs every test, `make install` installs what was built.
# On Debian 12 they install what they need; that, the private hypervisors and the tests need root.

SHELL := /bin/bash
# rustup's cargo goes before the system's, which may be too old.
export PATH := $(HOME)/.cargo/bin:$(PATH)

PREFIX ?= /usr
SYSCONFDIR ?= /etc
# Where systemd looks.
LIBDIR ?= /usr/lib
UNITS := vifd.service vifd.socket vifd-netlink.socket
# Where zsh looks: Debian's place for packages.
ZSHDIR ?= $(PREFIX)/share/zsh/vendor-completions
CARGO_HOME ?= $(HOME)/.cargo
# The same sources give the same programs, wherever they are built.
build man demo bench: export CARGO_BUILD_RUSTFLAGS := --remap-path-prefix=$(CURDIR)=/vifd --remap-path-prefix=$(CARGO_HOME)=/cargo

.PHONY: all build test chaos test-sriov test-systemd test-packages test-split-daemons check demo bench man packages later-packages install \
	uninstall deps clean

all: build

deps:
	packaging/install-deps build hypervisor test
	tests/testbed/openvswitch install
	tests/testbed/clients install
	tests/testbed/fuzzer install
	tests/testbed/dashboard install

build:
	packaging/install-deps build
	cargo build --release --locked
	$(MAKE) --no-print-directory man

# The manual pages and the shells' completions, from the programs themselves.
man:
	cargo run --quiet --release --locked --package vifd-man target/man
	mkdir -p target/completions
	for shell in bash zsh fish; do COMPLETE=$$shell target/release/vifctl >target/completions/vifctl.$$shell || exit; done

# Runs the tests that need root too; without root they would be counted as ignored. The random operations are the same
# every time here, so that a failure is everybody's; `make chaos` looks for new ones.
test: deps
	tests/testbed/keystone install
	CHAOS_SEED=7 cargo test --locked -- --include-ignored --skip split_daemons

# Random operations and faults for SECONDS, every answer compared after each; SEED gives those of another run again.
chaos: deps
	CHAOS_SECONDS=$(SECONDS) CHAOS_SEED=$(SEED) \
		cargo test --locked --test integration chaos:: -- --include-ignored --nocapture

# A .deb and an .rpm in target/packages, without errors by lintian and rpmlint.
packages: build
	packaging/install-deps packages
	packaging/packages

# In a virtual machine with systemd, Open vSwitch's kernel datapath and the newer libvirt of Debian's backports. sriov: a
# network card with virtual functions. systemd: the units. packages: what `make packages` makes, and a later revision. The machine is made first, which takes minutes and 4 GB.
test-packages: later-packages
later-packages: packages
	packaging/packages 2

test-sriov test-systemd test-packages: test-%: build
	packaging/install-deps vm
	tests/testbed/vm build $(CURDIR)/target/vm
	rm -rf target/vm/share
	$(MAKE) --no-print-directory install DESTDIR=target/vm/share PREFIX=/usr SYSCONFDIR=/etc
	install tests/testbed/$* target/vm/share/run
	install tests/testbed/guest.sh target/vm/share
	! test -d target/packages || cp target/packages/*.deb target/packages/*.rpm target/vm/share
	tests/testbed/vm run $(CURDIR)/target/vm $(CURDIR)/target/vm/share

# From libvirtd to virtqemud and back, with guests. virtqemud is built first, which takes minutes.
test-split-daemons: deps
	packaging/install-deps virtqemud
	tests/testbed/split-daemons target/split-daemons
	VIRTQEMUD=$(CURDIR)/target/split-daemons/virtqemud \
		cargo test --locked --test integration split_daemons -- --include-ignored

check:
	packaging/install-deps build
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS=-Dwarnings cargo doc --no-deps --locked

# ARGS=--once ends by itself, ARGS=--kvm uses KVM instead of software emulation.
demo: deps
	cargo build --release --locked
	tests/testbed/demo $(ARGS)

bench:
	packaging/install-deps build hypervisor bench
	cargo bench --locked --bench hot_paths
	benches/compare
	benches/commands

install:
	install -D -m 755 target/release/vifd $(DESTDIR)$(PREFIX)/bin/vifd
	install -D -m 755 target/release/vifctl $(DESTDIR)$(PREFIX)/bin/vifctl
	for unit in $(UNITS); do install -D -m 644 systemd/$$unit $(DESTDIR)$(LIBDIR)/systemd/system/$$unit || exit; done
	sed -i 's|/usr/bin/vifd|$(PREFIX)/bin/vifd|' $(DESTDIR)$(LIBDIR)/systemd/system/vifd.service
	install -D -m 644 systemd/tcp.conf $(DESTDIR)$(PREFIX)/share/vifd/tcp.conf
	install -D -m 644 systemd/vifd.sysusers $(DESTDIR)$(LIBDIR)/sysusers.d/vifd.conf
	install -D -m 644 systemd/vifd.tmpfiles $(DESTDIR)$(LIBDIR)/tmpfiles.d/vifd.conf
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man1 target/man/*.1
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man8 target/man/*.8
	install -D -m 644 target/completions/vifctl.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/vifctl
	install -D -m 644 target/completions/vifctl.zsh $(DESTDIR)$(ZSHDIR)/_vifctl
	install -D -m 644 target/completions/vifctl.fish $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/vifctl.fish
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/doc/vifd README.md docs/findings.md docs/alerts.md
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/vifd/prometheus packaging/prometheus/vifd.rules.yml
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/vifd/grafana packaging/grafana/vifd.json
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/vifd/proxy packaging/proxy/nginx.conf packaging/proxy/haproxy.cfg
	test -e $(DESTDIR)$(SYSCONFDIR)/vifd/vifd.toml || \
		install -D -m 644 packaging/vifd.toml $(DESTDIR)$(SYSCONFDIR)/vifd/vifd.toml

uninstall:
	rm -rf $(DESTDIR)$(PREFIX)/share/vifd $(DESTDIR)$(PREFIX)/share/doc/vifd
	rm -f $(DESTDIR)$(PREFIX)/bin/vifd $(DESTDIR)$(PREFIX)/bin/vifctl \
		$(addprefix $(DESTDIR)$(LIBDIR)/systemd/system/,$(UNITS)) \
		$(DESTDIR)$(LIBDIR)/sysusers.d/vifd.conf $(DESTDIR)$(LIBDIR)/tmpfiles.d/vifd.conf
	rm -f $(DESTDIR)$(PREFIX)/share/man/man1/vifctl{,-*}.1 $(DESTDIR)$(PREFIX)/share/man/man8/vifd.8
	rm -f $(DESTDIR)$(PREFIX)/share/bash-completion/completions/vifctl $(DESTDIR)$(ZSHDIR)/_vifctl
	rm -f $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/vifctl.fish

clean:
	cargo clean
