use ratatui::{Terminal, backend::TestBackend, crossterm::event::KeyEvent};

use super::*;
use crate::{
    http::host::{CarriedVif, CountedLink},
    source::netlink::link::{Counters, LinkKind},
};

const SECOND: u64 = 1_000_000_000;

fn link(index: u32, name: &str, instance: Option<&str>, rx_bytes: u64, tx_bytes: u64) -> CountedLink {
    let vif = |name: &str| CarriedVif {
        instance_uuid: uuid::Uuid::nil(),
        instance_name: name.into(),
        display_name: Some("web\u{1b}[2J".into()),
        vif_id: uuid::Uuid::nil(),
    };
    CountedLink {
        index,
        name: name.into(),
        kind: LinkKind::Tap { multi_queue: false, persistent: false },
        controller_name: Some("br0".into()),
        carries: instance.map(vif),
        counters: Counters { rx_bytes, tx_bytes, rx_packets: rx_bytes / 100, ..Counters::default() },
    }
}

fn reading(uptime_ns: u64, links: Vec<CountedLink>) -> AllCounters {
    AllCounters { view: "host".into(), read_at: jiff::Timestamp::UNIX_EPOCH, uptime_ns, links }
}

/// Two guests and an uplink, over two seconds.
fn model() -> Model {
    let mut model = Model::default();
    model.take(reading(
        SECOND,
        vec![link(1, "tap1", Some("b"), 0, 0), link(2, "tap2", Some("a"), 500, 0), link(3, "eth0", None, 0, 0)],
    ));
    model.take(reading(
        3 * SECOND,
        vec![
            link(1, "tap1", Some("b"), 2_000, 100),
            link(2, "tap2", Some("a"), 1_000, 9_000),
            link(3, "eth0", None, 200, 0),
        ],
    ));
    model
}

fn order(model: &Model) -> Vec<&str> {
    model.rows.iter().map(|row| &*row.device).collect()
}

fn press(keys: &str, model: &mut Model, screen: &mut Screen) -> bool {
    let key = |c| match c {
        '\n' => KeyCode::Enter,
        '\u{1b}' => KeyCode::Esc,
        '\u{8}' => KeyCode::Backspace,
        c => KeyCode::Char(c),
    };
    keys.chars().any(|c| handle(&Event::Key(KeyEvent::from(key(c))), model, screen))
}

#[test]
fn rates_are_by_the_time_between_two_readings_and_in_the_guests_view_until_g_is_pressed() {
    let mut model = model();
    let of = |model: &Model, name: &str| {
        let rates = model.rows.iter().find(|row| row.device == name).unwrap().rates.unwrap();
        (rates.rx_bits, rates.tx_bits, rates.rx_packets, rates.tx_packets)
    };
    assert_eq!(of(&model, "tap1"), (400.0, 8_000.0, 0.0, 10.0));
    // What carries no VIF has no guest.
    assert_eq!(of(&model, "eth0"), (800.0, 0.0, 1.0, 0.0));
    press("g", &mut model, &mut Screen::default());
    assert_eq!(of(&model, "tap1"), (8_000.0, 400.0, 10.0, 0.0));
}

#[test]
fn each_key_sorts_by_its_column() {
    let (mut model, mut screen) = (model(), Screen::default());
    assert_eq!(order(&model), ["tap2", "tap1", "eth0"]);
    for (key, expected) in [
        ("r", ["tap2", "eth0", "tap1"]),
        ("x", ["tap1", "tap2", "eth0"]),
        ("p", ["tap1", "tap2", "eth0"]),
        ("n", ["tap2", "tap1", "eth0"]),
        ("d", ["tap2", "tap1", "eth0"]),
        ("t", ["tap2", "tap1", "eth0"]),
    ] {
        assert!(!press(key, &mut model, &mut screen));
        assert_eq!(order(&model), expected, "{key}");
    }
    assert!(press("q", &mut model, &mut screen));
}

#[test]
fn a_filter_is_typed_kept_and_dropped() {
    let (mut model, mut screen) = (model(), Screen::default());
    // While it is typed, keys are letters.
    assert!(!press("/ETHq\u{8}", &mut model, &mut screen));
    assert_eq!((order(&model), screen.is_typing), (vec!["eth0"], true));
    assert!(press("\nq", &mut model, &mut screen));
    press("\u{1b}", &mut model, &mut screen);
    assert_eq!(order(&model).len(), 3);
}

#[test]
fn a_device_that_was_made_anew_or_counts_from_zero_has_no_rate_at_first() {
    let mut model = model();
    let again = || vec![link(9, "tap1", Some("b"), u64::MAX, 0), link(2, "tap2", Some("a"), 3, 9_001)];
    model.take(reading(5 * SECOND, again()));
    assert!(model.rows.iter().all(|row| row.rates.is_none()), "{:?}", model.rows);
    model.take(reading(6 * SECOND, again()));
    assert!(model.rows.iter().all(|row| row.rates == Some(Rates::default())), "{:?}", model.rows);
    // Two readings of one moment.
    model.take(reading(6 * SECOND, again()));
    assert!(model.rows.iter().all(|row| row.rates.is_none()));
}

fn screen_of(model: &Model, screen: &mut Screen, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| screen::draw(frame, model, screen)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..height).map(|y| line(y) + "\n").collect()
}

#[test]
fn the_screen_says_whose_view_it_is_and_what_is_wrong_and_no_name_steers_it() {
    let (mut model, mut screen) = (model(), Screen::default());
    let shown = screen_of(&model, &mut screen, 120, 8);
    assert!(shown.contains("guest's view") && shown.contains("3 of 3 devices"), "{shown}");
    assert!(shown.contains("tap1") && shown.contains("8.0k") && shown.contains("br0"), "{shown}");
    assert!(!shown.contains('\u{1b}') && shown.contains('\u{fffd}'), "{shown}");
    press("g", &mut model, &mut screen);
    screen.banner = Some("7 s old: vifd does not answer".to_owned());
    let shown = screen_of(&model, &mut screen, 120, 8);
    assert!(shown.contains("host's view") && shown.contains("7 s old"), "{shown}");
}

#[test]
fn any_size_of_the_terminal_will_do_and_a_thousand_devices_scroll() {
    let mut model = Model::default();
    model.take(reading(1, (0..1000).map(|n| link(n, &format!("tap{n:04}"), None, 0, 0)).collect()));
    let mut screen = Screen::default();
    for (width, height) in [(1, 1), (3, 2), (20, 3), (300, 100)] {
        screen.offset = usize::MAX;
        screen_of(&model, &mut screen, width, height);
    }
    screen.offset = usize::MAX;
    assert!(screen_of(&model, &mut screen, 120, 20).contains("tap0999"));
    screen.offset = 0;
    let shown = screen_of(&model, &mut screen, 120, 20);
    assert!(shown.contains("tap0000") && !shown.contains("tap0999"), "{shown}");
}

#[test]
fn a_rate_is_told_in_few_characters() {
    let rates = [0.0, 0.5, 9.97, 999.0, 1_000.0, 12_345.0, 999_400.0, 999_600.0, 2.5e9, 1e18];
    let expected = ["0", "0.5", "10", "999", "1.0k", "12.3k", "999k", "1.0M", "2.5G", "1000P"];
    assert_eq!(rates.map(short), expected);
}

#[test]
fn only_a_sensible_delay_is_taken() {
    assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
    for text in ["0", "-1", "nan", "inf", "1e9", "x"] {
        assert!(seconds(text).is_err(), "{text}");
    }
}
