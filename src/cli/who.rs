//! `vifctl who`: whatever somebody has in hand, everything that it matches.

use serde::Serialize;

use super::{
    client::{Client, ClientError, encode},
    complete,
    output::{BAD, DOUBT, Output, Page, Readable, STRONG, styled},
    process,
    table::{Cell, text, whole},
    words::{
        address, age, because, device, doubts, function_summary, instance_name, link_summary, plain, port_summary,
        staleness, state,
    },
};
use crate::{
    http::host::{Answer, Who as Found, WhoMatch},
    inventory::{Match, MatchedBy},
    source::netlink::link::{Link, LinkKind},
};

/// The command's arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Who {
    /// A device name, MAC address, ifindex, VIF id, IP or PCI address, vhost-user socket, Open vSwitch port (br-int:5),
    /// PID, or an instance's UUID, name or integer id; or the beginning of one
    #[arg(add = complete::things())]
    thing: String,
}

impl Who {
    /// Says whether anything matches.
    pub(super) fn run(&self, client: &Client, output: Output) -> Result<bool, ClientError> {
        let answer = find(client, &self.thing)?;
        let found = !answer.body.matches.is_empty();
        output.write(&Told { answer, thing: &self.thing })?;
        Ok(found)
    }
}

/// Everything that `thing` matches. What a process is only this end of the socket can tell: the daemon asks nobody.
pub(super) fn find(client: &Client, thing: &str) -> Result<Answer<Found>, ClientError> {
    let ask = |thing: &str| client.get::<Found>(&format!("/host/v1/who?thing={}", encode(thing)));
    let mut answer = ask(thing)?;
    if let Some(instance) = thing.parse().ok().and_then(process::instance_of) {
        let by_process = ask(&instance)?.body.matches.into_iter().map(|mut found| {
            found.found.matched_by = vec![MatchedBy::Process];
            found
        });
        if answer.body.by_beginning {
            // A PID is no beginning of anything.
            answer.body = Found { matches: Vec::new(), by_beginning: false, left_out: 0, near: Vec::new() };
        }
        answer.body.matches.extend(by_process);
    }
    // To look into every process takes its time: not for a list.
    if let [WhoMatch { found: Match { link: Some(link), .. }, held_by, .. }] = &mut *answer.body.matches
        && matches!(link.kind, LinkKind::Tap { .. } | LinkKind::Tun | LinkKind::Macvtap)
    {
        *held_by = process::holders(&link.name);
    }
    Ok(answer)
}

/// The answer, with the question.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    answer: Answer<Found>,
    #[serde(skip)]
    thing: &'a str,
}

impl Readable for Told<'_> {
    fn text(&self, page: &mut Page) {
        let Found { matches, by_beginning, left_out, near } = &self.answer.body;
        let thing = plain(self.thing);
        if *by_beginning {
            let these = if matches.len() == 1 { "this begins" } else { "these begin" };
            page.line(format!("Nothing is {thing} as a whole; {these} so:"));
            page.gap();
        }
        match &matches[..] {
            [] => {
                page.line(format!("Nothing on this host is {thing}, or begins so."));
                if !near.is_empty() {
                    let near: Vec<_> = near.iter().map(|name| plain(name)).collect();
                    page.line(format!("Did you mean {}?", near.join(" or ")));
                }
                page.line(SEARCHED);
            }
            [one] => match_facts(page, one),
            several => {
                self.list(page, several);
                if *left_out > 0 {
                    page.line(format!("and {left_out} more."));
                }
                page.gap();
                let more = if *by_beginning { "a longer beginning or a whole id" } else { "one of the ids" };
                page.line(format!("`vifctl who` with {more} tells more about it."));
            }
        }
        doubts(page, &self.answer.sources);
    }

    fn names(&self) -> Vec<String> {
        self.answer.body.matches.iter().filter_map(|found| name(&found.found)).collect()
    }
}

impl Told<'_> {
    fn list(&self, page: &mut Page, matches: &[WhoMatch]) {
        let mut table = page.new_table(&[
            whole("WHAT"),
            whole("ID"),
            whole("MAC ADDRESS"),
            text("INSTANCE"),
            text("DEVICE"),
            text("ON").wide(),
            text("PROJECT").wide(),
            text("MATCHED BY"),
        ]);
        for found in matches {
            let Match { link, ovs, instance, .. } = &found.found;
            let vif = found.found.vif();
            let what = match (vif, instance, link) {
                (Some(_), ..) => "VIF",
                (None, Some(_), _) => "instance",
                (None, None, Some(_)) => "device",
                (None, None, None) => "OVS port",
            };
            let id = match (vif, instance, link) {
                (Some(vif), ..) => vif.id.to_string(),
                (None, Some(instance), _) => instance.uuid.to_string(),
                (None, None, Some(link)) => link.index.to_string(),
                _ => "-".to_owned(),
            };
            let mac = vif.map(|vif| vif.interface.mac).or_else(|| link.as_ref()?.mac).map(|mac| mac.to_string());
            let of = |text: Option<String>| Cell::from(text.unwrap_or_else(|| "-".to_owned()));
            let device = match (vif, link) {
                (Some(vif), _) => Some(device(vif)),
                (None, link) => {
                    link.as_ref().map(|link| &link.name).or(ovs.as_ref().map(|port| &port.name)).map(|n| plain(n))
                }
            };
            let project = instance.as_ref().and_then(|instance| instance.project.as_ref());
            let owner = match instance {
                Some(instance) => instance_name(instance).into(),
                None => Cell::styled("none", DOUBT),
            };
            table.row([
                what.into(),
                id.into(),
                of(mac),
                owner,
                of(device),
                of(found.controller_name.as_deref().map(plain)),
                of(project.map(|project| plain(project.name.as_ref().unwrap_or(&project.id)))),
                matched_by(&found.found).into(),
            ]);
        }
        page.table(0, &table);
    }
}

/// What the match is called where it is called by one word.
fn name(found: &Match) -> Option<String> {
    let instance = found.instance.as_ref();
    let vif = found.vif().map(|vif| vif.id.to_string());
    vif.or_else(|| Some(instance?.uuid.to_string()))
        .or_else(|| Some(found.link.as_ref()?.name.to_string()))
        .or_else(|| Some(found.ovs.as_ref()?.name.to_string()))
}

fn matched_by(found: &Match) -> String {
    let by: Vec<_> = found.matched_by.iter().map(ToString::to_string).collect();
    by.join(", ")
}

/// What a match is, in one sentence and the facts about it.
fn match_facts(page: &mut Page, found: &WhoMatch) {
    let Match { link, ovs, instance, .. } = &found.found;
    page.line(styled(STRONG, sentence(&found.found)));
    page.fact(2, "matched by", matched_by(&found.found));
    if let Some(instance) = instance {
        page.fact(
            2,
            "instance",
            format!("{} {}", instance.uuid, state(instance.state, instance.migration, instance.process.is_some())),
        );
    }
    if let Some(project) = instance.as_ref().and_then(|instance| instance.project.as_ref()) {
        let name = project.name.as_deref().map(|name| format!(" ({})", plain(name))).unwrap_or_default();
        page.fact(2, "project", plain(&project.id) + &name);
    }
    if let Some(link) = link {
        let controller = found.controller_name.as_deref().map(|name| format!(", on {}", plain(name)));
        page.fact(2, "device", format!("{}{}", link_summary(link), controller.unwrap_or_default()));
    }
    for holder in &found.held_by {
        let guest = holder.guest.as_ref().map(|name| format!(", which runs {}", plain(name))).unwrap_or_default();
        page.fact(2, "held by", format!("process {} ({}){guest}", holder.pid, plain(&holder.command)));
    }
    if let Some(function) = found.found.vif().and_then(|vif| vif.virtual_function.as_ref()) {
        page.fact(2, "VF", function_summary(function));
    }
    for (n, known) in found.found.vif().iter().flat_map(|vif| &vif.addresses).enumerate() {
        page.fact(2, if n == 0 { "addresses" } else { "" }, address(known));
    }
    if let Some(port) = ovs {
        page.fact(2, "OVS port", port_summary(port));
        if let Some(error) = &port.error {
            page.fact(2, "OVS error", styled(BAD, plain(error)));
        }
    }
    for why in &found.why {
        let because = because(why);
        match (&*why.fact, why.disagrees) {
            (_, true) => page.fact(2, "but", styled(BAD, format!("{} {}: {because}", why.fact, plain(&why.value)))),
            ("id", _) => page.fact(2, "id from", because),
            ("device" | "no_device", _) => page.fact(2, "device from", because),
            ("ovs_port", _) => page.fact(2, "port from", because),
            _ => {}
        }
    }
    if let Some(vif) = found.found.vif() {
        for other in &vif.disagreements {
            page.fact(2, "but", styled(BAD, format!("{} says {} {}", other.source, other.what, plain(&other.value))));
        }
    }
    if let Some(instance) = instance {
        page.fact(2, "unchanged", format!("for {}", age(instance.changed)));
    }
    if let Some(stale) = &found.stale {
        page.fact(2, "stale", styled(DOUBT, staleness(stale)));
    }
}

fn sentence(found: &Match) -> String {
    let Match { link, ovs, instance, .. } = found;
    let name = |link: &Link| format!("{} (ifindex {}, {})", plain(&link.name), link.index, link.kind);
    match (link, instance, found.vif()) {
        (Some(link), Some(instance), Some(vif)) => {
            let (mac, of) = (vif.interface.mac, instance_name(instance));
            format!("{} carries VIF {} ({mac}) of instance {of}.", name(link), vif.id)
        }
        (None, Some(instance), Some(vif)) => {
            let (mac, of, device) = (vif.interface.mac, instance_name(instance), device(vif));
            format!("VIF {} ({mac}) of instance {of} has no device on this host: {device}.", vif.id)
        }
        (_, Some(instance), None) => {
            let count = match instance.vifs.len() {
                1 => "1 VIF".to_owned(),
                many => format!("{many} VIFs"),
            };
            format!("Instance {} has {count}.", instance_name(instance))
        }
        (Some(link), None, _) => format!("{} carries no VIF of an instance on this host.", name(link)),
        (None, None, _) => {
            let port = ovs.as_ref().map(|port| plain(&port.name)).unwrap_or_default();
            format!("Open vSwitch port {port} carries no VIF of an instance on this host.")
        }
    }
}

const SEARCHED: &str = "Searched: names and alternative names of devices, ifindexes, MAC addresses of devices and VIFs, \
    VIF ids, IP and PCI addresses, targets, vhost-user sockets, names and numbers of Open vSwitch ports, instances' \
    UUIDs, names and integer ids, and processes.";
