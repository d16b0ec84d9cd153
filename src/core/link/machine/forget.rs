//! The `FORGET` command: an operator asks this server to remove a client's record.

use log::info;

use super::{Cause, Link, PeerLabel, State};
use crate::core::base::clock::Time;
use crate::core::journal::durability::JournalSpace;
use crate::core::session::context::Context;
use crate::core::session::herd::LinkError;
use crate::core::table::records::{Forgetting, Merge};
use crate::core::wire::escape::Escaped;
use crate::core::wire::message::is_client_name;
use crate::core::wire::posix_time::PosixTime;

impl Link {
    /// Replaces the record of `client` by a tombstone: a record without a location. The operator
    /// gets the answer when the tombstone is stored as durably as the record of an answered
    /// `IAMAT`.
    pub(super) fn forget_received(
        &mut self,
        client: &[u8],
        context: &mut Context<'_>,
    ) -> Result<(), LinkError> {
        if !is_client_name(client) {
            return Err(LinkError::NoClientName);
        }
        if context.room() != JournalSpace::Enough {
            return Err(LinkError::NoRoomToForget);
        }
        let wall = PosixTime::from_nanos(context.now.wall);
        let Forgetting {
            had_position,
            epoch,
            line,
            merge,
        } = context.records.forget(client, &context.settings.name, wall);
        match merge {
            Merge::Accepted => {}
            Merge::Stale
            | Merge::Expired
            | Merge::Full
            | Merge::UnknownServer
            | Merge::NotAdmitted => return Err(LinkError::NoRoomToForget),
        }
        let seq = context.records.last_seq();
        if let Some(durability) = &mut context.durability {
            durability.record(seq, epoch, &line);
        }
        info!(
            "{}: forgets client {}, which was {}: {}",
            PeerLabel(self, context.herd),
            Escaped(client),
            known_or_unknown(had_position),
            Escaped(&line)
        );
        self.since = context.now.time;
        self.enter(
            Cause::ForgetReceived,
            State::Forgetting { seq, had_position },
        );
        Ok(())
    }

    /// Ends a link whose `FORGET` has no answer yet, because the disk refuses writes to the
    /// journal.
    pub fn end_unstored(&mut self, waited_ms: u64, now: Time) {
        if let State::Forgetting { .. } = self.state {
            self.end(LinkError::JournalTimeout(waited_ms), now);
        }
    }

    /// Answers a `FORGET`, if its tombstone is stored durably enough.
    pub(super) fn reply_forgotten(&mut self, context: &Context<'_>) {
        if let State::Forgetting { seq, had_position } = self.state
            && context.sendable_through() >= seq
        {
            let ttl_ms = context.settings.limits.record_ttl_ms;
            self.send_line(format_args!(
                "FORGOTTEN {} {ttl_ms}",
                known_or_unknown(had_position)
            ));
            self.close(LinkError::Forgotten, true, context.now.time);
        }
    }
}

fn known_or_unknown(had_position: bool) -> &'static str {
    match had_position {
        true => "known",
        false => "unknown",
    }
}
