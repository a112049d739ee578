//! `vifctl list`: every VIF of every instance.

use super::{
    client::{Client, ClientError},
    output::{Output, lines, table},
    words::{device, doubts, plain, state},
};
use crate::http::host::{Answer, Instances};

/// The command's arguments: none.
#[derive(Debug, clap::Args)]
pub(super) struct List;

impl List {
    /// Says whether there was anything to show.
    pub(super) fn run(&self, client: &Client, output: Output) -> Result<bool, ClientError> {
        output.write(&client.get("/host/v1/instances")?, text).map(|()| true)
    }
}

fn text(answer: &Answer<Instances>) -> String {
    let mut table = table(&["INSTANCE", "NAME", "STATE", "VIF ID", "MAC ADDRESS", "TYPE", "DEVICE"]);
    for record in &answer.body.instances {
        let instance = &record.instance;
        let start = [
            plain(&instance.name),
            plain(instance.display_name.as_deref().unwrap_or("-")),
            state(instance) + if record.stale.is_some() { " (stale)" } else { "" },
        ];
        if instance.vifs.is_empty() {
            table.add_row(start.iter().map(String::as_str).chain(["-"; 4]));
        }
        for vif in &instance.vifs {
            let vif = [
                vif.id.to_string(),
                vif.interface.mac.to_string(),
                vif.interface.attachment.type_name().to_owned(),
                device(vif),
            ];
            table.add_row(start.iter().chain(&vif));
        }
    }
    let mut text = if answer.body.instances.is_empty() { "No instances.\n".to_owned() } else { lines(&table) };
    text += &doubts(&answer.sources);
    text
}
