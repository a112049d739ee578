//! `vifctl list`: every VIF of every instance.

use serde::{Deserialize, de::IgnoredAny};

use super::{
    client::{Client, ClientError, encode},
    output::{BAD, DOUBT, Output, Page, Readable},
    table::{Cell, text, whole},
    words::{doubts, no_device, plain, state},
};
use crate::{
    http::host::{Answer, Summary, VifSummary},
    inventory::NoDevice,
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
        let filters = [("project", &self.project), ("state", &self.state), ("bridge", &self.bridge)];
        let filters = filters.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        let filters: Vec<_> = filters.map(|(name, value)| format!("{name}={}", encode(value))).collect();
        let query = filters.join("&");
        if output.is_for_programs() {
            let answer = client.get_json(&format!("/host/v1/instances?{query}"))?;
            output.write_json(&answer)?;
            Ok(filters.is_empty() || !is_empty(&answer)?)
        } else {
            let answer = client.get::<Summary>(&format!("/host/v1/summary?{query}"))?;
            output.write(&answer)?;
            Ok(filters.is_empty() || !answer.body.instances.is_empty())
        }
    }
}

fn is_empty(answer: &[u8]) -> Result<bool, ClientError> {
    #[derive(Deserialize)]
    struct Instances {
        instances: Vec<IgnoredAny>,
    }
    let Instances { instances } = serde_json::from_slice(answer).map_err(ClientError::Malformed)?;
    Ok(instances.is_empty())
}

impl Readable for Answer<Summary> {
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
        for instance in &self.body.instances {
            let start = || {
                let state = state(instance.state, instance.migration, instance.by_process);
                let state = if instance.stale { Cell::styled(state + " (stale)", DOUBT) } else { state.into() };
                let [display_name, project] = [&instance.display_name, &instance.project]
                    .map(|name| Cell::from(plain(name.as_deref().unwrap_or("-"))));
                [plain(&instance.name).into(), display_name, instance.uuid.to_string().into(), project, state]
            };
            if instance.vifs.is_empty() {
                let [a, b, c, d, e] = start();
                let none = || Cell::from("-");
                table.row([a, b, c, d, e, none(), none(), none(), none(), none(), none(), none(), none()]);
            }
            for vif in &instance.vifs {
                let [a, b, c, d, e] = start();
                let [ifindex, mtu, on, addresses] = wide(vif).map(Cell::from);
                let (id, mac) = (vif.id.to_string().into(), vif.mac.to_string().into());
                table.row([a, b, c, d, e, id, mac, (*vif.kind).into(), device(vif), ifindex, mtu, on, addresses]);
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
        let mut uuids: Vec<_> = self.body.instances.iter().map(|instance| instance.uuid).collect();
        uuids.sort();
        uuids.dedup();
        uuids.into_iter().map(|uuid| uuid.to_string()).collect()
    }
}

fn device(vif: &VifSummary) -> Cell {
    match (&vif.device, vif.no_device) {
        (Some(device), _) => plain(&device.name).into(),
        (None, Some(NoDevice::TargetMissing)) => Cell::styled(no_device(vif.no_device, vif.target.as_deref()), BAD),
        (None, reason) => no_device(reason, vif.target.as_deref()).into(),
    }
}

/// What only `-o wide` shows of a VIF.
fn wide(vif: &VifSummary) -> [String; 4] {
    let none = || "-".to_owned();
    let device = vif.device.as_ref();
    let addresses: Vec<_> = vif.addresses.iter().map(ToString::to_string).collect();
    [
        device.map_or_else(none, |device| device.index.to_string()),
        device.and_then(|device| device.mtu).map_or_else(none, |mtu| mtu.to_string()),
        vif.on.as_deref().map_or_else(none, plain),
        if addresses.is_empty() { none() } else { addresses.join(", ") },
    ]
}
