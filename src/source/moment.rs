//! Moments of the past whose age is right whatever happens to the wall clock.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rustix::time::{ClockId, clock_gettime};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::now;

/// A moment of the past, of this run or of one before.
///
/// Its age comes from a clock that nobody sets and that goes on while the host is suspended. Everybody outside this
/// process is told what the wall clock, as it goes now, says of the moment: when a clock that was wrong has been set
/// right, the moments before that are right as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(from = "Timestamp", into = "Timestamp")]
#[schemars(with = "String", extend("format" = "date-time"))]
pub struct Moment {
    /// How long the host had been up; negative before it was started.
    up: SignedDuration,
    /// What the wall clock showed.
    wall: Timestamp,
}

impl Moment {
    /// The present.
    #[must_use]
    pub fn now() -> Self {
        let up = clock_gettime(ClockId::Boottime);
        let up = SignedDuration::new(up.tv_sec, i32::try_from(up.tv_nsec).expect("less than a second"));
        Self { up, wall: now() }
    }

    /// When the host was started.
    #[must_use]
    pub fn boot() -> Self {
        let now = Self::now();
        Self { up: SignedDuration::ZERO, wall: now.wall.checked_sub(now.up).unwrap_or(now.wall) }
    }

    /// How long ago it was.
    #[must_use]
    pub fn age(self) -> Duration {
        (Self::now().up - self.up).try_into().unwrap_or_default()
    }
}

/// What the wall clock says of a moment that another process has told. There is no moment in the future.
impl From<Timestamp> for Moment {
    fn from(wall: Timestamp) -> Self {
        let now = Self::now();
        let age = now.wall.duration_since(wall).max(SignedDuration::ZERO);
        Self { up: now.up - age, wall: wall.min(now.wall) }
    }
}

impl From<Moment> for Timestamp {
    fn from(moment: Moment) -> Self {
        let now = Moment::now();
        let wall = now.wall.checked_sub(now.up - moment.up).unwrap_or(moment.wall);
        // The same text each time, unless the clock was set.
        if wall.duration_since(moment.wall).abs() < SET { moment.wall } else { wall }
    }
}

/// The two clocks are not read at once; what is less than this apart is no step of the wall clock.
const SET: SignedDuration = SignedDuration::from_secs(1);

#[cfg(test)]
impl Moment {
    /// The same at each use.
    pub(crate) const LONG_AGO: Self = Self { up: SignedDuration::from_secs(-1 << 31), wall: Timestamp::UNIX_EPOCH };
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: SignedDuration = SignedDuration::from_hours(1);

    #[test]
    fn an_age_does_not_depend_on_the_wall_clock() {
        let now = Moment::now();
        // As if the clock had been set by an hour since, forward and back.
        for wall in [now.wall - HOUR, now.wall + HOUR] {
            let moment = Moment { up: now.up - SignedDuration::from_secs(60), wall };
            assert_eq!(moment.age().as_secs(), 60);
            let told = Timestamp::now().duration_since(moment.into());
            assert!((59..=61).contains(&told.as_secs()), "{told}");
        }
    }

    #[test]
    fn a_moment_is_told_in_the_same_words_as_long_as_nobody_sets_the_clock() {
        let moment = Moment::now();
        for _ in 0..1000 {
            assert_eq!(Timestamp::from(moment), moment.wall);
        }
    }

    #[test]
    fn no_moment_that_is_read_is_in_the_future_or_too_long_ago_to_be_told() {
        for (wall, oldest) in [(Timestamp::MIN, 300_000_000_000), (Timestamp::UNIX_EPOCH, 0), (Timestamp::MAX, 0)] {
            let moment = Moment::from(wall);
            assert!(moment.age().as_secs() >= oldest);
            assert!(Timestamp::from(moment) <= Timestamp::now());
        }
        assert_eq!(Moment::from(Timestamp::now() + HOUR).age().as_secs(), 0);
        let told = Moment::from(Timestamp::now() - HOUR).age();
        assert!((3599..=3601).contains(&told.as_secs()), "{told:?}");
    }
}
