//! How answers are written: to people as text, to programs as JSON or YAML, to a shell's loop as identifiers.
//!
//! # How a command is made
//!
//! A command is one file: a struct of its arguments (`clap::Args`), and `run(&self, &Client, Output)`, which asks the
//! client for an answer and hands it to [`Output::write`]. What people read of the answer is its [`Readable`]. Whoever
//! makes text of it takes names of tenants through [`plain`](super::words::plain), and the rest of the words from
//! [`words`](super::words). A line in [`Command`](super::Command) makes it known; completions and the man page follow.

use std::{
    fmt::{Display, Write as _},
    io::{self, IsTerminal, Write},
};

use anstream::AutoStream;
use anstyle::{AnsiColor, Style};
use clap::{ColorChoice, ValueEnum};
use rustix::termios::tcgetwinsize;
use serde::{Serialize, Serializer};
use serde_json::Value;
use serde_transcode::Transcoder;

use super::{
    client::ClientError,
    table::{Column, Frame, Table},
    words::{is_harmful, plain},
};

/// How to write answers; every command has these.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(super) struct Output {
    /// How to write the answer
    #[arg(short = 'o', long = "output", global = true, value_name = "FORMAT", default_value = "table")]
    pub(super) format: Format,
    /// Leave out the line with the columns' names
    #[arg(long, global = true)]
    no_headers: bool,
    /// Whether to use colours; NO_COLOR and CLICOLOR are respected
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    color: ColorChoice,
}

/// A format of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// For people
    Table,
    /// For people, with more columns
    Wide,
    /// For programs: everything that is known
    Json,
    /// The same in YAML
    Yaml,
    /// One identifier a line
    Name,
    /// A graph for Graphviz, of a path
    Dot,
    /// A graph for Mermaid, of a path
    Mermaid,
    /// A picture, of a path
    Svg,
}

/// What people and shells read of an answer.
pub(super) trait Readable {
    /// The text, for people.
    fn text(&self, page: &mut Page);

    /// One identifier for each thing in the answer, which other commands take.
    fn names(&self) -> Vec<String>;
}

impl Output {
    /// Writes the answer to the standard output.
    pub(super) fn write<T: Serialize + Readable>(self, answer: &T) -> Result<(), ClientError> {
        match self.format {
            Format::Table | Format::Wide => {
                let mut page = self.page();
                answer.text(&mut page);
                self.print(&page.text)
            }
            Format::Json => print_plain(&json(answer)?),
            Format::Yaml => print_plain(&yaml(answer)?),
            Format::Name => {
                let is_terminal = io::stdout().is_terminal();
                let names = answer.names().into_iter().map(|name| if is_terminal { plain(&name) } else { name });
                print_plain(&names.map(|name| name + "\n").collect::<String>())
            }
            Format::Dot | Format::Mermaid | Format::Svg => Err(ClientError::NoSuchFormat),
        }
    }

    /// Whether a program reads it, which wants everything.
    pub(super) fn is_for_programs(self) -> bool {
        matches!(self.format, Format::Json | Format::Yaml)
    }

    /// Writes the daemon's answer for a program, without taking it apart.
    pub(super) fn write_json(self, answer: &[u8]) -> Result<(), ClientError> {
        let mut answer = serde_json::Deserializer::from_slice(answer);
        let answer = Transcoder::new(&mut answer);
        print_plain(&if self.format == Format::Yaml { yaml(&answer)? } else { json(&answer)? })
    }

    /// Writes one of many answers that come one after the other, each a line: `text` for people, `names` for a shell.
    pub(super) fn write_line<T: Serialize>(
        self,
        answer: &T,
        text: impl FnOnce() -> String,
        names: impl FnOnce() -> Vec<String>,
    ) -> Result<(), ClientError> {
        let json = || serde_json::to_string(answer).map(harmless_json).map_err(ClientError::Malformed);
        let line = match self.format {
            Format::Table | Format::Wide => text(),
            Format::Json => json()?,
            // What is JSON is YAML, too.
            Format::Yaml => format!("--- {}", json()?),
            Format::Name => names().iter().map(|name| plain(name)).collect::<Vec<_>>().join("\n"),
            Format::Dot | Format::Mermaid | Format::Svg => return Err(ClientError::NoSuchFormat),
        };
        if line.is_empty() { Ok(()) } else { self.print(&(line + "\n")) }
    }

    /// Writes text to the standard output, without its styles where they are not wanted.
    pub(super) fn print(self, text: &str) -> Result<(), ClientError> {
        let stdout = io::stdout().lock();
        let choice = match self.color {
            ColorChoice::Auto => AutoStream::choice(&stdout),
            ColorChoice::Always => anstream::ColorChoice::Always,
            ColorChoice::Never => anstream::ColorChoice::Never,
        };
        written(AutoStream::new(stdout, choice).write_all(text.as_bytes()))
    }

    /// An empty page for text.
    pub(super) fn page(self) -> Page {
        let width = tcgetwinsize(io::stdout()).ok().map(|size| usize::from(size.ws_col)).filter(|width| *width > 0);
        Page { text: String::new(), width, headers: !self.no_headers, wide: self.format == Format::Wide }
    }
}

/// Writes what has no styles.
fn print_plain(text: &str) -> Result<(), ClientError> {
    let mut stdout = io::stdout().lock();
    written(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()))
}

fn written(result: io::Result<()>) -> Result<(), ClientError> {
    match result {
        // A reader that has seen enough, such as `head`, is no error.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(ClientError::Write(error)),
        _ => Ok(()),
    }
}

/// In JSON any character may be escaped: those that could harm a terminal are.
fn json(answer: &impl Serialize) -> Result<String, ClientError> {
    let text = serde_json::to_string_pretty(answer).map_err(ClientError::Malformed)?;
    Ok(harmless_json(text) + "\n")
}

fn harmless_json(text: String) -> String {
    escape(text, |text, units| units.iter().try_for_each(|unit| write!(text, "\\u{unit:04x}")))
}

/// In YAML a character may be escaped between double quotes.
fn yaml(answer: &impl Serialize) -> Result<String, ClientError> {
    let value = serde_json::to_value(answer).map_err(ClientError::Malformed)?;
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    let text = serde_saphyr::to_string_with_options(&Quoted(&value), options);
    let text = text.map_err(|error| ClientError::Write(io::Error::other(error)))?;
    Ok(escape(text, |text, units| {
        let c = char::decode_utf16(units.iter().copied()).flatten().next().map_or(0, u32::from);
        write!(text, "\\U{c:08x}")
    }))
}

/// The text with what is harmful in it as `escaped` writes its UTF-16 code units.
fn escape(text: String, escaped: impl Fn(&mut String, &[u16]) -> std::fmt::Result) -> String {
    let is_harmful = |c: char| c != '\n' && is_harmful(c);
    // Nearly all texts are harmless, and a processor looks at many bytes at once where it may look at all of them.
    let is_ascii_text = text.bytes().fold(true, |so_far, byte| so_far & matches!(byte, b'\n' | b' '..=b'~'));
    if is_ascii_text || !text.contains(is_harmful) {
        return text;
    }
    text.chars().fold(String::with_capacity(text.len() + 64), |mut text, c| {
        if is_harmful(c) {
            let _ = escaped(&mut text, c.encode_utf16(&mut [0; 2]));
        } else {
            text.push(c);
        }
        text
    })
}

/// A value whose texts are between double quotes where there is something harmful in them.
struct Quoted<'a>(&'a Value);

impl Serialize for Quoted<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::String(text) if text.contains(is_harmful) => serde_saphyr::DoubleQuoted(text).serialize(serializer),
            Value::Array(values) => serializer.collect_seq(values.iter().map(Quoted)),
            Value::Object(fields) => serializer.collect_map(fields.iter().map(|(key, value)| (key, Quoted(value)))),
            simple => simple.serialize(serializer),
        }
    }
}

/// What people read, as it is being written. Styles are taken off where they are not wanted.
#[derive(Debug, Default)]
pub(super) struct Page {
    text: String,
    width: Option<usize>,
    headers: bool,
    wide: bool,
}

/// Something that is wrong.
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();
/// Something that is in doubt.
pub(super) const DOUBT: Style = AnsiColor::Yellow.on_default();
/// What matters most on a page.
pub(super) const STRONG: Style = Style::new().bold();
/// What is of less interest.
pub(super) const FAINT: Style = Style::new().dimmed();

/// How wide the names of facts are, with what they are indented by.
const FACT_NAME: usize = 14;

/// The text in this style.
pub(super) fn styled(style: Style, text: impl Display) -> String {
    format!("{style}{text}{style:#}")
}

impl Page {
    /// What has been written.
    #[cfg(test)]
    pub(super) fn written(&self) -> &str {
        &self.text
    }

    /// Whether it is a terminal on which whole sentences do not fit beside each other.
    pub(super) fn is_narrow(&self) -> bool {
        self.width.is_some_and(|width| width < 120)
    }

    pub(super) fn line(&mut self, text: impl Display) {
        let _ = writeln!(self.text, "{text}");
    }

    /// An empty line between two parts.
    pub(super) fn gap(&mut self) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
    }

    /// A line with the name of a fact and the fact.
    pub(super) fn fact(&mut self, indent: usize, name: &str, fact: impl Display) {
        let width = FACT_NAME.saturating_sub(indent);
        let _ = writeln!(self.text, "{:indent$}{FAINT}{name:<width$}{FAINT:#} {fact}", "");
    }

    /// An empty table for this page.
    pub(super) fn new_table(&self, columns: &[Column]) -> Table {
        Table::new(columns, self.wide)
    }

    pub(super) fn table(&mut self, indent: usize, table: &Table) {
        self.text += &table.lines(Frame { width: self.width, headers: self.headers, indent });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What steers a terminal, what hides, what reorders, and what YAML might take for something else.
    const NAMES: [&str; 9] = [
        "a\u{1b}[2Jb\nc",
        "c1\u{9b}2J",
        "x\u{202e}gpj.exe",
        "ad\u{200b}min's \"box\"",
        "tag\u{e0041}",
        "no",
        "1e3",
        "fa:16:3e: #",
        "数据库",
    ];

    #[test]
    fn json_and_yaml_are_harmless_to_a_terminal_and_lose_nothing() {
        let value = json!({ "names": NAMES, "mac": "52:54:00:00:00:01", "none": null, "empty": [] });
        let (json, yaml) = (json(&value).unwrap(), yaml(&value).unwrap());
        for text in [&json, &yaml] {
            assert!(!text.contains(|c| c != '\n' && is_harmful(c)), "{text}");
        }
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), value);
        assert_eq!(serde_saphyr::from_str::<Value>(&yaml).unwrap(), value, "{yaml}");
    }
}
