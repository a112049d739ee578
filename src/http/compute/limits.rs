//! `GET {base}/limits`, in the guide's shape.

use axum::response::Response;
use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::{Ask, extensions::COMMON_1_0, format::Body};

/// A rate limit in force, and what the caller has left of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::http) struct Rate {
    /// The paths that it counts, for people.
    pub(in crate::http) uri: &'static str,
    /// The same as a regular expression.
    pub(in crate::http) regex: &'static str,
    /// The methods that it counts.
    pub(in crate::http) verb: &'static str,
    /// Requests in each `unit`.
    pub(in crate::http) value: u32,
    /// How many may be made at once now.
    pub(in crate::http) remaining: u32,
    /// `SECOND`, `MINUTE`, `HOUR` or `DAY`.
    pub(in crate::http) unit: &'static str,
    /// When there may be another.
    pub(in crate::http) next_available: Timestamp,
}

/// `GET {base}/limits`
pub(super) async fn show(ask: Ask) -> Response {
    ask.answer(|ask| Ok(ask.format.body(&Limits::of(&[]))))
}

/// `{"limits": {…}}`
#[derive(Serialize)]
struct Limits {
    /// The limits.
    limits: Both,
}

/// The limits.
#[derive(Serialize)]
struct Both {
    /// On rates; one item for each set of paths.
    rate: Vec<PathRates>,
    /// On amounts: a host has none.
    absolute: Absolute,
}

/// No limits on amounts.
#[derive(Serialize)]
struct Absolute {}

/// The rate limits of a set of paths.
#[derive(Clone, Serialize)]
struct PathRates {
    /// The paths, for people.
    uri: &'static str,
    /// The same as a regular expression.
    regex: &'static str,
    /// The limits.
    limit: [RateLimit; 1],
}

/// A rate limit.
#[derive(Clone, Serialize)]
struct RateLimit {
    /// Requests in each `unit`.
    value: u32,
    /// The methods that are counted.
    verb: &'static str,
    /// How many may be made at once now.
    remaining: u32,
    /// `SECOND`, `MINUTE`, `HOUR` or `DAY`.
    unit: &'static str,
    /// When there may be another, in whole seconds.
    #[serde(rename = "next-available", serialize_with = "in_seconds")]
    next_available: Timestamp,
}

fn in_seconds<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&at.strftime("%Y-%m-%dT%H:%M:%SZ"))
}

impl Limits {
    fn of(rates: &[Rate]) -> Self {
        let path_rates = |rate: &Rate| {
            let &Rate { uri, regex, verb, value, remaining, unit, next_available } = rate;
            PathRates { uri, regex, limit: [RateLimit { value, verb, remaining, unit, next_available }] }
        };
        Self { limits: Both { rate: rates.iter().map(path_rates).collect(), absolute: Absolute {} } }
    }
}

impl Body for Limits {
    /// An empty list has no element: the schema wants at least one item in it.
    fn xml(&self) -> impl Serialize {
        #[derive(Serialize)]
        #[serde(rename = "limits")]
        struct Root {
            #[serde(rename = "@xmlns")]
            xmlns: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            rates: Option<Rates>,
        }
        #[derive(Serialize)]
        struct Rates {
            rate: Vec<PathElement>,
        }
        #[derive(Serialize)]
        struct PathElement {
            #[serde(rename = "@uri")]
            uri: &'static str,
            #[serde(rename = "@regex")]
            regex: &'static str,
            limit: [Element; 1],
        }
        #[derive(Serialize)]
        struct Element {
            #[serde(rename = "@verb")]
            verb: &'static str,
            #[serde(rename = "@value")]
            value: u32,
            #[serde(rename = "@remaining")]
            remaining: u32,
            #[serde(rename = "@unit")]
            unit: &'static str,
            #[serde(rename = "@next-available", serialize_with = "in_seconds")]
            next_available: Timestamp,
        }
        let element = |of: RateLimit| {
            let RateLimit { value, verb, remaining, unit, next_available } = of;
            Element { verb, value, remaining, unit, next_available }
        };
        let path_element = |of: &PathRates| {
            let PathRates { uri, regex, limit } = of.clone();
            PathElement { uri, regex, limit: limit.map(element) }
        };
        let rates: Vec<_> = self.limits.rate.iter().map(path_element).collect();
        Root { xmlns: COMMON_1_0, rates: (!rates.is_empty()).then_some(Rates { rate: rates }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::compute::{format::Format, tests::validate};

    #[tokio::test]
    async fn a_rate_limit_is_told_in_the_guides_shape() {
        let rate = Rate {
            uri: "*",
            regex: ".*",
            verb: "ALL",
            value: 600,
            remaining: 599,
            unit: "MINUTE",
            next_available: "2011-12-15T22:42:45.5Z".parse().unwrap(),
        };
        let limits = Limits::of(&[rate]);
        assert_eq!(
            serde_json::to_string(&limits).unwrap(),
            r#"{"limits":{"rate":[{"uri":"*","regex":".*","limit":[{"value":600,"verb":"ALL","remaining":599,"unit":"MINUTE","next-available":"2011-12-15T22:42:45Z"}]}],"absolute":{}}}"#
        );
        let xml = crate::http::compute::tests::text(Format::Xml.body(&limits)).await;
        assert!(xml.contains(r#"<rates><rate uri="*" regex=".*"><limit verb="ALL" value="600""#), "{xml}");
        validate(&xml).unwrap();
    }
}
