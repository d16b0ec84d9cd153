//! The neighbours of one server: whether each neighbour is linked, when each neighbour is dialled
//! again, and up to which position its feed was received.
//!
//! This module stores what outlives a connection to a neighbour. The connection itself is in
//! [`core::link`](crate::core::link), which also explains lives, positions and the lines of the
//! protocol. A feed is a server's table as an ordered list of changes: see
//! [`core::table::records`](crate::core::table::records).

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
pub use self::log_dedup::{LogDedup, Repeat};
pub use self::neighbour::{Dial, Heard, Neighbour, NeighbourId};
use crate::core::base::boot_id::BootId;
use crate::core::base::clock::Time;
use crate::core::base::limits::Limits;
use crate::core::base::settings::NeighbourSettings;
use crate::core::table::records::Origin;

/// Within [`UNPROVEN_EVERY`], at most this number of refusals of unproven peers are logged as
/// warnings.
const UNPROVEN_TOLD: u32 = 20;
/// The length of the period for [`UNPROVEN_TOLD`].
const UNPROVEN_EVERY: Duration = Duration::from_secs(60);

/// Logs why unproven peers were refused. An unproven peer has not proven to be a neighbour. Any
/// machine can connect as often as it likes, and cause a new reason each time. So repeated reasons
/// are not logged as warnings, and the number of warnings per period is limited.
#[derive(Default)]
struct Unproven {
    log_dedup: LogDedup,
    told: u32,
    since: Time,
}

/// All neighbours of one server.
pub struct Herd {
    /// In the order of the settings.
    neighbours: Vec<Neighbour>,
    last_origin: Origin,
    /// The number of records in neighbours' feeds that this server refused. If it is not 0, this
    /// server's table does not contain everything that the herd knows.
    lacks: u64,
    /// Whether our history was rolled back. If so, positions in our earlier lives are not valid. A
    /// neighbour that reports such a position is sent our whole feed.
    forgets_lives: bool,
    /// The log of refused unproven peers.
    unproven: Unproven,
}

impl Herd {
    /// Creates the neighbours of the settings. None is linked yet.
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

    /// Returns the ids of the neighbours, in the order of the settings.
    pub fn ids(&self) -> impl Iterator<Item = NeighbourId> + use<> {
        (0..self.neighbours.len()).map(NeighbourId)
    }

    /// Returns the neighbours, in the order of the settings.
    pub fn iter(&self) -> impl Iterator<Item = &Neighbour> {
        self.neighbours.iter()
    }

    /// Returns the neighbours for modification, in the order of the settings.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Neighbour> {
        self.neighbours.iter_mut()
    }

    /// Returns the id of the neighbour with this name.
    #[must_use]
    pub fn find(&self, name: &[u8]) -> Option<NeighbourId> {
        let mut names = self.iter().map(|neighbour| neighbour.name().as_bytes());
        names.position(|other| other == name).map(NeighbourId)
    }

    /// Returns a neighbour.
    #[must_use]
    pub fn get(&self, id: NeighbourId) -> &Neighbour {
        &self.neighbours[id.0]
    }

    /// Returns a neighbour for modification.
    pub fn get_mut(&mut self, id: NeighbourId) -> &mut Neighbour {
        &mut self.neighbours[id.0]
    }

    /// Restores from the journal the position up to which the feed of neighbour `name` was
    /// received. Does nothing if `name` is not a neighbour any more.
    pub fn restore_heard(&mut self, name: &[u8], heard: Heard) {
        if let Some(id) = self.find(name) {
            self.get_mut(id).restore_heard(heard);
        }
    }

    /// Restores from the journal the greatest position in our feed that a `SYNC` has sent to
    /// neighbour `name`. Does nothing if `name` is not a neighbour any more.
    pub fn restore_told(&mut self, name: &[u8], position: u64) {
        if let Some(id) = self.find(name) {
            self.get_mut(id).told_is_noted(position);
        }
    }

    /// Logs that a peer was refused before it had proven a name.
    pub fn refused_unproven(&mut self, who: impl fmt::Display, reason: &LinkError, now: Time) {
        self.unproven.refused(who, reason, now);
    }

    /// Returns the number of records in neighbours' feeds that this server refused.
    #[must_use]
    pub fn lacks(&self) -> u64 {
        self.lacks
    }

    /// Sets the number of records in the feed of `neighbour` that this server refused. The number
    /// is approximate.
    pub fn lacks_of(&mut self, neighbour: NeighbourId, records: u64) {
        let before = self.get_mut(neighbour).replace_lacks(records);
        self.lacks = self.lacks - before + records;
    }

    /// Whether our history was rolled back. If so, positions in our earlier lives are not valid.
    #[must_use]
    pub fn forgets_lives(&self) -> bool {
        self.forgets_lives
    }

    /// Our history was rolled back, and a new life begins. At its next link, each neighbour is sent
    /// our whole feed, and is asked for its whole feed. The neighbour's records get a new origin,
    /// so records that came from a neighbour are sent back to that neighbour too.
    pub fn begin_life(&mut self) {
        self.forgets_lives = true;
        self.iter_mut().for_each(Neighbour::forget_life);
    }

    /// Handles the life `boot` from a `LIFE` of the neighbour. Returns the origin under which the
    /// table stores the records from this life.
    pub fn lives(&mut self, neighbour: NeighbourId, boot: BootId) -> Origin {
        let last_origin = &mut self.last_origin;
        self.neighbours[neighbour.0].lives(boot, || {
            *last_origin = last_origin.next();
            *last_origin
        })
    }
}

impl Unproven {
    /// Logs that a peer was refused.
    fn refused(&mut self, who: impl fmt::Display, reason: &LinkError, now: Time) {
        if now.since(self.since) >= UNPROVEN_EVERY {
            (self.since, self.told) = (now, 0);
        }
        let repeat = match self.told < UNPROVEN_TOLD {
            true => self.log_dedup.note(reason, now),
            false => Repeat::Known,
        };
        if repeat == Repeat::Known {
            return debug!("{who}: refused: {reason}");
        }
        warn!("{who}: refused: {reason}{repeat}");
        self.told += 1;
        if self.told == UNPROVEN_TOLD {
            let minutes = UNPROVEN_EVERY.as_secs() / 60;
            warn!(
                "unproven peers: {UNPROVEN_TOLD} were told of within {minutes} minute; until it is over, more are at level debug only"
            );
        }
    }
}
