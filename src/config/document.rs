//! The configuration as text: the commented file, and the effective values with where each came from.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use schemars::generate::SchemaSettings;
use serde_json::Value as Schema;
use toml::{Table, Value};

use super::{Config, Group, KeystoneConfig, ProxyName, TcpConfig, TlsConfig, TlsVersion};

const HEAD: &str = "\
# The configuration of vifd, with every key and its default or an example. The place for it is /etc/vifd/vifd.toml.
# vifd --check-config tells whether it is good, vifd --print-config what is in force and where it came from.
#
# The environment overrides the file (VIFD_WORKER_THREADS=4, VIFD_HTTP__CONNECTIONS=1024), and options override the
# environment (--set http.connections=1024). systemctl reload vifd reads everything again: what to log and the contents
# of certificates change at once, and the log names what has to wait for the next start.
";

/// The whole configuration with what every key means: `packaging/vifd.toml`.
///
/// # Panics
/// Never: what it prints is constant, and a test prints it.
#[must_use]
pub fn default_file() -> String {
    let mut text = HEAD.to_owned();
    let schema = SchemaSettings::default().with(|settings| settings.inline_subschemas = true).into_generator();
    let schema = schema.into_root_schema_for::<Config>().to_value();
    write_section(&mut text, "", &table(&example()), Some(&table(&Config::default())), &schema);
    text
}

/// The keys of a section, then the sections in it; one that the defaults do not have is commented out.
fn write_section(text: &mut String, path: &str, section: &Table, default: Option<&Table>, schema: &Schema) {
    for (key, value) in section.iter().filter(|(_, value)| !value.is_table()) {
        text.push('\n');
        write_comment(text, property(schema, key));
        let _ = writeln!(text, "#{key} = {value}");
    }
    for (key, value) in section {
        let Value::Table(section) = value else { continue };
        let default = default.and_then(|default| default.get(key)?.as_table());
        let (path, schema) = (joined(path, key), property(schema, key));
        text.push('\n');
        write_comment(text, schema);
        let _ = writeln!(text, "{}[{path}]", if default.is_some() { "" } else { "#" });
        write_section(text, &path, section, default, schema);
    }
}

fn write_comment(text: &mut String, schema: &Schema) {
    for line in schema["description"].as_str().unwrap_or_default().lines() {
        let _ = writeln!(text, "# {}", line.replace('`', ""));
    }
}

/// The schema of a key. That of a section which may be absent is one of two.
fn property<'a>(schema: &'a Schema, key: &str) -> &'a Schema {
    match &schema["anyOf"][0] {
        Schema::Null => &schema["properties"][key],
        present => &present["properties"][key],
    }
}

/// Every key that has a value, in the order of the file: the line for it, and after `#` what `origin` says of it.
pub(super) fn effective(config: &Config, origin: impl Fn(&str) -> String) -> String {
    let mut text = String::new();
    write_effective(&mut text, "", &table(config), &origin);
    text
}

fn write_effective(text: &mut String, path: &str, section: &Table, origin: &impl Fn(&str) -> String) {
    for (key, value) in section.iter().filter(|(_, value)| !value.is_table()) {
        let _ = writeln!(text, "{key} = {value}  # {}", origin(&joined(path, key)));
    }
    for (key, value) in section {
        let Value::Table(section) = value else { continue };
        let path = joined(path, key);
        let _ = writeln!(text, "\n[{path}]");
        write_effective(text, &path, section, origin);
    }
}

/// Every key that a configuration has, such as `tcp.tls.key`, with its value.
pub(super) fn leaves(config: &Config) -> BTreeMap<String, Value> {
    let mut leaves = BTreeMap::new();
    add_leaves(&mut leaves, "", table(config));
    leaves
}

fn add_leaves(leaves: &mut BTreeMap<String, Value>, path: &str, section: Table) {
    for (key, value) in section {
        match value {
            Value::Table(section) => add_leaves(leaves, &joined(path, &key), section),
            value => drop(leaves.insert(joined(path, &key), value)),
        }
    }
}

pub(super) fn joined(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn table(config: &Config) -> Table {
    Table::try_from(config).expect("a configuration has only what TOML has")
}

/// The defaults, and a value for every key that has none.
pub(super) fn example() -> Config {
    let mut config =
        Config { socket_group: Some(Group { text: "vifd-admins".to_owned(), id: 0 }), ..Config::default() };
    config.tcp = Some(TcpConfig {
        listen: ([192, 0, 2, 10], 9774).into(),
        proxies: vec![ProxyName::Dns("nova-api.example.org".to_owned()), ProxyName::Sha256([0; 32])],
        admin_roles: vec!["admin".to_owned()],
        anyone_on_loopback_is_admin: false,
        plain_http_over_the_network: false,
        tls: Some(TlsConfig {
            certificate: "/etc/vifd/tls/vifd.crt".into(),
            key: "/etc/vifd/tls/vifd.key".into(),
            client_ca: Some("/etc/vifd/tls/clients-ca.crt".into()),
            min_version: TlsVersion::V1_2,
        }),
        keystone: Some(KeystoneConfig {
            url: keystone_url(),
            public_url: Some(keystone_url()),
            ca: Some("/etc/vifd/tls/keystone-ca.crt".into()),
            user: "vifd".to_owned(),
            user_domain: "Default".to_owned(),
            project: "service".to_owned(),
            project_domain: "Default".to_owned(),
            password_file: "/etc/vifd/keystone-password".into(),
            timeout: Duration::from_secs(5),
            cache: Duration::from_secs(300),
        }),
    });
    config.metrics.listen = Some(([127, 0, 0, 1], 9775).into());
    config.libvirt.uris = Some(vec!["qemu:///system".to_owned(), "lxc:///system".to_owned()]);
    config
}

fn keystone_url() -> super::KeystoneUrl {
    "https://keystone.example.org:5000/v3".to_owned().try_into().expect("it is one")
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    #[test]
    fn the_packaged_file_is_the_one_that_vifd_prints() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/vifd.toml");
        let packaged = fs::read_to_string(path).unwrap();
        assert!(packaged == default_file(), "make it anew: cargo run -- --default-config > packaging/vifd.toml");
    }

    #[test]
    fn the_file_says_something_of_every_key_and_section() {
        let file = default_file();
        let mut before = "";
        for line in file.lines() {
            let says = |line: &str| line.starts_with("# ");
            assert!(line.is_empty() || says(line) || says(before), "{line}");
            assert!(line.len() <= 120 && !line.contains('`'), "{line}");
            before = line;
        }
    }

    #[test]
    fn uncommented_the_file_is_the_example_and_as_it_stands_the_defaults() {
        let file = default_file().replace("#socket_group", "# socket_group");
        let uncomment =
            |line: &str| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line).to_owned();
        let uncommented: Vec<String> = file.lines().map(uncomment).collect();
        let mut all: Config = toml::from_str(&uncommented.join("\n")).unwrap();
        all.socket_group = example().socket_group;
        // The example names a server for what it does not trust: every key is in it, and each is read back as written.
        assert_eq!(leaves(&all), leaves(&example()));
        assert_eq!(leaves(&toml::from_str(&file).unwrap()), leaves(&Config::default()));
    }

    #[test]
    fn the_example_has_every_key() {
        let schema = SchemaSettings::default().with(|settings| settings.inline_subschemas = true).into_generator();
        let schema = schema.into_root_schema_for::<Config>().to_value();
        let mut keys = Vec::new();
        collect(&schema, "", &mut keys);
        keys.sort();
        assert_eq!(keys, leaves(&example()).into_keys().collect::<Vec<_>>());
    }

    fn collect(schema: &Schema, path: &str, keys: &mut Vec<String>) {
        let schema = if schema["anyOf"][0]["properties"].is_object() { &schema["anyOf"][0] } else { schema };
        match schema["properties"].as_object() {
            Some(properties) => properties.iter().for_each(|(key, schema)| collect(schema, &joined(path, key), keys)),
            None => keys.push(path.to_owned()),
        }
    }
}
