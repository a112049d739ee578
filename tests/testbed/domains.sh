# shellcheck shell=bash
#
# Domains for a private hypervisor, as a cloud would define them: functions that print libvirt XML.
# To be sourced. N is the number of an instance and J that of an interface in it, from 0.
# All ids follow from the two, so that a domain can be described again later.
#
# The guests have no disk and no kernel: QEMU runs firmware that halts at once, a container sleeps.
# Both have real interfaces, on the bridge br0 unless something else is said.

# A UUID for these words, always the same one.
uuid_of() {
    local h
    h=$(printf '%s' "$*" | md5sum)
    echo "${h:0:8}-${h:8:4}-4${h:13:3}-a${h:17:3}-${h:20:12}"
}

# The id of a user or project, which Keystone writes without hyphens.
keystone_id() {
    local uuid
    uuid=$(uuid_of "$@")
    echo "${uuid//-/}"
}

domain_name() { printf 'instance-%08x\n' "$1"; }
server_uuid() { uuid_of server "$1"; }
port_uuid() { uuid_of port "$1" "$2"; }
mac_address() { printf 'fa:16:3e:%02x:%02x:%02x\n' "$2" $(($1 / 256)) $(($1 % 256)); }

tap_name() {
    local port
    port=$(port_uuid "$1" "$2")
    echo "tap${port:0:11}"
}

own_bridge_name() {
    local port
    port=$(port_uuid "$1" "$2")
    echo "qbr${port:0:11}"
}

# interface N J [ELEMENTS [WIRING]]: an interface; ELEMENTS are further XML in it. WIRING says what it is plugged into:
#   bridge       the bridge br0 (the default)
#   virtualport  the Open vSwitch bridge br-int, by libvirt
#   unmanaged    nothing: the tap is somebody else's
#   hybrid       a bridge of its own
interface() {
    local type=bridge source='' managed=''
    case ${4-bridge} in
    bridge) source="<source bridge='br0'/>" ;;
    virtualport)
        source="<source bridge='br-int'/><virtualport type='openvswitch'>
  <parameters interfaceid='$(port_uuid "$1" "$2")'/></virtualport>"
        ;;
    unmanaged) type=ethernet managed=" managed='no'" ;;
    hybrid) source="<source bridge='$(own_bridge_name "$1" "$2")'/>" ;;
    esac
    cat <<EOF
<interface type='$type'>
  <mac address='$(mac_address "$1" "$2")'/>
  $source
  <target dev='$(tap_name "$1" "$2")'$managed/>
  ${3-}
</interface>
EOF
}

# hot_plug_interface N J [WIRING]: one that names its port in the alias, since the domain's metadata was
# written before it came.
hot_plug_interface() {
    interface "$1" "$2" "<model type='virtio'/><alias name='ua-$(port_uuid "$1" "$2")'/>" "${3-bridge}"
}

# nova_metadata N INTERFACES
nova_metadata() {
    local j
    cat <<EOF
<metadata>
  <nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'>
    <nova:package version='26.2.2'/>
    <nova:name>web-$1</nova:name>
    <nova:creationTime>2026-01-02 03:04:05</nova:creationTime>
    <nova:flavor name='m1.tiny'>
      <nova:memory>2</nova:memory>
      <nova:disk>0</nova:disk>
      <nova:swap>0</nova:swap>
      <nova:ephemeral>0</nova:ephemeral>
      <nova:vcpus>1</nova:vcpus>
    </nova:flavor>
    <nova:owner>
      <nova:user uuid='$(keystone_id user alice)'>alice</nova:user>
      <nova:project uuid='$(keystone_id project shop)'>shop</nova:project>
    </nova:owner>
    <nova:ports>
$(for ((j = 0; j < $2; j++)); do
        echo "<nova:port uuid='$(port_uuid "$1" "$j")'>"
        echo "<nova:ip type='fixed' address='10.0.$j.$(($1 % 250 + 3))' ipVersion='4'/></nova:port>"
    done)
    </nova:ports>
  </nova:instance>
</metadata>
EOF
}

# qemu_domain N FIRMWARE [qemu|kvm [INTERFACES [WIRING]]]: a guest that halts at once. ACPI is there for
# hot-plug, and the first of several interfaces has two queues.
qemu_domain() {
    local n=$1 firmware=$2 type=${3:-qemu} interfaces=${4:-1} wiring=${5:-bridge} tcg='' driver='' j
    # Emulated guests would otherwise reserve much memory for translated code, of which they have none.
    [[ $type != qemu ]] || tcg="<tcg><tb-cache unit='MiB'>1</tb-cache></tcg>"
    ((interfaces == 1)) || driver="<driver queues='2'/>"
    cat <<EOF
<domain type='$type'>
  <name>$(domain_name "$n")</name>
  <uuid>$(server_uuid "$n")</uuid>
  $(nova_metadata "$n" "$interfaces")
  <memory unit='KiB'>2048</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <loader readonly='yes' type='rom'>$firmware</loader>
  </os>
  <features><acpi/>$tcg</features>
  <devices>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    $(interface "$n" 0 "<model type='virtio'/>$driver" "$wiring")
    $(for ((j = 1; j < interfaces; j++)); do interface "$n" "$j" "<model type='virtio'/>" "$wiring"; done)
  </devices>
</domain>
EOF
}

# lxc_domain N: a container that sleeps, in the host's file system. Its interface is a veth.
lxc_domain() {
    cat <<EOF
<domain type='lxc'>
  <name>$(domain_name "$1")</name>
  <uuid>$(server_uuid "$1")</uuid>
  $(nova_metadata "$1" 1)
  <memory unit='MiB'>64</memory>
  <vcpu>1</vcpu>
  <os>
    <type>exe</type>
    <init>/bin/sleep</init>
    <initarg>infinity</initarg>
  </os>
  <devices>
    <console type='pty'/>
    $(interface "$1" 0)
  </devices>
</domain>
EOF
}

# pxe_domain N LOWER: a guest whose firmware wants to boot over the network, and sends requests for an
# address for some seconds: on a tap, and on a macvtap upon LOWER.
pxe_domain() {
    cat <<EOF
<domain type='qemu'>
  <name>$(domain_name "$1")</name>
  <uuid>$(server_uuid "$1")</uuid>
  $(nova_metadata "$1" 2)
  <memory unit='MiB'>32</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <boot dev='network'/>
  </os>
  <features><acpi/></features>
  <devices>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
    $(interface "$1" 0 "<model type='virtio'/>")
    <interface type='direct'>
      <mac address='$(mac_address "$1" 1)'/>
      <source dev='$2' mode='bridge'/>
      <target dev='$(tap_name "$1" 1)'/>
      <model type='virtio'/>
    </interface>
  </devices>
</domain>
EOF
}
