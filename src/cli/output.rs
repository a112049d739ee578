//! How answers are written: to people as tables, to programs as JSON.

use std::io::{self, Write};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::client::ClientError;
use crate::http::host::Answer;

/// A format of answers.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Output {
    /// For people
    Table,
    /// For programs: everything that is known
    Json,
}

impl Output {
    /// Writes the answer to the standard output; `text` makes it readable for people.
    pub(super) fn write<T: Serialize>(
        self,
        answer: &Answer<T>,
        text: impl FnOnce(&Answer<T>) -> String,
    ) -> Result<(), ClientError> {
        write(&match self {
            Self::Table => text(answer),
            Self::Json => serde_json::to_string_pretty(answer).map_err(ClientError::Malformed)? + "\n",
        })
    }
}

/// Writes to the standard output.
pub(super) fn write(text: &str) -> Result<(), ClientError> {
    match io::stdout().write_all(text.as_bytes()) {
        // A reader that has seen enough, such as `head`, is no error.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(ClientError::Write(error)),
        _ => Ok(()),
    }
}

pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(header);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// The table's lines without the padding of their last cells.
pub(super) fn lines(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}
