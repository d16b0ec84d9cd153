//! Removes records that are older than `limits.record_ttl_ms`.
//!
//! The age counts from the record's [effective
//! time](crate::core::wire::posix_time::effective_time). Every server computes the same effective
//! time from the record's line. So no message is needed: each server expires the record when its
//! own clock has reached the end of the time to live. The table never returns expired records. A
//! sweep, which is a search of the table in small steps, removes them.
//!
//! A tombstone expires in the same way, and later than the record that it replaced. A record with a
//! greater epoch (see `core/table/records.rs`) replaces a record even if its time is earlier. So
//! the winner can have an earlier effective time than the record that it replaced, and can expire
//! first. Until the replaced record expires too, a server that has not received the winner can send
//! the replaced record again.

use std::time::Duration;

use super::{Node, Timer};
use crate::core::base::clock::Now;
use crate::core::wire::posix_time::PosixTime;

/// The time between two steps of a sweep.
const STEP_INTERVAL: Duration = Duration::from_millis(100);
/// The number of slots of the table that one step checks. A step takes less than a millisecond.
const SLOTS_PER_STEP: usize = 4_000;

impl Node {
    /// Sets the table's horizon to `limits.record_ttl_ms` ago, and the timer for the next step.
    /// Records with an earlier effective time have expired. Does nothing if records do not expire.
    pub(super) fn begin_expiry(&mut self, now: Now) {
        let ttl_ms = self.settings.limits.record_ttl_ms;
        if ttl_ms > 0 {
            let horizon = now.wall.saturating_sub(ttl_ms.saturating_mul(1_000_000));
            self.records.expire_before(PosixTime::from_nanos(horizon));
            self.deadlines
                .call_at(now.time + STEP_INTERVAL, Timer::Sweep);
        }
    }

    /// Runs one step of the sweep, and schedules the next step.
    pub(super) fn sweep_due(&mut self, now: Now) {
        self.begin_expiry(now);
        self.expired += self.records.sweep(SLOTS_PER_STEP) as u64;
    }

    /// Returns the number of records that this server has removed since its start because they had
    /// expired.
    #[must_use]
    pub fn expired(&self) -> u64 {
        self.expired
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, node};
    use crate::core::base::limits::Limits;
    use crate::core::node::ConnId;
    use crate::core::node::Node;

    /// The wall clock at `at(0)`, in seconds.
    const BEGAN_S: u64 = 1_700_000_000;

    fn ask(node: &mut Node, client: ConnId, line: &str, ms: u64) -> String {
        node.handle_deadlines(at(ms));
        node.handle_data_received(client, line.as_bytes(), at(ms));
        let answer = String::from_utf8(node.poll_output(client).to_vec()).unwrap();
        node.handle_output_sent(client, answer.len(), at(ms));
        answer
    }

    #[test]
    fn a_record_expires_when_its_effective_time_is_too_old() {
        let mut node = node(Limits {
            record_ttl_ms: 60_000,
            ..Limits::default()
        });
        let client = node
            .handle_client_connected("192.0.2.1:1".parse().unwrap(), at(0))
            .unwrap();
        let stamp = BEGAN_S - 50;
        let iamat = format!("IAMAT old +1+2 {stamp}\nIAMAT new +1+2 {BEGAN_S}\n");
        assert_eq!(ask(&mut node, client, &iamat, 0).lines().count(), 2);
        let known = |node: &mut Node, name: &str, ms| {
            let answer = ask(node, client, &format!("WHATSAT {name} 1 1\n"), ms);
            answer.starts_with("AT ")
        };
        assert!(known(&mut node, "old", 9_900) && known(&mut node, "new", 9_900));
        assert!(
            !known(&mut node, "old", 10_200),
            "also before the sweep has come to it"
        );
        assert!(known(&mut node, "new", 59_900));
        assert_eq!((node.records().len(), node.expired()), (1, 1));
        assert!(!known(&mut node, "new", 60_200));
        assert_eq!((node.records().len(), node.records().digest()), (0, 0));
        node.check_invariants().unwrap();
        // An `IAMAT` whose record is already too old gets an answer, but the record is not stored.
        let late = ask(&mut node, client, &iamat, 61_000);
        assert_eq!(late.lines().count(), 2);
        assert!(node.records().is_empty());
    }
}
