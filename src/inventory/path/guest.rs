//! From the guest's network card to the first device of the host, whatever joins the two.

use std::sync::Arc;

use super::{
    super::{NoDevice, Vif},
    FaultCode, Hop, HopKind, Join,
    hop::{link_hop, missing, port_hop},
    ports::link_of,
    walk::{End, Key, Place, Walk},
};
use crate::source::{
    SyncState,
    libvirt::domain::Attachment,
    netlink::{
        function::LinkState,
        link::{Link, LinkKind, LinkRef},
    },
};

impl<'a> Walk<'a, '_> {
    /// The guest's card and what carries it. Says why, if there is no way.
    pub(super) fn start(&mut self) -> Option<String> {
        let vif = self.vif;
        let interface = &vif.interface;
        let mut guest = Hop {
            sort: interface.model.as_deref().map(Box::from),
            mac: Some(interface.mac),
            mtu: interface.mtu,
            ..Hop::new(
                HopKind::GuestNic,
                interface.guest_device.clone().unwrap_or_else(|| interface.mac.to_string().into()),
            )
        };
        if interface.link_down {
            guest.fault(FaultCode::Down, "the guest sees its cable unplugged: <link state='down'/>");
        }
        self.hops.push(guest);
        self.parents.push(None);
        self.known.insert(Key::Guest, 0);
        if let Some(link) = vif.device.as_ref().and_then(|device| self.inventory.links().get(device.index)) {
            self.carried(link);
            return None;
        }
        match vif.no_device {
            Some(NoDevice::NotRunning) => return Some("the instance does not run".to_owned()),
            Some(NoDevice::LinksPending) => return Some("the links of this host have not been read yet".to_owned()),
            Some(NoDevice::TypeHasNone) => return Some(no_path(interface.attachment.type_name())),
            Some(NoDevice::VhostUser | NoDevice::Vdpa) => self.socket(),
            Some(NoDevice::PassedThrough) => self.handed(),
            Some(NoDevice::InContainer) => self.in_container(),
            Some(NoDevice::NoTarget) => {
                self.hops[0].fault(FaultCode::Missing, "libvirt names no device of the host for it");
                self.end(0, End::Broken);
            }
            Some(NoDevice::TargetMissing) | None => {
                let name = interface.target.as_ref().unwrap_or(&interface_name(vif)).clone();
                let key = interface.target.as_deref().map_or(Key::Handed, Key::Missing);
                let hop = || missing(&name, "no device of this host has this name, which libvirt gives");
                let (at, _) = self.add(0, Join::CarriedBy, key, hop);
                self.expected(at);
            }
        }
        None
    }

    /// The link that carries the VIF.
    fn carried(&mut self, link: &'a Arc<Link>) {
        let mut from = 0;
        if let Some(LinkRef { index, netns: Some(netns) }) = link.peer {
            // A container's: the guest has the other end.
            let name = format!("veth {index} of network namespace {netns}");
            let (at, _) = self.add(0, Join::CarriedBy, Key::Elsewhere(index, netns), || {
                let mut hop = Hop::new(HopKind::Elsewhere, name);
                hop.note(format!(
                    "in the guest's network namespace, {netns} as this one counts them: not readable from here"
                ));
                hop
            });
            from = at;
        }
        let inventory = self.inventory;
        let by = if from == 0 { Join::CarriedBy } else { Join::VethPair };
        let (at, _) = self.add(from, by, Key::Link(link.index), || link_hop(inventory, link));
        if let Attachment::Direct { lower_device, .. } = &self.vif.interface.attachment {
            let beneath = link.lower.filter(|lower| lower.netns.is_none());
            let beneath = beneath.and_then(|lower| inventory.links().get(lower.index));
            if let (Some(described), Some(beneath)) = (lower_device, beneath)
                && *described != beneath.name
                && !beneath.altnames.contains(described)
            {
                let says = format!("it is upon {}, and not upon {described} as the domain says", beneath.name);
                self.hops[at].fault(FaultCode::NotEnslaved, says);
            }
            return self.queue.push_back((at, Place::Outward(link)));
        }
        let is_on = self.bridge_of(link);
        match (self.described_bridge(), is_on) {
            (Some(described), None) => {
                let says = format!("it is not on {described}, nor on any other bridge, although the domain says so");
                self.hops[at].fault(FaultCode::NotEnslaved, says);
                self.expected(at);
            }
            (Some(described), Some(is_on)) if **described != *is_on => {
                let says = format!("it is on {is_on}, and not on {described} as the domain says");
                self.hops[at].fault(FaultCode::NotEnslaved, says);
                self.queue.push_back((at, Place::Inward(link)));
            }
            _ => self.queue.push_back((at, Place::Inward(link))),
        }
    }

    /// The bridge, of either sort, that a link is on.
    fn bridge_of(&self, link: &Link) -> Option<Arc<str>> {
        let port = self.inventory.ports().of_link(link).and_then(|port| port.bridge.clone());
        port.or_else(|| self.inventory.links().get(link.controller?).map(|bridge| Arc::clone(&bridge.name)))
    }

    /// The bridge that the domain's description names.
    fn described_bridge(&self) -> Option<&'a Arc<str>> {
        match &self.vif.interface.attachment {
            Attachment::Bridge { bridge, .. } | Attachment::Network { bridge, .. } => bridge.as_ref(),
            _ => None,
        }
    }

    /// Goes on where the frames should go, from something that is joined with nothing.
    fn expected(&mut self, at: usize) {
        if let Some(port) = self.inventory.ovs_port(self.vif) {
            // A switch that could not open the device says why.
            if let Some(error) = port.error.as_ref().filter(|_| *port.name == *self.hops[at].name) {
                self.hops[at].fault(FaultCode::SwitchError, format!("Open vSwitch says: {error}"));
            }
            if let Some(bridge) = &port.bridge {
                return self.add_switch(at, Join::ShouldBe, bridge);
            }
        }
        let Some(bridge) = self.described_bridge() else { return self.end(at, End::Broken) };
        if let Some(link) = self.inventory.link_by_name(bridge).filter(|link| link.kind == LinkKind::Bridge) {
            return self.add_link(at, Join::ShouldBe, link, Place::Bridge(link));
        }
        if self.inventory.ports().by_name(bridge).is_some() {
            return self.add_switch(at, Join::ShouldBe, bridge);
        }
        let hop = || missing(bridge, "no bridge of this host has this name, which the domain gives");
        let (at, _) = self.add(at, Join::ShouldBe, Key::Missing(bridge), hop);
        self.end(at, End::Broken);
    }

    /// A vhost-user socket or vDPA device, and the switch at its other end.
    fn socket(&mut self) {
        let name = self.vif.interface.attachment.source().unwrap_or_else(|| "unnamed".to_owned());
        let (at, _) = self.add(0, Join::CarriedBy, Key::Handed, || {
            let mut hop = Hop::new(HopKind::Socket, name);
            hop.sort = Some(self.vif.interface.attachment.type_name().into());
            hop
        });
        self.plugged(at, "no Open vSwitch port of this host has it: another program serves it");
    }

    /// From what the kernel does not know to its Open vSwitch port, if it has one.
    fn plugged(&mut self, at: usize, otherwise: &str) {
        let inventory = self.inventory;
        let Some(port) = inventory.ovs_port(self.vif) else {
            let known = matches!(inventory.ovsdb, Some(SyncState::Synced { .. } | SyncState::Absent));
            self.hops[at].note(if known { otherwise } else { "the Open vSwitch database cannot be read just now" });
            return self.end(at, End::Beyond);
        };
        match link_of(inventory, port) {
            Some(link) => self.add_link(at, Join::CarriedBy, link, Place::Inward(link)),
            None => {
                self.add_then(at, Join::CarriedBy, Key::Port(&port.name), || port_hop(port), Place::PortInward(port));
            }
        }
    }

    /// A PCI device, the card that it is a function of, or its port in a switch.
    fn handed(&mut self) {
        let inventory = self.inventory;
        let vif = self.vif;
        let pci = vif.interface.pci().map_or_else(|| "unnamed".to_owned(), |pci| pci.to_string());
        let (at, _) = self.add(0, Join::CarriedBy, Key::Handed, || {
            let mut hop = Hop::new(HopKind::PciDevice, pci);
            let Some(passed) = &vif.virtual_function else { return hop };
            hop.sort = Some(format!("VF {}", passed.function.number).into());
            if let Some(settings) = &passed.function.settings {
                hop.vlan = settings.vlan.filter(|vlan| *vlan != 0).map(|vlan| format!("VLAN {vlan}"));
                if settings.link_state == Some(LinkState::Down) {
                    hop.fault(FaultCode::Down, "its card was told that its link is down");
                }
            }
            hop
        });
        let physical = vif.virtual_function.as_ref().map(|passed| passed.physical_function.index);
        match physical.and_then(|index| inventory.links().get(index)) {
            Some(card) if inventory.ovs_port(vif).is_none() => {
                self.add_link(at, Join::FunctionOf, card, Place::Outward(card));
                let bond = card.controller.and_then(|index| inventory.links().get(index));
                if let (Some(bond), Some(at)) = (bond, self.known.get(&Key::Link(card.index))) {
                    let says = format!("it is on {}, which a virtual function's frames do not pass", bond.name);
                    self.hops[*at].note(says);
                }
            }
            _ => self.plugged(
                at,
                "no link of this host has it: its card has no network driver here, or another namespace has it",
            ),
        }
    }

    /// A macvlan that was moved into a container, upon a device of the host.
    fn in_container(&mut self) {
        let name = interface_name(self.vif);
        let (at, _) = self.add(0, Join::CarriedBy, Key::Handed, || {
            let mut hop = Hop { sort: Some("macvlan".into()), ..Hop::new(HopKind::Elsewhere, name) };
            hop.note("in the guest's network namespace: not readable from here");
            hop
        });
        let Attachment::Direct { lower_device: Some(lower), .. } = &self.vif.interface.attachment else {
            return self.end(at, End::Beyond);
        };
        match self.inventory.link_by_name(lower) {
            Some(link) => self.add_link(at, Join::Upon, link, Place::Outward(link)),
            None => {
                let hop = || missing(lower, "no device of this host has this name, which the domain gives");
                let (at, _) = self.add(at, Join::Upon, Key::Missing(lower), hop);
                self.end(at, End::Broken);
            }
        }
    }
}

fn interface_name(vif: &Vif) -> Arc<str> {
    let interface = &vif.interface;
    interface.guest_device.clone().unwrap_or_else(|| interface.mac.to_string().into())
}

/// Why an interface of this type has no path.
fn no_path(kind: &str) -> String {
    match kind {
        "user" => {
            "a `user` interface has no device on the host: QEMU or passt speaks for the guest, by sockets of its own"
                .to_owned()
        }
        "null" => "a `null` interface is connected to nothing".to_owned(),
        "mcast" | "server" | "client" | "udp" => {
            format!("a `{kind}` interface has no device on the host: QEMU sends its frames through a socket of its own")
        }
        _ => format!("interfaces of the type `{kind}` have no device on the host"),
    }
}
