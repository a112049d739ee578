//! `vifctl show`: everything about one instance, and why vifd thinks so.

use std::collections::BTreeMap;

use anstyle::Style;

use super::{
    client::{Client, ClientError, encode},
    complete,
    output::{BAD, DOUBT, FAINT, Output, Page, Readable, STRONG, styled},
    table::{Cell, text, whole},
    who,
    words::{
        address, age, attachment, because, device, doubts, function_summary, instance_name, link_summary, plain,
        port_summary, staleness, state,
    },
};
use crate::{
    http::host::{Answer, InstanceRecord, OneInstance},
    inventory::{Instance, Vif, Why, Witness},
    source::{
        SyncState,
        libvirt::domain::{DescribedBy, InDefinition},
        netlink::link::Link,
    },
};

/// The command's arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Show {
    /// Its UUID, libvirt name or integer id; or whatever `vifctl who` takes, if that leads to one instance
    #[arg(add = complete::instances())]
    instance: String,
    /// Tell who says so of each fact, by what, and how current that is
    #[arg(long)]
    why: bool,
}

impl Show {
    /// Says whether there was anything to show.
    pub(super) fn run(&self, client: &Client, output: Output) -> Result<bool, ClientError> {
        output.write(&one_instance(client, &self.instance, self.why)?).map(|()| true)
    }
}

/// The instance that `thing` is, or leads to.
pub(super) fn one_instance(client: &Client, thing: &str, why: bool) -> Result<Answer<OneInstance>, ClientError> {
    let get =
        |id: &str| client.get(&format!("/host/v1/instances/{}{}", encode(id), if why { "?why=true" } else { "" }));
    let unknown = match get(thing) {
        Err(ClientError::NotFound(message)) => message,
        answer => return answer,
    };
    let matches = who::find(client, thing)?.body.matches;
    let instances = matches.iter().filter_map(|found| found.found.instance.as_ref());
    let instances: BTreeMap<_, _> = instances.map(|instance| (instance.uuid, instance)).collect();
    if let (1, Some(uuid)) = (instances.len(), instances.keys().next()) {
        return get(&uuid.to_string());
    }
    let names = instances.values().map(|instance| instance_name(instance));
    match instances.len() {
        0 if matches.is_empty() => Err(ClientError::NotFound(plain(&unknown))),
        0 => Err(ClientError::NotFound(format!("{0} belongs to no instance; see `vifctl who {0}`", plain(thing)))),
        many => {
            let some = names.take(5).collect::<Vec<_>>().join(", ");
            let more = if many > 5 { ", …" } else { "" };
            Err(ClientError::NotFound(format!("{} leads to {many} instances: {some}{more}; name one", plain(thing))))
        }
    }
}

impl Readable for Answer<OneInstance> {
    fn text(&self, page: &mut Page) {
        let record = &self.body.instance;
        let instance = &record.instance;
        if let Some(why) = &self.body.why {
            why_facts(page, instance, why);
            return doubts(page, &self.sources);
        }
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
        page.fact(0, "state", state(instance.state, instance.migration, instance.process.is_some()));
        page.fact(0, "hypervisor", format!("{} ({})", plain(&instance.hypervisor), plain(&instance.hypervisor_type)));
        if let Some(process) = &instance.process {
            let by = match process.described_by {
                DescribedBy::StateFile => "the file in which libvirt keeps its state",
                DescribedBy::CommandLine => "its command line and descriptors: no display name, project or definition",
            };
            page.fact(0, "known by", styled(DOUBT, format!("its process {}, and {by}", process.pid)));
        }
        page.fact(0, "unchanged", format!("for {}", age(instance.changed)));
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

/// Each fact with why it is believed; what somebody says against one stands behind it.
fn why_facts(page: &mut Page, instance: &Instance, all: &[Why]) {
    let of_vifs = (0..).zip(&instance.vifs).map(|(n, vif)| (Some(n), format!("VIF {n} {}", vif.id)));
    for (about, title) in [(None, format!("instance {}", instance_name(instance)))].into_iter().chain(of_vifs) {
        page.gap();
        page.line(styled(STRONG, title));
        let of_this = || all.iter().filter(|why| why.vif == about);
        if page.is_narrow() {
            for why in of_this() {
                let name = fact(why);
                let (name, value) =
                    if why.disagrees { ("but", name + " " + &plain(&why.value)) } else { (&*name, plain(&why.value)) };
                page.fact(2, name, styled(style(why), value));
                page.fact(2, "", styled(FAINT, because(why)));
            }
            continue;
        }
        let mut table = page.new_table(&[whole("FACT"), whole("VALUE"), text("SOURCE"), text("BY"), text("CURRENT")]);
        for why in of_this() {
            let name = if why.disagrees { format!("but {}", fact(why)) } else { fact(why) };
            let (current, doubt) = match &why.sync {
                SyncState::Synced { .. } if why.source == Witness::Vifd => ("-".to_owned(), Style::new()),
                SyncState::Synced { since } => (format!("for {}", age(*since)), Style::new()),
                SyncState::Stale { since, .. } => (format!("no, stale for {}", age(*since)), DOUBT),
                SyncState::Pending { .. } => ("no, not read yet".to_owned(), DOUBT),
                SyncState::Absent => ("absent".to_owned(), DOUBT),
            };
            table.row([
                Cell::styled(name, style(why)),
                Cell::styled(plain(&why.value), style(why)),
                why.source.to_string().into(),
                plain(&why.by).into(),
                Cell::styled(current, doubt),
            ]);
        }
        page.table(2, &table);
    }
}

fn fact(why: &Why) -> String {
    why.fact.replace('_', " ")
}

fn style(why: &Why) -> Style {
    if why.disagrees { BAD } else { Style::new() }
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
