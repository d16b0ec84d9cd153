//! The records that two linked servers send each other. Our records are read from the feed when the
//! socket can take more.

use log::{debug, info, warn};

use super::{CLOCK_INTERVAL_MS, Link, PeerLabel, SHORT_BATCH_BYTES, State, excerpt, parse_number};
use crate::core::base::boot_id::BootId;
use crate::core::base::clock::{Now, Time};
use crate::core::base::counted::Counted;
use crate::core::base::limits::TURN_BYTES;
use crate::core::journal::durability::JournalSpace;
use crate::core::session::context::Context;
use crate::core::session::herd::{Herd, LinkError};
use crate::core::table::records::{Merge, Origin};
use crate::core::wire::escape::Escaped;
use crate::core::wire::message::{At, AtHead};

/// The progress in sending the changes that a neighbour did not have when the link began.
pub(super) struct CatchUp {
    /// The number of our latest change when the link began.
    pub(super) until: u64,
    pub(super) since: Time,
    /// The number of records sent so far.
    pub(super) records: usize,
    /// Whether our feed was read up to `until`. At that moment, [`Link::fill_output`] sets
    /// [`Link::needs_sync`].
    pub(super) is_read: bool,
}

/// A position up to which our feed was read. No `SYNC` may send this position before our journal
/// contains every change up to `last_seq`.
#[derive(Clone, Copy)]
pub(super) struct PendingSync {
    position: u64,
    /// The number of our latest change when the feed was read up to `position`.
    last_seq: u64,
}

impl Link {
    /// If the output is empty, appends the next records of our feed, up to
    /// [`Context::sendable_through`]. A `SYNC` follows as soon as our journal contains every change
    /// that was accepted before these records were read.
    pub(super) fn fill_output(&mut self, context: &mut Context<'_>) {
        if let State::Linked { reader, origin, .. } = self.state
            && self.output.is_empty()
        {
            let (sendable_through, appended) =
                (context.sendable_through(), context.appended_through());
            let durable_through = context.durable_through();
            let (records, herd) = (&mut *context.records, &mut *context.herd);
            let count = records.read(
                reader,
                origin,
                sendable_through,
                TURN_BYTES,
                self.output.tail(),
            );
            let position = records.position(reader);
            let mut reached_end = false;
            if let Some(catch_up) = &mut self.catch_up {
                catch_up.records += count;
                // Changes that came from this neighbour are not sent back to it. If all changes up
                // to `until` came from this neighbour, `count` is 0. A `SYNC` is needed
                // nevertheless.
                reached_end = position >= catch_up.until && !catch_up.is_read;
                catch_up.is_read |= reached_end;
            }
            let has_sent = count > 0 || reached_end;
            self.needs_sync |= has_sent;
            if let Some(neighbour) = self.neighbour {
                let has_unsent = !records.is_caught_up(reader);
                herd.get_mut(neighbour)
                    .feed_read(position, has_sent, has_unsent);
            }
            let floor = self.floor(herd);
            self.advance_sync(position, records.last_seq(), appended, floor);
            if self.needs_sync && self.next_sync > self.last_sync {
                self.needs_sync = self.next_sync < position;
                self.send_sync(herd);
            }
            // A new number of refused records is sent here only if it is 0, or at least twice the
            // number that was sent last. The heartbeat sends all other new numbers.
            let (refused_records, sent) = (herd.refused_records(), self.last_lacks);
            if refused_records != sent && (refused_records == 0 || refused_records / 2 >= sent) {
                self.send_lacks(refused_records);
            }
            if !self.output.is_empty() {
                self.acknowledgement.advance(durable_through);
                self.send_kept();
            }
        }
    }

    /// Returns the smallest position that this link may send in a new `SYNC`. This is the greatest
    /// position that the journal contains of an earlier `SYNC` to this neighbour, also in our
    /// earlier lives. The feed itself may be read from a smaller position, if the neighbour has
    /// lost data.
    ///
    /// Reason: an older copy of our journal may be restored later. This server detects an older
    /// copy only if the neighbour then states a position that is greater than every position in the
    /// copy.
    pub(super) fn floor(&self, herd: &Herd) -> u64 {
        self.neighbour
            .map_or(0, |neighbour| herd.get(neighbour).journaled_synced())
    }

    /// Updates [`Link::next_sync`] after our feed was read up to `position`. At that moment, our
    /// latest change was `last_seq`. Our journal contains every change up to `appended`. `position`
    /// becomes `next_sync` when `appended` reaches `last_seq`. A position below `floor` is ignored.
    ///
    /// A `SYNC` must not include a change that a crash of this server can still lose. Suppose that
    /// the change replaced an older record. After the crash, our table contains the older record
    /// again. The neighbour already has the later position, so the older record would never be sent
    /// to the neighbour.
    pub(super) fn advance_sync(&mut self, position: u64, last_seq: u64, appended: u64, floor: u64) {
        if position < floor {
            return;
        }
        if appended >= last_seq {
            self.next_sync = position;
            self.pending_sync = None;
            return;
        }
        if let Some(before) = self.pending_sync
            && appended >= before.last_seq
        {
            self.next_sync = before.position;
            self.pending_sync = None;
        }
        if position > self.next_sync {
            self.pending_sync
                .get_or_insert(PendingSync { position, last_seq });
        }
    }

    /// Appends a `SYNC` with the position in [`Link::next_sync`].
    pub(super) fn send_sync(&mut self, herd: &mut Herd) {
        let next_sync = self.next_sync;
        self.last_sync = next_sync;
        if let Some(neighbour) = self.neighbour {
            herd.get_mut(neighbour).set_synced(next_sync);
        }
        let output = self.output.tail();
        output.extend_from_slice(b"SYNC ");
        output.extend_from_slice(itoa::Buffer::new().format(next_sync).as_bytes());
        output.push(b'\n');
    }

    /// Appends a `KEPT` if there is a new position to confirm.
    pub(super) fn send_kept(&mut self) {
        if let Some(position) = self.acknowledgement.take_confirmable() {
            self.send_line(format_args!("KEPT {position}"));
        }
    }

    /// Appends a `LACKS` with the number of refused records, if the number has changed since the
    /// last `LACKS`.
    pub(super) fn send_lacks(&mut self, refused_records: u64) {
        if std::mem::replace(&mut self.last_lacks, refused_records) != refused_records {
            self.send_line(format_args!("LACKS {refused_records}"));
        }
    }

    /// Removes `count` bytes from the output, because the socket has accepted them. Appends a
    /// `CLOCK` if a minute has passed since the last `CLOCK`.
    pub(super) fn consume_output(&mut self, count: usize, now: Now) {
        self.output.consume(count);
        self.last_sent = now.time;
        if matches!(self.state, State::Linked { .. })
            && self.last_clock.plus_ms(CLOCK_INTERVAL_MS) <= now.time
        {
            self.last_clock = now.time;
            self.send_line(format_args!("CLOCK {}", now.wall));
        }
    }

    /// Merges a neighbour's record into the table.
    pub(super) fn record_received(
        &mut self,
        epoch: u32,
        line: &[u8],
        origin: Origin,
        context: &mut Context<'_>,
    ) -> Result<(), LinkError> {
        self.batch_bytes += line.len();
        let invalid = || LinkError::InvalidRecord(excerpt(line).to_string());
        let head = AtHead::parse(line).ok_or_else(invalid)?;
        let lookup = context.records.lookup(head.client);
        if context.records.is_stored(lookup, epoch, line) {
            return Ok(()); // the table already has this record
        }
        let at = head.parse_rest().ok_or_else(invalid)?;
        let room = context.room();
        match context.records.merge_at(lookup, line, &at, epoch, origin) {
            Merge::Accepted => {
                let seq = context.records.last_seq();
                match &mut context.durability {
                    Some(durability) if room == JournalSpace::Enough => {
                        durability.record(seq, epoch, line);
                    }
                    Some(durability) => durability.record_unwritten(seq, line),
                    None => {}
                }
                debug!("heard {}", Escaped(line));
            }
            Merge::Stale | Merge::Expired => {}
            refusal @ (Merge::Full | Merge::UnknownServer | Merge::NotAdmitted) => {
                self.record_refused(refusal, &at, context);
            }
        }
        Ok(())
    }

    /// Counts a neighbour's record that our table refused. After a refusal, this link sends no
    /// `KEPT` for the positions of later `SYNC`s.
    #[cold]
    fn record_refused(&mut self, refusal: Merge, at: &At<'_>, context: &mut Context<'_>) {
        self.refused += 1;
        let Some(neighbour) = self.neighbour else {
            return;
        };
        let before = context.herd.refused_records();
        let from_earlier_link = context.herd.get(neighbour).refused_records();
        let refused_records = match self.resend_end {
            // Not all records that were refused on earlier links have arrived again.
            Some(_) => self.refused.max(from_earlier_link),
            None => self.refused,
        };
        context.herd.set_refused_records(neighbour, refused_records);
        if before > 0 && !context.records.refused().is_power_of_two() {
            return;
        }
        let held = context.records.len();
        if refusal == Merge::UnknownServer {
            warn!(
                "a neighbour's record was refused: it is from {}, which is no server of this herd, and too many such are known already",
                excerpt(at.server)
            );
        } else {
            warn!(
                "no room for a neighbour's record: limits.max_records or limits.max_record_bytes; {held} records are there"
            );
        }
        if before == 0 {
            warn!(
                "this server's table lacks records that the herd knows; after its limits are raised and it is started again, it asks for them"
            );
        }
    }

    /// Handles a `SYNC`: we have everything up to `position` of the neighbour's feed, except for
    /// refused records.
    pub(super) fn sync_received(&mut self, boot: BootId, position: u64, context: &mut Context<'_>) {
        let Some(neighbour) = self.neighbour else {
            return;
        };
        let batch_bytes = std::mem::take(&mut self.batch_bytes);
        if batch_bytes > 0 {
            self.last_batch = context.now.time;
            self.received_all |= batch_bytes < SHORT_BATCH_BYTES;
        }
        let entry = context.herd.get_mut(neighbour);
        if self.refused == 0 {
            entry.set_received(boot, position);
            let seq = context.records.last_seq();
            self.acknowledgement.sync_received(position, seq);
        } else {
            entry.set_sync_after_refusal(boot, position);
        }
        if let Some(until) = self.resend_end
            && (position >= until || until == u64::MAX && batch_bytes == 0)
        {
            self.resend_end = None;
            context.herd.set_refused_records(neighbour, self.refused);
            if context.herd.refused_records() == 0 {
                info!("this server's table lacks nothing any more that it had to refuse");
            }
        }
    }

    /// Handles a `KEPT`: the neighbour has stored everything up to `position` of our feed.
    pub(super) fn kept_received(
        &mut self,
        position: u64,
        context: &mut Context<'_>,
    ) -> Result<(), LinkError> {
        let neighbour = self.neighbour.ok_or("a KEPT without a neighbour")?;
        let last_seq = context.records.last_seq();
        context
            .herd
            .get_mut(neighbour)
            .confirm(position, last_seq, context.now.time)
            .map_err(|max| LinkError::KeptBeyondSync { position, max })?;
        if let Some(catch_up) = self.catch_up.take_if(|it| position >= it.until) {
            info!(
                "{}: caught up, {} sent and kept in {:.3} s",
                PeerLabel(self, context.herd),
                Counted(catch_up.records as u64, "record"),
                context.now.time.since(catch_up.since).as_secs_f64()
            );
        }
        Ok(())
    }

    /// Handles a `LACKS`. `records` is the number of records that the neighbour's table refused.
    pub(super) fn lacks_received(&mut self, records: u64, herd: &mut Herd) {
        let Some(neighbour) = self.neighbour else {
            return;
        };
        let before = herd.get_mut(neighbour).set_peer_refused_records(records);
        match (before, records) {
            (0, 1..) => warn!(
                "{}: it had to refuse records because of its limits; its table is not all that the herd knows, and what it lacks may not get beyond it",
                PeerLabel(self, herd)
            ),
            (1.., 0) => info!("{}: it lacks nothing any more", PeerLabel(self, herd)),
            (_, _) => {}
        }
    }
}

/// Returns the epoch and the `AT` line of a record. `None` if `line` is not a record.
#[inline(always)]
pub(super) fn parse_record(line: &[u8]) -> Option<(u32, &[u8])> {
    if line.starts_with(b"AT ") {
        return Some((0, line));
    }
    parse_later_epoch(line)
}

#[cold]
fn parse_later_epoch(line: &[u8]) -> Option<(u32, &[u8])> {
    let text = line.strip_prefix(b"EPOCH ")?;
    let (digits, line) = text.split_at(memchr::memchr(b' ', text)?);
    let epoch = u32::try_from(parse_number(digits)?).ok()?;
    let line = &line[1..];
    // Each epoch has one spelling only. So equal records are equal bytes on every server.
    (digits.first() != Some(&b'0') && line.starts_with(b"AT ")).then_some((epoch, line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_has_one_valid_spelling() {
        assert_eq!(parse_record(b"AT x"), Some((0, &b"AT x"[..])));
        assert_eq!(parse_record(b"EPOCH 7 AT x"), Some((7, &b"AT x"[..])));
        let last = parse_record(b"EPOCH 4294967295 AT x");
        assert_eq!(last, Some((u32::MAX, &b"AT x"[..])));
        for bad in [
            &b"EPOCH 0 AT x"[..],
            b"EPOCH 07 AT x",
            b"EPOCH 4294967296 AT x",
            b"EPOCH +7 AT x",
            b"EPOCH  AT x",
            b"EPOCH 7  AT x",
            b"EPOCH 7",
            b"EPOCH 7 SYNC 1",
            b"EPOCH 7 EPOCH 7 AT x",
            b"AT",
        ] {
            assert_eq!(parse_record(bad), None, "{}", bad.escape_ascii());
        }
    }
}
