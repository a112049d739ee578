//! `vifctl list`: every VIF of every instance.

use std::collections::BTreeSet;

use super::{
    client::{Client, ClientError},
    output::{BAD, DOUBT, Output, Page, Readable},
    table::{Cell, text, whole},
    words::{device, doubts, plain, state},
};
use crate::{
    http::host::{Answer, InstanceRecord, Instances},
    inventory::{NoDevice, Vif},
};

/// The command's arguments: none.
#[derive(Debug, clap::Args)]
pub(super) struct List;

impl List {
    /// Says whether there was anything to show.
    pub(super) fn run(&self, client: &Client, output: Output) -> Result<bool, ClientError> {
        output.write(&client.get::<Answer<Instances>>("/host/v1/instances")?).map(|()| true)
    }
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
    let port = record.ovs_ports.iter().find(|port| vif.ovs_port.as_ref() == Some(&port.name));
    let on = port.and_then(|port| port.bridge.as_deref().map(plain));
    let on = on.or_else(|| vif.interface.attachment.source().map(|source| plain(&source)));
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
