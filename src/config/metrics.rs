//! `[metrics]`: who may scrape, and how much.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de::Error};

/// `[metrics]`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct MetricsConfig {
    /// Where to serve `/metrics`, and nothing else. Whoever can connect there reads the names of every project's
    /// instances, so a loopback address is best, or a network that is yours alone. If left out: nowhere.
    #[schemars(with = "Option<String>")]
    pub listen: Option<SocketAddr>,
    /// Without TLS, on any other address: everybody on the way can read the metrics.
    pub plain_http_over_the_network: bool,
    /// The counters of so many interfaces are told; of the rest only how many they are (`vifd_vifs_left_out`).
    pub max_interfaces: usize,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        // Some five times what a large host has, and 4 MiB a scrape.
        Self { listen: None, plain_http_over_the_network: false, max_interfaces: 4096 }
    }
}

/// The section, if its keys fit together.
pub(super) fn checked<'de, D: Deserializer<'de>>(deserializer: D) -> Result<MetricsConfig, D::Error> {
    let metrics = MetricsConfig::deserialize(deserializer)?;
    if metrics.listen.is_some_and(|listen| !listen.ip().is_loopback()) && !metrics.plain_http_over_the_network {
        return Err(D::Error::custom(
            "listen is not a loopback address, and whoever can connect reads every project's names: say \
             plain_http_over_the_network = true if that network is yours alone",
        ));
    }
    Ok(metrics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_go_over_a_network_only_by_an_explicit_word() {
        let parse = |text: &str| checked(toml::Deserializer::parse(text).unwrap()).map_err(|error| error.to_string());
        assert_eq!(parse(""), Ok(MetricsConfig::default()));
        assert!(parse("listen = '[::1]:9775'").is_ok());
        let network = "listen = '192.0.2.1:9775'\n";
        assert!(parse(network).unwrap_err().contains("plain_http_over_the_network"));
        let listen = parse(&(network.to_owned() + "plain_http_over_the_network = true")).unwrap().listen;
        assert_eq!(listen, Some("192.0.2.1:9775".parse().unwrap()));
        assert!(parse("max_interfaces = -1").is_err());
    }
}
