//! Tables for people: as wide as what is in them, and no wider than the terminal.
//!
//! Where a terminal is too narrow, texts are cut with an ellipsis, the longest first; ids and addresses never are. Where
//! that is not enough, each row becomes a paragraph. What is not written to a terminal is never cut.

use std::fmt::Write;

use anstyle::Style;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    name: &'static str,
    may_be_cut: bool,
    is_wide: bool,
}

/// A column of what is of use only as a whole: ids, addresses, numbers.
pub(super) const fn whole(name: &'static str) -> Column {
    Column { name, may_be_cut: false, is_wide: false }
}

/// A column of names and other texts.
pub(super) const fn text(name: &'static str) -> Column {
    Column { name, may_be_cut: true, is_wide: false }
}

impl Column {
    /// Only for `-o wide`.
    pub(super) const fn wide(self) -> Self {
        Self { is_wide: true, ..self }
    }
}

/// What stands in one place of a table. It must be harmless to a terminal.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    text: String,
    /// On a terminal.
    width: usize,
    style: Style,
}

impl Cell {
    pub(super) fn styled(text: impl Into<String>, style: Style) -> Self {
        let text = text.into();
        Self { width: text.width(), text, style }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::styled(text, Style::new())
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

/// A table that is being filled.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<Column>,
    /// Which of the columns that a row is given are shown.
    shown: Vec<bool>,
    rows: Vec<Vec<Cell>>,
}

/// What a table must fit into.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    /// Of the terminal, if it is one.
    pub(super) width: Option<usize>,
    /// Whether there is a line with the columns' names.
    pub(super) headers: bool,
    /// Before each line.
    pub(super) indent: usize,
}

impl Table {
    /// An empty table; the columns of `-o wide` are shown if `wide`.
    pub(super) fn new(columns: &[Column], wide: bool) -> Self {
        let shown: Vec<_> = columns.iter().map(|column| wide || !column.is_wide).collect();
        let columns = columns.iter().zip(&shown).filter_map(|(column, shown)| shown.then_some(*column)).collect();
        Self { columns, shown, rows: Vec::new() }
    }

    /// Adds a row: one cell for each column, also for those that are not shown.
    pub(super) fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        debug_assert_eq!(N, self.shown.len());
        let shown = cells.into_iter().zip(&self.shown);
        self.rows.push(shown.filter_map(|(cell, shown)| shown.then_some(cell)).collect());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The lines, with styles.
    pub(super) fn lines(&self, frame: Frame) -> String {
        let mut widths: Vec<_> = (0..self.columns.len())
            .map(|n| {
                let cells = self.rows.iter().map(|row| row[n].width);
                cells.chain(frame.headers.then(|| self.columns[n].name.len())).max().unwrap_or(0)
            })
            .collect();
        if frame.width.is_some_and(|width| !self.fit(&mut widths, width.saturating_sub(frame.indent))) {
            return self.paragraphs(frame);
        }
        let mut text = String::new();
        if frame.headers {
            let header = self.columns.iter().map(|column| (column.name, column.name.len(), HEADER));
            line(&mut text, frame.indent, header.zip(&widths));
        }
        for row in &self.rows {
            let cells = row.iter().map(|cell| (&*cell.text, cell.width, cell.style));
            line(&mut text, frame.indent, cells.zip(&widths));
        }
        text
    }

    /// Takes from the widest columns until the table is `room` wide, if that can be.
    fn fit(&self, widths: &mut [usize], room: usize) -> bool {
        let gaps = GAP * widths.len().saturating_sub(1);
        while widths.iter().sum::<usize>() + gaps > room {
            let cut = |n: &usize| self.columns[*n].may_be_cut && widths[*n] > SHORTEST.max(self.columns[*n].name.len());
            let Some(widest) = (0..widths.len()).filter(cut).max_by_key(|n| widths[*n]) else { return false };
            widths[widest] -= 1;
        }
        true
    }

    fn paragraphs(&self, frame: Frame) -> String {
        let names = self.columns.iter().map(|column| column.name.len()).max().unwrap_or(0);
        let mut text = String::new();
        for (n, row) in self.rows.iter().enumerate() {
            if n > 0 {
                text.push('\n');
            }
            for (column, cell) in self.columns.iter().zip(row) {
                let (name, Cell { text: value, style, .. }) = (column.name, cell);
                let indent = frame.indent;
                let _ = writeln!(text, "{:indent$}{HEADER}{name:<names$}{HEADER:#}  {style}{value}{style:#}", "");
            }
        }
        text
    }
}

/// One line of texts, each with its width; the last has no padding.
fn line<'a>(line: &mut String, indent: usize, cells: impl Iterator<Item = ((&'a str, usize, Style), &'a usize)>) {
    let _ = write!(line, "{:indent$}", "");
    let mut padding = 0;
    for ((text, own, style), width) in cells {
        let _ = write!(line, "{:padding$}{style}", "");
        let own = if own <= *width {
            line.push_str(text);
            own
        } else {
            let cut = cut(text, *width);
            line.push_str(&cut);
            cut.width()
        };
        let _ = write!(line, "{style:#}");
        padding = width.saturating_sub(own) + GAP;
    }
    line.push('\n');
}

/// As much of a text as fits, with an ellipsis.
fn cut(text: &str, width: usize) -> String {
    let mut used = 1;
    let fits = |c: &char| {
        used += c.width().unwrap_or(0);
        used <= width
    };
    text.chars().take_while(fits).collect::<String>() + "…"
}

const HEADER: Style = Style::new().bold();
/// Between two columns.
const GAP: usize = 2;
/// A text is not cut to less: a few characters more on the screen are worth less than knowing one from the other.
const SHORTEST: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMNS: [Column; 3] = [text("NAME"), whole("MAC ADDRESS"), text("BRIDGE").wide()];

    fn table(names: &[&str]) -> Table {
        let mut table = Table::new(&COLUMNS, false);
        for name in names {
            table.row([(*name).into(), "fa:16:3e:00:00:2a".into(), "br-int".into()]);
        }
        table
    }

    fn plain(table: &Table, width: Option<usize>) -> String {
        let frame = Frame { width, headers: true, indent: 0 };
        anstream::adapter::strip_str(&table.lines(frame)).to_string()
    }

    #[test]
    fn columns_are_as_wide_as_what_is_in_them_on_the_screen() {
        let text = plain(&table(&["web", "数据库", "e\u{301}te", "🦀"]), None);
        let starts = text.lines().map(|line| line.split("  ").next().unwrap().width());
        assert_eq!(starts.collect::<Vec<_>>(), [4, 3, 6, 3, 2]);
        let macs = text.lines().skip(1).map(|line| line[..line.find("fa:").unwrap()].width());
        assert!(macs.clone().all(|at| at == 8), "{text}");
        assert!(text.lines().all(|line| !line.ends_with(' ')), "{text}");
        assert!(!text.contains("BRIDGE"));
    }

    #[test]
    fn names_are_cut_to_the_terminal_and_ids_never_are() {
        let long = "数据库".repeat(20);
        let table = table(&["web", &long]);
        for width in 33..160 {
            let text = plain(&table, Some(width));
            assert!(text.lines().all(|line| line.width() <= width), "{width}:\n{text}");
            assert_eq!(text.matches("fa:16:3e:00:00:2a").count(), 2);
            assert_eq!(text.contains('…'), width < 120 + 2 + 17, "{width}:\n{text}");
        }
        assert!(plain(&table, None).contains(&long));
    }

    #[test]
    fn on_a_terminal_that_is_too_narrow_each_row_is_a_paragraph() {
        let text = plain(&table(&["web", "a-name-of-some-length"]), Some(30));
        assert_eq!(text.lines().nth(3), Some("NAME         a-name-of-some-length"), "{text}");
    }

    #[test]
    fn wide_shows_every_column_and_a_table_without_headers_only_rows() {
        let mut table = Table::new(&COLUMNS, true);
        table.row(["web".into(), "-".into(), "br-int".into()]);
        let frame = Frame { width: None, headers: false, indent: 2 };
        assert_eq!(anstream::adapter::strip_str(&table.lines(frame)).to_string(), "  web  -  br-int\n");
    }
}
