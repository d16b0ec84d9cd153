//! The neighbours of one server: whether each is linked, when it is dialled again, and how far it
//! has been heard.
//!
//! What this remembers of a neighbour outlives its connections; what happens on a connection is in
//! [`core::link`](crate::core::link).

mod clock_watch;
mod link_error;
mod log_dedup;
mod neighbour;
pub mod tls_offer;

use std::fmt;
use std::time::Duration;

use log::{debug, warn};

pub use self::clock_watch::{ClockNews, ClockWatch};
pub use self::link_error::LinkError;
pub use self::log_dedup::{LogDedup, News};
pub use self::neighbour::{Dial, Heard, Neighbour, NeighbourId};
use crate::core::base::boot_id::BootId;
use crate::core::base::clock::Time;
use crate::core::base::limits::Limits;
use crate::core::base::settings::NeighbourSettings;
use crate::core::table::records::Origin;

/// In [`UNPROVEN_EVERY`], so many refusals of unproven peers are told of at level `warn`.
const UNPROVEN_TOLD: u32 = 20;
/// See [`UNPROVEN_TOLD`].
const UNPROVEN_EVERY: Duration = Duration::from_secs(60);

/// Tells the log what unproven peers were refused for. Any machine can be one, as often as it
/// likes, and say something else each time; so the operator is told of what is new, and not of too
/// much.
#[derive(Default)]
struct Unproven {
    log_dedup: LogDedup,
    told: u32,
    since: Time,
}

/// All of them.
pub struct Herd {
    /// In the order of the settings.
    neighbours: Vec<Neighbour>,
    last_origin: Origin,
    /// Records of neighbours' feeds that had to be refused: while there are any, the table is not
    /// all that the herd knows.
    lacks: u64,
    /// Our history was rolled back: what neighbours know of our earlier lives says nothing.
    forgets_lives: bool,
    /// Those who are none of them.
    unproven: Unproven,
}

impl Herd {
    /// No neighbour is linked yet.
    #[must_use]
    pub fn new(neighbours: Vec<NeighbourSettings>, limits: &Limits) -> Herd {
        let neighbours = neighbours
            .into_iter()
            .map(|settings| Neighbour::new(settings, limits));
        Herd {
            neighbours: neighbours.collect(),
            last_origin: Origin::NONE,
            lacks: 0,
            forgets_lives: false,
            unproven: Unproven::default(),
        }
    }

    /// The names of the neighbours, in the order of the settings.
    pub fn ids(&self) -> impl Iterator<Item = NeighbourId> + use<> {
        (0..self.neighbours.len()).map(NeighbourId)
    }

    /// The neighbours, in the order of the settings.
    pub fn iter(&self) -> impl Iterator<Item = &Neighbour> {
        self.neighbours.iter()
    }

    /// The same, to be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Neighbour> {
        self.neighbours.iter_mut()
    }

    /// The neighbour of that name.
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<NeighbourId> {
        let mut names = self.iter().map(|neighbour| neighbour.name().as_bytes());
        names.position(|other| other == name).map(NeighbourId)
    }

    /// A neighbour.
    #[must_use]
    pub fn get(&self, id: NeighbourId) -> &Neighbour {
        &self.neighbours[id.0]
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, id: NeighbourId) -> &mut Neighbour {
        &mut self.neighbours[id.0]
    }

    /// What a journal tells of a neighbour; one that is no neighbour any more is passed over.
    pub fn restore_heard(&mut self, name: &[u8], heard: Heard) {
        if let Some(id) = self.find(name) {
            self.get_mut(id).restore_heard(heard);
        }
    }

    /// A journal tells up to where a neighbour was told of our feed.
    pub fn restore_told(&mut self, name: &[u8], position: u64) {
        if let Some(id) = self.find(name) {
            self.get_mut(id).told_is_noted(position);
        }
    }

    /// A peer that had not proven a name was refused. Tells the log.
    pub fn refused_unproven(&mut self, who: impl fmt::Display, reason: &LinkError, now: Time) {
        self.unproven.refused(who, reason, now);
    }

    /// Records of neighbours' feeds that had to be refused.
    #[must_use]
    pub fn lacks(&self) -> u64 {
        self.lacks
    }

    /// So many records of a neighbour's feed are lacking, as far as is known.
    pub fn lacks_of(&mut self, neighbour: NeighbourId, records: u64) {
        let before = self.get_mut(neighbour).replace_lacks(records);
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
        self.iter_mut().for_each(Neighbour::forget_life);
    }

    /// The neighbour says which life it is in. Returns the name under which what that life teaches
    /// is kept.
    pub fn lives(&mut self, neighbour: NeighbourId, boot: BootId) -> Origin {
        let last_origin = &mut self.last_origin;
        self.neighbours[neighbour.0].lives(boot, || {
            *last_origin = last_origin.next();
            *last_origin
        })
    }
}

impl Unproven {
    /// One of them was refused.
    fn refused(&mut self, who: impl fmt::Display, reason: &LinkError, now: Time) {
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
