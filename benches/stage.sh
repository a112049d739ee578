# What the scripts here share: a private hypervisor to measure in, and a host with many interfaces. Sourced by a script in
# this directory that is run as root, and runs itself again, with the argument _inside, in there.
# shellcheck shell=bash

set -euo pipefail

PATH=/usr/local/sbin:/usr/sbin:/sbin:$PATH
self=$(realpath "$0")
name=${self##*/}
root=$(cd "${self%/*}/.." && pwd)
hypervisor=$root/tests/testbed/hypervisor
probe=${bin-}/examples/probe

# Builds vifd, starts the hypervisor, and runs the function inside in there. All of it ends with us. Where there is a
# function before_libvirtd, it is run there first, and libvirtd is started anew.
main() {
    if [[ ${1-} == _* ]]; then
        "${1#_}"
        return
    fi
    cd "$root"
    packaging/install-deps build hypervisor bench
    cargo build --release --locked --bins --example probe
    bin=$(cargo metadata --format-version 1 --no-deps --locked | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/release
    export bin

    tmp=$(mktemp -d "/tmp/vifd-$name.XXXXXX")
    export tmp
    trap 'rm -rf --one-file-system -- "$tmp"' EXIT
    chmod 755 "$tmp"
    # The hypervisor ends with the writing end of this pipe, however we end.
    mkfifo "$tmp/ready"
    exec {lifeline}> >(exec "$hypervisor" run "$tmp/hv" >"$tmp/ready")
    local stands=$! status=0
    read -r _ <"$tmp/ready" || { echo "$name: no hypervisor" >&2; exit 1; }
    if declare -F before_libvirtd >/dev/null; then
        "$hypervisor" exec "$tmp/hv" "$self" _before_libvirtd
        "$hypervisor" restart-libvirtd "$tmp/hv"
    fi
    "$hypervisor" exec "$tmp/hv" "$self" _inside {lifeline}>&- || status=$?
    exec {lifeline}>&-
    wait "$stands" || :
    return "$status"
}

machine() {
    printf '%s; Linux %s; libvirt %s' "$(sed -n 's/^model name\s*: //p;T;q' /proc/cpuinfo) x $(nproc)" "$(uname -r)" \
        "$(libvirtd --version | sed 's/.* //')"
}

# libvirt's test driver lives in the daemon and forgets everything with its last connection.
keep_test_driver() {
    virsh --quiet --connect test+unix:///default < <(echo uri; exec sleep infinity) >"$tmp/keeper" &
    until [[ -s $tmp/keeper ]]; do sleep 0.02; done
}

# Taps and domains from number FROM up to TO. The domains are the test driver's, with XML as Nova writes it.
grow() {
    "$probe" taps "$1" "$2" >"$tmp/taps"
    ip -batch "$tmp/taps"
    "$probe" domains test+unix:///default "$1" "$2"
}
