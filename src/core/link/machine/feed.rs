//! The records that flow once two servers are linked: ours, pulled from the table as the socket
//! takes them, and theirs.

use log::{debug, info, warn};

use super::{CLOCK_EVERY_MS, Link, PeerLabel, State, number, shown};
use crate::core::base::boot_id::BootId;
use crate::core::base::clock::{Now, Time};
use crate::core::base::counted::Counted;
use crate::core::base::limits::TURN_BYTES;
use crate::core::journal::durability::Room;
use crate::core::session::context::Context;
use crate::core::session::herd::{Herd, LinkError};
use crate::core::table::records::{Merge, Origin};
use crate::core::wire::escape::Escaped;
use crate::core::wire::message::{At, AtHead};

/// A neighbour that lacked something when it was linked is being sent it.
pub(super) struct CatchUp {
    /// Up to which change it did.
    pub(super) until: u64,
    pub(super) since: Time,
    /// What it was sent so far.
    pub(super) records: usize,
    /// It was told that this is all.
    pub(super) is_said: bool,
}

/// A position that was read, and may not be confirmed yet.
#[derive(Clone, Copy)]
pub(super) struct Unconfirmed {
    position: u64,
    /// The latest change at that moment.
    last_seq: u64,
}

impl Link {
    /// When nothing waits for the socket, the next records of the feed are pulled, as far as they
    /// may leave; and confirmed, once everything is in the journal that was accepted when they were
    /// read.
    pub(super) fn pull(&mut self, context: &mut Context<'_>) {
        if let State::Linked { reader, origin, .. } = self.state
            && self.output.is_empty()
        {
            let (released, appended) = (context.released(), context.appended_through());
            let kept_through = context.kept_through();
            let (records, herd) = (&mut *context.records, &mut *context.herd);
            let count = records.read(reader, origin, released, TURN_BYTES, self.output.tail());
            let position = records.position(reader);
            let mut has_caught_up = false;
            if let Some(catch_up) = &mut self.catch_up {
                catch_up.records += count;
                // It taught us the last of what it lacked, so that is not sent; that it has it all
                // is.
                has_caught_up = position >= catch_up.until && !catch_up.is_said;
                catch_up.is_said |= has_caught_up;
            }
            self.owes_sync |= count > 0 || has_caught_up;
            let floor = self.floor(herd);
            self.confirm(position, records.last_seq(), appended, floor);
            if self.owes_sync && self.confirmed > self.told {
                self.owes_sync = self.confirmed < position;
                self.say_sync(herd);
            }
            let (lacks, said) = (herd.lacks(), self.lacks_said);
            if lacks != said && (lacks == 0 || lacks / 2 >= said) {
                self.say_lacks(lacks);
            }
            if !self.output.is_empty() {
                self.acknowledgement.advance(kept_through);
                self.say_kept();
            }
        }
    }

    /// The other side is told of no position before this one: it was told of it before, in any of
    /// our lives, and has lost what it had since. The journal, and each copy of it, says what a
    /// neighbour was told (see [`told_noted`](crate::core::session::herd::Neighbour::told_noted));
    /// if it were told less now, a copy would take that for something older.
    pub(super) fn floor(&self, herd: &Herd) -> u64 {
        self.neighbour
            .map_or(0, |neighbour| herd.get(neighbour).told_noted())
    }

    /// Everything up to `position` was read when the latest change was `last_seq`. That may be
    /// confirmed once everything up to there is `appended`: until then, a change may be lost that
    /// took the place of a record which the other side lacks.
    pub(super) fn confirm(&mut self, position: u64, last_seq: u64, appended: u64, floor: u64) {
        if position < floor {
            return;
        }
        if appended >= last_seq {
            self.confirmed = position;
            self.unconfirmed = None;
            return;
        }
        if let Some(before) = self.unconfirmed
            && appended >= before.last_seq
        {
            self.confirmed = before.position;
            self.unconfirmed = None;
        }
        if position > self.confirmed {
            self.unconfirmed
                .get_or_insert(Unconfirmed { position, last_seq });
        }
    }

    /// Up to where the other side has everything.
    pub(super) fn say_sync(&mut self, herd: &mut Herd) {
        let confirmed = self.confirmed;
        self.told = confirmed;
        if let Some(neighbour) = self.neighbour {
            herd.get_mut(neighbour).tell(confirmed);
        }
        let output = self.output.tail();
        output.extend_from_slice(b"SYNC ");
        output.extend_from_slice(itoa::Buffer::new().format(confirmed).as_bytes());
        output.push(b'\n');
    }

    /// Up to where everything is kept, if that is news.
    pub(super) fn say_kept(&mut self) {
        if let Some(position) = self.acknowledgement.take() {
            self.say(format_args!("KEPT {position}"));
        }
    }

    /// How many records are lacking, if that is news.
    pub(super) fn say_lacks(&mut self, lacks: u64) {
        if std::mem::replace(&mut self.lacks_said, lacks) != lacks {
            self.say(format_args!("LACKS {lacks}"));
        }
    }

    /// The socket took `count` bytes.
    pub(super) fn took(&mut self, count: usize, now: Now) {
        self.output.consume(count);
        self.last_sent = now.time;
        if matches!(self.state, State::Linked { .. })
            && self.clock_said.plus_ms(CLOCK_EVERY_MS) <= now.time
        {
            self.clock_said = now.time;
            self.say(format_args!("CLOCK {}", now.wall));
        }
    }

    /// A record from a neighbour.
    pub(super) fn at(
        &mut self,
        epoch: u32,
        line: &[u8],
        origin: Origin,
        context: &mut Context<'_>,
    ) -> Result<(), LinkError> {
        self.has_come = true;
        let broken = || LinkError::NotARecord(shown(line).to_string());
        let head = AtHead::parse(line).ok_or_else(broken)?;
        let lookup = context.records.lookup(head.client);
        if context.records.is_kept(lookup, epoch, line) {
            return Ok(()); // another neighbour was faster
        }
        let at = head.whole().ok_or_else(broken)?;
        let room = context.room();
        match context.records.merge_at(lookup, line, &at, epoch, origin) {
            Merge::Accepted => {
                let seq = context.records.last_seq();
                match &mut context.durability {
                    Some(durability) if room == Room::Enough => {
                        durability.record(seq, epoch, line);
                    }
                    Some(durability) => durability.record_unwritten(seq, line),
                    None => {}
                }
                debug!("heard {}", Escaped(line));
            }
            Merge::Stale => {}
            refusal @ (Merge::Full | Merge::UnknownServer) => {
                self.has_refused(refusal, &at, context);
            }
        }
        Ok(())
    }

    /// A record was refused: from here on, no position of the neighbour's feed is confirmed.
    #[cold]
    fn has_refused(&mut self, refusal: Merge, at: &At<'_>, context: &mut Context<'_>) {
        self.refused += 1;
        let Some(neighbour) = self.neighbour else {
            return;
        };
        let before = context.herd.lacks();
        let known = context.herd.get(neighbour).lacks();
        let lacks = match self.again_until {
            Some(_) => self.refused.max(known), // many of them were counted before
            None => self.refused,
        };
        context.herd.lacks_of(neighbour, lacks);
        if before > 0 && !context.records.refused().is_power_of_two() {
            return;
        }
        let held = context.records.len();
        if refusal == Merge::UnknownServer {
            warn!(
                "a neighbour's record was refused: it is from {}, which is no server of this herd, and too many such are known already",
                shown(at.server)
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

    /// With this, we have everything up to that position of the neighbour's feed; unless something
    /// was refused.
    pub(super) fn synced(&mut self, boot: BootId, position: u64, context: &mut Context<'_>) {
        let Some(neighbour) = self.neighbour else {
            return;
        };
        let has_come = std::mem::replace(&mut self.has_come, false);
        let entry = context.herd.get_mut(neighbour);
        if self.refused == 0 {
            entry.heard_up_to(boot, position);
            let seq = context.records.last_seq();
            self.acknowledgement.synced(position, seq);
        } else {
            entry.came_up_to(boot, position);
        }
        if let Some(until) = self.again_until
            && (position >= until || until == u64::MAX && !has_come)
        {
            self.again_until = None;
            context.herd.lacks_of(neighbour, self.refused);
            if context.herd.lacks() == 0 {
                info!("this server's table lacks nothing any more that it had to refuse");
            }
        }
    }

    /// The neighbour has kept everything up to that position of our feed.
    pub(super) fn kept(
        &mut self,
        position: u64,
        context: &mut Context<'_>,
    ) -> Result<(), LinkError> {
        let neighbour = self.neighbour.ok_or("a KEPT without a neighbour")?;
        let last_seq = context.records.last_seq();
        context
            .herd
            .get_mut(neighbour)
            .has_kept(position, last_seq, context.now.time)
            .map_err(|most| LinkError::KeptTooMuch { position, most })?;
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

    /// The neighbour had to refuse so many records.
    pub(super) fn it_lacks(&mut self, records: u64, herd: &mut Herd) {
        let Some(neighbour) = self.neighbour else {
            return;
        };
        let before = herd.get_mut(neighbour).says_it_lacks(records);
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

/// The epoch and the `AT` line of a record; `None` if the line is none.
#[inline(always)]
pub(super) fn record(line: &[u8]) -> Option<(u32, &[u8])> {
    if line.starts_with(b"AT ") {
        return Some((0, line));
    }
    later_epoch(line)
}

#[cold]
fn later_epoch(line: &[u8]) -> Option<(u32, &[u8])> {
    let text = line.strip_prefix(b"EPOCH ")?;
    let (digits, line) = text.split_at(memchr::memchr(b' ', text)?);
    let epoch = u32::try_from(number(digits)?).ok()?;
    let line = &line[1..];
    // One spelling only, so that a line with an epoch is the same everywhere, too.
    (digits.first() != Some(&b'0') && line.starts_with(b"AT ")).then_some((epoch, line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_has_one_spelling() {
        assert_eq!(record(b"AT x"), Some((0, &b"AT x"[..])));
        assert_eq!(record(b"EPOCH 7 AT x"), Some((7, &b"AT x"[..])));
        let last = record(b"EPOCH 4294967295 AT x");
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
            assert_eq!(record(bad), None, "{}", bad.escape_ascii());
        }
    }
}
