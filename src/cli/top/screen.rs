//! How `vifctl top` looks.

use ratatui::{
    Frame,
    layout::{Constraint, Layout},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Cell, Row as Line_, Table},
};

use super::model::{Model, Rates, Row, Sort, short};

/// What is on the screen beside the rows.
#[derive(Default)]
pub(super) struct Screen {
    /// The first row that is shown.
    pub(super) offset: usize,
    /// A filter is being typed.
    pub(super) is_typing: bool,
    /// When the last reading was made, and what else there is to say about it.
    pub(super) read: String,
    /// What is wrong: nobody answers, a source is lost.
    pub(super) banner: Option<String>,
}

pub(super) fn draw(frame: &mut Frame, model: &Model, screen: &mut Screen) {
    let bar = u16::from(screen.banner.is_some());
    let areas =
        Layout::vertical([Constraint::Length(1), Constraint::Length(bar), Constraint::Min(1), Constraint::Length(1)]);
    let [top, banner, middle, bottom] = areas.areas(frame.area());
    let filter = if model.filter.is_empty() { String::new() } else { format!(", with \"{}\"", model.filter) };
    let head = format!(
        "vifctl top: {}, by {}; {} of {} devices{filter}; {}",
        model.view.word(),
        model.sort.word(),
        model.rows.len(),
        model.devices(),
        screen.read
    );
    frame.render_widget(Line::styled(head, Style::new().add_modifier(Modifier::BOLD)), top);
    if let Some(text) = &screen.banner {
        frame.render_widget(Line::styled(text.as_str(), Style::new().fg(Color::White).bg(Color::Red)), banner);
    }
    let visible = usize::from(middle.height).saturating_sub(1);
    screen.offset = screen.offset.min(model.rows.len().saturating_sub(visible));
    let rows = model.rows.iter().skip(screen.offset).take(visible).map(line);
    let column = |name: &'static str, sort: &[Sort]| {
        let style = Style::new().add_modifier(Modifier::REVERSED);
        Cell::new(name).style(if sort.contains(&model.sort) { style.add_modifier(Modifier::BOLD) } else { style })
    };
    use Sort::{Drops, Errors, Name, Packets, Rx, Total, Tx};
    let header = [
        column("INSTANCE", &[Name]),
        column("NAME", &[]),
        column("DEVICE", &[]),
        column("BRIDGE", &[]),
        column("RX BIT/S", &[Rx, Total]),
        column("TX BIT/S", &[Tx, Total]),
        column("RX PKT/S", &[Packets]),
        column("TX PKT/S", &[Packets]),
        column("DROP/S", &[Drops]),
        column("ERR/S", &[Errors]),
    ];
    let widths = [
        Constraint::Fill(3),
        Constraint::Fill(3),
        Constraint::Length(15),
        Constraint::Fill(2),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(6),
        Constraint::Length(6),
    ];
    let table = Table::new(rows, widths).header(Line_::new(header));
    frame.render_widget(table, middle);
    let foot = if screen.is_typing {
        format!("/{}_   Enter keeps it, Esc drops it", model.filter)
    } else {
        "q quit  g view  / filter  sort: t total r rx x tx p packets d drops e errors n name  arrows scroll".to_owned()
    };
    frame.render_widget(Line::from(Span::styled(foot, Style::new().add_modifier(Modifier::DIM))), bottom);
}

fn line(row: &Row) -> Line_<'_> {
    let or_dash = |text: &'_ Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let rate = |of: fn(&Rates) -> f64| row.rates.as_ref().map_or("-".to_owned(), |rates| short(of(rates)));
    let bad = |of: fn(&Rates) -> f64| {
        let is_bad = row.rates.as_ref().is_some_and(|rates| of(rates) > 0.0);
        Cell::new(rate(of)).style(if is_bad { Style::new().fg(Color::Red) } else { Style::new() })
    };
    Line_::new([
        Cell::new(or_dash(&row.instance)),
        Cell::new(or_dash(&row.display_name)),
        Cell::new(row.device.clone()),
        Cell::new(or_dash(&row.bridge)),
        Cell::new(rate(|rates| rates.rx_bits)),
        Cell::new(rate(|rates| rates.tx_bits)),
        Cell::new(rate(|rates| rates.rx_packets)),
        Cell::new(rate(|rates| rates.tx_packets)),
        bad(|rates| rates.drops),
        bad(|rates| rates.errors),
    ])
}
