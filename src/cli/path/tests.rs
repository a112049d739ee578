use roxmltree::Document;

use super::*;
use crate::{
    http::host::{PathRecord, Sources},
    inventory::{
        Inventory,
        path::{Edge, Fault, FaultCode, HopKind, Join},
    },
    source::netlink::link::Counters,
};

/// A guest's card, a tap with a name that nobody would give one, a bridge that is down, and a card beside the line.
fn paths() -> PathsOfVifs {
    let link = |name: &str, index| Hop {
        kind: HopKind::Link,
        sort: Some("bridge".into()),
        name: name.into(),
        index: Some(index),
        up: Some(true),
        mtu: Some(1500),
        counters: Some(Counters { rx_dropped: 3, ..Counters::default() }),
        ..Hop::default()
    };
    let fault = Fault { code: FaultCode::Down, says: "it is set down: nothing passes".to_owned() };
    let hops = vec![
        Hop { name: "fa:16:3e:00:00:01".into(), ..Hop::default() },
        Hop {
            notes: vec!["a note that is much longer than what fits into a single line of a box".to_owned()],
            ..link(EVIL, 7)
        },
        Hop { up: Some(false), faults: vec![fault], ..link("br0", 2) },
        link("eth0", 3),
    ];
    let edge = |from, to, by| Edge { from, to, by };
    let path = VifPath {
        instance_uuid: uuid::Uuid::nil(),
        instance_name: "instance-00000001".into(),
        display_name: Some(EVIL.into()),
        vif_id: uuid::Uuid::nil(),
        hops,
        edges: vec![edge(0, 1, Join::CarriedBy), edge(1, 2, Join::ShouldBe), edge(1, 3, Join::Upon)],
        main: vec![0, 1, 2],
        end: "nothing leads on from there".to_owned(),
    };
    let record = PathRecord { path, stale: None };
    PathsOfVifs { view: "host".into(), no_counters: None, left_out: 0, paths: vec![record.clone(), record] }
}

const EVIL: &str = "a\"b<c>&\u{1b}[31m\\ #x;`]|\u{ffff}'";

fn answer() -> Answer<PathsOfVifs> {
    Answer { generation: 1, sources: Sources::of(&Inventory::default()), body: paths() }
}

#[test]
fn a_broken_hop_stands_out_in_the_text_with_and_without_colours() {
    let text = anstream::adapter::strip_str(&text_of(&answer())).to_string();
    let broken: Vec<_> = text.lines().filter(|line| line.starts_with("!! ")).collect();
    assert_eq!(broken.len(), 4, "{text}");
    assert!(broken[0].contains("br0") && broken[0].contains("DOWN"), "{text}");
    assert!(broken[1].contains("it is set down"), "{text}");
    assert!(text.contains("|  should be joined") && text.contains("besides:"), "{text}");
    assert!(text.contains("3/0") && text.contains("host's view"), "{text}");
    assert!(!text.contains('\u{1b}'), "a name steers the terminal");
    assert_eq!(text_of(&answer()).matches("\u{1b}[31m!! ").count(), 4, "{:?}", text_of(&answer()));
}

fn text_of(answer: &Answer<PathsOfVifs>) -> String {
    let mut page = Page::default();
    answer.text(&mut page);
    page.written().to_owned()
}

#[test]
fn without_counters_the_text_says_so() {
    let mut answer = answer();
    answer.body.no_counters = Some("no reason".into());
    assert!(text_of(&answer).contains("Without counters: no reason."));
}

#[test]
fn the_picture_is_well_formed_and_says_everything() {
    let svg = svg::draw(&paths());
    let document = Document::parse(&svg).unwrap_or_else(|error| panic!("{error}:\n{svg}"));
    let of = |name: &'static str| document.descendants().filter(move |node| node.has_tag_name((SVG, name)));
    let all: String = of("text").filter_map(|node| node.text()).collect::<Vec<_>>().join(" ");
    for words in ["a\"b<c>&", "br0 #2", "DOWN, MTU 1500", "it is set down", "should be joined", "dropped rx 3 tx 0"] {
        assert!(all.contains(words), "{words}: {all}");
    }
    let red = of("rect").filter(|node| node.attribute("stroke") == Some("#c00")).count();
    assert_eq!((red, of("rect").count(), of("line").count()), (2, 1 + 2 * 4, 2 * 3));
    // Every text is within its box, and no box covers another.
    let number = |node: &roxmltree::Node, name| node.attribute(name).unwrap().parse::<usize>().unwrap();
    let boxes: Vec<_> =
        of("rect").skip(1).map(|node| ["x", "y", "width", "height"].map(|name| number(&node, name))).collect();
    for (n, [x, y, width, height]) in boxes.iter().enumerate() {
        for [other_x, other_y, ..] in &boxes[n + 1..] {
            assert!(other_x >= &(x + width) || other_y >= &(y + height) || other_x + width <= *x, "{boxes:?}");
        }
    }
    let longest = of("text").filter(|node| node.attribute("font-size").is_none()).filter_map(|node| node.text());
    assert!(longest.filter(|text| !text.contains("VIF")).all(|text| text.chars().count() <= 45));
}

const SVG: &str = "http://www.w3.org/2000/svg";

/// What the flowcharts here are made of: <https://mermaid.js.org/syntax/flowchart.html>.
#[test]
fn in_mermaid_every_id_is_safe_and_every_label_is_quoted() {
    let is_id = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric()) && text != "end";
    let is_label = |text: &str| {
        let inner = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or("\"");
        let inner = inner.replace("<br/>", "");
        !inner.contains(['"', '<', '>', '&', '`', '\\'])
            && inner
                .split('#')
                .skip(1)
                .all(|rest| rest.split_once(';').is_some_and(|(code, _)| code.parse::<u32>().is_ok()))
    };
    let text = graph::mermaid(&paths());
    let mut lines = text.lines().map(str::trim);
    assert_eq!(lines.next(), Some("flowchart TD"));
    let (mut nodes, mut edges, mut depth) = (0, 0, 0);
    for line in lines {
        if line == "end" {
            depth -= 1;
        } else if let Some(rest) = line.strip_prefix("subgraph ") {
            let (id, label) = rest.split_once('[').unwrap();
            assert!(is_id(id) && is_label(label.strip_suffix(']').unwrap()), "{line}");
            depth += 1;
        } else if let Some((from, rest)) = line.split_once("-->|").or_else(|| line.split_once("-.->|")) {
            let (label, to) = rest.split_once('|').unwrap();
            assert!(is_id(from.trim()) && is_label(label) && is_id(to.trim()), "{line}");
            edges += 1;
        } else if let Some((id, rest)) = line.split_once('[') {
            let label = rest.strip_suffix(":::broken").unwrap_or(rest).strip_suffix(']').unwrap();
            assert!(is_id(id) && is_label(label), "{line}");
            nodes += 1;
        } else {
            assert!(line.starts_with("classDef broken "), "{line}");
        }
    }
    assert_eq!((nodes, edges, depth, text.matches(":::broken").count()), (8, 6, 0, 2));
}

#[test]
fn in_dot_every_text_is_quoted() {
    let text = graph::dot(&paths());
    assert!(text.contains(r#"a\"b<c>&"#) && text.contains("penwidth=3"), "{text}");
    // Outside of quotes there is nothing that a name could have brought.
    let (mut outside, mut quoted, mut escaped) = (String::new(), false, false);
    for c in text.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            c if !quoted => outside.push(c),
            _ => {}
        }
    }
    assert!(!quoted && !outside.contains(['<', '&', '#', '`', '\\']), "{outside}");
}
