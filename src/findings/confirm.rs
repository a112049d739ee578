//! From what each look finds to what is raised: only what holds over several looks, and for as many after it stopped.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{Code, Finding, News, Subject, sort};
use crate::source::moment::Moment;

/// So many looks confirm a finding, and clear it.
pub(super) const LOOKS: u32 = 3;

/// How long what is found must have lasted before it is raised, besides [`LOOKS`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For a thing that nobody owns. Clouds make devices and ports before the guest that will have them.
    pub(super) leaked_after: Duration,
}

impl Patience {
    fn with(&self, code: Code) -> Duration {
        match code {
            Code::DeviceLeaked | Code::PortLeaked => self.leaked_after,
            _ => Duration::ZERO,
        }
    }
}

/// What was found so far.
#[derive(Debug, Default)]
pub(super) struct Book(BTreeMap<(Code, Subject), Entry>);

#[derive(Debug)]
struct Entry {
    finding: Arc<Finding>,
    since: Instant,
    /// In how many looks it was found.
    held: u32,
    /// In how many looks since then it was not.
    missed: u32,
}

impl Book {
    /// Takes in what one look has found. What `can_judge` says no to is left as it is: that it was not found this time
    /// means nothing, since what it rests on could not be seen.
    pub(super) fn look(
        &mut self,
        found: Vec<Finding>,
        can_judge: impl Fn(&Finding) -> bool,
        patience: &Patience,
    ) -> News {
        let mut news = News::default();
        let mut found: BTreeMap<_, _> = found.into_iter().map(|f| ((f.code, f.subject.clone()), f)).collect();
        self.0.retain(|key, entry| match found.remove(key) {
            Some(seen) => {
                entry.held = entry.held.saturating_add(1);
                entry.missed = 0;
                entry.update(seen, patience, &mut news);
                true
            }
            None if !can_judge(&entry.finding) => true,
            None => {
                entry.missed += 1;
                let stays = entry.finding.confirmed && entry.missed < LOOKS;
                if entry.finding.confirmed && !stays {
                    news.cleared.push(Arc::clone(&entry.finding));
                }
                stays
            }
        });
        for (key, seen) in found {
            let finding = Arc::new(Finding { first_seen: Moment::now(), confirmed: false, ..seen });
            self.0.insert(key, Entry { finding, since: Instant::now(), held: 1, missed: 0 });
        }
        news
    }

    /// Whether another look at the same would change nothing.
    pub(super) fn is_decided(&self) -> bool {
        self.0.values().all(|entry| entry.finding.confirmed && entry.missed == 0)
    }

    /// Those that are confirmed, and those that are not.
    pub(super) fn findings(&self) -> (Vec<Arc<Finding>>, Vec<Arc<Finding>>) {
        let all = self.0.values().map(|entry| Arc::clone(&entry.finding));
        let (mut raised, mut unconfirmed): (Vec<_>, Vec<_>) = all.partition(|finding| finding.confirmed);
        sort(&mut raised);
        sort(&mut unconfirmed);
        (raised, unconfirmed)
    }
}

impl Entry {
    /// It was found again, perhaps with other evidence.
    fn update(&mut self, seen: Finding, patience: &Patience, news: &mut News) {
        let before = self.finding.confirmed;
        let confirmed = before || (self.held >= LOOKS && self.since.elapsed() >= patience.with(seen.code));
        let finding = Finding { first_seen: self.finding.first_seen, confirmed, ..seen };
        if *self.finding != finding {
            self.finding = Arc::new(finding);
        }
        if confirmed && !before {
            news.raised.push(Arc::clone(&self.finding));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;
    use crate::findings::{Severity, testing::finding};

    const PATIENCE: Patience = Patience { leaked_after: Duration::from_secs(60) };

    fn raised(book: &Book) -> Vec<Code> {
        book.findings().0.iter().map(|finding| finding.code).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_finding_is_raised_after_several_looks_and_cleared_after_as_many_without_it() {
        let mut book = Book::default();
        let seen = || vec![finding(Code::DeviceDown, "tap0")];
        let mut look = |found: Vec<Finding>| {
            let news = book.look(found, |_| true, &PATIENCE);
            (raised(&book).len(), news.raised.len(), news.cleared.len(), book.is_decided())
        };
        assert_eq!(look(vec![]), (0, 0, 0, true));
        assert_eq!(look(seen()), (0, 0, 0, false));
        assert_eq!(look(seen()), (0, 0, 0, false));
        assert_eq!(look(seen()), (1, 1, 0, true));
        assert_eq!(look(seen()), (1, 0, 0, true));
        assert_eq!(look(vec![]), (1, 0, 0, false));
        // It flaps: that is one finding all the same.
        assert_eq!(look(seen()), (1, 0, 0, true));
        assert_eq!(look(vec![]), (1, 0, 0, false));
        assert_eq!(look(vec![]), (1, 0, 0, false));
        assert_eq!(look(vec![]), (0, 0, 1, true));
    }

    #[tokio::test(start_paused = true)]
    async fn what_goes_away_before_it_is_confirmed_begins_anew() {
        let mut book = Book::default();
        for _ in 0..10 {
            for found in [vec![finding(Code::DeviceDown, "tap0")], vec![finding(Code::DeviceDown, "tap0")], vec![]] {
                book.look(found, |_| true, &PATIENCE);
                assert_eq!(raised(&book), []);
            }
        }
        assert!(book.is_decided());
    }

    #[tokio::test(start_paused = true)]
    async fn a_leak_takes_time_besides() {
        let mut book = Book::default();
        let mut look = || {
            book.look(vec![finding(Code::DeviceLeaked, "tap0")], |_| true, &PATIENCE);
            raised(&book).len()
        };
        assert_eq!([look(), look(), look(), look()], [0; 4]);
        advance(Duration::from_secs(61)).await;
        assert_eq!(look(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_be_seen_is_neither_raised_nor_cleared() {
        let mut book = Book::default();
        for _ in 0..3 {
            book.look(vec![finding(Code::DeviceDown, "tap0")], |_| true, &PATIENCE);
        }
        for _ in 0..9 {
            book.look(vec![], |_| false, &PATIENCE);
        }
        assert_eq!(raised(&book), [Code::DeviceDown]);
    }

    #[tokio::test(start_paused = true)]
    async fn newer_evidence_takes_the_place_of_older_and_the_first_moment_stays() {
        let mut book = Book::default();
        let mut look = |severity| {
            book.look(vec![Finding { severity, ..finding(Code::BridgeNearlyFull, "br0") }], |_| true, &PATIENCE);
            let (raised, unconfirmed) = book.findings();
            raised.into_iter().chain(unconfirmed).next().unwrap()
        };
        let first = look(Severity::Warning);
        let now = (look(Severity::Warning), look(Severity::Error)).1;
        assert_eq!((now.severity, now.confirmed, now.first_seen), (Severity::Error, true, first.first_seen));
    }
}
