//! When to confirm a neighbour's changes with `KEPT`, and up to which feed position. A feed
//! position is the sequence number of a change in the neighbour's feed, which is the list of its
//! changes.
//!
//! A `SYNC` names a feed position: this server has received all records up to there. When a `SYNC`
//! arrives, the records before it are in our table. But these records can be missing in our
//! journal, or be less safe there than a reply to a client promises. `KEPT` confirms that the
//! records are as safe as promised. `KEPT` is not urgent: it is sent together with other output, or
//! alone after 200 ms.

use std::time::Duration;

use crate::core::base::clock::Time;

/// The maximum time that a `KEPT` waits for other output.
const KEPT_DELAY: Duration = Duration::from_millis(200);

/// Positions of a neighbour's feed that are not confirmed yet.
#[derive(Default)]
pub(super) struct Acknowledgement {
    /// The feed position that was sent last, in `LIFE` or in `KEPT`.
    last_sent: Option<u64>,
    /// The feed position that the next `KEPT` confirms. `None` if there is nothing new to confirm.
    confirmable: Option<u64>,
    /// The time at which a `KEPT` for `confirmable` is sent alone, if no other output is sent
    /// before.
    due: Option<Time>,
    /// The feed position of a `SYNC`, and the number of our latest change when the `SYNC` arrived.
    /// The feed position becomes `confirmable` when all our changes up to that number are safe in
    /// our journal.
    waiting: Option<(u64, u64)>,
    /// The same pair for the latest `SYNC` after `waiting`. The pairs in between are not stored,
    /// because a later position confirms the earlier positions too.
    latest: Option<(u64, u64)>,
}

impl Acknowledgement {
    /// Returns the state after our `LIFE` was sent. Our `LIFE` named the feed position `position`,
    /// so no `KEPT` has to repeat it.
    pub(super) fn after_life(position: u64) -> Acknowledgement {
        Acknowledgement {
            last_sent: Some(position),
            ..Acknowledgement::default()
        }
    }

    /// Stores the feed position of a `SYNC`. `seq` is the number of our latest change when the
    /// `SYNC` arrives.
    pub(super) fn sync_received(&mut self, position: u64, seq: u64) {
        self.latest = Some((position, seq));
        if self.waiting.is_none() {
            self.waiting = self.latest.take();
        }
    }

    /// Updates `confirmable`. All our changes up to `durable_through` are as safe as a reply to a
    /// client promises.
    #[inline]
    pub(super) fn advance(&mut self, durable_through: u64) {
        while let Some((position, seq)) = self.waiting
            && seq <= durable_through
        {
            self.confirmable = (self.last_sent != Some(position)).then_some(position);
            self.waiting = self.latest.take();
        }
    }

    /// Returns the feed position for a `KEPT`, if there is a new one, and marks it as sent.
    pub(super) fn take_confirmable(&mut self) -> Option<u64> {
        let position = self.confirmable.take()?;
        self.due = None;
        self.last_sent = Some(position);
        Some(position)
    }

    /// Updates `confirmable` and `due`. All our changes up to `durable_through` are as safe as a
    /// reply to a client promises.
    #[inline]
    pub(super) fn update(&mut self, durable_through: u64, now: Time) {
        if self.waiting.is_none() && self.confirmable.is_none() {
            return;
        }
        self.advance(durable_through);
        self.due = self
            .confirmable
            .map(|_| self.due.unwrap_or(now + KEPT_DELAY));
    }

    /// Returns the time at which `KEPT` is sent alone. `None` if there is nothing new to confirm.
    pub(super) fn due(&self) -> Option<Time> {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_acknowledged_once_when_all_before_is_safe() {
        let mut kept = Acknowledgement::after_life(5);
        kept.sync_received(5, 10);
        kept.advance(9);
        assert_eq!(kept.take_confirmable(), None, "change 10 is not safe");
        kept.advance(10);
        assert_eq!(kept.take_confirmable(), None, "it knows that");
        for (position, seq) in [(6, 11), (7, 12), (8, 13), (9, 14)] {
            kept.sync_received(position, seq);
        }
        kept.advance(12);
        assert_eq!(kept.take_confirmable(), Some(6), "7 is passed over");
        kept.advance(14);
        assert_eq!(
            (kept.take_confirmable(), kept.take_confirmable()),
            (Some(9), None)
        );
        kept.advance(0);
        assert_eq!(kept.take_confirmable(), None);
    }

    #[test]
    fn an_acknowledgement_is_delayed_for_a_bounded_time() {
        let start = Time::from_nanos(1_000_000_000);
        let mut kept = Acknowledgement::default();
        kept.update(0, start);
        assert_eq!(kept.due(), None);
        kept.sync_received(1, 0);
        kept.update(0, start);
        kept.sync_received(2, 0);
        kept.update(0, start + KEPT_DELAY / 2);
        assert_eq!(kept.due(), Some(start + KEPT_DELAY));
        assert_eq!(kept.take_confirmable(), Some(2));
        kept.update(0, start + KEPT_DELAY);
        assert_eq!(kept.due(), None);
    }
}
