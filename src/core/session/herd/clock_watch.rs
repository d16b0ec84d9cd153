//! Compares a neighbour's wall clock with ours.

/// Two wall clocks agree if they differ by at most this number of nanoseconds.
const CLOCK_TOLERANCE_NS: i64 = 1_000_000_000;

/// Compares a neighbour's wall clock with ours, from the times that the neighbour sends.
#[derive(Default)]
pub struct ClockWatch {
    offset_ns: Option<i64>,
    was_behind: bool,
    is_logged: bool,
}

/// A change in the result of the comparison. Each change has to be logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClockChange {
    /// The neighbour's clock is this number of nanoseconds ahead of ours, or behind ours if the
    /// number is negative.
    Differs(i64),
    /// The clocks agree again.
    Agrees,
}

impl ClockWatch {
    /// Compares the time `theirs` from the neighbour with our time `ours`, both in nanoseconds.
    /// Returns what has to be logged.
    ///
    /// A line that was delayed looks as if the neighbour's clock were behind. So a neighbour's
    /// clock that is behind is logged only if two lines in a row show this.
    pub fn compare(&mut self, theirs: u64, ours: u64) -> Option<ClockChange> {
        let offset = i64::try_from(i128::from(theirs) - i128::from(ours));
        let offset = offset.unwrap_or(if theirs > ours { i64::MAX } else { i64::MIN });
        self.offset_ns = Some(offset);
        let (is_ahead, is_behind) = (offset > CLOCK_TOLERANCE_NS, offset < -CLOCK_TOLERANCE_NS);
        let was_behind = std::mem::replace(&mut self.was_behind, is_behind);
        match self.is_logged {
            false if is_ahead || is_behind && was_behind => {
                self.is_logged = true;
                Some(ClockChange::Differs(offset))
            }
            true if !is_ahead && !is_behind => {
                self.is_logged = false;
                Some(ClockChange::Agrees)
            }
            true | false => None,
        }
    }

    /// Returns the difference at the last comparison, in milliseconds. The difference is positive
    /// if the neighbour's clock is ahead of ours.
    #[must_use]
    pub fn offset_ms(&self) -> Option<i64> {
        self.offset_ns.map(|offset| offset / 1_000_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_offset_is_reported_once_and_not_for_a_late_line() {
        const SECOND: u64 = 1_000_000_000;
        let mut clock = ClockWatch::default();
        let mut compare = |theirs: u64| clock.compare(theirs * SECOND, 100 * SECOND);
        assert_eq!(compare(98), None, "it may have been on its way for 2 s");
        assert_eq!(compare(100), None);
        assert_eq!(compare(98), None);
        assert_eq!(compare(97), Some(ClockChange::Differs(-3_000_000_000)));
        assert_eq!(compare(98), None, "it is told");
        assert_eq!(compare(101), Some(ClockChange::Agrees));
        assert_eq!(compare(102), Some(ClockChange::Differs(2_000_000_000)));
        assert_eq!(clock.offset_ms(), Some(2_000));
        assert_eq!(clock.compare(u64::MAX, 0), None);
        assert_eq!(clock.offset_ms(), Some(i64::MAX / 1_000_000));
    }
}
