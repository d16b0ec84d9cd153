//! One neighbour: how it is dialled, and how far each side has received the other's feed. The terms
//! are explained in [`core::link`](crate::core::link).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use super::clock_watch::{ClockNews, ClockWatch};
use super::link_error::LinkError;
use super::log_dedup::{LogDedup, Repeat};
use super::tls_offer::{Ending, TlsOffer};
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

/// How far a neighbour's feed was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The life of the neighbour to which the position belongs.
    pub boot: BootId,
    /// The position: everything up to this change of the neighbour was received.
    pub position: u64,
}

/// The state of dialling a neighbour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dial {
    /// Nothing to do: there is a link, or the other side dials.
    Nothing,
    /// The neighbour's host name is being looked up.
    LookingUp,
    /// A connection is being made, or is in the handshake. These addresses were not tried yet.
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
        let place = match self {
            Dial::Nothing => 0,
            Dial::LookingUp => 1,
            Dial::Trying(_) => 2,
            Dial::Waiting { .. } => 3,
        };
        Dial::STATES[place]
    }
}

/// Measures how long a neighbour takes to confirm a change of ours. Under load, some changes are
/// always unconfirmed. So [`Lag::of`] marks one change, and measures the time until the neighbour
/// confirms the marked change.
#[derive(Clone, Copy, Debug, Default)]
struct Lag {
    /// The marked change, and the time at which [`Lag::of`] marked it.
    mark: Option<(u64, Time)>,
}

impl Lag {
    /// Returns the time since a change was marked, if the neighbour has not confirmed the marked
    /// change. Otherwise marks the last change that it has to confirm, `owed`, if it is
    /// unconfirmed, and returns 0. The neighbour has confirmed all changes up to `kept`.
    fn of(&mut self, kept: u64, owed: u64, now: Time) -> Duration {
        match self.mark {
            Some((seq, since)) if kept < seq => now.since(since),
            Some(_) | None => {
                self.mark = (kept < owed).then_some((owed, now));
                Duration::ZERO
            }
        }
    }
}

/// A link that lasted at least this long resets the backoff.
const STEADY: Duration = Duration::from_secs(2);

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
    /// The wait after the next failure.
    backoff: Backoff,
    /// If the neighbour dials: this server rejects the neighbour until this time, because the
    /// neighbour broke the protocol after it had proven its name.
    kept_out_until: Time,
    /// The neighbour's last known life, and the origin of the records from that life. Records of
    /// this origin are not sent back to the neighbour.
    life: Option<(BootId, Origin)>,
    /// The greatest position that a `SYNC` of ours has sent to the neighbour in our present life.
    told: u64,
    /// The greatest position in our feed that we sent to the neighbour in a `SYNC` line, in any of
    /// our lives. It is from the journal. If the data directory is an older copy, the journal lacks
    /// later positions.
    told_noted: u64,
    /// The position in our feed up to which the neighbour has stored everything, according to its
    /// `LIFE` and its `KEPT` lines.
    kept: u64,
    /// The position in our feed up to which the neighbour has something to confirm. Changes that
    /// came from the neighbour are not sent to it, so it confirms them only with the next `SYNC`.
    owed: u64,
    /// Whether our feed has changes that the present link has not read yet.
    has_unsent: bool,
    /// The number of records that the neighbour refused, from its `LACKS` lines.
    its_lacks: u64,
    /// The number of records of the neighbour's feed that this server refused.
    lacks: u64,
    /// The last `SYNC` of the neighbour that followed a refused record: the neighbour's life, and
    /// the position in the `SYNC`.
    come: Option<(BootId, u64)>,
    /// The comparison of the neighbour's wall clock with ours.
    clock: ClockWatch,
    /// How far the neighbour's feed was received. When the neighbour begins a new life, the
    /// position in the old life stays here until the first `SYNC` of the new life. If the neighbour
    /// knows its old life, it continues its feed from this position.
    heard: Option<Heard>,
    /// Whether `heard` is in the journal.
    is_heard_noted: bool,
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
            kept_out_until: Time::default(),
            life: None,
            told: 0,
            told_noted: 0,
            kept: 0,
            owed: 0,
            has_unsent: false,
            its_lacks: 0,
            lacks: 0,
            come: None,
            clock: ClockWatch::default(),
            heard: None,
            is_heard_noted: false,
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

    /// Whether this server dials, and not the neighbour.
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
    pub fn is_looked_up(&self) -> bool {
        self.dial == Dial::LookingUp
    }

    /// A look-up of the neighbour's host name has begun.
    pub fn look_up(&mut self) {
        self.dial = Dial::LookingUp;
    }

    /// A connection is being made. If this attempt fails, the addresses in `left` are tried.
    pub fn try_address(&mut self, left: VecDeque<SocketAddr>) {
        self.dial = Dial::Trying(left);
    }

    /// Chooses when the neighbour is dialled again, and returns the wait until then. The wait grows
    /// after each failure.
    pub fn dial_later(&mut self, random: u64, now: Time) -> Duration {
        let wait = self.backoff.next_wait(random);
        self.dial = Dial::Waiting { until: now + wait };
        wait
    }

    /// Whether the wait of [`Neighbour::dial_later`] is over.
    #[must_use]
    pub fn is_dial_due(&self, now: Time) -> bool {
        matches!(self.dial, Dial::Waiting { until } if until <= now)
    }

    /// A connection that we dialled is closed. Returns the addresses that were not tried yet, or
    /// `None` if no attempt was running.
    pub fn take_addresses(&mut self) -> Option<VecDeque<SocketAddr>> {
        match std::mem::replace(&mut self.dial, Dial::Nothing) {
            Dial::Trying(addresses) => Some(addresses),
            Dial::Nothing | Dial::LookingUp | Dial::Waiting { .. } => None,
        }
    }

    /// Whether the next attempt is without TLS. The caller must ignore this if TLS is required, or
    /// is not offered.
    #[must_use]
    pub fn is_plain_next(&self) -> bool {
        self.tls_offer.is_plain_next()
    }

    /// A connection that we dialled has ended in this way.
    pub fn attempt_ended(&mut self, ending: Ending) {
        self.tls_offer.ended(ending);
    }

    /// An attempt to link has failed for this reason. Returns how the failure has to be logged.
    pub fn not_linked(&mut self, reason: &LinkError, now: Time) -> Repeat {
        self.log_dedup.note(reason, now)
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

    /// The connection `link` has proven to be this neighbour, and is linked. The neighbour has
    /// received our feed up to `from`. Returns the connection that `link` replaces, if there is
    /// one.
    pub fn linked(&mut self, link: Id, is_over_tls: bool, from: u64, now: Time) -> Option<Id> {
        self.dial = Dial::Nothing;
        self.is_over_tls = is_over_tls;
        self.kept = from;
        (self.owed, self.has_unsent) = (from, false);
        self.its_lacks = 0;
        self.linked_since = now;
        self.lag = Lag::default();
        self.log_dedup.clear();
        self.link.replace(link)
    }

    /// The connection `link` has ended. Returns whether `link` was the present link. Returns
    /// `false` if a newer connection had replaced `link`.
    pub fn unlinked(&mut self, link: Id, now: Time) -> bool {
        let was_linked = self.link == Some(link);
        if was_linked {
            self.link = None;
            self.unlinked_since = now;
            self.has_held_until(now);
        }
        was_linked
    }

    /// Resets the backoff if the link, which ends now, lasted at least [`STEADY`]. If links keep
    /// ending earlier, the wait of the backoff grows.
    fn has_held_until(&mut self, now: Time) {
        if now.since(self.linked_since) >= STEADY {
            self.backoff.reset();
        }
    }

    /// The neighbour broke the protocol on `link`, after it had proven its name. This server
    /// rejects the neighbour for a time that grows with each repetition. Called only if the
    /// neighbour dials. If this server dials, [`Neighbour::dial_later`] delays the next link
    /// instead.
    pub fn broke_protocol(&mut self, link: Id, now: Time) {
        if self.link == Some(link) {
            self.has_held_until(now);
        }
        // `u64::MAX` chooses the longest wait of the present backoff step. Random waits would keep
        // servers from acting at the same moment, but here only one server waits.
        self.kept_out_until = now + self.backoff.next_wait(u64::MAX);
    }

    /// Whether the neighbour is rejected now, because it broke the protocol a short time ago.
    #[must_use]
    pub fn is_kept_out(&self, now: Time) -> bool {
        now < self.kept_out_until
    }

    /// The neighbour has sent that its wall clock shows `theirs`, and our wall clock shows `ours`.
    /// Returns what has to be logged.
    pub fn clock_shows(&mut self, theirs: u64, ours: u64) -> Option<ClockNews> {
        self.clock.reading(theirs, ours)
    }

    /// Returns how far the neighbour's clock was ahead of ours at the last reading, in
    /// milliseconds.
    #[must_use]
    pub fn clock_apart_ms(&self) -> Option<i64> {
        self.clock.apart_ms()
    }
}

/// The neighbour's feed.
impl Neighbour {
    /// The neighbour is in the life `boot`. Returns the origin of the records from this life. If
    /// `boot` is not the last known life, calls `new` for the origin, and stores both.
    pub(super) fn lives(&mut self, boot: BootId, new: impl FnOnce() -> Origin) -> Origin {
        match self.life {
            Some((known, origin)) if known == boot => origin,
            Some(_) | None => {
                let origin = new();
                self.life = Some((boot, origin));
                origin
            }
        }
    }

    /// Whether another life of the neighbour than `boot` is stored. Returns `false` if no life is
    /// stored.
    #[must_use]
    pub fn was_another(&self, boot: BootId) -> bool {
        self.life.is_some_and(|(known, _)| known != boot)
    }

    /// Returns how far the neighbour's feed was received.
    #[must_use]
    pub fn heard(&self) -> Option<Heard> {
        self.heard
    }

    /// The neighbour's feed of the life `boot` was received up to `position`.
    pub fn heard_up_to(&mut self, boot: BootId, position: u64) {
        let heard = Some(Heard { boot, position });
        self.is_heard_noted &= self.heard == heard;
        self.heard = heard;
    }

    /// Returns how far the neighbour's feed was received, if the journal does not contain this
    /// position yet.
    #[must_use]
    pub fn unnoted_heard(&self) -> Option<Heard> {
        self.heard.filter(|_| !self.is_heard_noted)
    }

    /// The journal contains the position that [`Neighbour::heard`] returns.
    pub fn heard_is_noted(&mut self) {
        self.is_heard_noted = true;
    }

    pub(super) fn restore_heard(&mut self, heard: Heard) {
        self.heard = Some(heard);
        self.is_heard_noted = true;
    }

    /// Returns the number of records of the neighbour's feed that this server refused.
    #[must_use]
    pub fn lacks(&self) -> u64 {
        self.lacks
    }

    pub(super) fn replace_lacks(&mut self, records: u64) -> u64 {
        std::mem::replace(&mut self.lacks, records)
    }

    /// This server received a `SYNC` with `position` in the neighbour's life `boot`, after it had
    /// refused records on the same link.
    pub fn came_up_to(&mut self, boot: BootId, position: u64) {
        self.come = Some((boot, position));
    }

    /// Returns the position of the last `SYNC` that followed a refused record, if the neighbour
    /// sent this `SYNC` in the life `boot`. Otherwise returns `u64::MAX`.
    #[must_use]
    pub fn came(&self, boot: BootId) -> u64 {
        match self.come {
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
    pub fn told(&self) -> u64 {
        self.told
    }

    /// Returns the greatest position in our feed that we sent to the neighbour in a `SYNC` line, in
    /// any of our lives. It is from the journal. If the data directory is an older copy, the
    /// journal lacks later positions.
    #[must_use]
    pub fn told_noted(&self) -> u64 {
        self.told_noted
    }

    /// A `SYNC` sends `position` to the neighbour.
    pub fn tell(&mut self, position: u64) {
        self.told = self.told.max(position);
    }

    /// Returns the greatest position that a `SYNC` has sent in our present life, if the journal
    /// does not contain this position yet.
    #[must_use]
    pub fn unnoted_told(&self) -> Option<u64> {
        (self.told > self.told_noted).then_some(self.told)
    }

    /// The journal contains that `position` was sent to the neighbour.
    pub fn told_is_noted(&mut self, position: u64) {
        self.told_noted = position;
    }

    /// The present link has read our feed up to `position`. `has_said` is whether that put
    /// something into its output that the neighbour confirms. `has_unsent` is whether there is more
    /// to read.
    #[inline]
    pub fn read_up_to(&mut self, position: u64, has_said: bool, has_unsent: bool) {
        if has_said {
            self.owed = position;
        }
        self.has_unsent = has_unsent;
    }

    /// Returns the position in our feed up to which the neighbour has something to confirm. Our
    /// latest change is `last_seq`.
    fn owed(&self, last_seq: u64) -> u64 {
        match self.has_unsent {
            true => last_seq,
            false => self.owed,
        }
    }

    /// Returns the position in our feed up to which the neighbour has stored everything, according
    /// to its `LIFE` and its `KEPT` lines.
    #[must_use]
    pub fn kept(&self) -> u64 {
        self.kept
    }

    /// A `KEPT` of the neighbour confirms that the neighbour has stored all changes up to
    /// `position`. Our latest change is `last_seq`.
    ///
    /// # Errors
    /// If `position` is greater than all positions that a `SYNC` has sent. The error is the
    /// greatest position that was sent.
    pub fn has_kept(&mut self, position: u64, last_seq: u64, now: Time) -> Result<(), u64> {
        if position > self.told {
            return Err(self.told);
        }
        self.kept = self.kept.max(position);
        self.lag(last_seq, now);
        Ok(())
    }

    /// Returns for how long the marked change of `Lag` has been unconfirmed, or 0. Our latest
    /// change is `last_seq`.
    pub fn lag(&mut self, last_seq: u64, now: Time) -> Duration {
        let owed = self.owed(last_seq);
        self.lag.of(self.kept, owed, now)
    }

    /// Returns the number of records that the neighbour refused, from its `LACKS` lines.
    #[must_use]
    pub fn its_lacks(&self) -> u64 {
        self.its_lacks
    }

    /// Stores the number of records that the neighbour refused, from its latest `LACKS`. Returns
    /// the number from the `LACKS` before.
    pub fn says_it_lacks(&mut self, records: u64) -> u64 {
        std::mem::replace(&mut self.its_lacks, records)
    }

    /// A new life of this server begins: see [`Herd::begin_life`](super::Herd::begin_life).
    pub(super) fn forget_life(&mut self) {
        self.life = None;
        self.told = 0;
        self.kept = 0;
        self.owed = 0;
        if let Some(heard) = self.heard {
            self.heard_up_to(heard.boot, 0);
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
        let mut of = |kept, last_seq, second| lag.of(kept, last_seq, at(second)).as_secs();
        assert_eq!(of(0, 0, 1), 0);
        // The neighbour is always a hundred changes behind, but confirms each within a second or
        // two.
        for second in 1..100 {
            assert_eq!(of(second * 100, second * 100 + 100, second), 0);
        }
        assert_eq!(of(9_999, 20_000, 130), 31, "change 10,000 was marked at 99");
        assert_eq!(of(20_000, 20_000, 140), 0);
        assert_eq!(of(20_000, 20_001, 150), 0);
        assert_eq!(of(20_000, 20_009, 152), 2);
    }
}
