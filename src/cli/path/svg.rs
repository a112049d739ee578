//! Paths as a picture: a column of boxes for each main line, and beside it what is not on it.

use std::{collections::HashMap, fmt::Write};

use super::{lines, plain, title};
use crate::{
    http::host::PathsOfVifs,
    inventory::path::{Hop, Join, VifPath},
};

/// In pixels. A monospaced character of 12 pixels is 7.2 wide.
const BOX_WIDTH: usize = 340;
const LINE: usize = 16;
const GAP: (usize, usize) = (60, 44);
const MARGIN: usize = 20;
/// Of a line in a box, in characters.
const LONGEST: usize = 45;

/// Where a box is, and what stands in it.
struct Placed<'a> {
    hop: &'a Hop,
    x: usize,
    y: usize,
    height: usize,
    /// Each line, and whether it tells what is wrong.
    lines: Vec<(String, bool)>,
}

pub(super) fn draw(paths: &PathsOfVifs) -> String {
    let (mut body, mut width, mut y) = (String::new(), 0, MARGIN);
    for record in &paths.paths {
        let heading = title(&record.path);
        let _ = writeln!(body, r#"<text x="{MARGIN}" y="{}" font-weight="bold">{}</text>"#, y + 12, escape(&heading));
        let boxes = place(&record.path, y + 2 * LINE);
        for edge in &record.path.edges {
            body += &arrow(&boxes[edge.from], &boxes[edge.to], edge.by);
        }
        for placed in &boxes {
            body += &placed.draw();
            width = width.max(placed.x + BOX_WIDTH + MARGIN);
            y = y.max(placed.y + placed.height);
        }
        width = width.max(2 * MARGIN + heading.chars().count() * 8);
        let _ = writeln!(body, r#"<text x="{MARGIN}" y="{}">{}</text>"#, y + 24, escape(&plain(&record.path.end)));
        y += 24 + 2 * MARGIN;
    }
    let font = r#"font-family="monospace" font-size="12" fill="black""#;
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{y}\" viewBox=\"0 0 {width} {y}\" {font}>\n\
         <defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"8\" markerHeight=\"8\" orient=\"auto\">\
         <path d=\"M0 0L8 4L0 8z\"/></marker></defs>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{body}</svg>\n"
    )
}

/// The main line is the first column; every other hop is beside it, one row below the hop that it comes after.
fn place(path: &VifPath, top: usize) -> Vec<Placed<'_>> {
    let mut rows = vec![0; path.hops.len()];
    for (row, at) in path.main.iter().enumerate() {
        rows[*at] = row;
    }
    // Hops stand in the order in which they were reached.
    for at in 0..path.hops.len() {
        let first = path.edges.iter().find(|edge| edge.to == at && edge.from < at);
        if let Some(edge) = first.filter(|_| !path.main.contains(&at)) {
            rows[at] = rows[edge.from] + 1;
        }
    }
    let texts: Vec<_> = path.hops.iter().map(text).collect();
    let mut heights: Vec<usize> = vec![0; rows.iter().max().map_or(0, |row| row + 1)];
    for (row, text) in rows.iter().zip(&texts) {
        heights[*row] = heights[*row].max(text.len() * LINE + LINE / 2);
    }
    let mut taken: HashMap<usize, usize> = HashMap::new();
    let placed = path.hops.iter().zip(texts).enumerate().map(|(at, (hop, lines))| {
        let row = rows[at];
        let column = if path.main.contains(&at) { 0 } else { *taken.entry(row).and_modify(|n| *n += 1).or_insert(1) };
        let above: usize = heights[..row].iter().map(|height| height + GAP.1).sum();
        let height = lines.len() * LINE + LINE / 2;
        Placed { hop, x: MARGIN + column * (BOX_WIDTH + GAP.0), y: top + above, height, lines }
    });
    placed.collect()
}

fn text(hop: &Hop) -> Vec<(String, bool)> {
    let plain_lines = lines(hop).into_iter().flat_map(|line| wrap(&line)).map(|line| (line, false));
    let faults =
        hop.faults.iter().flat_map(|fault| wrap(&format!("!! {}", plain(&fault.says)))).map(|line| (line, true));
    plain_lines.chain(faults).collect()
}

impl Placed<'_> {
    fn draw(&self) -> String {
        let Self { x, y, height, .. } = self;
        let (stroke, wide) = if self.hop.faults.is_empty() { ("black", 1) } else { ("#c00", 3) };
        let mut text = format!(
            r#"<rect x="{x}" y="{y}" width="{BOX_WIDTH}" height="{height}" rx="4" fill="white" stroke="{stroke}" stroke-width="{wide}"/>"#
        );
        for (n, (line, is_fault)) in self.lines.iter().enumerate() {
            let style = if *is_fault {
                r##" fill="#c00""##
            } else if n == 1 {
                r#" font-weight="bold""#
            } else {
                ""
            };
            let _ = write!(text, r#"<text x="{}" y="{}"{style}>{}</text>"#, x + 8, y + LINE * (n + 1), escape(line));
        }
        text + "\n"
    }
}

fn arrow(from: &Placed, to: &Placed, by: Join) -> String {
    // Sideways where both are in one row, or the way goes up again.
    let down = to.y > from.y;
    let (x1, y1) = (from.x + BOX_WIDTH / 2, if down { from.y + from.height } else { from.y });
    let (x2, y2) = (to.x + BOX_WIDTH / 2, if down { to.y } else { to.y + to.height });
    let style = if by == Join::ShouldBe { r##"stroke="#c00" stroke-dasharray="6 4""## } else { r#"stroke="black""# };
    let (x, y) = (x1.midpoint(x2) + 6, y1.midpoint(y2) + 4);
    format!(
        "<line x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\" {style} marker-end=\"url(#tip)\"/>\
         <text x=\"{x}\" y=\"{y}\" font-size=\"11\" fill=\"#555\">{by}</text>\n"
    )
}

/// In lines that fit into a box, broken between words where that is possible.
fn wrap(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split(' ') {
        let characters: Vec<char> = word.chars().collect();
        for (n, part) in characters.chunks(LONGEST).enumerate() {
            let part: String = part.iter().collect();
            let last = lines.last_mut().expect("there is one from the start");
            let length = last.chars().count();
            if length == 0 {
                *last = part;
            } else if n == 0 && length + 1 + part.chars().count() <= LONGEST {
                *last += &format!(" {part}");
            } else {
                lines.push(part);
            }
        }
    }
    lines
}

/// Text in XML, without the characters that XML cannot have.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\u{fffe}' | '\u{ffff}' => escaped.push(char::REPLACEMENT_CHARACTER),
            c => escaped.push(c),
        }
    }
    escaped
}
