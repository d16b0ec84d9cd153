//! One neighbour: what is done to be linked with it, and how far each has got with the other's
//! feed.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use super::clock_watch::{ClockNews, ClockWatch};
use super::link_error::LinkError;
use super::log_dedup::{LogDedup, News};
use super::tls_offer::{Ending, TlsOffer};
use crate::core::base::backoff::Backoff;
use crate::core::base::boot_id::BootId;
use crate::core::base::clock::Time;
use crate::core::base::limits::{Limits, ms};
use crate::core::base::settings::{HostPort, NeighbourSettings};
use crate::core::base::slots::Id;
use crate::core::table::records::Origin;

/// The name of a neighbour. It is given out by the [`Herd`](super::Herd) that has the neighbour,
/// and stays true as long as that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NeighbourId(pub(super) usize);

/// How far a neighbour's feed has been heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// In which of its lives.
    pub boot: BootId,
    /// Up to which of its changes.
    pub position: u64,
}

/// What the dialling side is doing about a neighbour that is not linked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dial {
    /// It is the other side that dials, or there is a link.
    Nothing,
    /// Its name is being looked up.
    LookingUp,
    /// A connection is being made or proven; these addresses were not tried yet.
    Trying(VecDeque<SocketAddr>),
    /// After a failure.
    Waiting {
        /// Until when.
        until: Time,
    },
}

impl Dial {
    /// The names of the states.
    pub const STATES: [&'static str; 4] = ["nothing", "looking up", "trying", "waiting"];

    /// Which of [`Dial::STATES`] it is.
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

/// For how long a neighbour has not confirmed to keep our changes. Under load, some are always
/// unconfirmed; so a change is marked, and what counts is how long that one takes.
#[derive(Clone, Copy, Debug, Default)]
struct Lag {
    /// The change, and when it was marked.
    mark: Option<(u64, Time)>,
}

impl Lag {
    /// It has kept everything up to `kept`, while our latest change is `last_seq`: how long the
    /// marked change has taken.
    fn of(&mut self, kept: u64, last_seq: u64, now: Time) -> Duration {
        match self.mark {
            Some((seq, since)) if kept < seq => now.since(since),
            Some(_) | None => {
                self.mark = (kept < last_seq).then_some((last_seq, now));
                Duration::ZERO
            }
        }
    }
}

/// A link that held for so long was a good one.
const STEADY: Duration = Duration::from_secs(2);

/// A server that this one is configured to be linked with.
pub struct Neighbour {
    settings: NeighbourSettings,
    /// The connection that has proven to be it.
    link: Option<Id>,
    /// That connection speaks TLS.
    is_over_tls: bool,
    /// What is being done to have one.
    dial: Dial,
    /// Whether it is dialled with TLS next, where that is offered and not required.
    tls_offer: TlsOffer,
    /// How long to wait after the next failure.
    backoff: Backoff,
    /// Until when it is not let in, if it is the one that dials: it had proven itself, and then
    /// broke the protocol.
    kept_out_until: Time,
    /// Which life of it was met last, and the name under which what that life taught us is kept, so
    /// that it is not sent back.
    life: Option<(BootId, Origin)>,
    /// The greatest position that any of our `SYNC`s told it, in our present life.
    told: u64,
    /// The greatest position that it was told in any of our lives, as far as the journal tells. An
    /// older copy of the journal tells what was so when it was made.
    told_noted: u64,
    /// Up to which of our changes it has kept everything, as far as it said so.
    kept: u64,
    /// Records that it said it had to refuse.
    its_lacks: u64,
    /// Records of its feed that we had to refuse, and up to where its feed had come when that was
    /// last so.
    lacks: u64,
    come: Option<(BootId, u64)>,
    /// Its wall clock beside ours.
    clock: ClockWatch,
    /// What we have of its feed. In a new life, what was heard of the old one counts until the new
    /// one has said how that compares: it may know its old lives.
    heard: Option<Heard>,
    /// The journal tells of that.
    is_heard_noted: bool,
    /// Since when it is linked.
    linked_since: Time,
    /// Since when it is not.
    unlinked_since: Time,
    /// For how long it has not confirmed what it was to confirm.
    lag: Lag,
    /// What it was last told for.
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
            backoff: Backoff::new(ms(limits.redial_first_ms), ms(limits.redial_cap_ms)),
            kept_out_until: Time::default(),
            life: None,
            told: 0,
            told_noted: 0,
            kept: 0,
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

    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.settings.name
    }

    /// Where it is.
    #[must_use]
    pub fn target(&self) -> &HostPort {
        &self.settings.address
    }

    /// Whether it is this server that dials.
    #[must_use]
    pub fn we_dial(&self) -> bool {
        self.settings.we_dial
    }
}

/// Dialling: all of it does nothing where the other side dials.
impl Neighbour {
    /// What is being done to have a link.
    #[must_use]
    pub fn dial(&self) -> &Dial {
        &self.dial
    }

    /// Whether its name is being looked up.
    #[must_use]
    pub fn is_looked_up(&self) -> bool {
        self.dial == Dial::LookingUp
    }

    /// Its name is being looked up.
    pub fn look_up(&mut self) {
        self.dial = Dial::LookingUp;
    }

    /// A connection is being made; these addresses are left if it fails.
    pub fn try_address(&mut self, left: VecDeque<SocketAddr>) {
        self.dial = Dial::Trying(left);
    }

    /// It is dialled again after a while; returns how long. The wait is longer after each failure.
    pub fn dial_later(&mut self, random: u64, now: Time) -> Duration {
        let wait = self.backoff.next_wait(random);
        self.dial = Dial::Waiting { until: now + wait };
        wait
    }

    /// Whether that while is over.
    #[must_use]
    pub fn is_dial_due(&self, now: Time) -> bool {
        matches!(self.dial, Dial::Waiting { until } if until <= now)
    }

    /// A connection that we dialled is over: returns the addresses that are left to try.
    pub fn take_addresses(&mut self) -> Option<VecDeque<SocketAddr>> {
        match std::mem::replace(&mut self.dial, Dial::Nothing) {
            Dial::Trying(addresses) => Some(addresses),
            Dial::Nothing | Dial::LookingUp | Dial::Waiting { .. } => None,
        }
    }

    /// Whether it is dialled without TLS next, where that is offered and not required.
    #[must_use]
    pub fn is_plain_next(&self) -> bool {
        self.tls_offer.is_plain_next()
    }

    /// A connection that we dialled has ended.
    pub fn attempt_ended(&mut self, ending: Ending) {
        self.tls_offer.ended(ending);
    }

    /// There is no link, for this reason. Says what is news to the operator.
    pub fn not_linked(&mut self, reason: &LinkError, now: Time) -> News {
        self.log_dedup.note(reason, now)
    }

    /// How often there was none, since there was one.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.log_dedup.count()
    }
}

/// The link.
impl Neighbour {
    /// The connection that has proven to be it.
    #[must_use]
    pub fn link(&self) -> Option<Id> {
        self.link
    }

    /// Whether that connection speaks TLS.
    #[must_use]
    pub fn is_over_tls(&self) -> bool {
        self.is_over_tls
    }

    /// Since when there is none.
    #[must_use]
    pub fn unlinked_since(&self) -> Time {
        self.unlinked_since
    }

    /// `link` has proven to be it, and has our feed up to `from`. Returns the connection that it
    /// takes the place of.
    pub fn linked(&mut self, link: Id, is_over_tls: bool, from: u64, now: Time) -> Option<Id> {
        self.dial = Dial::Nothing;
        self.is_over_tls = is_over_tls;
        self.kept = from;
        self.its_lacks = 0;
        self.linked_since = now;
        self.lag = Lag::default();
        self.log_dedup.clear();
        self.link.replace(link)
    }

    /// `link` is over. Returns whether it was the one that counts.
    pub fn unlinked(&mut self, link: Id, now: Time) -> bool {
        let was_linked = self.link == Some(link);
        if was_linked {
            self.link = None;
            self.unlinked_since = now;
            self.has_held_until(now);
        }
        was_linked
    }

    /// Its link, which is over, held until now. One that comes and goes is backed off from ever
    /// more.
    fn has_held_until(&mut self, now: Time) {
        if now.since(self.linked_since) >= STEADY {
            self.backoff.reset();
        }
    }

    /// It had proven itself on `link`, and then broke the protocol: it may come again, and if it
    /// goes on like this, ever later. A neighbour that we dial is dialled ever later instead.
    pub fn broke_protocol(&mut self, link: Id, now: Time) {
        if self.link == Some(link) {
            self.has_held_until(now);
        }
        // The longest wait of that step: there is nobody to keep out of step with.
        self.kept_out_until = now + self.backoff.next_wait(u64::MAX);
    }

    /// Whether it has to wait before it is let in.
    #[must_use]
    pub fn is_kept_out(&self, now: Time) -> bool {
        now < self.kept_out_until
    }

    /// It says that its wall clock shows `theirs`, while ours shows `ours`.
    pub fn clock_shows(&mut self, theirs: u64, ours: u64) -> Option<ClockNews> {
        self.clock.reading(theirs, ours)
    }

    /// How far its clock was ahead of ours at the last reading, in milliseconds.
    #[must_use]
    pub fn clock_apart_ms(&self) -> Option<i64> {
        self.clock.apart_ms()
    }
}

/// Its feed.
impl Neighbour {
    /// It is in that life. What the life teaches us has the name of the one that is known already,
    /// or of a `new` one.
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

    /// Whether another life of it was met last.
    #[must_use]
    pub fn was_another(&self, boot: BootId) -> bool {
        self.life.is_some_and(|(known, _)| known != boot)
    }

    /// What we have of its feed.
    #[must_use]
    pub fn heard(&self) -> Option<Heard> {
        self.heard
    }

    /// In this life, its feed has been heard up to `position`.
    pub fn heard_up_to(&mut self, boot: BootId, position: u64) {
        let heard = Some(Heard { boot, position });
        self.is_heard_noted &= self.heard == heard;
        self.heard = heard;
    }

    /// What was heard and is not in the journal.
    #[must_use]
    pub fn unnoted_heard(&self) -> Option<Heard> {
        self.heard.filter(|_| !self.is_heard_noted)
    }

    /// The journal tells what was heard.
    pub fn heard_is_noted(&mut self) {
        self.is_heard_noted = true;
    }

    pub(super) fn restore_heard(&mut self, heard: Heard) {
        self.heard = Some(heard);
        self.is_heard_noted = true;
    }

    /// Records of its feed that we had to refuse.
    #[must_use]
    pub fn lacks(&self) -> u64 {
        self.lacks
    }

    pub(super) fn replace_lacks(&mut self, records: u64) -> u64 {
        std::mem::replace(&mut self.lacks, records)
    }

    /// Its feed came up to there, though not all of it was kept.
    pub fn came_up_to(&mut self, boot: BootId, position: u64) {
        self.come = Some((boot, position));
    }

    /// Up to where its feed had come, in that life, when something of it was refused; a life that
    /// is not known may have any end.
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
    /// The greatest position that any of our `SYNC`s told it, in our present life.
    #[must_use]
    pub fn told(&self) -> u64 {
        self.told
    }

    /// The greatest position that it was told in any of our lives, as far as the journal tells. An
    /// older copy of the journal tells what was so when it was made.
    #[must_use]
    pub fn told_noted(&self) -> u64 {
        self.told_noted
    }

    /// A `SYNC` tells it that position.
    pub fn tell(&mut self, position: u64) {
        self.told = self.told.max(position);
    }

    /// What it was told and the journal does not tell.
    #[must_use]
    pub fn unnoted_told(&self) -> Option<u64> {
        (self.told > self.told_noted).then_some(self.told)
    }

    /// The journal tells that it was told that position.
    pub fn told_is_noted(&mut self, position: u64) {
        self.told_noted = position;
    }

    /// Up to which of our changes it has kept everything, as far as it said so.
    #[must_use]
    pub fn kept(&self) -> u64 {
        self.kept
    }

    /// It says that it has kept everything up to `position`; our latest change is `last_seq`.
    ///
    /// # Errors
    /// It was told less: the position is the greatest that it can have.
    pub fn has_kept(&mut self, position: u64, last_seq: u64, now: Time) -> Result<(), u64> {
        if position > self.told {
            return Err(self.told);
        }
        self.kept = self.kept.max(position);
        self.lag(last_seq, now);
        Ok(())
    }

    /// For how long it has not confirmed a change, if our latest one is `last_seq`.
    pub fn lag(&mut self, last_seq: u64, now: Time) -> Duration {
        self.lag.of(self.kept, last_seq, now)
    }

    /// Records that it said it had to refuse.
    #[must_use]
    pub fn its_lacks(&self) -> u64 {
        self.its_lacks
    }

    /// It says that it had to refuse so many records. Returns how many it said before.
    pub fn says_it_lacks(&mut self, records: u64) -> u64 {
        std::mem::replace(&mut self.its_lacks, records)
    }

    /// A new life of ours begins: see [`Herd::begin_life`](super::Herd::begin_life).
    pub(super) fn forget_life(&mut self) {
        self.life = None;
        self.told = 0;
        self.kept = 0;
        if let Some(heard) = self.heard {
            self.heard_up_to(heard.boot, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lag_is_how_long_one_change_takes_and_not_how_many_are_on_their_way() {
        let at = |second| Time::default() + Duration::from_secs(second);
        let mut lag = Lag::default();
        let mut of = |kept, last_seq, second| lag.of(kept, last_seq, at(second)).as_secs();
        assert_eq!(of(0, 0, 1), 0);
        // Always a hundred behind, and never late.
        for second in 1..100 {
            assert_eq!(of(second * 100, second * 100 + 100, second), 0);
        }
        assert_eq!(of(9_999, 20_000, 130), 31, "change 10,000 was marked at 99");
        assert_eq!(of(20_000, 20_000, 140), 0);
        assert_eq!(of(20_000, 20_001, 150), 0);
        assert_eq!(of(20_000, 20_009, 152), 2);
    }
}
