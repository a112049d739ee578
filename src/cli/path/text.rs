//! A path from top to bottom, for a terminal.

use super::{
    super::{
        output::{BAD, DOUBT, FAINT, Page, STRONG, styled},
        words::{doubts, plain, staleness},
    },
    state, title,
};
use crate::{
    http::host::{Answer, PathRecord, PathsOfVifs},
    inventory::path::{Edge, Hop},
};

pub(super) fn draw(answer: &Answer<PathsOfVifs>, page: &mut Page) {
    let PathsOfVifs { no_counters, left_out, paths, .. } = &answer.body;
    for record in paths {
        page.gap();
        one(record, page);
    }
    page.gap();
    match no_counters {
        Some(why) => page.line(format!("Without counters: {}.", plain(why))),
        None => page.line("Counters are in the host's view: what a tap received its guest has sent."),
    }
    if *left_out > 0 {
        page.line(format!("{left_out} more paths are not shown."));
    }
    doubts(page, &answer.sources);
}

fn one(record: &PathRecord, page: &mut Page) {
    let path = &record.path;
    page.line(styled(STRONG, title(path)));
    if let Some(stale) = &record.stale {
        page.line(styled(DOUBT, format!("stale: {}", staleness(stale))));
    }
    let header = ["HOP", "NAME", "INDEX", "STATE", "MTU", "VLAN", "DROPPED RX/TX", "ERRORS RX/TX"].map(str::to_owned);
    let rows: Vec<_> = std::iter::once(header).chain(path.main_hops().map(cells)).collect();
    let widths: [usize; 8] = std::array::from_fn(|n| rows.iter().map(|row| row[n].chars().count()).max().unwrap_or(0));
    let row = |cells: &[String; 8]| {
        let padded = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    page.line(format!("   {}", styled(STRONG, row(&rows[0]))));
    let mut before = None;
    for (at, cells) in path.main.iter().zip(&rows[1..]) {
        let hop = &path.hops[*at];
        let joined = |edge: &&Edge| before.is_some_and(|before| [edge.from, edge.to] == [before, *at]);
        if let Some(edge) = path.edges.iter().find(joined) {
            page.line(format!("   |  {}", styled(FAINT, edge.by)));
        }
        mark(page, &row(cells), hop);
        remarks(page, hop);
        before = Some(*at);
    }
    page.line(format!("   => {}", path.end));
    // What is not on the main line.
    let on_main = |edge: &Edge| path.main.windows(2).any(|pair| [edge.from, edge.to] == pair);
    for (n, edge) in path.edges.iter().filter(|edge| !on_main(edge)).enumerate() {
        if n == 0 {
            page.line("   besides:");
        }
        let [from, to] = [edge.from, edge.to].map(|at| &path.hops[at]);
        let facts = [state(to), to.mtu.map(|mtu| format!("MTU {mtu}")), to.vlan.clone()];
        let facts: Vec<_> = facts.into_iter().flatten().collect();
        let facts = if facts.is_empty() { String::new() } else { format!(" ({})", facts.join(", ")) };
        mark(
            page,
            &format!("{} -> {} {}{facts}  [{}]", plain(&from.name), plain(&to.what()), plain(&to.name), edge.by),
            to,
        );
        remarks(page, to);
    }
}

fn cells(hop: &Hop) -> [String; 8] {
    let pair = |rx: u64, tx: u64| format!("{rx}/{tx}");
    let counters = hop.counters.as_ref();
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    [
        plain(&hop.what()),
        plain(&hop.name),
        or_dash(hop.index.map(|index| index.to_string())),
        or_dash(state(hop)),
        or_dash(hop.mtu.map(|mtu| mtu.to_string())),
        or_dash(hop.vlan.as_deref().map(plain)),
        or_dash(counters.map(|counters| pair(counters.rx_dropped, counters.tx_dropped))),
        or_dash(counters.map(|counters| pair(counters.rx_errors, counters.tx_errors))),
    ]
}

/// A line about a hop, which stands out where something is wrong: also where nobody sees colours.
fn mark(page: &mut Page, line: &str, hop: &Hop) {
    match hop.faults.is_empty() {
        true => page.line(format!("   {line}")),
        false => page.line(styled(BAD, format!("!! {line}"))),
    }
}

fn remarks(page: &mut Page, hop: &Hop) {
    for fault in &hop.faults {
        mark(page, &format!("   {}", plain(&fault.says)), hop);
    }
    for note in &hop.notes {
        page.line(format!("      {}", plain(note)));
    }
}
