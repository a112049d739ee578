//! What a shell offers after TAB: the instances and devices that the daemon knows at this moment.

use std::{
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
    path::PathBuf,
    time::Duration,
};

use clap_complete::{ArgValueCompleter, CompletionCandidate};

use super::client::{Client, ClientError, Whom};
use crate::{
    config::DEFAULT_SOCKET,
    http::host::{Devices, InstanceSummary, Summary},
};

/// A shell must not wait longer for what is a help only.
const TIMEOUT: Duration = Duration::from_millis(500);

/// Offers what leads to one instance: its name and its UUID.
pub(super) fn instances() -> ArgValueCompleter {
    ArgValueCompleter::new(|begun: &OsStr| offer(begun, instance_things))
}

/// Offers what belongs to instances (names, UUIDs, VIF ids, MAC and IP addresses, devices), and all other devices.
pub(super) fn things() -> ArgValueCompleter {
    ArgValueCompleter::new(|begun: &OsStr| offer(begun, all_things))
}

/// Words, and what each is.
type Words = BTreeMap<String, String>;

/// A daemon that does not answer offers nothing, and nobody is told: whoever has typed the command is.
fn offer(begun: &OsStr, words: fn(&Client) -> Result<Words, ClientError>) -> Vec<CompletionCandidate> {
    let Some(begun) = begun.to_str() else { return Vec::new() };
    let found = Client::new(Whom::daemon_at(socket(env::args_os()), TIMEOUT)).and_then(|client| words(&client));
    let wanted = found.unwrap_or_default().into_iter().filter(|(word, _)| word.starts_with(begun) && is_plain(word));
    wanted.map(|(word, what)| CompletionCandidate::new(word).help(Some(what.into()))).collect()
}

/// Shells differ in what they quote. Neither is what tenants choose offered with anything in it that a shell acts upon.
fn is_plain(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.:/@+".contains(&byte))
}

/// The socket that the command line names so far.
fn socket(arguments: impl Iterator<Item = OsString>) -> PathBuf {
    let mut arguments = arguments.skip_while(|argument| argument != "--").skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--socket" {
            return arguments.next().map_or_else(|| DEFAULT_SOCKET.into(), PathBuf::from);
        }
        if let Some(path) = argument.to_str().and_then(|argument| argument.strip_prefix("--socket=")) {
            return path.into();
        }
    }
    DEFAULT_SOCKET.into()
}

fn records(client: &Client) -> Result<Vec<InstanceSummary>, ClientError> {
    Ok(client.get::<Summary>("/host/v1/summary")?.body.instances)
}

fn instance_things(client: &Client) -> Result<Words, ClientError> {
    Ok(records(client)?.iter().flat_map(instance_words).collect())
}

fn instance_words(instance: &InstanceSummary) -> [(String, String); 2] {
    let name = instance.name.to_string();
    [(name.clone(), "instance".to_owned()), (instance.uuid.to_string(), format!("instance {name}"))]
}

fn all_things(client: &Client) -> Result<Words, ClientError> {
    let devices = client.get::<Devices>("/host/v1/devices")?.body.devices;
    let mut words: Words = devices.iter().map(|device| (device.link.name.to_string(), "device".to_owned())).collect();
    for instance in records(client)? {
        words.extend(instance_words(&instance));
        for vif in &instance.vifs {
            let of = |what: &str| format!("{what} of {}", instance.name);
            words.insert(vif.id.to_string(), of("VIF"));
            words.insert(vif.mac.to_string(), of("MAC address"));
            words.extend(vif.addresses.iter().map(|address| (address.to_string(), of("address"))));
            words.extend(vif.device.iter().map(|device| (device.name.to_string(), of("device"))));
        }
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_tells_which_daemon_to_ask() {
        for (line, expected) in [
            ("vifctl -- vifctl who t", DEFAULT_SOCKET),
            ("vifctl -- vifctl --socket /tmp/a who t", "/tmp/a"),
            ("vifctl -- vifctl who --socket=/tmp/b t", "/tmp/b"),
            ("vifctl -- vifctl who t --socket", DEFAULT_SOCKET),
        ] {
            assert_eq!(socket(line.split(' ').map(OsString::from)), PathBuf::from(expected), "{line}");
        }
    }

    #[test]
    fn nothing_is_offered_that_a_shell_acts_upon() {
        for word in ["tap3f", "fa:16:3e:00:00:2a", "2001:db8::1", "web-1.example_a", "eth0@if3"] {
            assert!(is_plain(word), "{word}");
        }
        for word in ["a b", "$(reboot)", "`id`", "a;b", "\u{202e}a", "a\n", "a'b", "*", "~"] {
            assert!(!is_plain(word), "{word}");
        }
    }
}
