//! Removes records that are older than `limits.record_ttl_ms`.
//!
//! Age counts from the record's effective time, which stands in the record's line. So every server
//! comes to the same verdict without a message, as soon as its own clock has passed the record's
//! end. Until a sweep removes an expired record, the table does not give it out.

use std::time::Duration;

use super::{Node, Timer};
use crate::core::base::clock::Now;
use crate::core::wire::posix_time::PosixTime;

/// The time between two steps of a sweep.
const STEP_EVERY: Duration = Duration::from_millis(100);
/// Places of the table that a step looks at: less than a millisecond's work.
const STEP_PLACES: usize = 4_000;

impl Node {
    /// Moves the horizon of the table to the present time, and sets the timer for the next step.
    /// Does nothing if records do not expire.
    pub(super) fn begin_expiry(&mut self, now: Now) {
        let ttl_ms = self.settings.limits.record_ttl_ms;
        if ttl_ms > 0 {
            let horizon = now.wall.saturating_sub(ttl_ms.saturating_mul(1_000_000));
            self.records.expire_before(PosixTime::from_nanos(horizon));
            self.deadlines.call_at(now.time + STEP_EVERY, Timer::Sweep);
        }
    }

    /// A step of the sweep is due.
    pub(super) fn sweep_due(&mut self, now: Now) {
        self.begin_expiry(now);
        self.expired += self.records.sweep(STEP_PLACES) as u64;
    }

    /// Returns the number of records that have expired since the start.
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

    /// The wall clock of [`at`] zero, in seconds.
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
        // What is too old when it comes is answered, and not kept.
        let late = ask(&mut node, client, &iamat, 61_000);
        assert_eq!(late.lines().count(), 2);
        assert!(node.records().is_empty());
    }
}
