# What the scripts that run inside the machine of tests/testbed/vm share. The first thing that fails ends the run.
# shellcheck shell=bash

set -Eeuo pipefail
trap 'fail "$BASH_COMMAND"' ERR

expect() {
    local what=$1
    shift
    "$@" || fail "$what"
    echo "ok: $what"
}

eventually() {
    local what=$1 try
    shift
    for ((try = 0; try < 600; try++)); do
        if "$@"; then
            echo "ok: $what"
            return
        fi
        sleep 0.1
    done
    fail "$what"
}

fail() {
    trap - ERR
    echo "FAIL: $1"
    ! declare -F explain >/dev/null || explain || :
    journalctl --boot --no-pager --output short | tail -n 60
    exit 1
}

# As README.md tells.
install_vifd() {
    cp -a /share/usr /share/etc /
    systemd-sysusers
    systemd-tmpfiles --create
    systemctl daemon-reload
}

get() {
    curl -s --unix-socket /run/vifd/vifd.sock "http://vifd/host/v1/$1"
}

# answers PATH CONDITION: whether the answer fulfils it.
answers() {
    get "$1" | jq --exit-status "$2" >/dev/null
}

who() {
    vifctl who "$1" | grep --quiet --fixed-strings "$2"
}

shows() {
    vifctl show "$1" | grep --quiet --fixed-strings "$2"
}

# domain NAME MACHINE INTERFACE
domain() {
    [[ -e /halt.bin ]] || halting_firmware >/halt.bin
    cat <<XML
<domain type='qemu'>
  <name>$1</name>
  <memory unit='MiB'>64</memory>
  <os><type arch='x86_64' machine='$2'>hvm</type><loader readonly='yes' type='rom'>/halt.bin</loader></os>
  <features><acpi/><tcg><tb-cache unit='MiB'>1</tb-cache></tcg></features>
  <devices><controller type='usb' model='none'/><memballoon model='none'/>$3</devices>
</domain>
XML
}

# 64 KiB of HLT; the CPU starts 16 bytes before the end, with: cli; hlt; jmp to that hlt.
halting_firmware() {
    head -c 65520 /dev/zero | tr '\0' '\364'
    printf '\372\364\353\375'
    head -c 12 /dev/zero | tr '\0' '\364'
}

pid() {
    systemctl show --property MainPID --value vifd
}

test_requests() {
    (($(cat /client.* | wc -l) >= $1))
}

# For the background: one request after the other, each on a connection of its own; prints their status.
ask_without_end() {
    exec stdbuf --output=L curl -s -H 'Connection: close' -o /dev/null -w '%{http_code}\n' "$@"
}
