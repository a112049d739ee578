//! `vifctl show`: everything about one instance.

use std::fmt::Write;

use super::{
    client::{Client, ClientError, encode},
    output::Output,
    words::{
        address, attachment, device, doubts, function_summary, link_summary, plain, port_summary, staleness, state,
    },
};
use crate::{
    http::host::{Answer, InstanceRecord, OneInstance},
    inventory::Vif,
    source::{libvirt::domain::InDefinition, netlink::link::Link},
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
        output.write(&client.get(&path)?, text).map(|()| true)
    }
}

fn text(answer: &Answer<OneInstance>) -> String {
    let record = &answer.body.instance;
    let instance = &record.instance;
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<14} {value}");
    };
    line("instance", instance.uuid.to_string());
    line("libvirt name", plain(&instance.name));
    if let Some(number) = instance.number {
        line("integer id", number.to_string());
    }
    if let Some(name) = &instance.display_name {
        line("display name", plain(name));
    }
    for (what, owner) in [("project", &instance.project), ("user", &instance.user)] {
        if let Some(owner) = owner {
            let name = owner.name.as_deref().map(|name| format!(" ({})", plain(name))).unwrap_or_default();
            line(what, plain(&owner.id) + &name);
        }
    }
    line("state", state(instance));
    line("hypervisor", format!("{} ({})", plain(&instance.hypervisor), plain(&instance.hypervisor_type)));
    if let Some(stale) = &record.stale {
        line("stale", staleness(stale));
    }
    if instance.persistent == Some(false) {
        line("definition", "none: it is gone when it stops".to_owned());
    }
    for warning in &instance.warnings {
        line("warning", plain(warning));
    }
    for (n, vif) in instance.vifs.iter().enumerate() {
        text += "\n";
        vif_lines(&mut text, record, n, vif);
    }
    if !instance.defined_only.is_empty() {
        text += "\nafter the next start also\n";
    }
    for interface in &instance.defined_only {
        let _ = writeln!(text, "  {:<12} {}, {}", "interface", interface.mac, attachment(interface));
    }
    text + &doubts(&answer.sources)
}

fn vif_lines(text: &mut String, record: &InstanceRecord, n: usize, vif: &Vif) {
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {name:<12} {value}");
    };
    let interface = &vif.interface;
    line(&format!("VIF {n}"), vif.id.to_string());
    line("id from", vif.id_source.to_string());
    for other in &vif.id_disagreement {
        line("but", format!("{} says {}", other.source, other.id));
    }
    for other in &vif.disagreements {
        line("but", format!("{} says {} {}", other.source, other.what, plain(&other.value)));
    }
    if let Some(network) = vif.network_id {
        line("network", network.to_string());
    }
    line("MAC address", interface.mac.to_string());
    line("type", attachment(interface));
    if let Some(model) = &interface.model {
        line("model", plain(model));
    }
    for (n, known) in vif.addresses.iter().enumerate() {
        line(if n == 0 { "addresses" } else { "" }, address(known));
    }
    if interface.link_down {
        line("link", "set down in the guest".to_owned());
    }
    match interface.definition {
        Some(InDefinition::Changed) => line("definition", "differs: otherwise after the next start".to_owned()),
        Some(InDefinition::LiveOnly) => {
            line("definition", "has no such interface: gone after the next start".to_owned())
        }
        Some(InDefinition::Same) | None => {}
    }
    line("device", device(vif));
    let carried_by = |link: &&std::sync::Arc<Link>| vif.device.as_ref().is_some_and(|d| d.index == link.index);
    if let Some(link) = record.links.iter().find(carried_by) {
        line("", link_summary(link));
    }
    if let Some(function) = &vif.virtual_function {
        line("VF", function_summary(function));
    }
    if let Some(port) = record.ovs_ports.iter().find(|port| vif.ovs_port.as_ref() == Some(&port.name)) {
        line("OVS port", port_summary(port));
        if let Some(error) = &port.error {
            line("OVS error", plain(error));
        }
    }
}
