//! `vifctl list`: every VIF of every instance.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    client::{Client, ClientError},
    output::{BAD, DOUBT, Output, Page, Readable},
    table::{Cell, text, whole},
    words::{device, doubts, plain, state},
};
use crate::{
    http::host::{Answer, InstanceRecord, Instances},
    inventory::{NoDevice, Vif},
    source::libvirt::domain::Attachment,
};

/// The command's arguments.
#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// Only instances of this project, by its id or name
    #[arg(long)]
    project: Option<String>,
    /// Only instances in this state, such as `running`, `paused` or `shut_off`
    #[arg(long)]
    state: Option<String>,
    /// Only VIFs on this bridge or lower device, or of this libvirt network
    #[arg(long)]
    bridge: Option<String>,
}

impl List {
    /// Says whether there was anything to show.
    pub(super) fn run(&self, client: &Client, output: Output) -> Result<bool, ClientError> {
        let mut answer = client.get::<Answer<Instances>>("/host/v1/instances")?;
        answer.body.instances.retain_mut(|record| self.admits(record));
        output.write(&answer)?;
        let is_filtered = self.project.is_some() || self.state.is_some() || self.bridge.is_some();
        Ok(!is_filtered || !answer.body.instances.is_empty())
    }

    /// Whether the record is to be shown; VIFs that are not are taken out of it.
    fn admits(&self, record: &mut InstanceRecord) -> bool {
        let instance = &record.instance;
        let owned = |wanted: &String| {
            let project = instance.project.as_ref();
            project.is_some_and(|project| *project.id == **wanted || project.name.as_deref() == Some(wanted))
        };
        let in_state =
            |wanted: &String| instance.state.to_string().eq_ignore_ascii_case(&wanted.replace(['_', '-'], " "));
        if !self.project.as_ref().is_none_or(owned) || !self.state.as_ref().is_none_or(in_state) {
            return false;
        }
        let Some(bridge) = &self.bridge else { return true };
        let mut vifs = instance.vifs.clone();
        vifs.retain(|vif| upon(record, vif).any(|name| *name == **bridge));
        let is_any = !vifs.is_empty();
        Arc::make_mut(&mut record.instance).vifs = vifs;
        is_any
    }
}

/// What the VIF is plugged into, by all of its names.
fn upon(record: &InstanceRecord, vif: &Vif) -> impl Iterator<Item = Arc<str>> {
    let port = record.ovs_ports.iter().find(|port| vif.ovs_port.as_ref() == Some(&port.name));
    let bridge = port.and_then(|port| port.bridge.clone());
    let (source, network) = match &vif.interface.attachment {
        Attachment::Bridge { bridge, network } | Attachment::Network { network, bridge } => (bridge, network),
        Attachment::Direct { lower_device, network, .. } => (lower_device, network),
        _ => (&None, &None),
    };
    [bridge, source.clone(), network.clone()].into_iter().flatten()
}

impl Readable for Answer<Instances> {
    fn text(&self, page: &mut Page) {
        let mut table = page.new_table(&[
            whole("INSTANCE"),
            text("NAME"),
            whole("UUID").wide(),
            text("PROJECT").wide(),
            whole("STATE"),
            whole("VIF ID"),
            whole("MAC ADDRESS"),
            whole("TYPE"),
            text("DEVICE"),
            whole("IFINDEX").wide(),
            whole("MTU").wide(),
            text("ON").wide(),
            text("ADDRESSES").wide(),
        ]);
        for record in &self.body.instances {
            let instance = &record.instance;
            let start = || {
                let project = instance.project.as_ref().map(|project| project.name.as_ref().unwrap_or(&project.id));
                let state = match &record.stale {
                    None => state(instance).into(),
                    Some(_) => Cell::styled(state(instance) + " (stale)", DOUBT),
                };
                let name = plain(instance.display_name.as_deref().unwrap_or("-"));
                let project = plain(project.map_or("-", |project| project));
                (plain(&instance.name).into(), name.into(), instance.uuid.to_string().into(), project.into(), state)
            };
            if instance.vifs.is_empty() {
                let (a, b, c, d, e) = start();
                let none = || Cell::from("-");
                table.row([a, b, c, d, e, none(), none(), none(), none(), none(), none(), none(), none()]);
            }
            for vif in &instance.vifs {
                let (a, b, c, d, e) = start();
                let [ifindex, mtu, on, addresses] = wide(record, vif).map(Cell::from);
                let id = vif.id.to_string().into();
                let mac = vif.interface.mac.to_string().into();
                let kind = vif.interface.attachment.type_name().into();
                table.row([a, b, c, d, e, id, mac, kind, device_cell(vif), ifindex, mtu, on, addresses]);
            }
        }
        if table.is_empty() {
            page.line("No instances.");
        } else {
            page.table(0, &table);
        }
        doubts(page, &self.sources);
    }

    fn names(&self) -> Vec<String> {
        let uuids: BTreeSet<_> = self.body.instances.iter().map(|record| record.instance.uuid).collect();
        uuids.into_iter().map(|uuid| uuid.to_string()).collect()
    }
}

fn device_cell(vif: &Vif) -> Cell {
    match vif.no_device {
        Some(NoDevice::TargetMissing) => Cell::styled(device(vif), BAD),
        _ => device(vif).into(),
    }
}

/// What only `-o wide` shows of a VIF.
fn wide(record: &InstanceRecord, vif: &Vif) -> [String; 4] {
    let link = vif.device.as_ref().and_then(|device| record.links.iter().find(|link| link.index == device.index));
    let on = upon(record, vif).next().map(|name| plain(&name));
    let mut addresses: Vec<_> = vif.addresses.iter().map(|known| known.address.to_string()).collect();
    addresses.sort();
    addresses.dedup();
    let none = || "-".to_owned();
    [
        link.map_or_else(none, |link| link.index.to_string()),
        link.map_or_else(none, |link| link.mtu.to_string()),
        on.unwrap_or_else(none),
        if addresses.is_empty() { none() } else { addresses.join(", ") },
    ]
}
