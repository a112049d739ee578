//! How the persistent definition of a domain that runs differs from what runs: its next start follows the definition.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Attachment, Domain, Interface};

/// What the persistent definition says of an interface that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InDefinition {
    /// The same.
    Same,
    /// It has an interface with this MAC address, which is otherwise.
    Changed,
    /// It has none with this MAC address.
    LiveOnly,
}

impl Domain {
    /// This domain, which runs, compared with its persistent definition; a transient one has none.
    #[must_use]
    pub fn compared(&self, definition: Option<Self>) -> Self {
        let mut domain = self.clone();
        domain.persistent = Some(definition.is_some());
        let mut defined = definition.map(|definition| definition.interfaces);
        for interface in &mut domain.interfaces {
            interface.definition = defined.as_mut().map(|defined| {
                // A guest may have several with the same address.
                match defined.iter().position(|other| other.mac == interface.mac) {
                    Some(position) if is_same(interface, &defined.remove(position)) => InDefinition::Same,
                    Some(_) => InDefinition::Changed,
                    None => InDefinition::LiveOnly,
                }
            });
        }
        domain.defined_only = defined.unwrap_or_default();
        domain
    }

    /// Takes what is known of the persistent definition from an earlier record of the same run, until that is read
    /// again. Of an interface that is new or otherwise by now, nothing is known.
    pub fn keep_comparison(&mut self, earlier: &Self) {
        if self.id.is_none() || self.id != earlier.id {
            return;
        }
        self.persistent = earlier.persistent;
        self.defined_only.clone_from(&earlier.defined_only);
        for interface in &mut self.interfaces {
            let same = |before: &&Interface| {
                before.mac == interface.mac && Interface { definition: None, ..(*before).clone() } == *interface
            };
            let before = earlier.interfaces.iter().find(same);
            interface.definition = before.and_then(|before| before.definition);
        }
    }
}

/// Whether the next start would give the guest the same interface. What libvirt fills in at a start cannot differ: names
/// that the definition leaves open, and what a network stands for.
fn is_same(live: &Interface, defined: &Interface) -> bool {
    let open = |live: &Option<_>, defined: &Option<_>| defined.is_none() || live == defined;
    let source = match &defined.attachment {
        Attachment::Network { network, .. } => {
            live.attachment.network().is_none_or(|name| Some(name) == network.as_ref())
        }
        attachment => {
            let network =
                |interface: &Interface| (interface.mtu, interface.vlans.clone(), interface.virtualport.clone());
            live.attachment == *attachment && network(live) == network(defined)
        }
    };
    source
        && open(&live.target, &defined.target)
        && open(&live.guest_device, &defined.guest_device)
        && open(&live.alias, &defined.alias)
        && (&live.model, live.queues, live.unmanaged, live.link_down)
            == (&defined.model, defined.queues, defined.unmanaged, defined.link_down)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::libvirt::domain::DomainState;

    fn domain(id: &str, interfaces: &str) -> Domain {
        let xml = format!(
            "<domain {id}><name>web</name><uuid>00000000-0000-4000-a000-000000000001</uuid>
             <devices>{interfaces}</devices></domain>"
        );
        Domain::decode(&xml, DomainState::Running).unwrap()
    }

    fn nic(mac: u8, more: &str) -> String {
        let source = if more.contains("<source") { "" } else { "<source bridge='br0'/>" };
        let kind = if more.contains("network=") && !more.contains("bridge=") { "network" } else { "bridge" };
        format!("<interface type='{kind}'><mac address='52:54:00:00:00:{mac:02x}'/>{source}{more}</interface>")
    }

    /// What the definition says of each of the live ones, and the addresses that it has alone.
    fn compare(live: &str, defined: &str) -> (Vec<Option<InDefinition>>, Vec<String>) {
        let domain = domain("id='3'", live).compared(Some(self::domain("", defined)));
        assert_eq!(domain.persistent, Some(true));
        let said = domain.interfaces.iter().map(|interface| interface.definition).collect();
        (said, domain.defined_only.iter().map(|interface| interface.mac.to_string()).collect())
    }

    #[test]
    fn what_libvirt_fills_in_at_a_start_is_no_difference() {
        let live = nic(1, "<target dev='vnet7'/><alias name='net0'/>");
        assert_eq!(compare(&live, &nic(1, "")), (vec![Some(InDefinition::Same)], vec![]));
        let live = nic(1, "<source network='blue' bridge='virbr0'/><mtu size='1400'/>");
        let defined = nic(1, "<source network='blue'/>");
        assert_eq!(compare(&live, &defined), (vec![Some(InDefinition::Same)], vec![]));
        let other = nic(1, "<source network='red'/>");
        assert_eq!(compare(&live, &other), (vec![Some(InDefinition::Changed)], vec![]));
    }

    #[test]
    fn what_the_next_start_would_change_take_away_and_add_is_told() {
        for changed in ["<source bridge='br1'/>", "<model type='e1000'/>", "<link state='down'/>", "<mtu size='9000'/>"]
        {
            assert_eq!(
                compare(&nic(1, ""), &nic(1, changed)),
                (vec![Some(InDefinition::Changed)], vec![]),
                "{changed}"
            );
        }
        let live = nic(1, "") + &nic(2, "");
        let defined = nic(3, "") + &nic(2, "");
        assert_eq!(
            compare(&live, &defined),
            (vec![Some(InDefinition::LiveOnly), Some(InDefinition::Same)], vec!["52:54:00:00:00:03".to_owned()])
        );
        // The same address twice is two interfaces.
        let twice = nic(1, "") + &nic(1, "");
        assert_eq!(compare(&twice, &nic(1, "")).0, [Some(InDefinition::Same), Some(InDefinition::LiveOnly)]);
        assert_eq!(
            compare(&nic(1, ""), &twice),
            (vec![Some(InDefinition::Same)], vec!["52:54:00:00:00:01".to_owned()])
        );
    }

    #[test]
    fn a_transient_domain_has_nothing_to_differ_from() {
        let domain = domain("id='3'", &nic(1, "")).compared(None);
        assert_eq!((domain.persistent, domain.interfaces[0].definition), (Some(false), None));
    }

    #[test]
    fn what_was_known_of_the_definition_holds_for_what_has_not_changed_since() {
        let earlier = domain("id='3'", &nic(1, "")).compared(Some(domain("", &(nic(1, "") + &nic(9, "")))));
        let mut next = domain("id='3'", &(nic(1, "") + &nic(2, "")));
        next.keep_comparison(&earlier);
        assert_eq!((next.persistent, &next.defined_only), (Some(true), &earlier.defined_only));
        let said: Vec<_> = next.interfaces.iter().map(|interface| interface.definition).collect();
        assert_eq!(said, [Some(InDefinition::Same), None]);
        for other_run in ["id='4'", ""] {
            let mut next = domain(other_run, &nic(1, ""));
            next.keep_comparison(&earlier);
            assert_eq!((next.persistent, next.interfaces[0].definition, next.defined_only.len()), (None, None, 0));
        }
    }
}
