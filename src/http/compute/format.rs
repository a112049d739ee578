//! In which format an answer is wanted, and how bodies are written in it.

use axum::{
    http::{Extensions, HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

/// The guide's two formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Format {
    Json,
    Xml,
}

/// Something that is written in both formats.
pub(super) trait Body: Serialize {
    /// What is serialized as XML, with the root's name and namespace.
    fn xml(&self) -> impl Serialize;
}

impl Format {
    /// The suffix of a path, and what is before it.
    pub(super) fn split_suffix(path: &str) -> Option<(&str, Self)> {
        let json = path.strip_suffix(".json").map(|stem| (stem, Self::Json));
        json.or_else(|| path.strip_suffix(".xml").map(|stem| (stem, Self::Xml)))
    }

    /// The format of an answer to this request: the suffix wins over `Accept`; neither means JSON.
    pub(in crate::http) fn of_request(headers: &HeaderMap, extensions: &Extensions) -> Self {
        let accept = headers.get_all(header::ACCEPT);
        let accept = || accept.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(','));
        extensions.get().copied().unwrap_or_else(|| Self::of_accept(accept()))
    }

    /// The range with the highest quality that names one of our formats. Ranges that name neither are passed over: the
    /// guide wants JSON then, not 406.
    fn of_accept<'a>(ranges: impl Iterator<Item = &'a str>) -> Self {
        let mut best = (0.0, Self::Json);
        for range in ranges {
            let quality =
                range.split(';').skip(1).find_map(|p| p.trim().strip_prefix("q=")?.trim().parse::<f32>().ok());
            let quality = quality.unwrap_or(1.0);
            let format = match range.split(';').next().unwrap_or_default().trim() {
                "*/*" | "application/*" => Some(Self::Json),
                _ => Self::of_media_type(range),
            };
            if let Some(format) = format.filter(|_| quality > best.0) {
                best = (quality, format);
            }
        }
        best.1
    }

    /// The format of a media type, with or without parameters; the guide's vendor types too.
    pub(super) fn of_media_type(media_type: &str) -> Option<Self> {
        let essence = media_type.split(';').next().unwrap_or_default().trim();
        let is = |names: [&str; 2]| names.iter().any(|name| essence.eq_ignore_ascii_case(name));
        if is(["application/json", "application/vnd.openstack.compute+json"]) {
            Some(Self::Json)
        } else if is(["application/xml", "application/vnd.openstack.compute+xml"]) {
            Some(Self::Xml)
        } else {
            None
        }
    }

    /// Writes a body, with its `Content-Type`.
    pub(super) fn body(self, body: &impl Body) -> Response {
        let (content_type, bytes) = match self {
            Self::Json => ("application/json", serde_json::to_vec(body).map_err(|error| error.to_string())),
            Self::Xml => ("application/xml; charset=UTF-8", write_xml(&body.xml()).map_err(|error| error.to_string())),
        };
        let bytes = bytes.expect("our bodies have string keys and no I/O");
        ([(header::CONTENT_TYPE, HeaderValue::from_static(content_type))], bytes).into_response()
    }
}

/// The path's beginning that means the same as the version of a vendor media type: `/v1.1` for
/// `application/vnd.openstack.compute+xml;version=1.1`.
pub(super) fn version_of_accept(headers: &HeaderMap) -> Option<&'static str> {
    let ranges = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    ranges.flat_map(|value| value.split(',')).find_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        parts
            .next()
            .filter(|essence| essence.to_ascii_lowercase().starts_with("application/vnd.openstack.compute+"))?;
        match parts.find_map(|parameter| parameter.strip_prefix("version="))?.trim_matches('"') {
            "1.1" => Some("/v1.1"),
            "2" | "2.0" => Some("/v2"),
            "2.1" => Some("/v2.1"),
            _ => None,
        }
    })
}

fn write_xml(root: &impl Serialize) -> Result<Vec<u8>, quick_xml::SeError> {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    quick_xml::se::to_writer(&mut text, root)?;
    Ok(text.into_bytes())
}

/// Text without the characters that XML 1.0 cannot hold at all, not even escaped.
pub(super) fn xml_text(text: &str) -> String {
    let allowed =
        |c: &char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
    text.chars().filter(allowed).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(value: &str) -> Format {
        Format::of_accept(value.split(','))
    }

    #[test]
    fn accept_is_weighed_by_quality_and_defaults_to_json() {
        for xml in
            ["application/xml", "text/html, application/xml;q=0.9, */*;q=0.8", "application/json;q=0.5,application/xml"]
        {
            assert_eq!(accept(xml), Format::Xml, "{xml}");
        }
        for json in [
            "",
            "text/html",
            "*/*",
            "application/xml;q=0",
            "application/json, application/xml",
            "application/xml;q=0.1,application/json;q=0.2",
        ] {
            assert_eq!(accept(json), Format::Json, "{json}");
        }
        assert_eq!(accept("application/vnd.openstack.compute+xml;version=1.1"), Format::Xml);
        assert_eq!(accept("Application/VND.openstack.compute+JSON"), Format::Json);
        assert_eq!(accept("application/xml;q=x"), Format::Xml);
    }

    #[test]
    fn characters_that_xml_cannot_hold_are_left_out() {
        assert_eq!(xml_text("a\u{0}\u{1b}[31m\u{fffe}b\n"), "a[31mb\n");
    }
}
