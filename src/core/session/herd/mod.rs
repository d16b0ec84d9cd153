//! The neighbours of one server: whether each neighbour is linked, when each neighbour is dialled
//! again, and up to which position its feed was received. The herd is all servers that share their
//! tables.
//!
//! This module stores what outlives a connection to a neighbour. The connection itself is in
//! [`core::link`](crate::core::link), which also explains lives, positions and the lines of the
//! protocol, such as `SYNC` and `LIFE`. A feed is a server's table as an ordered list of changes:
//! see [`core::table::records`](crate::core::table::records).

mod clock_watch;
mod link_error;
mod log_dedup;
mod neighbour;
pub mod tls_offer;

use std::fmt;
use std::time::Duration;

use log::{debug, warn};

pub use self::clock_watch::{ClockChange, ClockWatch};
pub use self::link_error::LinkError;
pub use self::log_dedup::{LogDedup, Repeat};
pub use self::neighbour::{Dial, FeedPosition, Neighbour, NeighbourId};
use crate::core::base::boot_id::BootId;
use crate::core::base::clock::Time;
use crate::core::base::limits::Limits;
use crate::core::base::settings::NeighbourSettings;
use crate::core::base::slots::Id;
use crate::core::table::records::Origin;

/// Within [`UNPROVEN_WARNING_PERIOD`], at most this number of refusals of unproven peers are logged
/// as warnings.
const MAX_UNPROVEN_WARNINGS: u32 = 20;
/// The length of the period for [`MAX_UNPROVEN_WARNINGS`].
const UNPROVEN_WARNING_PERIOD: Duration = Duration::from_secs(60);

/// Logs why unproven peers were refused. An unproven peer has not proven to be a neighbour. Any
/// machine can connect as often as it likes, with a new reason for a refusal each time. So repeated
/// reasons are not logged as warnings, and the number of warnings per period is limited.
#[derive(Default)]
struct RefusalLog {
    log_dedup: LogDedup,
    warned: u32,
    since: Time,
}

/// All neighbours of one server.
pub struct Herd {
    /// In the order of the settings.
    neighbours: Vec<Neighbour>,
    last_origin: Origin,
    /// The number of records in neighbours' feeds that this server refused. If this number is not
    /// 0, this server's table lacks records that other servers of the herd have.
    refused_records: u64,
    /// Whether our history was rolled back: an older copy of our data was restored, so some of our
    /// changes were lost. Then positions in our earlier lives are not valid. If a neighbour reports
    /// such a position, this server sends our whole feed to the neighbour.
    was_rolled_back: bool,
    /// The log of refused unproven peers.
    refusal_log: RefusalLog,
    /// The connections of operators that have asked with `FOLLOW` for all changes of the table.
    followers: Vec<Id>,
}

impl Herd {
    /// Creates the neighbours of the settings. No neighbour is linked yet.
    #[must_use]
    pub fn new(neighbours: Vec<NeighbourSettings>, limits: &Limits) -> Herd {
        let neighbours = neighbours
            .into_iter()
            .map(|settings| Neighbour::new(settings, limits));
        Herd {
            neighbours: neighbours.collect(),
            last_origin: Origin::LOCAL,
            refused_records: 0,
            was_rolled_back: false,
            refusal_log: RefusalLog::default(),
            followers: Vec::new(),
        }
    }

    /// Returns the connections of operators that have asked with `FOLLOW` for all changes of the
    /// table.
    #[must_use]
    pub fn followers(&self) -> &[Id] {
        &self.followers
    }

    /// Adds the connection of an operator that has asked with `FOLLOW` for all changes of the
    /// table.
    pub fn follower_begins(&mut self, id: Id) {
        self.followers.push(id);
    }

    /// Removes a connection that [`Herd::follower_begins`] has added, because the connection is
    /// lost.
    pub fn follower_is_lost(&mut self, id: Id) {
        self.followers.retain(|other| *other != id);
    }

    /// Returns the ids of the neighbours, in the order of the settings.
    pub fn ids(&self) -> impl Iterator<Item = NeighbourId> + use<> {
        (0..self.neighbours.len()).map(NeighbourId)
    }

    /// Returns the neighbours, in the order of the settings.
    pub fn iter(&self) -> impl Iterator<Item = &Neighbour> {
        self.neighbours.iter()
    }

    /// Returns mutable references to the neighbours, in the order of the settings.
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

    /// Returns a mutable reference to a neighbour.
    pub fn get_mut(&mut self, id: NeighbourId) -> &mut Neighbour {
        &mut self.neighbours[id.0]
    }

    /// Restores from the journal the position up to which the feed of neighbour `name` was
    /// received. Does nothing if `name` is not a neighbour any more.
    pub fn restore_received(&mut self, name: &[u8], received: FeedPosition) {
        if let Some(id) = self.find(name) {
            self.get_mut(id).restore_received(received);
        }
    }

    /// Restores from the journal the greatest position in our feed that a `SYNC` of this server has
    /// sent to neighbour `name`. Does nothing if `name` is not a neighbour any more.
    pub fn restore_synced(&mut self, name: &[u8], position: u64) {
        if let Some(id) = self.find(name) {
            self.get_mut(id).set_journaled_synced(position);
        }
    }

    /// Logs that a peer was refused before it had proven a name.
    pub fn log_refused_unproven(
        &mut self,
        label: impl fmt::Display,
        reason: &LinkError,
        now: Time,
    ) {
        self.refusal_log.log_refusal(label, reason, now);
    }

    /// Returns the number of records in neighbours' feeds that this server refused.
    #[must_use]
    pub fn refused_records(&self) -> u64 {
        self.refused_records
    }

    /// Sets the number of records in the feed of `neighbour` that this server refused. The number
    /// is approximate.
    pub fn set_refused_records(&mut self, neighbour: NeighbourId, records: u64) {
        let before = self.get_mut(neighbour).replace_refused_records(records);
        self.refused_records = self.refused_records - before + records;
    }

    /// Whether our history was rolled back, so that positions in our earlier lives are not valid.
    #[must_use]
    pub fn was_rolled_back(&self) -> bool {
        self.was_rolled_back
    }

    /// Prepares all neighbours for a new life of this server, which begins because our history was
    /// rolled back. At the next link with each neighbour, this server sends its whole feed and
    /// requests the neighbour's whole feed. The whole feed also contains records that came from
    /// this neighbour, because the neighbour's records get a new origin.
    pub fn begin_life(&mut self) {
        self.was_rolled_back = true;
        self.iter_mut().for_each(Neighbour::reset_for_new_life);
    }

    /// Handles the life `boot` from a `LIFE` line that the neighbour sent. Returns the origin under
    /// which the table stores the records from this life.
    pub fn origin_of_life(&mut self, neighbour: NeighbourId, boot: BootId) -> Origin {
        let last_origin = &mut self.last_origin;
        self.neighbours[neighbour.0].origin_of_life(boot, || {
            *last_origin = last_origin.next();
            *last_origin
        })
    }
}

impl RefusalLog {
    /// Logs that a peer was refused for `reason`. The level is warning or debug: see
    /// [`RefusalLog`].
    fn log_refusal(&mut self, label: impl fmt::Display, reason: &LinkError, now: Time) {
        if now.since(self.since) >= UNPROVEN_WARNING_PERIOD {
            (self.since, self.warned) = (now, 0);
        }
        let repeat = match self.warned < MAX_UNPROVEN_WARNINGS {
            true => self.log_dedup.record(reason, now),
            false => Repeat::Suppressed,
        };
        if repeat == Repeat::Suppressed {
            return debug!("{label}: refused: {reason}");
        }
        warn!("{label}: refused: {reason}{repeat}");
        self.warned += 1;
        if self.warned == MAX_UNPROVEN_WARNINGS {
            let minutes = UNPROVEN_WARNING_PERIOD.as_secs() / 60;
            warn!(
                "unproven peers: {MAX_UNPROVEN_WARNINGS} were told of within {minutes} minute; until it is over, more are at level debug only"
            );
        }
    }
}
