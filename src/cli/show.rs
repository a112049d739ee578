//! `vifctl show`: everything about one instance.

use super::{
    client::{Client, ClientError, encode},
    output::{BAD, DOUBT, Output, Page, Readable, STRONG, styled},
    words::{
        address, attachment, device, doubts, function_summary, link_summary, plain, port_summary, staleness, state,
    },
};
use crate::{
    http::host::{Answer, InstanceRecord, OneInstance},
    inventory::Vif,
    source::{
        libvirt::domain::{DescribedBy, InDefinition},
        netlink::link::Link,
    },
};

/// The command's arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Show {
    /// Its UUID, libvirt name or integer id
    instance: String,
}

impl Show {
    /// Says whether there was anything to show.
    pub(super) fn run(&self, client: &Client, output: Output) -> Result<bool, ClientError> {
        let path = format!("/host/v1/instances/{}", encode(&self.instance));
        output.write(&client.get::<Answer<OneInstance>>(&path)?).map(|()| true)
    }
}

impl Readable for Answer<OneInstance> {
    fn text(&self, page: &mut Page) {
        let record = &self.body.instance;
        let instance = &record.instance;
        page.fact(0, "instance", styled(STRONG, instance.uuid));
        page.fact(0, "libvirt name", plain(&instance.name));
        if let Some(number) = instance.number {
            page.fact(0, "integer id", number);
        }
        if let Some(name) = &instance.display_name {
            page.fact(0, "display name", plain(name));
        }
        for (what, owner) in [("project", &instance.project), ("user", &instance.user)] {
            if let Some(owner) = owner {
                let name = owner.name.as_deref().map(|name| format!(" ({})", plain(name))).unwrap_or_default();
                page.fact(0, what, plain(&owner.id) + &name);
            }
        }
        page.fact(0, "state", state(instance));
        page.fact(0, "hypervisor", format!("{} ({})", plain(&instance.hypervisor), plain(&instance.hypervisor_type)));
        if let Some(process) = &instance.process {
            let by = match process.described_by {
                DescribedBy::StateFile => "the file in which libvirt keeps its state",
                DescribedBy::CommandLine => "its command line and descriptors: no display name, project or definition",
            };
            page.fact(0, "known by", styled(DOUBT, format!("its process {}, and {by}", process.pid)));
        }
        if let Some(stale) = &record.stale {
            page.fact(0, "stale", styled(DOUBT, staleness(stale)));
        }
        if instance.persistent == Some(false) {
            page.fact(0, "definition", "none: it is gone when it stops");
        }
        for warning in &instance.warnings {
            page.fact(0, "warning", styled(DOUBT, plain(warning)));
        }
        for (n, vif) in instance.vifs.iter().enumerate() {
            page.gap();
            vif_facts(page, record, n, vif);
        }
        if !instance.defined_only.is_empty() {
            page.gap();
            page.line("after the next start also");
        }
        for interface in &instance.defined_only {
            page.fact(2, "interface", format!("{}, {}", interface.mac, attachment(interface)));
        }
        doubts(page, &self.sources);
    }

    fn names(&self) -> Vec<String> {
        vec![self.body.instance.instance.uuid.to_string()]
    }
}

fn vif_facts(page: &mut Page, record: &InstanceRecord, n: usize, vif: &Vif) {
    let interface = &vif.interface;
    page.fact(2, &format!("VIF {n}"), styled(STRONG, vif.id));
    page.fact(2, "id from", vif.id_source);
    for other in &vif.id_disagreement {
        page.fact(2, "but", styled(BAD, format!("{} says {}", other.source, other.id)));
    }
    for other in &vif.disagreements {
        page.fact(2, "but", styled(BAD, format!("{} says {} {}", other.source, other.what, plain(&other.value))));
    }
    if let Some(network) = vif.network_id {
        page.fact(2, "network", network);
    }
    page.fact(2, "MAC address", interface.mac);
    page.fact(2, "type", attachment(interface));
    if let Some(model) = &interface.model {
        page.fact(2, "model", plain(model));
    }
    for (n, known) in vif.addresses.iter().enumerate() {
        page.fact(2, if n == 0 { "addresses" } else { "" }, address(known));
    }
    if interface.link_down {
        page.fact(2, "link", "set down in the guest");
    }
    match interface.definition {
        Some(InDefinition::Changed) => page.fact(2, "definition", "differs: otherwise after the next start"),
        Some(InDefinition::LiveOnly) => page.fact(2, "definition", "has no such interface: gone after the next start"),
        Some(InDefinition::Same) | None => {}
    }
    page.fact(2, "device", device(vif));
    let carried_by = |link: &&std::sync::Arc<Link>| vif.device.as_ref().is_some_and(|d| d.index == link.index);
    if let Some(link) = record.links.iter().find(carried_by) {
        page.fact(2, "", link_summary(link));
    }
    if let Some(function) = &vif.virtual_function {
        page.fact(2, "VF", function_summary(function));
    }
    if let Some(port) = record.ovs_ports.iter().find(|port| vif.ovs_port.as_ref() == Some(&port.name)) {
        page.fact(2, "OVS port", port_summary(port));
        if let Some(error) = &port.error {
            page.fact(2, "OVS error", plain(error));
        }
    }
}
