//! What was kept of a neighbour's feed, and when it is told so.
//!
//! A `SYNC` says how far the neighbour's feed has come. What came before it is in the table by
//! then, but perhaps not in the journal, or not as safely as our own clients are promised. `KEPT`
//! says that it is. It need not be quick, so it rides along with other output, or goes after a
//! while.

use std::time::Duration;

use crate::core::base::clock::Time;

/// How long what could be said waits for something to ride along with.
const LAZY: Duration = Duration::from_millis(200);

/// Positions of a neighbour's feed on their way to being confirmed.
#[derive(Default)]
pub(super) struct Acknowledgement {
    /// What was said last, by `LIFE` or by `KEPT`.
    said: Option<u64>,
    /// What can be said.
    ready: Option<u64>,
    /// When it is, at the latest.
    due: Option<Time>,
    /// A position of theirs, and the change of ours that has to be safe before it can be said. Then
    /// the latest such pair: those between the two are passed over.
    waiting: Option<(u64, u64)>,
    latest: Option<(u64, u64)>,
}

impl Acknowledgement {
    /// The neighbour was told, by our `LIFE`, that we have this life of its feed up to `position`.
    pub(super) fn known(position: u64) -> Acknowledgement {
        Acknowledgement {
            said: Some(position),
            ..Acknowledgement::default()
        }
    }

    /// A `SYNC` came, when our own table stood at `seq`.
    pub(super) fn synced(&mut self, position: u64, seq: u64) {
        self.latest = Some((position, seq));
        if self.waiting.is_none() {
            self.waiting = self.latest.take();
        }
    }

    /// Our changes are safe up to `kept_through`.
    #[inline]
    pub(super) fn advance(&mut self, kept_through: u64) {
        while let Some((position, seq)) = self.waiting
            && seq <= kept_through
        {
            self.ready = (self.said != Some(position)).then_some(position);
            self.waiting = self.latest.take();
        }
    }

    /// What can be said, if there is anything new; it counts as said.
    pub(super) fn take(&mut self) -> Option<u64> {
        let position = self.ready.take()?;
        self.due = None;
        self.said = Some(position);
        Some(position)
    }

    /// Notes since when something can be said.
    #[inline]
    pub(super) fn watch(&mut self, kept_through: u64, now: Time) {
        if self.waiting.is_none() && self.ready.is_none() {
            return;
        }
        self.advance(kept_through);
        self.due = self.ready.map(|_| self.due.unwrap_or(now + LAZY));
    }

    /// When it has to be said.
    pub(super) fn due(&self) -> Option<Time> {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_said_once_when_all_before_it_is_safe() {
        let mut kept = Acknowledgement::known(5);
        kept.synced(5, 10);
        kept.advance(9);
        assert_eq!(kept.take(), None, "change 10 is not safe");
        kept.advance(10);
        assert_eq!(kept.take(), None, "it knows that");
        for (position, seq) in [(6, 11), (7, 12), (8, 13), (9, 14)] {
            kept.synced(position, seq);
        }
        kept.advance(12);
        assert_eq!(kept.take(), Some(6), "7 is passed over");
        kept.advance(14);
        assert_eq!((kept.take(), kept.take()), (Some(9), None));
        kept.advance(0);
        assert_eq!(kept.take(), None);
    }

    #[test]
    fn it_waits_for_company_for_a_while_and_for_no_more() {
        let start = Time::from_nanos(1_000_000_000);
        let mut kept = Acknowledgement::default();
        kept.watch(0, start);
        assert_eq!(kept.due(), None);
        kept.synced(1, 0);
        kept.watch(0, start);
        kept.synced(2, 0);
        kept.watch(0, start + LAZY / 2);
        assert_eq!(kept.due(), Some(start + LAZY));
        assert_eq!(kept.take(), Some(2));
        kept.watch(0, start + LAZY);
        assert_eq!(kept.due(), None);
    }
}
