//! `[metrics]`: who may scrape, and how much.

use std::net::SocketAddr;

use serde::Deserialize;

/// `[metrics]`. `/metrics` is served wherever administrators may ask; this is for scrapers that have no identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct MetricsConfig {
    /// Where to serve `/metrics`, and nothing else, to whoever can connect: every project's names are in it. Default: nowhere.
    pub listen: Option<SocketAddr>,
    /// The counters of so many VIFs are told; of the rest only how many they are. Default 4,096.
    pub max_interfaces: usize,
}

/// The section as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    listen: Option<SocketAddr>,
    #[serde(default)]
    plain_http_over_the_network: bool,
    #[serde(default = "max_interfaces")]
    max_interfaces: usize,
}

/// Some five times what a large host has, and 4 MiB a scrape.
fn max_interfaces() -> usize {
    4096
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { listen: None, max_interfaces: max_interfaces() }
    }
}

impl TryFrom<Unchecked> for MetricsConfig {
    type Error = &'static str;

    fn try_from(metrics: Unchecked) -> Result<Self, Self::Error> {
        let Unchecked { listen, plain_http_over_the_network, max_interfaces } = metrics;
        if listen.is_some_and(|listen| !listen.ip().is_loopback()) && !plain_http_over_the_network {
            return Err("listen is not a loopback address, and whoever can connect reads every project's names: say \
                        plain_http_over_the_network = true if that network is yours alone");
        }
        Ok(Self { listen, max_interfaces })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_go_over_a_network_only_by_an_explicit_word() {
        let parse = |text: &str| toml::from_str::<MetricsConfig>(text).map_err(|error| error.to_string());
        assert_eq!(parse(""), Ok(MetricsConfig::default()));
        assert!(parse("listen = '[::1]:9775'").is_ok());
        let network = "listen = '192.0.2.1:9775'\n";
        assert!(parse(network).unwrap_err().contains("plain_http_over_the_network"));
        let listen = parse(&(network.to_owned() + "plain_http_over_the_network = true")).unwrap().listen;
        assert_eq!(listen, Some("192.0.2.1:9775".parse().unwrap()));
        assert!(parse("max_interfaces = -1").is_err());
    }
}
