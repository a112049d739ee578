//! Paths in the languages of programs that draw graphs: Graphviz and Mermaid.

use std::fmt::Write;

use super::{lines, title};
use crate::{
    http::host::PathsOfVifs,
    inventory::path::{Hop, Join},
};

/// For `dot`.
pub(super) fn dot(paths: &PathsOfVifs) -> String {
    let mut text =
        "digraph path {\n  node [shape=box, fontname=\"monospace\"];\n  edge [fontname=\"sans-serif\", fontsize=10];\n"
            .to_owned();
    for (p, record) in paths.paths.iter().enumerate() {
        let path = &record.path;
        let _ = writeln!(text, "  subgraph cluster_{p} {{\n    label={};", dot_text(&[title(path)]));
        for (n, hop) in path.hops.iter().enumerate() {
            let broken = if hop.faults.is_empty() { "" } else { ", color=red, fontcolor=red, penwidth=3" };
            let _ = writeln!(text, "    p{p}h{n} [label={}{broken}];", dot_text(&all_lines(hop)));
        }
        for edge in &path.edges {
            let broken = if edge.by == Join::ShouldBe { ", color=red, style=dashed" } else { "" };
            let _ = writeln!(text, "    p{p}h{} -> p{p}h{} [label=\"{}\"{broken}];", edge.from, edge.to, edge.by);
        }
        text += "  }\n";
    }
    text + "}\n"
}

/// Quoted, one line below the other. <https://graphviz.org/doc/info/lang.html>
fn dot_text(lines: &[String]) -> String {
    let lines: Vec<_> = lines.iter().map(|line| line.replace('\\', "\\\\").replace('"', "\\\"")).collect();
    format!("\"{}\"", lines.join("\\n"))
}

/// For Mermaid, which many pages and chats draw.
pub(super) fn mermaid(paths: &PathsOfVifs) -> String {
    let mut text = "flowchart TD\n  classDef broken stroke:#c00,stroke-width:3px,color:#c00\n".to_owned();
    for (p, record) in paths.paths.iter().enumerate() {
        let path = &record.path;
        let _ = writeln!(text, "  subgraph p{p}[{}]", mermaid_text(&[title(path)]));
        for (n, hop) in path.hops.iter().enumerate() {
            let broken = if hop.faults.is_empty() { "" } else { ":::broken" };
            let _ = writeln!(text, "    p{p}h{n}[{}]{broken}", mermaid_text(&all_lines(hop)));
        }
        for edge in &path.edges {
            let arrow = if edge.by == Join::ShouldBe { "-.->" } else { "-->" };
            let _ = writeln!(text, "    p{p}h{} {arrow}|\"{}\"| p{p}h{}", edge.from, edge.by, edge.to);
        }
        text += "  end\n";
    }
    text
}

/// Quoted, one line below the other. Whatever means something in a label is an entity.
/// <https://mermaid.js.org/syntax/flowchart.html#entity-codes-to-escape-characters>
fn mermaid_text(lines: &[String]) -> String {
    let escape = |c: char| match c {
        '"' | '#' | '<' | '>' | '&' | '`' | '\\' | ';' => format!("#{};", u32::from(c)),
        c => c.to_string(),
    };
    let lines: Vec<String> = lines.iter().map(|line| line.chars().map(escape).collect()).collect();
    format!("\"{}\"", lines.join("<br/>"))
}

fn all_lines(hop: &Hop) -> Vec<String> {
    let faults = hop.faults.iter().map(|fault| format!("!! {}", super::plain(&fault.says)));
    lines(hop).into_iter().chain(faults).collect()
}
