//! Moments as people name them.

use std::str::FromStr;

use jiff::{Span, Timestamp, ZonedDateTime, civil, tz::TimeZone};

/// A moment: `2026-11-23T03:12:00Z`, `2026-11-23 03:12`, `2026-11-23`, `03:12` (the last such moment), `yesterday 03:12`,
/// `today 03:12`, `2h ago`, `-2h`, `now`. What names no zone is in the local one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Time(pub(super) Timestamp);

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let now = Timestamp::now().to_zoned_datetime(TimeZone::system());
        parse(text.trim(), &now).map(Self).ok_or_else(|| {
            format!("{text:?} is no time such as 03:12, \"yesterday 03:12\", \"2h ago\" or 2026-11-23T03:12:00Z")
        })
    }
}

fn parse(text: &str, now: &ZonedDateTime) -> Option<Timestamp> {
    let in_zone = |time: civil::DateTime| Some(time.to_zoned_datetime(now.time_zone().clone()).ok()?.timestamp());
    if text == "now" {
        return Some(now.timestamp());
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        return Some(time);
    }
    for (day, date) in [("yesterday", now.date().yesterday().ok()?), ("today", now.date())] {
        if let Some(rest) = text.strip_prefix(day) {
            let time = if rest.is_empty() { civil::Time::midnight() } else { clock(rest.trim())? };
            return in_zone(date.to_datetime(time));
        }
    }
    if let Some(time) = clock(text) {
        let today = in_zone(now.date().to_datetime(time))?;
        let last = if today > now.timestamp() { now.date().yesterday().ok()? } else { now.date() };
        return in_zone(last.to_datetime(time));
    }
    // "2 hours ago", "-2h", "1d 3h ago".
    if let Ok(span) = text.parse::<Span>() {
        return span.is_negative().then(|| now.checked_add(span).ok())?.map(|time| time.timestamp());
    }
    in_zone(text.parse::<civil::DateTime>().ok()?)
}

/// A time of day, which begins with one or two digits and a colon: other things may look like one to a lenient parser.
fn clock(text: &str) -> Option<civil::Time> {
    let (hour, _) = text.split_once(':')?;
    let padded = if hour.len() == 1 { format!("0{text}") } else { text.to_owned() };
    (hour.len() <= 2 && hour.bytes().all(|byte| byte.is_ascii_digit())).then(|| padded.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_understood_as_people_name_them() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let now: Timestamp = "2026-11-23T02:00:00Z".parse().unwrap();
        let now = now.to_zoned_datetime(zone);
        for (text, wanted) in [
            ("2026-11-22T23:12:00Z", "2026-11-22T23:12:00Z"),
            ("2026-11-23T03:12:00+02:00", "2026-11-23T01:12:00Z"),
            ("2026-11-23 03:12", "2026-11-23T01:12:00Z"),
            ("2026-11-23T03:12:30.5", "2026-11-23T01:12:30.5Z"),
            ("2026-11-23", "2026-11-22T22:00:00Z"),
            ("03:12", "2026-11-23T01:12:00Z"),
            ("3:12", "2026-11-23T01:12:00Z"),
            ("23:59:59", "2026-11-22T21:59:59Z"),
            ("yesterday 03:12", "2026-11-22T01:12:00Z"),
            ("yesterday", "2026-11-21T22:00:00Z"),
            ("today 03:12", "2026-11-23T01:12:00Z"),
            ("2h ago", "2026-11-23T00:00:00Z"),
            ("2 hours ago", "2026-11-23T00:00:00Z"),
            ("-90m", "2026-11-23T00:30:00Z"),
            ("1d 2h ago", "2026-11-22T00:00:00Z"),
            ("now", "2026-11-23T02:00:00Z"),
        ] {
            assert_eq!(parse(text, &now), Some(wanted.parse().unwrap()), "{text}");
        }
        for text in ["", "2h", "soon", "25:00", "yesterday evening", "03:12:99", "fa:16", "123:00", "-", "1e9"] {
            assert_eq!(parse(text, &now), None, "{text}");
        }
    }
}
