//! Nova's `instance_name_template`: how an integer id becomes a domain name, and back.

use std::fmt::Write;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A template with one `%x` or `%d`, optionally with a width (`%08x`). Default `instance-%08x`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct NameTemplate {
    prefix: Box<str>,
    suffix: Box<str>,
    radix: u32,
    width: usize,
}

impl NameTemplate {
    /// The integer id of a domain with that name, if the template could have made it.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        let digits = name.strip_prefix(&*self.prefix)?.strip_suffix(&*self.suffix)?;
        let number = u64::from_str_radix(digits, self.radix).ok()?;
        (self.name(number) == name).then_some(number)
    }

    /// The name of the domain with that integer id.
    #[must_use]
    pub fn name(&self, number: u64) -> String {
        let mut name = self.prefix.to_string();
        let width = self.width;
        let written = match self.radix {
            16 => write!(name, "{number:0width$x}"),
            _ => write!(name, "{number:0width$}"),
        };
        written.expect("writing to a string cannot fail");
        name + &self.suffix
    }
}

impl Default for NameTemplate {
    fn default() -> Self {
        Self { prefix: "instance-".into(), suffix: "".into(), radix: 16, width: 8 }
    }
}

impl TryFrom<String> for NameTemplate {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let parse = || {
            let (prefix, rest) = text.split_once('%')?;
            let (width, rest) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
            let (radix, suffix) = match rest.split_at_checked(1)? {
                ("x", suffix) => (16, suffix),
                ("d", suffix) => (10, suffix),
                _ => return None,
            };
            let width = match width {
                "" => 0,
                digits => digits.strip_prefix('0')?.parse().ok().filter(|width| *width <= 20)?,
            };
            let whole = !suffix.contains('%');
            whole.then(|| Self { prefix: prefix.into(), suffix: suffix.into(), radix, width })
        };
        parse().ok_or_else(|| format!("{text:?} is not a template such as \"instance-%08x\""))
    }
}

impl From<NameTemplate> for String {
    fn from(NameTemplate { prefix, suffix, radix, width }: NameTemplate) -> Self {
        let width = if width == 0 { String::new() } else { format!("0{width}") };
        let radix = if radix == 16 { 'x' } else { 'd' };
        format!("{prefix}%{width}{radix}{suffix}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(text: &str) -> NameTemplate {
        text.to_owned().try_into().unwrap()
    }

    #[test]
    fn names_and_numbers_are_each_others_inverse() {
        let nova = NameTemplate::default();
        assert_eq!(nova, template("instance-%08x"));
        for text in ["instance-%08x", "vm%d.example"] {
            assert_eq!(String::from(template(text)), text);
        }
        assert_eq!((nova.name(42), nova.number("instance-0000002a")), ("instance-0000002a".into(), Some(42)));
        assert_eq!(template("vm%d.example").number("vm17.example"), Some(17));
    }

    #[test]
    fn a_name_that_the_template_would_not_make_has_no_number() {
        let nova = NameTemplate::default();
        for name in ["instance-2a", "instance-0000002A", "instance-+000002a", "instance-", "web", "xinstance-0000002a"]
        {
            assert_eq!(nova.number(name), None, "{name}");
        }
    }

    #[test]
    fn other_templates_are_refused() {
        for text in ["", "instance", "%s", "%x-%x", "%8x", "%", "%0", "%099x", "%(uuid)s"] {
            assert!(NameTemplate::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
