//! `GET {base}/limits`, in the guide's shape.

use std::time::Duration;

use axum::response::Response;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use super::{Ask, extensions::COMMON_1_0, format::Body};
use crate::{
    http::{
        limits::Allowance,
        openapi::{Operation, Routes},
    },
    source::now,
};

pub(super) fn routes(base: &'static str) -> Routes {
    let show_says =
        Operation::new::<Limits>("show_limits", "The rate limit in force, and what is left of it", 200, "The limits.");
    Routes::at(base).get("/limits", show, show_says)
}

/// `GET {base}/limits`
pub(super) async fn show(ask: Ask) -> Response {
    ask.answer(|ask| Ok(ask.format.body(&Limits::of(ask.allowance, now()))))
}

/// `{"limits": {…}}`
#[derive(Serialize, JsonSchema)]
struct Limits {
    /// The limits.
    limits: Both,
}

/// The limits.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "RateAndAbsoluteLimits")]
struct Both {
    /// On rates; one item for each set of paths.
    rate: Vec<PathRates>,
    /// On amounts: a host has none.
    absolute: Absolute,
}

/// No limits on amounts.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AbsoluteLimits")]
struct Absolute {}

/// The rate limits of a set of paths.
#[derive(Clone, Serialize, JsonSchema)]
struct PathRates {
    /// The paths, for people.
    uri: &'static str,
    /// The same as a regular expression.
    regex: &'static str,
    /// The limits.
    limit: [RateLimit; 1],
}

/// A rate limit.
#[derive(Clone, Serialize, JsonSchema)]
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
    #[schemars(with = "String", extend("format" = "date-time"))]
    next_available: Timestamp,
}

fn in_seconds<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&at.strftime("%Y-%m-%dT%H:%M:%SZ"))
}

impl Limits {
    /// Of all calls together, since they are counted alike.
    fn of(allowance: Option<Allowance>, now: Timestamp) -> Self {
        // The schema has signed numbers.
        let int = |n: u32| n.min(i32::MAX.unsigned_abs());
        let path_rates = |Allowance { per_minute, remaining }| {
            let wait = if remaining > 0 { Duration::ZERO } else { Duration::from_secs(60) / per_minute.max(1) };
            let limit = RateLimit {
                value: int(per_minute),
                verb: "ALL",
                remaining: int(remaining),
                unit: "MINUTE",
                next_available: now.checked_add(wait).unwrap_or(now),
            };
            PathRates { uri: "*", regex: ".*", limit: [limit] }
        };
        Self { limits: Both { rate: allowance.map(path_rates).into_iter().collect(), absolute: Absolute {} } }
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
        let now = "2011-12-15T22:42:45.5Z".parse().unwrap();
        let limits = Limits::of(Some(Allowance { per_minute: 600, remaining: 599 }), now);
        assert_eq!(
            serde_json::to_string(&limits).unwrap(),
            r#"{"limits":{"rate":[{"uri":"*","regex":".*","limit":[{"value":600,"verb":"ALL","remaining":599,"unit":"MINUTE","next-available":"2011-12-15T22:42:45Z"}]}],"absolute":{}}}"#
        );
        let xml = crate::http::compute::tests::text(Format::Xml.body(&limits)).await;
        assert!(xml.contains(r#"<rates><rate uri="*" regex=".*"><limit verb="ALL" value="600""#), "{xml}");
        validate(&xml).unwrap();
    }

    #[test]
    fn who_has_nothing_left_may_ask_again_when_the_next_is_due() {
        let now: Timestamp = "2011-12-15T22:42:45Z".parse().unwrap();
        let limits = Limits::of(Some(Allowance { per_minute: 6, remaining: 0 }), now);
        assert_eq!(limits.limits.rate[0].limit[0].next_available.to_string(), "2011-12-15T22:42:55Z");
    }
}
