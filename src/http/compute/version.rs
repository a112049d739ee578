//! Which version of the Compute API a request speaks: its URI says, and under `/v2.1` a header refines it.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use super::fault::Fault;

/// A version, as far as it matters to the calls that are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    V1_1,
    V2,
    V2_1(Microversion),
}

/// `2.n` of `/v2.1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Microversion(u16);

impl Microversion {
    pub(super) const MIN: Self = Self(1);
    /// Nova's of 2025. What its microversions changed in the calls that are served here is done; the rest of them is
    /// about calls that are not.
    pub(super) const MAX: Self = Self(100);
    /// The list of virtual interfaces names their networks.
    pub(super) const NET_ID: Self = Self(12);
    /// `GET …/os-virtual-interfaces` is gone.
    pub(super) const NO_VIRTUAL_INTERFACES: Self = Self(44);
    /// Interface attachments have tags.
    pub(super) const TAGS: Self = Self(70);
}

impl std::fmt::Display for Microversion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "2.{}", self.0)
    }
}

const OPENSTACK_API_VERSION: HeaderName = HeaderName::from_static("openstack-api-version");
const NOVA_API_VERSION: HeaderName = HeaderName::from_static("x-openstack-nova-api-version");

impl Version {
    /// The version that a request for this path speaks.
    ///
    /// # Errors
    /// The microversion that it asks for is none, or one that is not spoken here.
    pub(super) fn of_request(path: &str, headers: &HeaderMap) -> Result<Self, Fault> {
        match root(path) {
            Some("v2") => Ok(Self::V2),
            Some("v2.1") => match asked(headers) {
                None => Ok(Self::V2_1(Microversion::MIN)),
                Some(text) => negotiate(text).map(Self::V2_1),
            },
            _ => Ok(Self::V1_1),
        }
    }

    /// Whether it is this microversion or a later one.
    pub(super) fn has(self, microversion: Microversion) -> bool {
        matches!(self, Self::V2_1(spoken) if spoken >= microversion)
    }

    /// Says which microversion an answer speaks.
    pub(super) fn tell(self, headers: &mut HeaderMap) {
        let (long, short) = match self {
            Self::V1_1 | Self::V2 => return,
            Self::V2_1(Microversion::MIN) => (HeaderValue::from_static("compute 2.1"), HeaderValue::from_static("2.1")),
            Self::V2_1(version) => {
                let value = |text: String| HeaderValue::try_from(text).expect("digits and dots are ASCII");
                (value(format!("compute {version}")), value(version.to_string()))
            }
        };
        headers.insert(OPENSTACK_API_VERSION, long);
        headers.insert(NOVA_API_VERSION, short);
    }
}

/// Says on which headers of the request the answer to this path depends.
pub(super) fn vary(path: &str, headers: &mut HeaderMap) {
    let value = match root(path) {
        Some("v2.1") => "Accept, OpenStack-API-Version, X-OpenStack-Nova-API-Version",
        _ => "Accept",
    };
    headers.insert(header::VARY, HeaderValue::from_static(value));
}

/// The first segment of a path, if it names a version, known or not: `v` and a number.
pub(super) fn root(path: &str) -> Option<&str> {
    let segment = path.strip_prefix('/')?.split('/').next()?;
    let number = segment.strip_prefix('v')?;
    number.starts_with(|c: char| c.is_ascii_digit()).then_some(segment)
}

/// What is asked for: of the headers the standard one goes before Nova's own. Other services' versions may stand beside
/// ours in it.
fn asked(headers: &HeaderMap) -> Option<&str> {
    let parts = headers.get_all(OPENSTACK_API_VERSION).iter().flat_map(|value| readable(value).split(','));
    let ours = parts.map(str::trim).find_map(|part| {
        let (service, version) = part.split_once(char::is_whitespace).unwrap_or((part, ""));
        service.eq_ignore_ascii_case("compute").then_some(version.trim())
    });
    ours.or_else(|| headers.get(NOVA_API_VERSION).map(readable))
}

/// A header's text; where it is not even text, something that is no version either.
fn readable(value: &HeaderValue) -> &str {
    value.to_str().unwrap_or("?").trim()
}

fn negotiate(text: &str) -> Result<Microversion, Fault> {
    if text == "latest" {
        return Ok(Microversion::MAX);
    }
    let number = |text: &str| {
        let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
        // One that is too large for the type is too large anyhow.
        (plain && !text.is_empty()).then(|| text.parse().unwrap_or(u16::MAX))
    };
    let Some((major, minor)) = text.split_once('.').and_then(|(major, minor)| Some((number(major)?, number(minor)?)))
    else {
        return Err(Fault::bad_request(format!("{text} is no version of the Compute API; 2.1 or latest would be.")));
    };
    let version = Microversion(minor);
    if major == 2 && (Microversion::MIN..=Microversion::MAX).contains(&version) {
        Ok(version)
    } else {
        let (min, max) = (Microversion::MIN, Microversion::MAX);
        Err(Fault::not_acceptable(format!(
            "Version {text} is not supported by the API. Minimum is {min} and maximum is {max}."
        )))
    }
}
