//! Which virtual function of which card a guest was handed, and what the card says about it.

use std::{cell::OnceCell, sync::Arc};

use crate::{
    inventory::{Device, Disagreement, Fact, FactSource, PassedFunction, index::Index},
    pci::PciAddress,
    source::{
        libvirt::domain::Interface,
        netlink::link::{Link, Links},
    },
};

/// The links that know of a device on the bus. The index is made when it is first needed: most hosts need none.
pub(super) struct Functions<'a> {
    links: &'a Links,
    by_address: OnceCell<Index<PciAddress, Knower>>,
}

/// A link, by its index, that knows of a device on the bus.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Knower {
    /// It is that of the physical function, in whose list the device has this position.
    Physical { link: u32, position: usize },
    /// It is that of the device itself.
    Own { link: u32 },
}

impl<'a> Functions<'a> {
    pub(super) fn new(links: &'a Links) -> Self {
        Self { links, by_address: OnceCell::new() }
    }

    /// The virtual function that this interface is, if it is one of a card that this host's links know of.
    pub(super) fn find(&self, interface: &Interface) -> Option<PassedFunction> {
        let address = interface.pci()?;
        let knowers = || self.by_address.get_or_init(|| self.links.iter().flat_map(known_by).collect()).get(&address);
        let (physical, function) = knowers().find_map(|knower| match knower {
            Knower::Physical { link, position } => {
                let link = self.links.get(link)?;
                Some((link, link.virtual_functions.get(position)?))
            }
            Knower::Own { .. } => None,
        })?;
        let own = knowers().find_map(|knower| match knower {
            Knower::Own { link } => self.links.get(link),
            Knower::Physical { .. } => None,
        });
        Some(PassedFunction { function: function.clone(), physical_function: device(physical), link: own.map(device) })
    }
}

fn known_by(link: &Arc<Link>) -> impl Iterator<Item = (PciAddress, Knower)> {
    let functions = link.virtual_functions.iter().enumerate();
    let functions = functions.map(|(position, f)| (f.pci, Knower::Physical { link: link.index, position }));
    functions.chain(link.pci.map(|address| (address, Knower::Own { link: link.index })))
}

fn device(link: &Arc<Link>) -> Device {
    Device { index: link.index, name: Arc::clone(&link.name) }
}

/// What the card says otherwise about the function than the domain's description.
pub(super) fn disagreements(interface: &Interface, passed: &PassedFunction) -> Vec<Disagreement> {
    let mut disagreements = Vec::new();
    let mut add = |what, value: String| {
        disagreements.push(Disagreement { what, source: FactSource::PhysicalFunction, value: value.into() });
    };
    let Some(settings) = &passed.function.settings else { return disagreements };
    if settings.mac != interface.mac {
        add(Fact::MacAddress, settings.mac.to_string());
    }
    // A card knows one tag; 0 means none.
    let described = interface.vlans.first().copied().unwrap_or_default();
    if let Some(vlan) = settings.vlan.filter(|vlan| *vlan != described) {
        add(Fact::Vlan, vlan.to_string());
    }
    disagreements
}
