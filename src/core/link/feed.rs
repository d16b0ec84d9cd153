//! The records that flow once two servers are linked: ours, pulled from the table as the socket takes them, and theirs.

use log::{debug, info, warn};

use super::{Broken, Link, State, Who, World, shown};
use crate::core::clock::Time;
use crate::core::durability::Room;
use crate::core::escape::Escaped;
use crate::core::herd::Herd;
use crate::core::limits::TURN_BYTES;
use crate::core::message::AtHead;
use crate::core::records::{Offer, Records, Teacher};

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

impl Link {
    /// What waits for the socket. When nothing does, the next records of the feed are pulled, up to the change `released`, which
    /// is as far as the journal is safe; and confirmed, unless the journal lacks something.
    pub fn output(&mut self, records: &mut Records, released: u64, confirms: bool) -> &[u8] {
        if let State::Linked {
            reader, teacher, ..
        } = self.state
            && self.output.is_empty()
        {
            let count = records.read(reader, teacher, released, TURN_BYTES, self.output.tail());
            let position = records.position(reader);
            let mut has_caught_up = false;
            if let Some(catch_up) = &mut self.catch_up {
                catch_up.records += count;
                // It taught us the last of what it lacked, so that is not sent; that it has it all is.
                has_caught_up = position >= catch_up.until && !catch_up.is_said;
                catch_up.is_said |= has_caught_up;
            }
            if confirms && (count > 0 || has_caught_up) {
                self.confirmed = position;
                self.say(format_args!("SYNC {position}"));
            }
        }
        self.output.as_slice()
    }

    /// The socket took `count` bytes.
    pub fn output_sent(&mut self, count: usize, records: &Records, herd: &Herd, now: Time) {
        self.output.consume(count);
        self.last_sent = now;
        if let (State::Linked { reader, .. }, Some(catch_up)) = (self.state, &self.catch_up)
            && self.output.is_empty()
            && records.position(reader) >= catch_up.until
        {
            info!(
                "{}: caught up, {} records sent in {:.3} s",
                Who(self, herd),
                catch_up.records,
                now.since(catch_up.since).as_secs_f64()
            );
            self.catch_up = None;
        }
    }
}

/// A record from a neighbour.
pub(super) fn at(line: &[u8], teacher: Teacher, world: &mut World<'_>) -> Result<(), Broken> {
    let broken = || format!("not an AT line: {}", shown(line));
    let head = AtHead::parse(line).ok_or_else(broken)?;
    let spot = world.records.spot(head.client);
    if world.records.is_kept(spot, 0, line) {
        return Ok(()); // another neighbour was faster
    }
    let at = head.whole().ok_or_else(broken)?;
    let has_room = Room::for_a_record(world.durability.as_deref()) == Room::Enough;
    match world.records.offer_at(spot, line, &at, 0, teacher) {
        Offer::Accepted => {
            let seq = world.records.last_seq();
            match &mut world.durability {
                Some(durability) if has_room => durability.record(seq, 0, line),
                Some(durability) => durability.record_unwritten(seq),
                None => {}
            }
            debug!("heard {}", Escaped(line));
        }
        Offer::Stale => {}
        Offer::UnknownServer if world.records.refused().is_power_of_two() => {
            warn!(
                "a neighbour's record was refused: it is from {}, which is no server of this herd, and too many such are known already",
                shown(at.server)
            );
        }
        Offer::Full if world.records.refused().is_power_of_two() => {
            warn!(
                "no room for a neighbour's record: limits.max_records or limits.max_record_bytes; {} records are there",
                world.records.len()
            );
        }
        Offer::Full | Offer::UnknownServer => {}
    }
    Ok(())
}
