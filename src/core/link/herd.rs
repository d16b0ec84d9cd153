//! The neighbours of one server: whether each is linked, when it is dialled again, and how far it
//! has been heard.
//!
//! What this remembers of a neighbour outlives its connections; what happens on a connection is in
//! `link`.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use log::{debug, warn};

use crate::core::base::backoff::Backoff;
use crate::core::base::boot_id::BootId;
use crate::core::base::clock::Time;
use crate::core::base::limits::{Limits, ms};
use crate::core::base::settings::NeighbourSettings;
use crate::core::base::slots::Id;
use crate::core::link::tls_offer::TlsOffer;
use crate::core::table::records::Origin;

/// How far a neighbour's feed has been heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// In which of its lives.
    pub boot: BootId,
    /// Up to which of its changes.
    pub position: u64,
    /// The journal tells of it.
    pub is_noted: bool,
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

/// A server that this one is configured to be linked with.
pub struct Neighbour {
    /// Who and where it is.
    pub settings: NeighbourSettings,
    /// The connection that has proven to be it.
    pub link: Option<Id>,
    /// That connection speaks TLS.
    pub is_over_tls: bool,
    /// What is being done to have one.
    pub dial: Dial,
    /// Whether it is dialled with TLS next, where that is offered and not required.
    pub tls_offer: TlsOffer,
    /// How long to wait after the next failure.
    pub backoff: Backoff,
    /// Until when it is not let in, if it is the one that dials: it had proven itself, and then
    /// broke the protocol.
    pub kept_out_until: Time,
    /// Which life of it was met last, and the name under which what that life taught us is kept, so
    /// that it is not sent back.
    life: Option<(BootId, Origin)>,
    /// The greatest position that any of our `SYNC`s told it, in our present life.
    pub told: u64,
    /// The greatest position that it was told in any of our lives, as far as the journal tells. An
    /// older copy of the journal tells what was so when it was made.
    pub told_noted: u64,
    /// Up to which of our changes it has kept everything, as far as it said so.
    pub kept: u64,
    /// Records that it said it had to refuse.
    pub its_lacks: u64,
    /// Records of its feed that we had to refuse, and up to where its feed had come when that was
    /// last so.
    lacks: u64,
    come: Option<(BootId, u64)>,
    /// Its wall clock beside ours.
    pub clock: ClockWatch,
    /// What we have of its feed. In a new life, what was heard of the old one counts until the new
    /// one has said how that compares: it may know its old lives.
    pub heard: Option<Heard>,
    /// Since when it is linked.
    pub linked_since: Time,
    /// Since when it is not.
    pub unlinked_since: Time,
    /// For how long it has not confirmed what it was to confirm.
    pub lag: Lag,
    /// What it was last told for.
    pub log_dedup: LogDedup,
}

/// For how long a neighbour has not confirmed to keep our changes. Under load, some are always
/// unconfirmed; so a change is marked, and what counts is how long that one takes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lag {
    /// The change, and when it was marked.
    mark: Option<(u64, Time)>,
}

impl Lag {
    /// It has kept everything up to `kept`, while our latest change is `last_seq`: how long the
    /// marked change has taken.
    pub fn of(&mut self, kept: u64, last_seq: u64, now: Time) -> Duration {
        match self.mark {
            Some((seq, since)) if kept < seq => now.since(since),
            Some(_) | None => {
                self.mark = (kept < last_seq).then_some((last_seq, now));
                Duration::ZERO
            }
        }
    }
}

/// A wall clock that is further off than this is told in the log.
const CLOCK_TOLERANCE_NS: i64 = 1_000_000_000;

/// A neighbour's wall clock beside ours, by what it says of it.
#[derive(Default)]
pub struct ClockWatch {
    apart_ns: Option<i64>,
    was_behind: bool,
    is_told: bool,
}

/// What the log has to be told of a neighbour's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockNews {
    /// It is so many nanoseconds ahead of ours, or behind if less than zero.
    Apart(i64),
    /// The two agree again.
    Agrees,
}

impl ClockWatch {
    /// It says that its clock shows `theirs`, while ours shows `ours`. That may have been on its
    /// way for long: a clock that seems behind is only taken to be so if it seems so twice in a
    /// row.
    pub fn reading(&mut self, theirs: u64, ours: u64) -> Option<ClockNews> {
        let apart = i64::try_from(i128::from(theirs) - i128::from(ours));
        let apart = apart.unwrap_or(if theirs > ours { i64::MAX } else { i64::MIN });
        self.apart_ns = Some(apart);
        let (is_ahead, is_behind) = (apart > CLOCK_TOLERANCE_NS, apart < -CLOCK_TOLERANCE_NS);
        let was_behind = std::mem::replace(&mut self.was_behind, is_behind);
        match self.is_told {
            false if is_ahead || is_behind && was_behind => {
                self.is_told = true;
                Some(ClockNews::Apart(apart))
            }
            true if !is_ahead && !is_behind => {
                self.is_told = false;
                Some(ClockNews::Agrees)
            }
            true | false => None,
        }
    }

    /// How far its clock was ahead of ours at the last reading, in milliseconds.
    #[must_use]
    pub fn apart_ms(&self) -> Option<i64> {
        self.apart_ns.map(|apart| apart / 1_000_000)
    }
}

/// Remembers what the log was told of, so that no failure is told every second: each kind of reason
/// once, then, every ten minutes as long as it comes, how often it came. Two that come in turn (one
/// address of a name refuses, the other is out of reach) are two kinds.
#[derive(Default)]
pub struct LogDedup {
    /// The latest last.
    told: Vec<Told>,
    /// All since [`LogDedup::clear`].
    count: u64,
}

struct Told {
    reason: String,
    at: Time,
    /// So often it came since then.
    since: u64,
}

/// What the log is to be told of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// It is new.
    First,
    /// It came so many times more since it was told last.
    Again(u64),
    /// It was told lately.
    Known,
}

/// As many kinds of reason are told apart.
const COMPLAINTS: usize = 16;
/// What goes on is told again so often.
const TOLD_AGAIN: Duration = Duration::from_secs(600);

/// A link that held for so long was a good one.
const STEADY: Duration = Duration::from_secs(2);
/// In [`UNPROVEN_EVERY`], so many refusals of unproven peers are told of at level `warn`.
const UNPROVEN_TOLD: u32 = 20;
/// See [`UNPROVEN_TOLD`].
const UNPROVEN_EVERY: Duration = Duration::from_secs(60);

/// Tells the log what unproven peers were refused for. Any machine can be one, as often as it
/// likes, and say something else each time; so the operator is told of what is new, and not of too
/// much.
#[derive(Default)]
pub struct Unproven {
    log_dedup: LogDedup,
    told: u32,
    since: Time,
}

/// All of them.
pub struct Herd {
    /// In the order of the settings.
    pub neighbours: Vec<Neighbour>,
    last_origin: Origin,
    /// Records of neighbours' feeds that had to be refused: while there are any, the table is not
    /// all that the herd knows.
    lacks: u64,
    /// Our history was rolled back: what neighbours know of our earlier lives says nothing.
    forgets_lives: bool,
    /// Those who are none of them.
    pub unproven: Unproven,
}

impl Herd {
    /// No neighbour is linked yet.
    #[must_use]
    pub fn new(neighbours: Vec<NeighbourSettings>, limits: &Limits) -> Herd {
        let neighbours = neighbours.into_iter().map(|settings| Neighbour {
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
            linked_since: Time::default(),
            unlinked_since: Time::default(),
            lag: Lag::default(),
            log_dedup: LogDedup::default(),
        });
        Herd {
            neighbours: neighbours.collect(),
            last_origin: Origin::NONE,
            lacks: 0,
            forgets_lives: false,
            unproven: Unproven::default(),
        }
    }

    /// The neighbour of that name.
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<usize> {
        self.neighbours
            .iter()
            .position(|neighbour| neighbour.settings.name.as_bytes() == name)
    }

    /// What a journal tells of a neighbour; one that is no neighbour any more is passed over.
    pub fn restore(&mut self, name: &[u8], boot: BootId, position: u64) {
        if let Some(neighbour) = self.find(name) {
            self.neighbours[neighbour].heard = Some(Heard {
                boot,
                position,
                is_noted: true,
            });
        }
    }

    /// A journal tells up to where a neighbour was told of our feed.
    pub fn restore_told(&mut self, name: &[u8], position: u64) {
        if let Some(neighbour) = self.find(name) {
            self.neighbours[neighbour].told_noted = position;
        }
    }

    /// Records of neighbours' feeds that had to be refused.
    #[must_use]
    pub fn lacks(&self) -> u64 {
        self.lacks
    }

    /// So many records of a neighbour's feed are lacking, as far as is known.
    pub fn lacks_of(&mut self, neighbour: usize, records: u64) {
        let before = std::mem::replace(&mut self.neighbours[neighbour].lacks, records);
        self.lacks = self.lacks - before + records;
    }

    /// Whether neighbours' knowledge of our earlier lives says nothing.
    #[must_use]
    pub fn forgets_lives(&self) -> bool {
        self.forgets_lives
    }

    /// Our history was rolled back, and a new life begins. What neighbours taught us in the last
    /// one counts as taught by no neighbour, so that it is sent to all; and all of theirs is asked
    /// for.
    pub fn begin_life(&mut self) {
        self.forgets_lives = true;
        for neighbour in &mut self.neighbours {
            neighbour.life = None;
            neighbour.told = 0;
            neighbour.kept = 0;
            if let Some(heard) = neighbour.heard {
                neighbour.heard_up_to(heard.boot, 0);
            }
        }
    }

    /// The neighbour says which life it is in. Returns the name under which what that life teaches
    /// is kept.
    pub fn lives(&mut self, neighbour: usize, boot: BootId) -> Origin {
        let life = &mut self.neighbours[neighbour].life;
        match *life {
            Some((known, origin)) if known == boot => origin,
            Some(_) | None => {
                self.last_origin = self.last_origin.next();
                *life = Some((boot, self.last_origin));
                self.last_origin
            }
        }
    }
}

impl Neighbour {
    /// Its link, which is over, held until now. One that comes and goes is backed off from ever
    /// more.
    pub fn has_held_until(&mut self, now: Time) {
        if now.since(self.linked_since) >= STEADY {
            self.backoff.reset();
        }
    }

    /// It had proven itself, and then broke the protocol: it may come again, and if it goes on like
    /// this, ever later. Whom we dial is dialled ever later instead.
    pub fn keep_out(&mut self, now: Time) {
        // The longest wait of that step: there is nobody to keep out of step with.
        self.kept_out_until = now + self.backoff.next_wait(u64::MAX);
    }

    /// Records of its feed that we had to refuse.
    #[must_use]
    pub fn lacks(&self) -> u64 {
        self.lacks
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

    /// Whether another life of it was met last.
    #[must_use]
    pub fn was_another(&self, boot: BootId) -> bool {
        self.life.is_some_and(|(known, _)| known != boot)
    }

    /// In this life, its feed has been heard up to `position`.
    pub fn heard_up_to(&mut self, boot: BootId, position: u64) {
        let before = self
            .heard
            .filter(|heard| (heard.boot, heard.position) == (boot, position));
        self.heard = Some(before.unwrap_or(Heard {
            boot,
            position,
            is_noted: false,
        }));
    }
}

impl Unproven {
    /// One of them was refused.
    pub fn refused(&mut self, who: impl fmt::Display, reason: &str, now: Time) {
        if now.since(self.since) >= UNPROVEN_EVERY {
            (self.since, self.told) = (now, 0);
        }
        let news = match self.told < UNPROVEN_TOLD {
            true => self.log_dedup.note(reason, now),
            false => News::Known,
        };
        if news == News::Known {
            return debug!("{who}: refused: {reason}");
        }
        warn!("{who}: refused: {reason}{news}");
        self.told += 1;
        if self.told == UNPROVEN_TOLD {
            let minutes = UNPROVEN_EVERY.as_secs() / 60;
            warn!(
                "unproven peers: {UNPROVEN_TOLD} were told of within {minutes} minute; until it is over, more are at level debug only"
            );
        }
    }
}

impl LogDedup {
    /// Notes a failure; says what is news to the operator.
    pub fn note(&mut self, reason: &str, now: Time) -> News {
        self.count += 1;
        let known = self.told.iter().position(|told| told.reason == reason);
        let Some(place) = known else {
            if self.told.len() >= COMPLAINTS {
                self.told.remove(0);
            }
            self.told.push(Told {
                reason: reason.to_owned(),
                at: now,
                since: 0,
            });
            return News::First;
        };
        let mut told = self.told.remove(place);
        told.since += 1;
        let news = match now.since(told.at) >= TOLD_AGAIN {
            true => {
                told.at = now;
                News::Again(std::mem::take(&mut told.since))
            }
            false => News::Known,
        };
        self.told.push(told);
        news
    }

    /// How many failures there were since all was well.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// All is well: whatever fails next is news.
    pub fn clear(&mut self) {
        *self = LogDedup::default();
    }
}

impl fmt::Display for News {
    /// What stands behind the reason.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            News::First | News::Known => Ok(()),
            News::Again(times) => {
                let minutes = TOLD_AGAIN.as_secs() / 60;
                write!(f, " ({times} times more in the last {minutes} minutes)")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_reason_is_told_once_and_then_how_often_it_came() {
        let mut log_dedup = LogDedup::default();
        let mut told = Vec::new();
        // Two in turn, each once a second, for twenty minutes and a bit.
        for second in 0..1_210 {
            for reason in ["refused", "unreachable"] {
                let news = log_dedup.note(reason, Time::default() + Duration::from_secs(second));
                if news != News::Known {
                    told.push((second, reason, news));
                }
            }
        }
        assert_eq!(
            told,
            [
                (0, "refused", News::First),
                (0, "unreachable", News::First),
                (600, "refused", News::Again(600)),
                (600, "unreachable", News::Again(600)),
                (1_200, "refused", News::Again(600)),
                (1_200, "unreachable", News::Again(600)),
            ]
        );
        assert_eq!(log_dedup.count(), 2_420);
        log_dedup.clear();
        assert_eq!(log_dedup.note("refused", Time::default()), News::First);
        // One that makes up reasons does not make it grow.
        for reason in 0..1_000 {
            log_dedup.note(&reason.to_string(), Time::default());
        }
        assert_eq!(log_dedup.told.len(), COMPLAINTS);
    }

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

    #[test]
    fn clocks_that_are_apart_are_told_once_and_a_late_line_is_no_slow_clock() {
        const SECOND: u64 = 1_000_000_000;
        let mut clock = ClockWatch::default();
        let mut reading = |theirs: u64| clock.reading(theirs * SECOND, 100 * SECOND);
        assert_eq!(reading(98), None, "it may have been on its way for 2 s");
        assert_eq!(reading(100), None);
        assert_eq!(reading(98), None);
        assert_eq!(reading(97), Some(ClockNews::Apart(-3_000_000_000)));
        assert_eq!(reading(98), None, "it is told");
        assert_eq!(reading(101), Some(ClockNews::Agrees));
        assert_eq!(reading(102), Some(ClockNews::Apart(2_000_000_000)));
        assert_eq!(clock.apart_ms(), Some(2_000));
        assert_eq!(clock.reading(u64::MAX, 0), None);
        assert_eq!(clock.apart_ms(), Some(i64::MAX / 1_000_000));
    }
}
