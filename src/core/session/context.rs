//! The parts of a server that its sessions share. A session borrows these parts while it handles an
//! event.

use crate::core::base::boot_id::BootId;
use crate::core::base::clock::Now;
use crate::core::base::settings::Settings;
use crate::core::journal::durability::{Durability, JournalSpace};
use crate::core::session::herd::Herd;
use crate::core::session::tally::Tally;
use crate::core::session::tls::TlsSession;
use crate::core::session::unproven::UnprovenPeers;
use crate::core::table::records::Records;

/// The data that a session uses while it handles an event.
pub struct Context<'a> {
    /// The time of the event.
    pub now: Now,
    /// The server's name, limits and other settings.
    pub settings: &'a Settings,
    /// The id of the server's present life. A life is the history of one feed: see
    /// [`core::link`](crate::core::link).
    pub boot: BootId,
    /// Whether the server is stopping.
    pub is_stopping: bool,
    /// The number of admitted clients.
    pub clients: usize,
    /// The table: the record with the latest position of every client.
    pub records: &'a mut Records,
    /// The neighbours.
    pub herd: &'a mut Herd,
    /// The connections to the neighbours' port that have not proven a name.
    pub unproven: &'a mut UnprovenPeers,
    /// The journal, if the server has a data directory.
    pub durability: Option<&'a mut Durability>,
    /// The counters of the server, and the budgets that its clients share.
    pub tally: &'a mut Tally,
    /// The connection's TLS session, if the connection uses TLS.
    pub tls: Option<&'a TlsSession>,
}

impl Context<'_> {
    /// Returns the sequence number of the last change that may be sent to clients and neighbours.
    /// Without a journal, this is `u64::MAX`.
    #[inline]
    #[must_use]
    pub fn sendable_through(&self) -> u64 {
        self.of_journal(Durability::sendable_through)
    }

    /// Returns the sequence number up to which all changes are stored as durably as the
    /// [`Fsync`](crate::core::journal::durability::Fsync) setting promises to a client. Without a
    /// journal, this is `u64::MAX`.
    #[inline]
    #[must_use]
    pub fn durable_through(&self) -> u64 {
        self.of_journal(Durability::durable_through)
    }

    /// Returns the sequence number up to which all changes are in the journal: see
    /// [`Durability::appended_through`]. Without a journal, this is `u64::MAX`.
    #[inline]
    #[must_use]
    pub fn appended_through(&self) -> u64 {
        self.of_journal(Durability::appended_through)
    }

    fn of_journal(&self, position: impl FnOnce(&Durability) -> u64) -> u64 {
        self.durability.as_deref().map_or(u64::MAX, position)
    }

    /// Returns whether there is disk space in the journal for another record: now, later or not at
    /// all.
    #[inline]
    #[must_use]
    pub fn room(&self) -> JournalSpace {
        JournalSpace::for_a_record(self.durability.as_deref(), self.records)
    }
}
