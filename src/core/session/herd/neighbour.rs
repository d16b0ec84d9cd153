//! One neighbour: how it is dialled, and how far each side has received the other's feed. The terms
//! are explained in [`core::link`](crate::core::link).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use super::clock_watch::{ClockChange, ClockWatch};
use super::link_error::LinkError;
use super::log_dedup::{LogDedup, Repeat};
use super::tls_offer::{AttemptOutcome, TlsOffer};
use crate::core::base::backoff::Backoff;
use crate::core::base::boot_id::BootId;
use crate::core::base::clock::Time;
use crate::core::base::limits::{LimitValue, Limits};
use crate::core::base::settings::{HostPort, NeighbourSettings};
use crate::core::base::slots::Id;
use crate::core::table::records::Origin;

/// The id of a neighbour in its [`Herd`](super::Herd). It stays valid as long as that herd exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NeighbourId(pub(super) usize);

/// A position in a neighbour's feed: how far the feed was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeedPosition {
    /// The neighbour's life in which `position` is valid.
    pub boot: BootId,
    /// The number of a change in the neighbour's feed. This server has received all changes up to
    /// this one.
    pub position: u64,
}

/// The state of dialling a neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dial {
    /// No attempt is running or planned: there is a link, or the other side dials.
    Nothing,
    /// The neighbour's host name is being looked up.
    LookingUp,
    /// A connection is being made, or is in the handshake. The field contains the addresses that
    /// were not tried yet.
    Trying(VecDeque<SocketAddr>),
    /// An attempt failed. The neighbour is dialled again later.
    Waiting {
        /// The time of the next attempt.
        until: Time,
    },
}

impl Dial {
    /// The names of the states, in the order of the variants.
    pub const STATES: [&'static str; 4] = ["nothing", "looking up", "trying", "waiting"];

    /// Returns the name of the state, one of [`Dial::STATES`].
    #[must_use]
    pub fn name(&self) -> &'static str {
        let index = match self {
            Dial::Nothing => 0,
            Dial::LookingUp => 1,
            Dial::Trying(_) => 2,
            Dial::Waiting { .. } => 3,
        };
        Dial::STATES[index]
    }
}

/// Measures how long a neighbour takes to confirm a change of ours. Under load, some changes are
/// always unconfirmed. So [`Lag::measure`] marks one change, and measures the time until the
/// neighbour confirms the marked change.
#[derive(Clone, Copy, Debug, Default)]
struct Lag {
    /// The marked change, and the time at which [`Lag::measure`] marked it.
    mark: Option<(u64, Time)>,
}

impl Lag {
    /// The neighbour has confirmed all changes up to `confirmed`. If the marked change is a later
    /// one, returns the time since the change was marked. Otherwise returns 0, and marks
    /// `confirmable`, the last change that the neighbour has to confirm, if that change is
    /// unconfirmed.
    fn measure(&mut self, confirmed: u64, confirmable: u64, now: Time) -> Duration {
        match self.mark {
            Some((seq, since)) if confirmed < seq => now.since(since),
            Some(_) | None => {
                self.mark = (confirmed < confirmable).then_some((confirmable, now));
                Duration::ZERO
            }
        }
    }
}

/// When a link ends that lasted at least this long, the backoff is reset.
const STEADY_AFTER: Duration = Duration::from_secs(2);

/// A server to which this server is configured to have a link.
pub struct Neighbour {
    settings: NeighbourSettings,
    /// The connection that has proven to be this neighbour.
    link: Option<Id>,
    /// Whether that connection uses TLS.
    is_over_tls: bool,
    /// The state of dialling the neighbour.
    dial: Dial,
    /// Whether the next attempt uses TLS, if TLS is offered and not required.
    tls_offer: TlsOffer,
    /// The wait after the next failed attempt. The wait grows with each failure.
    backoff: Backoff,
    /// The time until which this server rejects the neighbour, because the neighbour broke the
    /// protocol after it had proven its name. Used only if the neighbour dials.
    rejected_until: Time,
    /// The neighbour's last known life, and the origin of the records from that life. Records of
    /// this origin are not sent back to the neighbour.
    life: Option<(BootId, Origin)>,
    /// The greatest position that a `SYNC` of ours has sent to the neighbour in our present life.
    synced: u64,
    /// The greatest position in our feed that a `SYNC` of ours has sent to the neighbour in any of
    /// our lives, according to the journal. If the data directory is an older copy, the journal
    /// does not contain later positions.
    journaled_synced: u64,
    /// The position in our feed up to which the neighbour has stored everything, according to its
    /// `LIFE` and its `KEPT` lines.
    confirmed: u64,
    /// The position in our feed up to which a `KEPT` of the neighbour is expected. Changes that
    /// came from the neighbour are not sent back, so they need no confirmation of their own. The
    /// next `KEPT` after a `SYNC` covers them.
    confirmable: u64,
    /// Whether our feed has changes that the present link has not read yet.
    has_unsent: bool,
    /// The number of records that the neighbour refused, from its `LACKS` lines.
    peer_refused_records: u64,
    /// The number of records of the neighbour's feed that this server refused.
    refused_records: u64,
    /// The last `SYNC` of the neighbour that followed a refused record: the neighbour's life, and
    /// the position in the `SYNC`.
    sync_after_refusal: Option<(BootId, u64)>,
    /// The last comparison of the neighbour's wall clock with ours.
    clock: ClockWatch,
    /// How far the neighbour's feed was received. When the neighbour begins a new life, the
    /// position in the old life stays here until the first `SYNC` of the new life. If the
    /// neighbour's journal still has an entry for the old life, the neighbour can continue its feed
    /// from this position.
    received: Option<FeedPosition>,
    /// Whether `received` is in the journal.
    is_received_journaled: bool,
    /// When the present link, or the last one, began.
    linked_since: Time,
    /// When the last link ended.
    unlinked_since: Time,
    /// How long the neighbour takes to confirm our changes.
    lag: Lag,
    /// The failures of linking that were logged.
    log_dedup: LogDedup,
}

impl Neighbour {
    pub(super) fn new(settings: NeighbourSettings, limits: &Limits) -> Neighbour {
        Neighbour {
            settings,
            link: None,
            is_over_tls: false,
            tls_offer: TlsOffer::default(),
            dial: Dial::Nothing,
            backoff: Backoff::new(
                limits.redial_first_ms.to_duration(),
                limits.redial_cap_ms.to_duration(),
            ),
            rejected_until: Time::default(),
            life: None,
            synced: 0,
            journaled_synced: 0,
            confirmed: 0,
            confirmable: 0,
            has_unsent: false,
            peer_refused_records: 0,
            refused_records: 0,
            sync_after_refusal: None,
            clock: ClockWatch::default(),
            received: None,
            is_received_journaled: false,
            linked_since: Time::default(),
            unlinked_since: Time::default(),
            lag: Lag::default(),
            log_dedup: LogDedup::default(),
        }
    }

    /// Returns the neighbour's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// Returns the host name and port at which the neighbour is dialled.
    #[must_use]
    pub fn target(&self) -> &HostPort {
        &self.settings.address
    }

    /// Whether this server dials the neighbour. If not, the neighbour dials this server.
    #[must_use]
    pub fn we_dial(&self) -> bool {
        self.settings.we_dial
    }
}

/// Dialling. If the other side dials, the state stays [`Dial::Nothing`].
impl Neighbour {
    /// Returns the state of dialling.
    #[must_use]
    pub fn dial(&self) -> &Dial {
        &self.dial
    }

    /// Whether the neighbour's host name is being looked up.
    #[must_use]
    pub fn is_looking_up(&self) -> bool {
        self.dial == Dial::LookingUp
    }

    /// Stores that a look-up of the neighbour's host name has begun.
    pub fn look_up_started(&mut self) {
        self.dial = Dial::LookingUp;
    }

    /// Stores that a connection is being made. If this attempt fails, the addresses in `remaining`
    /// are tried.
    pub fn attempt_started(&mut self, remaining: VecDeque<SocketAddr>) {
        self.dial = Dial::Trying(remaining);
    }

    /// Chooses when the neighbour is dialled again, and returns the wait until then. The wait grows
    /// after each failure.
    pub fn schedule_dial(&mut self, random: u64, now: Time) -> Duration {
        let wait = self.backoff.next_wait(random);
        self.dial = Dial::Waiting { until: now + wait };
        wait
    }

    /// Whether the wait of [`Neighbour::schedule_dial`] is over.
    #[must_use]
    pub fn is_dial_due(&self, now: Time) -> bool {
        matches!(self.dial, Dial::Waiting { until } if until <= now)
    }

    /// Sets the state to [`Dial::Nothing`], because a connection that we dialled is closed. Returns
    /// the addresses that were not tried yet, or `None` if no attempt was running.
    pub fn take_addresses(&mut self) -> Option<VecDeque<SocketAddr>> {
        match std::mem::replace(&mut self.dial, Dial::Nothing) {
            Dial::Trying(addresses) => Some(addresses),
            Dial::Nothing | Dial::LookingUp | Dial::Waiting { .. } => None,
        }
    }

    /// Whether the next attempt is without TLS. The caller must ignore this if TLS is required, or
    /// is not offered.
    #[must_use]
    pub fn next_dial_is_plaintext(&self) -> bool {
        self.tls_offer.next_is_plaintext()
    }

    /// Stores how a connection that we dialled has ended, for
    /// [`Neighbour::next_dial_is_plaintext`].
    pub fn record_attempt(&mut self, outcome: AttemptOutcome) {
        self.tls_offer.record(outcome);
    }

    /// Counts an attempt to link that failed for `reason`. Returns how the failure has to be
    /// logged.
    pub fn link_failed(&mut self, reason: &LinkError, now: Time) -> Repeat {
        self.log_dedup.record(reason, now)
    }

    /// Returns the number of failed attempts since the last link.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.log_dedup.count()
    }
}

/// The link to the neighbour.
impl Neighbour {
    /// Returns the connection that has proven to be this neighbour.
    #[must_use]
    pub fn link(&self) -> Option<Id> {
        self.link
    }

    /// Whether the link uses TLS.
    #[must_use]
    pub fn is_over_tls(&self) -> bool {
        self.is_over_tls
    }

    /// Returns when the last link ended.
    #[must_use]
    pub fn unlinked_since(&self) -> Time {
        self.unlinked_since
    }

    /// Stores that `link` is the link to this neighbour, which has proven its name on this
    /// connection. The neighbour has received our feed up to position `from`. Returns the
    /// connection that `link` replaces, if there is one.
    pub fn set_linked(&mut self, link: Id, is_over_tls: bool, from: u64, now: Time) -> Option<Id> {
        self.dial = Dial::Nothing;
        self.is_over_tls = is_over_tls;
        self.confirmed = from;
        (self.confirmable, self.has_unsent) = (from, false);
        self.peer_refused_records = 0;
        self.linked_since = now;
        self.lag = Lag::default();
        self.log_dedup.clear();
        self.link.replace(link)
    }

    /// Stores that the connection `link` has ended. Returns whether `link` was the present link.
    /// Returns `false` if a newer connection had replaced `link`.
    pub fn set_unlinked(&mut self, link: Id, now: Time) -> bool {
        let was_linked = self.link == Some(link);
        if was_linked {
            self.link = None;
            self.unlinked_since = now;
            self.reset_backoff_if_steady(now);
        }
        was_linked
    }

    /// Resets the backoff if the link, which ends now, lasted at least [`STEADY_AFTER`]. If links
    /// keep ending earlier, the wait of the backoff grows.
    fn reset_backoff_if_steady(&mut self, now: Time) {
        if now.since(self.linked_since) >= STEADY_AFTER {
            self.backoff.reset();
        }
    }

    /// Rejects the neighbour for a time that grows with each repetition, because the neighbour
    /// broke the protocol on `link` after it had proven its name. Called only if the neighbour
    /// dials. If this server dials, [`Neighbour::schedule_dial`] delays the next link instead.
    pub fn reject_for_a_while(&mut self, link: Id, now: Time) {
        if self.link == Some(link) {
            self.reset_backoff_if_steady(now);
        }
        // `u64::MAX` chooses the longest wait of the present backoff step. Elsewhere the wait is
        // random, so that several servers do not act at the same moment. Here only one neighbour
        // waits, so this is not needed.
        self.rejected_until = now + self.backoff.next_wait(u64::MAX);
    }

    /// Whether the neighbour is rejected now, because it broke the protocol a short time ago.
    #[must_use]
    pub fn is_rejected(&self, now: Time) -> bool {
        now < self.rejected_until
    }

    /// Compares the time `theirs`, which the neighbour sent from its wall clock, with the time
    /// `ours` of our wall clock. Both are in nanoseconds. Returns what has to be logged, if
    /// anything.
    pub fn compare_clocks(&mut self, theirs: u64, ours: u64) -> Option<ClockChange> {
        self.clock.compare(theirs, ours)
    }

    /// Returns how far the neighbour's clock was ahead of ours at the last reading, in
    /// milliseconds.
    #[must_use]
    pub fn clock_offset_ms(&self) -> Option<i64> {
        self.clock.offset_ms()
    }
}

/// The neighbour's feed.
impl Neighbour {
    /// Returns the origin of the records from the neighbour's life `boot`. If `boot` is not the
    /// last known life, calls `new` to create this origin, and stores `boot` and the origin.
    pub(super) fn origin_of_life(&mut self, boot: BootId, new: impl FnOnce() -> Origin) -> Origin {
        match self.life {
            Some((known, origin)) if known == boot => origin,
            Some(_) | None => {
                let origin = new();
                self.life = Some((boot, origin));
                origin
            }
        }
    }

    /// Whether the last known life of the neighbour is another life than `boot`. Returns `false` if
    /// no life is stored.
    #[must_use]
    pub fn had_another_life(&self, boot: BootId) -> bool {
        self.life.is_some_and(|(known, _)| known != boot)
    }

    /// Returns how far the neighbour's feed was received.
    #[must_use]
    pub fn received(&self) -> Option<FeedPosition> {
        self.received
    }

    /// Stores that the neighbour's feed of the life `boot` was received up to `position`.
    pub fn set_received(&mut self, boot: BootId, position: u64) {
        let received = Some(FeedPosition { boot, position });
        self.is_received_journaled &= self.received == received;
        self.received = received;
    }

    /// Returns how far the neighbour's feed was received, if the journal does not contain this
    /// position yet.
    #[must_use]
    pub fn unjournaled_received(&self) -> Option<FeedPosition> {
        self.received.filter(|_| !self.is_received_journaled)
    }

    /// Stores that the journal contains the position that [`Neighbour::received`] returns.
    pub fn mark_received_journaled(&mut self) {
        self.is_received_journaled = true;
    }

    pub(super) fn restore_received(&mut self, received: FeedPosition) {
        self.received = Some(received);
        self.is_received_journaled = true;
    }

    /// Returns the number of records of the neighbour's feed that this server refused.
    #[must_use]
    pub fn refused_records(&self) -> u64 {
        self.refused_records
    }

    pub(super) fn replace_refused_records(&mut self, records: u64) -> u64 {
        std::mem::replace(&mut self.refused_records, records)
    }

    /// Stores the `position` of a `SYNC` that the neighbour sent in its life `boot`, after this
    /// server had refused records on the same link.
    pub fn set_sync_after_refusal(&mut self, boot: BootId, position: u64) {
        self.sync_after_refusal = Some((boot, position));
    }

    /// Returns the position of the last `SYNC` that followed a refused record, if the neighbour
    /// sent this `SYNC` in the life `boot`. Otherwise returns `u64::MAX`.
    #[must_use]
    pub fn sync_after_refusal(&self, boot: BootId) -> u64 {
        match self.sync_after_refusal {
            Some((life, position)) if life == boot => position,
            Some(_) | None => u64::MAX,
        }
    }
}

/// Our feed.
impl Neighbour {
    /// Returns the greatest position that a `SYNC` of ours has sent to the neighbour in our present
    /// life.
    #[must_use]
    pub fn synced(&self) -> u64 {
        self.synced
    }

    /// Returns the greatest position in our feed that we sent to the neighbour in a `SYNC` line in
    /// any of our lives, according to the journal. If the data directory is an older copy, the
    /// journal lacks later positions.
    #[must_use]
    pub fn journaled_synced(&self) -> u64 {
        self.journaled_synced
    }

    /// Stores that a `SYNC` of ours sends `position` to the neighbour.
    pub fn set_synced(&mut self, position: u64) {
        self.synced = self.synced.max(position);
    }

    /// Returns the greatest position that a `SYNC` of ours has sent to the neighbour in our present
    /// life, if the journal does not contain this position yet.
    #[must_use]
    pub fn unjournaled_synced(&self) -> Option<u64> {
        (self.synced > self.journaled_synced).then_some(self.synced)
    }

    /// Stores that, according to the journal, a `SYNC` of ours has sent `position` to the
    /// neighbour.
    pub fn set_journaled_synced(&mut self, position: u64) {
        self.journaled_synced = position;
    }

    /// Stores that the present link has read our feed up to `position`. `needs_confirmation` is
    /// whether the neighbour has to confirm `position`. This is `false` if the link has nothing to
    /// send, because all changes that were read came from the neighbour. `has_unsent` is whether
    /// the feed contains more changes to read.
    #[inline]
    pub fn feed_read(&mut self, position: u64, needs_confirmation: bool, has_unsent: bool) {
        if needs_confirmation {
            self.confirmable = position;
        }
        self.has_unsent = has_unsent;
    }

    /// Returns the position in our feed up to which a `KEPT` of the neighbour is expected. Our
    /// latest change is `last_seq`.
    fn confirmable(&self, last_seq: u64) -> u64 {
        match self.has_unsent {
            true => last_seq,
            false => self.confirmable,
        }
    }

    /// Returns the position in our feed up to which the neighbour has stored everything, according
    /// to its `LIFE` and its `KEPT` lines.
    #[must_use]
    pub fn confirmed(&self) -> u64 {
        self.confirmed
    }

    /// Handles a `KEPT` of the neighbour, which confirms that the neighbour has stored all changes
    /// of our feed up to `position`. Our latest change is `last_seq`.
    ///
    /// # Errors
    /// `position` is greater than all positions that a `SYNC` of ours has sent to the neighbour in
    /// our present life. The error contains the greatest of these positions.
    pub fn confirm(&mut self, position: u64, last_seq: u64, now: Time) -> Result<(), u64> {
        if position > self.synced {
            return Err(self.synced);
        }
        self.confirmed = self.confirmed.max(position);
        self.lag(last_seq, now);
        Ok(())
    }

    /// Returns for how long the neighbour has not confirmed one of our changes, or 0. Only one
    /// change is measured at a time. When the neighbour has confirmed this change, the latest
    /// unconfirmed change is measured next. Our latest change is `last_seq`.
    pub fn lag(&mut self, last_seq: u64, now: Time) -> Duration {
        let confirmable = self.confirmable(last_seq);
        self.lag.measure(self.confirmed, confirmable, now)
    }

    /// Returns the number of records that the neighbour refused, from its `LACKS` lines.
    #[must_use]
    pub fn peer_refused_records(&self) -> u64 {
        self.peer_refused_records
    }

    /// Stores the number of records that the neighbour refused, from its latest `LACKS`. Returns
    /// the number from the `LACKS` before.
    pub fn set_peer_refused_records(&mut self, records: u64) -> u64 {
        std::mem::replace(&mut self.peer_refused_records, records)
    }

    /// Forgets the neighbour's life, and sets the positions in both feeds to 0. So both servers
    /// send their whole feeds on the next link. The caller is
    /// [`Herd::begin_life`](super::Herd::begin_life): this server's data was rolled back, so it
    /// begins a new life, which is a new history of its feed.
    pub(super) fn reset_for_new_life(&mut self) {
        self.life = None;
        self.synced = 0;
        self.confirmed = 0;
        self.confirmable = 0;
        if let Some(received) = self.received {
            self.set_received(received.boot, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lag_measures_time_and_not_pending_changes() {
        let at = |second| Time::default() + Duration::from_secs(second);
        let mut lag = Lag::default();
        let mut of =
            |confirmed, last_seq, second| lag.measure(confirmed, last_seq, at(second)).as_secs();
        assert_eq!(of(0, 0, 1), 0);
        // The neighbour is always a hundred changes behind, but confirms each change within a
        // second or two.
        for second in 1..100 {
            assert_eq!(of(second * 100, second * 100 + 100, second), 0);
        }
        assert_eq!(of(9_999, 20_000, 130), 31, "change 10,000 was marked at 99");
        assert_eq!(of(20_000, 20_000, 140), 0);
        assert_eq!(of(20_000, 20_001, 150), 0);
        assert_eq!(of(20_000, 20_009, 152), 2);
    }
}
