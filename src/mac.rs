//! Ethernet addresses.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A 48-bit MAC address; written in lower case with colons (`fa:16:3e:00:00:01`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(into = "String", try_from = "String")]
#[schemars(with = "String", extend("pattern" = "^[0-9a-f]{2}(:[0-9a-f]{2}){5}$"))]
pub struct MacAddr([u8; 6]);

/// The text is not six hexadecimal octets.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a MAC address such as fa:16:3e:00:00:01")]
pub struct ParseMacError(String);

impl MacAddr {
    /// The six octets in the order of transmission.
    #[must_use]
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }
}

impl From<[u8; 6]> for MacAddr {
    fn from(octets: [u8; 6]) -> Self {
        Self(octets)
    }
}

/// Accepts any letter case, and the notations in use: octets with colons or hyphens, words with points
/// (`fa16.3e00.0001`), and bare digits.
impl FromStr for MacAddr {
    type Err = ParseMacError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseMacError(text.to_owned());
        let (separators, group): (&[u8], _) = match text.len() {
            17 => (b":-", 2),
            14 => (b".", 4),
            12 => (b"", 12),
            _ => return Err(error()),
        };
        let mut octets = [0; 6];
        let mut digits = 0;
        for (n, byte) in text.bytes().enumerate() {
            if n % (group + 1) == group {
                separators.contains(&byte).then_some(()).ok_or_else(error)?;
            } else {
                let digit = char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                octets[digits / 2] = octets[digits / 2] << 4 | digit.ok_or_else(error)?;
                digits += 1;
            }
        }
        Ok(Self(octets))
    }
}

impl TryFrom<String> for MacAddr {
    type Error = ParseMacError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<MacAddr> for String {
    fn from(mac: MacAddr) -> Self {
        mac.to_string()
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_any_case_and_writes_lower_case() {
        let mac: MacAddr = "FA-16-3E-00-00-0f".parse().unwrap();
        assert_eq!(mac.to_string(), "fa:16:3e:00:00:0f");
        for text in ["fa:16:3e:00:00:0f", "fa16.3e00.000f", "FA163E00000F"] {
            assert_eq!(text.parse::<MacAddr>().unwrap(), mac, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_mac_address() {
        for text in [
            "",
            "fa:16:3e:00:00",
            "fa:16:3e:00:00:01:02",
            "fa:16:3e:00:00:+1",
            "fa:16:3e:00:00:1",
            "fa163e00000",
            "fa163e00000g",
            "fa16:3e00:0001",
            "fa.16.3e.00.00.01",
            "fa-163e-000001",
            ".fa163e0000001",
            "é:16:3e:00:00:01",
        ] {
            assert!(text.parse::<MacAddr>().is_err(), "{text}");
        }
    }
}
