//! `vifctl who`: whatever somebody has in hand, everything that it matches.

use std::fmt::Write;

use serde::Serialize;

use super::{
    client::{Client, ClientError, encode},
    output::{Output, Page, Readable, STRONG, styled},
    process,
    words::{
        address, device, doubts, function_summary, instance_name, link_summary, plain, port_summary, staleness, state,
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
    /// A device name, MAC address, ifindex, VIF id, IP or PCI address, vhost-user socket, Open vSwitch port, PID,
    /// or an instance's UUID or name
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
fn find(client: &Client, thing: &str) -> Result<Answer<Found>, ClientError> {
    let ask = |thing: &str| client.get::<Answer<Found>>(&format!("/host/v1/who?thing={}", encode(thing)));
    let mut answer = ask(thing)?;
    if let Some(instance) = thing.parse().ok().and_then(process::instance_of) {
        let by_process = ask(&instance)?.body.matches.into_iter().map(|mut found| {
            found.found.matched_by = vec![MatchedBy::Process];
            found
        });
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
        for found in &self.answer.body.matches {
            page.gap();
            match_facts(page, found);
        }
        if self.answer.body.matches.is_empty() {
            page.line(format!(
                "Nothing on this host matches {}. Searched: device names and alternative names, ifindexes, MAC addresses of \
                 devices and VIFs, VIF ids, IP addresses, PCI addresses, targets, vhost-user sockets, names and numbers of \
                 Open vSwitch ports, instance UUIDs and names.",
                plain(self.thing)
            ));
        }
        doubts(page, &self.answer.sources);
    }

    fn names(&self) -> Vec<String> {
        self.answer.body.matches.iter().filter_map(|found| name(&found.found)).collect()
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

/// What a match is, in one sentence and the facts about it.
fn match_facts(page: &mut Page, found: &WhoMatch) {
    let mut text = String::new();
    let Match { matched_by, link, ovs, instance, .. } = &found.found;
    let by: Vec<_> = matched_by.iter().map(ToString::to_string).collect();
    let name = |link: &Link| format!("{} (ifindex {}, {})", plain(&link.name), link.index, link.kind);
    match (link, instance, found.found.vif()) {
        (Some(link), Some(instance), Some(vif)) => {
            let _ = write!(
                text,
                "{} carries VIF {} ({}) of instance {}",
                name(link),
                vif.id,
                vif.interface.mac,
                instance_name(instance)
            );
        }
        (None, Some(instance), Some(vif)) => {
            let _ = write!(
                text,
                "VIF {} ({}) of instance {} has no device on this host: {}",
                vif.id,
                vif.interface.mac,
                instance_name(instance),
                device(vif)
            );
        }
        (_, Some(instance), None) => {
            let _ = write!(text, "Instance {} has {} VIFs", instance_name(instance), instance.vifs.len());
        }
        (Some(link), None, _) => {
            let _ = write!(text, "{} carries no VIF of an instance on this host", name(link));
        }
        (None, None, _) => match ovs {
            Some(port) => {
                let _ =
                    write!(text, "Open vSwitch port {} carries no VIF of an instance on this host", plain(&port.name));
            }
            None => text += "an empty match",
        },
    }
    page.line(styled(STRONG, text + "."));
    page.fact(2, "matched by", by.join(", "));
    if let Some(instance) = instance {
        page.fact(2, "instance", format!("{} {}", instance.uuid, state(instance)));
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
            page.fact(2, "OVS error", plain(error));
        }
    }
    if let Some(stale) = &found.stale {
        page.fact(2, "stale", staleness(stale));
    }
}
