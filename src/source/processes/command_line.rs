//! What the command line of a guest's process says of it: pure decoding.
//!
//! QEMU's options are words with `key=value` pairs, or, from libvirt 7 and 8 on, JSON objects. An interface is a pair of
//! them: `-netdev` is the end on the host, `-device` names it and has the MAC address. A device that was plugged in later
//! is on no command line, and one that was unplugged stays on it.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::Value;
use uuid::Uuid;

use crate::{mac::MacAddr, pci::PciAddress};

/// A guest, by the command line of the process that runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine {
    /// libvirt's driver for it: `qemu` or `lxc`.
    pub driver: &'static str,
    /// Its hypervisor type: `kvm`, `qemu` or `lxc`.
    pub kind: &'static str,
    /// Its name.
    pub name: Option<Arc<str>>,
    /// Its UUID. A container's is not there.
    pub uuid: Option<Uuid>,
    /// libvirt's number for it, which is in the paths that libvirt chose.
    pub libvirt_id: Option<u32>,
    /// The interfaces that it was started with.
    pub nics: Vec<Nic>,
    /// The PCI devices that were handed to it, network cards or not.
    pub pci_devices: Vec<PciAddress>,
}

/// An interface that a guest was started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nic {
    /// Its MAC address.
    pub mac: MacAddr,
    /// What the guest sees, such as `virtio` or `e1000`.
    pub model: Arc<str>,
    /// Its name in QEMU, which is libvirt's alias.
    pub alias: Option<Arc<str>>,
    /// Its end on the host.
    pub end: End,
}

/// The end of an interface on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// A tap or macvtap: by the descriptors of its queues, or by its name.
    Tap {
        /// QEMU's descriptors.
        descriptors: Vec<u32>,
        /// Its name, where QEMU was to open it itself.
        name: Option<Arc<str>>,
    },
    /// A vhost-user socket.
    Vhostuser {
        /// Its path.
        socket: Option<Arc<str>>,
    },
    /// A vDPA device.
    Vdpa {
        /// Its path.
        character_device: Option<Arc<str>>,
    },
    /// Something else, in QEMU's word.
    Other(Arc<str>),
}

impl CommandLine {
    /// Decodes `/proc/PID/cmdline`; nothing if it is no guest's.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut words = bytes.split(|byte| *byte == 0).map(|word| std::str::from_utf8(word).unwrap_or_default());
        let program = words.next()?.rsplit('/').next()?;
        match program {
            "libvirt_lxc" => {
                let name = words.by_ref().skip_while(|word| *word != "--name").nth(1)?;
                let kind = "lxc";
                Some(Self { driver: kind, kind, name: Some(name.into()), ..Self::empty() })
            }
            _ if program.contains("qemu") || program == "kvm" => Self::decode_qemu(words),
            _ => None,
        }
    }

    fn empty() -> Self {
        Self {
            driver: "qemu",
            kind: "qemu",
            name: None,
            uuid: None,
            libvirt_id: None,
            nics: Vec::new(),
            pci_devices: Vec::new(),
        }
    }

    fn decode_qemu<'a>(words: impl Iterator<Item = &'a str>) -> Option<Self> {
        let words: Vec<_> = words.collect();
        let mut guest = Self::empty();
        let mut backends = BTreeMap::new();
        let (mut sockets, mut devices) = (BTreeMap::new(), Vec::new());
        for (option, value) in words.iter().zip(words.iter().skip(1)).filter(|(option, _)| option.starts_with('-')) {
            match option.trim_start_matches('-') {
                "name" => guest.name = Options::decode(value, "guest").take("guest").map(Arc::from),
                "uuid" => guest.uuid = value.parse().ok(),
                "smbios" if guest.uuid.is_none() => {
                    guest.uuid = Options::decode(value, "").get("uuid").and_then(|uuid| uuid.parse().ok());
                }
                "accel" | "machine" | "M"
                    if *value == "kvm" || value.starts_with("kvm,") || value.contains("accel=kvm") =>
                {
                    guest.kind = "kvm";
                }
                "chardev" => {
                    let mut options = Options::decode(value, "backend");
                    if let (Some(id), Some(path)) = (options.take("id"), options.take("path")) {
                        sockets.insert(id, path);
                    }
                }
                "netdev" => {
                    let mut options = Options::decode(value, "type");
                    if let Some(id) = options.take("id") {
                        backends.insert(id, options);
                    }
                }
                "device" => devices.push(Options::decode(value, "driver")),
                _ => {}
            }
            guest.libvirt_id = guest.libvirt_id.or_else(|| libvirt_id(value));
        }
        if words.contains(&"-enable-kvm") {
            guest.kind = "kvm";
        }
        for device in devices {
            let driver = device.get("driver").unwrap_or_default();
            if driver.starts_with("vfio-pci") {
                guest.pci_devices.extend(device.get("host").and_then(|host| host.parse::<PciAddress>().ok()));
            }
            let mac = device.get("mac").and_then(|mac| mac.parse().ok());
            let backend = device.get("netdev").and_then(|id| backends.get(id));
            if let (Some(mac), Some(backend)) = (mac, backend) {
                guest.nics.push(Nic {
                    mac,
                    model: if driver.starts_with("virtio-net") { "virtio".into() } else { driver.into() },
                    alias: device.get("id").map(Arc::from),
                    end: End::of(backend, &sockets),
                });
            }
        }
        // Tools such as qemu-img run no guest.
        guest.uuid.is_some().then_some(guest)
    }
}

impl End {
    fn of(backend: &Options, sockets: &BTreeMap<String, String>) -> Self {
        let shared = |text: &str| Arc::from(text);
        match backend.get("type").unwrap_or_default() {
            "tap" => {
                let descriptors = backend.get("fds").or(backend.get("fd")).unwrap_or_default();
                Self::Tap {
                    descriptors: descriptors.split(':').filter_map(|number| number.parse().ok()).collect(),
                    name: backend.get("ifname").filter(|name| !name.is_empty()).map(shared),
                }
            }
            "vhost-user" => {
                let socket = backend.get("chardev").and_then(|id| sockets.get(id));
                Self::Vhostuser { socket: socket.map(|path| shared(path)) }
            }
            "vhost-vdpa" => Self::Vdpa { character_device: backend.get("vhostdev").map(shared) },
            other => Self::Other(other.into()),
        }
    }
}

/// The value of one of QEMU's options.
#[derive(Debug, Default)]
struct Options(BTreeMap<String, String>);

impl Options {
    /// Either form; a first word without a key has this one.
    fn decode(text: &str, implied: &str) -> Self {
        if text.starts_with('{') {
            let object: BTreeMap<String, Value> = serde_json::from_str(text).unwrap_or_default();
            let text = |value| match value {
                Value::String(text) => text,
                other => other.to_string(),
            };
            return Self(object.into_iter().map(|(key, value)| (key, text(value))).collect());
        }
        // A comma in a value is doubled.
        let text = text.replace(",,", "\0");
        let pairs = text.split(',').enumerate().filter_map(|(n, word)| match word.split_once('=') {
            Some(pair) => Some(pair),
            None => (n == 0).then_some((implied, word)),
        });
        Self(pairs.map(|(key, value)| (key.to_owned(), value.replace('\0', ","))).collect())
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    fn take(&mut self, key: &str) -> Option<String> {
        self.0.remove(key)
    }
}

/// libvirt keeps the files of a guest in directories `domain-ID-NAME`.
fn libvirt_id(value: &str) -> Option<u32> {
    value.split("/domain-").nth(1)?.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mac(text: &str) -> MacAddr {
        text.parse().unwrap()
    }

    fn decode(words: &str) -> Option<CommandLine> {
        CommandLine::decode(words.replace(' ', "\0").as_bytes())
    }

    const UUID: &str = "753f173b-d4ac-4a45-aae0-fe9a4fbe0fc0";

    #[test]
    fn a_guest_that_libvirt_started_is_known_with_the_descriptors_of_its_taps() {
        let recorded = include_bytes!("../../../tests/data/processes/recorded_qemu.cmdline");
        let nic = |alias: &str, address, descriptors: &[u32]| Nic {
            mac: mac(address),
            model: "virtio".into(),
            alias: Some(alias.into()),
            end: End::Tap { descriptors: descriptors.into(), name: None },
        };
        let expected = CommandLine {
            driver: "qemu",
            kind: "qemu",
            name: Some("instance-00000001".into()),
            uuid: UUID.parse().ok(),
            libvirt_id: Some(1),
            nics: vec![nic("net0", "fa:16:3e:00:00:01", &[30, 32]), nic("net1", "fa:16:3e:01:00:01", &[33])],
            pci_devices: Vec::new(),
        };
        assert_eq!(CommandLine::decode(recorded), Some(expected));
    }

    #[test]
    fn the_older_form_of_options_says_the_same() {
        let guest = decode(&format!(
            "/usr/libexec/qemu-kvm -name guest=a,,b,debug-threads=on -machine pc-i440fx-4.2,accel=kvm,usb=off -uuid {UUID} \
             -chardev socket,id=charnet1,path=/run/openvswitch/vhu1,server=on \
             -netdev tap,fd=28,id=hostnet0,vhost=on,vhostfd=30 \
             -device virtio-net-pci,host_mtu=1450,netdev=hostnet0,id=net0,mac=fa:16:3e:00:00:01,bus=pci.0,addr=0x3 \
             -netdev vhost-user,chardev=charnet1,queues=2,id=hostnet1 \
             -device e1000,netdev=hostnet1,id=ua-x,mac=fa:16:3e:00:00:02 \
             -netdev type=tap,id=net2,ifname=tap100i0,script=no -device driver=rtl8139,netdev=net2,mac=fa:16:3e:00:00:03 \
             -netdev user,id=n3 -device e1000,netdev=n3,mac=52:54:00:00:00:04 -device vfio-pci,host=0000:03:10.2,id=hostdev0"
        ))
        .unwrap();
        assert_eq!((guest.name.as_deref(), guest.kind), (Some("a,b"), "kvm"));
        let ends: Vec<_> = guest.nics.iter().map(|nic| nic.end.clone()).collect();
        let expected = [
            End::Tap { descriptors: vec![28], name: None },
            End::Vhostuser { socket: Some("/run/openvswitch/vhu1".into()) },
            End::Tap { descriptors: Vec::new(), name: Some("tap100i0".into()) },
            End::Other("user".into()),
        ];
        assert_eq!(ends, expected);
        assert_eq!(guest.pci_devices, ["0000:03:10.2".parse().unwrap()]);
    }

    #[test]
    fn a_containers_controller_names_the_container() {
        let recorded = include_bytes!("../../../tests/data/processes/recorded_libvirt_lxc.cmdline");
        let guest = CommandLine::decode(recorded).unwrap();
        assert_eq!((guest.driver, guest.name.as_deref(), guest.uuid), ("lxc", Some("instance-00000002"), None));
    }

    #[test]
    fn what_runs_no_guest_is_none() {
        for words in
            ["", "/usr/bin/qemu-img create -f qcow2 x", "/bin/grep -uuid x", "qemu-ga -uuid", "libvirt_lxc --name"]
        {
            assert_eq!(decode(words), None, "{words}");
        }
    }

    proptest! {
        #[test]
        fn no_command_line_makes_decoding_panic(
            words in prop::collection::vec("(-(name|uuid|netdev|device|chardev))|(\\{\"?[a-z:,\"]*\\}?)|(([a-z]+=?,?)*)|\\PC*", 0..20)
        ) {
            let text = [vec!["qemu", "-uuid", UUID], words.iter().map(String::as_str).collect()].concat().join("\0");
            let _ = CommandLine::decode(text.as_bytes());
        }
    }
}
