//! `vifctl status`: whether what the daemon knows is being kept current.

use super::{
    client::{Client, ClientError},
    output::{DOUBT, Output, Page, Readable, styled},
    table::{Cell, text, whole},
    words::{age, plain},
};
use crate::{
    http::host::{Answer, Sources, Sync},
    journal::JournalState,
    source::SyncState,
};

/// The command's arguments: none.
#[derive(Debug, clap::Args)]
pub(super) struct Status;

impl Status {
    /// Says whether there was anything to show.
    pub(super) fn run(&self, client: &Client, output: Output) -> Result<bool, ClientError> {
        output.write(&client.get::<Sync>("/host/v1/sync")?).map(|()| true)
    }
}

impl Readable for Answer<Sync> {
    fn text(&self, page: &mut Page) {
        let Sync { version, ready, instances, vifs, links, ovs_ports, dropped_identity_headers: dropped, journal } =
            &self.body;
        let ready = if *ready { "ready".to_owned() } else { styled(DOUBT, "not ready") };
        let ports = match &self.sources.ovsdb {
            SyncState::Absent => String::new(),
            _ => format!(", {ovs_ports} OVS ports"),
        };
        page.line(format!(
            "vifd {}, {ready}: {instances} instances, {vifs} VIFs, {links} links{ports}; generation {}\n",
            plain(version),
            self.generation
        ));
        let mut table = page.new_table(&[whole("SOURCE"), whole("STATE"), whole("FOR"), text("WHY")]);
        for (name, sync) in sources(&self.sources) {
            let (state, since) = match sync {
                SyncState::Pending { .. } => (Cell::styled("pending", DOUBT), None),
                SyncState::Absent => ("absent".into(), None),
                SyncState::Synced { since } => ("synced".into(), Some(since)),
                SyncState::Stale { since, .. } => (Cell::styled("stale", DOUBT), Some(since)),
            };
            let since = since.map_or("-".to_owned(), |since| age(*since));
            table.row([plain(name).into(), state, since.into(), plain(sync.reason().unwrap_or("-")).into()]);
        }
        page.table(0, &table);
        if let JournalState::Stopped { since, reason } = journal {
            let text = format!("changes are not recorded for {}: {}", age((*since).into()), plain(reason));
            page.line(format!("\n{}", styled(DOUBT, text)));
        }
        if *dropped > 0 {
            page.line(format!("\n{dropped} identity headers were dropped: who sent them is no named proxy"));
        }
    }

    fn names(&self) -> Vec<String> {
        sources(&self.sources).map(|(name, _)| name.to_owned()).collect()
    }
}

fn sources(sources: &Sources) -> impl Iterator<Item = (&str, &SyncState)> {
    let Sources { netlink, neighbours, ovsdb, leases, hypervisors } = sources;
    let host = [("netlink", netlink), ("neighbours", neighbours), ("ovsdb", ovsdb), ("leases", leases)];
    host.into_iter().chain(hypervisors.iter().map(|hypervisor| (&*hypervisor.uri, &hypervisor.sync)))
}
