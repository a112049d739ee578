//! `vifctl path`: every hop of the way that frames take on this host, as text or drawn.

use super::{
    client::{Client, ClientError, encode},
    complete,
    output::{Format, Output, Page, Readable},
    process,
    words::plain,
};
use crate::{
    http::host::{Answer, PathsOfVifs},
    inventory::path::{Hop, VifPath},
};

mod graph;
mod svg;
mod text;

/// The command's arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Path {
    /// An instance, for all its VIFs, or whatever `who` takes: a VIF id, MAC address, device, … Of a device that is no
    /// VIF's, such as an uplink, every path that leads over it
    #[arg(add = complete::things())]
    thing: String,
}

impl Path {
    /// Says whether there is a path to show: without one, the daemon answers that there is none.
    pub(super) fn run(&self, client: &Client, output: Output) -> Result<bool, ClientError> {
        let answer = find(client, &self.thing)?;
        match output.format {
            Format::Dot => output.print(&graph::dot(&answer.body)),
            Format::Mermaid => output.print(&graph::mermaid(&answer.body)),
            Format::Svg => output.print(&svg::draw(&answer.body)),
            _ => output.write(&answer),
        }?;
        Ok(true)
    }
}

/// What a process is only this end of the socket can tell.
fn find(client: &Client, thing: &str) -> Result<Answer<PathsOfVifs>, ClientError> {
    let ask = |thing: &str| client.get(&format!("/host/v1/path?thing={}", encode(thing)));
    match ask(thing) {
        Err(ClientError::NotFound(message)) => match thing.parse().ok().and_then(process::instance_of) {
            Some(instance) => ask(&instance),
            None => Err(ClientError::NotFound(message)),
        },
        answer => answer,
    }
}

impl Readable for Answer<PathsOfVifs> {
    fn text(&self, page: &mut Page) {
        text::draw(self, page);
    }

    /// The devices of the main lines, in order.
    fn names(&self) -> Vec<String> {
        let hops = self.body.paths.iter().flat_map(|record| record.path.main_hops());
        hops.map(|hop| hop.name.to_string()).collect()
    }
}

/// Whose path it is.
fn title(path: &VifPath) -> String {
    let display = path.display_name.as_deref().map(|name| format!(" ({})", plain(name))).unwrap_or_default();
    format!("{}{display}, VIF {}", plain(&path.instance_name), path.vif_id)
}

/// Whether a hop works, in a word; nothing where that is not known.
fn state(hop: &Hop) -> Option<String> {
    match (hop.up?, hop.carrier, hop.oper_state) {
        (false, ..) => Some("DOWN".to_owned()),
        (true, Some(false), _) => Some("NO CARRIER".to_owned()),
        (true, _, Some(state)) if hop.faults.is_empty() && state.to_string() == "unknown" => Some("up".to_owned()),
        (true, _, Some(state)) => Some(state.to_string()),
        (true, _, None) => Some("up".to_owned()),
    }
}

/// A hop in a few short lines, for the boxes of drawings. What is wrong is not among them.
fn lines(hop: &Hop) -> Vec<String> {
    let index = hop.index.map(|index| format!(" #{index}")).unwrap_or_default();
    let mtu = hop.mtu.map(|mtu| format!("MTU {mtu}"));
    let facts: Vec<_> = [state(hop), mtu, hop.vlan.clone()].into_iter().flatten().collect();
    let counted = hop.counters.map(|counted| {
        let [dropped, errors] = [[counted.rx_dropped, counted.tx_dropped], [counted.rx_errors, counted.tx_errors]];
        format!("dropped rx {} tx {}, errors rx {} tx {}", dropped[0], dropped[1], errors[0], errors[1])
    });
    let mut lines = vec![plain(&hop.what()), plain(&hop.name) + &index];
    lines.extend((!facts.is_empty()).then(|| facts.join(", ")));
    lines.extend(counted);
    lines.extend(hop.notes.iter().map(|note| plain(note)));
    lines
}

#[cfg(test)]
mod tests;
