//! The values of the configuration that are more than a string or a number.

use std::{str::FromStr, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use tracing_subscriber::EnvFilter;

/// How a [`Duration`] is written, for `#[serde(with)]`: `"5m"`, `"1h 30m"`, `"500ms"`.
#[derive(JsonSchema)]
#[schemars(with = "String")]
pub(super) struct Human;

impl Human {
    /// In the largest unit that divides it.
    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        const UNITS: [(u128, &str); 4] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
        let millis = duration.as_millis();
        let unit = UNITS.into_iter().find(|(unit, _)| millis >= *unit && millis.is_multiple_of(*unit));
        let text = match unit {
            Some((unit, name)) => format!("{}{name}", millis / unit),
            None if millis == 0 => "0s".to_owned(),
            None => format!("{millis}ms"),
        };
        serializer.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text)
            .map_err(|error| D::Error::custom(format!("{text:?} is not a duration such as \"5m\": {error}")))
    }
}

/// The permission bits of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct FileMode(u32);

impl FileMode {
    /// The bits.
    #[must_use]
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Read and write for its owner and its group, nothing for others.
    pub(super) fn owner_and_group() -> Self {
        Self(0o660)
    }
}

impl TryFrom<String> for FileMode {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match u32::from_str_radix(&text, 8) {
            Ok(mode) if mode <= 0o777 => Ok(Self(mode)),
            _ => Err(format!("{text:?} is not a file mode such as \"0660\"")),
        }
    }
}

impl From<FileMode> for String {
    fn from(mode: FileMode) -> Self {
        format!("{:04o}", mode.0)
    }
}

/// A group of this host, which exists.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct Group {
    /// As it was written: its name or number.
    pub(super) text: String,
    pub(super) id: u32,
}

impl Group {
    /// Its number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }
}

impl TryFrom<String> for Group {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if let Ok(id) = text.parse() {
            return Ok(Self { text, id });
        }
        match nix::unistd::Group::from_name(&text) {
            Ok(Some(group)) => Ok(Self { text, id: group.gid.as_raw() }),
            Ok(None) => Err(format!("there is no group {text:?}")),
            Err(error) => Err(format!("could not look for the group {text:?}: {error}")),
        }
    }
}

impl From<Group> for String {
    fn from(group: Group) -> Self {
        group.text
    }
}

/// How many threads the runtime has: 1 to 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "usize")]
pub struct WorkerThreads(usize);

impl WorkerThreads {
    /// The number.
    #[must_use]
    pub fn get(self) -> usize {
        self.0
    }
}

impl Default for WorkerThreads {
    fn default() -> Self {
        Self(2)
    }
}

impl TryFrom<usize> for WorkerThreads {
    type Error = String;

    fn try_from(threads: usize) -> Result<Self, Self::Error> {
        if (1..=64).contains(&threads) { Ok(Self(threads)) } else { Err("must be 1 to 64".to_owned()) }
    }
}

/// How many connections are served at a time: 1 to 100,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "usize")]
pub struct Connections(usize);

impl Connections {
    /// The number.
    #[must_use]
    pub fn get(self) -> usize {
        self.0
    }
}

impl Default for Connections {
    fn default() -> Self {
        Self(512)
    }
}

impl TryFrom<usize> for Connections {
    type Error = String;

    fn try_from(connections: usize) -> Result<Self, Self::Error> {
        if (1..=100_000).contains(&connections) { Ok(Self(connections)) } else { Err("must be 1 to 100000".to_owned()) }
    }
}

/// What to log: `tracing` directives.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
pub struct LogFilter(String);

impl LogFilter {
    /// What stops vifd, and nothing else.
    #[must_use]
    pub fn errors() -> Self {
        Self("error".to_owned())
    }

    /// What an operator wants to know.
    pub(super) fn info() -> Self {
        Self("info".to_owned())
    }

    /// The directives.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The filter.
    #[must_use]
    pub fn filter(&self) -> EnvFilter {
        EnvFilter::builder().parse_lossy(&self.0)
    }
}

impl FromStr for LogFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match EnvFilter::builder().parse(text) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(error) => Err(format!("{text:?} is not a log filter such as \"info\": {error}")),
        }
    }
}

impl TryFrom<String> for LogFilter {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<LogFilter> for String {
    fn from(filter: LogFilter) -> Self {
        filter.0
    }
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// The journal's where stderr leads there, else text.
    Auto,
    /// A line for a person, on stderr.
    Text,
    /// systemd's journal, with native fields.
    Journal,
    /// An object in JSON a line, on stderr.
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize, Serialize)]
    struct Timeout {
        #[serde(with = "Human")]
        t: Duration,
    }

    #[test]
    fn a_duration_is_written_as_people_write_it() {
        for (text, millis) in [("90d", 7_776_000_000), ("6m", 360_000), ("90s", 90_000), ("0s", 0), ("1500ms", 1_500)] {
            let parsed: Timeout = toml::from_str(&format!("t = '{text}'")).unwrap();
            assert_eq!(parsed.t, Duration::from_millis(millis));
            assert_eq!(toml::to_string(&parsed).unwrap(), format!("t = \"{text}\"\n"));
        }
        let error = toml::from_str::<Timeout>("t = '5 parsecs'").map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("5 parsecs") && error.contains("such as \"5m\""), "{error}");
    }
}
