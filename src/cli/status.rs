//! `vifctl status`: whether what the daemon knows is being kept current.

use super::{
    client::{Client, ClientError},
    output::{Output, lines, table},
    words::{age, plain},
};
use crate::{
    http::host::{Answer, Sources, Sync},
    source::SyncState,
};

/// The command's arguments: none.
#[derive(Debug, clap::Args)]
pub(super) struct Status;

impl Status {
    /// Says whether there was anything to show.
    pub(super) fn run(&self, client: &Client, output: Output) -> Result<bool, ClientError> {
        output.write(&client.get("/host/v1/sync")?, text).map(|()| true)
    }
}

fn text(answer: &Answer<Sync>) -> String {
    let Sync { version, ready, instances, vifs, links, ovs_ports, dropped_identity_headers: dropped } = &answer.body;
    let ready = if *ready { "ready" } else { "not ready" };
    let text = format!(
        "vifd {}, {ready}: {instances} instances, {vifs} VIFs, {links} links{}; generation {}\n\n",
        plain(version),
        if answer.sources.ovsdb == SyncState::Absent { String::new() } else { format!(", {ovs_ports} OVS ports") },
        answer.generation
    );
    let mut table = table(&["SOURCE", "STATE", "FOR", "WHY"]);
    let sources = answer.sources.hypervisors.iter().map(|h| (&*h.uri, &h.sync));
    let Sources { netlink, neighbours, ovsdb, leases, .. } = &answer.sources;
    let host = [("netlink", netlink), ("neighbours", neighbours), ("ovsdb", ovsdb), ("leases", leases)];
    for (name, sync) in host.into_iter().chain(sources) {
        let (state, since) = match sync {
            SyncState::Pending { .. } => ("pending", None),
            SyncState::Absent => ("absent", None),
            SyncState::Synced { since } => ("synced", Some(since)),
            SyncState::Stale { since, .. } => ("stale", Some(since)),
        };
        let since = since.map_or("-".to_owned(), |since| age(*since));
        table.add_row([&plain(name), state, &since, &plain(sync.reason().unwrap_or("-"))]);
    }
    let dropped = match dropped {
        0 => String::new(),
        dropped => format!("\n{dropped} identity headers were dropped: who sent them is no named proxy\n"),
    };
    text + &lines(&table) + &dropped
}
