//! Pseudonyms: the same for the same name throughout a report, so that it can still be understood.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::IpAddr,
};

use regex::{Captures, Regex, RegexBuilder};
use serde_json::Value;

use crate::mac::MacAddr;

/// So much the compiled names may take: some hundred thousand of them.
const LARGEST: usize = 1 << 30;

/// Names and what they are called instead.
#[derive(Debug, Default)]
pub(super) struct Pseudonyms {
    known: BTreeMap<String, String>,
    counts: BTreeMap<&'static str, usize>,
    macs: bool,
}

impl Pseudonyms {
    /// None yet. With whether MAC addresses get them as well.
    pub(super) fn new(macs: bool) -> Self {
        Self { macs, ..Self::default() }
    }

    /// Gives a name its pseudonym, if it has none yet.
    pub(super) fn learn(&mut self, class: &'static str, name: &str) -> String {
        match self.known.entry(name.to_owned()) {
            Entry::Occupied(known) => known.get().clone(),
            Entry::Vacant(new) => {
                let count = self.counts.entry(class).or_default();
                *count += 1;
                new.insert(format!("{class}-{count}")).clone()
            }
        }
    }

    /// Learns every name in a document.
    pub(super) fn learn_from(&mut self, value: &Value) {
        match value {
            Value::Array(values) => values.iter().for_each(|value| self.learn_from(value)),
            Value::Object(object) => {
                let is_instance = object.contains_key("hypervisor_type");
                for (key, value) in object {
                    match class(key, is_instance) {
                        Some(class) => self.learn_strings(class, value),
                        None => self.learn_from(value),
                    }
                }
            }
            _ => {}
        }
    }

    fn learn_strings(&mut self, class: &'static str, value: &Value) {
        match value {
            Value::String(name) if !name.trim().is_empty() => drop(self.learn(class, name)),
            Value::Array(values) => values.iter().for_each(|value| self.learn_strings(class, value)),
            Value::Object(object) => object.values().for_each(|value| self.learn_strings(class, value)),
            _ => {}
        }
    }

    /// Learns the names that vifd's log lines carry in fields.
    pub(super) fn learn_from_log(&mut self, text: &str) {
        let field = Regex::new(r#"\b(?:domain|instance)\.name="?([^"\s]+)"#).expect("it is constant");
        for found in field.captures_iter(text) {
            self.learn("instance", &found[1]);
        }
    }

    /// What replaces every name that is known by now.
    pub(super) fn replacer(self) -> Replacer {
        let mut known = self.known.clone();
        // As they are written in logs and metrics.
        for (name, pseudonym) in self.known {
            let quoted = format!("{name:?}");
            known.entry(quoted[1..quoted.len() - 1].to_owned()).or_insert_with(|| pseudonym.clone());
            known.entry(name.replace('\\', r"\\").replace('"', "\\\"")).or_insert(pseudonym);
        }
        let mut longest_first: Vec<_> = known.keys().map(|name| regex::escape(name)).collect();
        longest_first.sort_by_key(|name| std::cmp::Reverse(name.len()));
        let pattern = format!(r"\b{{start-half}}(?:{})\b{{end-half}}", longest_first.join("|"));
        let names = RegexBuilder::new(&pattern).size_limit(LARGEST).build();
        Replacer {
            names: (!known.is_empty()).then(|| names.expect("every name was escaped")),
            ids: Regex::new(r"\b[0-9a-fA-F]{32}\b").expect("it is constant"),
            addresses: Regex::new(r"[0-9a-fA-F:.]{2,}").expect("it is constant"),
            pseudonyms: Self { known, counts: self.counts, macs: self.macs },
        }
    }
}

/// What kind of name a key has as its value.
fn class(key: &str, of_instance: bool) -> Option<&'static str> {
    Some(match key {
        "name" if of_instance => "instance",
        "instance_name" | "guest" => "instance",
        "display_name" => "display-name",
        "project" | "project_id" | "project_name" | "project_domain" => "project",
        "user" | "user_id" | "user_name" | "user_domain" => "user",
        "hostname" | "url" | "public_url" | "proxies" => "host",
        _ => return None,
    })
}

/// Replaces names, and whatever is an address or one of Keystone's ids.
#[derive(Debug)]
pub(super) struct Replacer {
    names: Option<Regex>,
    ids: Regex,
    addresses: Regex,
    pseudonyms: Pseudonyms,
}

impl Replacer {
    /// The text by pseudonyms.
    pub(super) fn replace(&mut self, text: &str) -> String {
        let Self { names, ids, addresses, pseudonyms } = self;
        if let Some(pseudonym) = pseudonyms.known.get(text) {
            return pseudonym.clone();
        }
        let known = &pseudonyms.known;
        let named = |found: &Captures| known.get(&found[0]).map_or_else(|| found[0].to_owned(), String::clone);
        let text = names.as_ref().map_or(text.into(), |names| names.replace_all(text, named));
        let text = ids.replace_all(&text, |found: &Captures| pseudonyms.learn("id", &found[0]));
        let mut result = String::with_capacity(text.len());
        let mut end = 0;
        for found in addresses.find_iter(&text) {
            result += &text[end..found.start()];
            end = found.end();
            // A full stop ends a sentence, a colon a word.
            let token = found.as_str().trim_end_matches(['.', ':']);
            let within_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
            let alone =
                !within_word(text[..found.start()].chars().next_back()) && !within_word(text[end..].chars().next());
            let with_port = token.split_once(':').map_or(token, |(address, _)| address);
            let candidates = [found.as_str(), token, with_port].into_iter();
            let address = candidates.filter(|_| alone).find(|token| pseudonyms.hides(token));
            match address {
                Some(address) => {
                    let class = if address.parse::<MacAddr>().is_ok() { "mac" } else { "address" };
                    result += &pseudonyms.learn(class, &address.to_lowercase());
                    result += &found.as_str()[address.len()..];
                }
                None => result += found.as_str(),
            }
        }
        result + &text[end..]
    }

    /// The document by pseudonyms. Keys are the words of vifd, unless they do not look so.
    pub(super) fn replace_all(&mut self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.replace(text),
            Value::Array(values) => values.iter_mut().for_each(|value| self.replace_all(value)),
            Value::Object(object) => {
                if object.contains_key("hypervisor_type") {
                    // It says what the name is.
                    object.remove("number");
                }
                let entries = std::mem::take(object).into_iter();
                *object = entries
                    .map(|(key, mut value)| {
                        self.replace_all(&mut value);
                        let is_word = key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
                        (if is_word { key } else { self.replace(&key) }, value)
                    })
                    .collect();
            }
            _ => {}
        }
    }
}

impl Pseudonyms {
    /// Whether it is an address that says where something is.
    fn hides(&self, token: &str) -> bool {
        match token.parse::<IpAddr>() {
            Ok(address) => !address.is_loopback() && !address.is_unspecified(),
            Err(_) => self.macs && token.parse::<MacAddr>().is_ok(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn replacer(macs: bool) -> Replacer {
        let mut pseudonyms = Pseudonyms::new(macs);
        pseudonyms.learn_from(&json!({ "instances": [{
            "name": "instance-0000002a", "hypervisor_type": "kvm", "display_name": "web \"1\"", "number": 42,
            "project": { "id": "bf75459b5c334ca1ada07d66736389fc", "name": "shop" }, "user": null,
        }, { "name": "web", "hypervisor_type": "kvm" }, { "name": "web-1", "hypervisor_type": "kvm" }] }));
        pseudonyms.replacer()
    }

    #[test]
    fn the_same_name_has_the_same_pseudonym_wherever_it_stands_as_a_word() {
        let mut names = replacer(false);
        for (text, replaced) in [
            ("instance-0000002a", "instance-1"),
            ("/var/lib/domain-1-instance-0000002a/x", "/var/lib/domain-1-instance-1/x"),
            (r#"display_name="web \"1\"",x"#, r#"display_name="display-name-1",x"#),
            (
                "web, web-1 and web-1x of shop in webshop",
                "instance-2, instance-3 and instance-2-1x of project-2 in webshop",
            ),
            ("/v2/bf75459b5c334ca1ada07d66736389fc/servers", "/v2/project-1/servers"),
            ("user 0123456789abcdef0123456789abcdef.", "user id-1."),
        ] {
            assert_eq!(names.replace(text), replaced);
        }
        let mut value = json!({ "name": "web", "hypervisor_type": "kvm", "number": 42, "is web": ["web"] });
        names.replace_all(&mut value);
        assert_eq!(value, json!({ "name": "instance-2", "hypervisor_type": "kvm", "is instance-2": ["instance-2"] }));
    }

    #[test]
    fn addresses_are_hidden_and_what_only_looks_like_one_is_not() {
        let mut names = replacer(false);
        for (text, replaced) in [
            ("from 192.0.2.7:80 to 2001:DB8::1.", "from address-1:80 to address-2."),
            ("10.0.0.4/24 and [10.0.0.4]", "address-3/24 and [address-3]"),
            ("vifd::source::libvirt 12:34:56.789", "vifd::source::libvirt 12:34:56.789"),
            ("127.0.0.1 ::1 0.0.0.0", "127.0.0.1 ::1 0.0.0.0"),
            ("fa:16:3e:00:00:2a", "fa:16:3e:00:00:2a"),
        ] {
            assert_eq!(names.replace(text), replaced);
        }
        assert_eq!(replacer(true).replace("fa:16:3e:00:00:2a, FA:16:3E:00:00:2A"), "mac-1, mac-1");
    }
}
