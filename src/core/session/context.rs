//! What sessions share, as it is lent to one of them for one event.

use crate::core::base::boot_id::BootId;
use crate::core::base::clock::Now;
use crate::core::base::settings::Settings;
use crate::core::journal::durability::{Durability, Room};
use crate::core::session::herd::Herd;
use crate::core::session::tally::Tally;
use crate::core::session::tls::TlsSession;
use crate::core::table::records::Records;

/// What a session works on while it handles an event.
pub struct Context<'a> {
    /// When the event happens.
    pub now: Now,
    /// Which server this is, and its limits.
    pub settings: &'a Settings,
    /// Which life of it this is.
    pub boot: BootId,
    /// It stops.
    pub is_stopping: bool,
    /// How many clients are connected.
    pub clients: usize,
    /// Every client's position.
    pub records: &'a mut Records,
    /// The neighbours.
    pub herd: &'a mut Herd,
    /// What outlasts the server, if it has a data directory.
    pub durability: Option<&'a mut Durability>,
    /// What is counted of clients.
    pub tally: &'a mut Tally,
    /// The TLS that the session's bytes go over, if they do.
    pub tls: Option<&'a TlsSession>,
}

impl Context<'_> {
    /// Up to which change things may leave the server.
    #[inline]
    #[must_use]
    pub fn released(&self) -> u64 {
        self.of_journal(Durability::released)
    }

    /// Up to which change everything is kept as safely as clients are promised.
    #[inline]
    #[must_use]
    pub fn kept_through(&self) -> u64 {
        self.of_journal(Durability::kept_through)
    }

    /// Up to which change everything is in the journal, whatever was accepted since: see
    /// [`Durability::appended_through`].
    #[inline]
    #[must_use]
    pub fn appended_through(&self) -> u64 {
        self.of_journal(Durability::appended_through)
    }

    fn of_journal(&self, position: impl FnOnce(&Durability) -> u64) -> u64 {
        self.durability.as_deref().map_or(u64::MAX, position)
    }

    /// Whether there is room for another record in the journal.
    #[inline]
    #[must_use]
    pub fn room(&self) -> Room {
        Room::for_a_record(self.durability.as_deref(), self.records)
    }
}
