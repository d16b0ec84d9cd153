//! The throughput and latencies over the time of a run. There is one histogram, which is read and
//! cleared at the end of each interval. So the memory does not depend on the length of the run.

use std::ops::Range;

use hdrhistogram::Histogram;
use herd_testkit::failure::Failure;

use crate::clock::{MILLISECOND_NS, SECOND_NS};

/// The approximate greatest number of intervals, if the run takes as long as planned.
const MAX_INTERVALS: u64 = 120;
/// The greatest number of points. Later answers, which an open loop may wait for, belong to the
/// last one.
const MAX_POINTS: usize = 500;
/// The possible intervals, in milliseconds.
const INTERVALS_MS: [u64; 14] = [
    10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 30_000, 60_000, 300_000, 900_000,
];
/// The greatest recorded latency, an hour. Two digits are enough for a picture.
const MAX_LATENCY_NS: u64 = 3600 * SECOND_NS;
const DIGITS: u8 = 2;

/// The answers of one interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Point {
    pub(crate) answers: u64,
    /// Latencies of these answers. Zero if there are none.
    pub(crate) p50_ns: u64,
    pub(crate) p99_ns: u64,
    pub(crate) max_ns: u64,
}

/// Answers by their time.
#[derive(Clone, Debug)]
pub(crate) struct Timeline {
    interval_ns: u64,
    /// The end of the present interval.
    end_ns: u64,
    current: Histogram<u64>,
    /// The start of the first interval, and the end of the run.
    start_ns: u64,
    until_ns: u64,
    points: Vec<Point>,
}

impl Timeline {
    /// A timeline with intervals for this window.
    pub(crate) fn new(window_ns: &Range<u64>) -> Result<Timeline, Failure> {
        let length_ns = window_ns.end.saturating_sub(window_ns.start);
        let fits = |ms: &&u64| *ms * MILLISECOND_NS * MAX_INTERVALS >= length_ns;
        let interval_ms = INTERVALS_MS.iter().find(fits).unwrap_or(&900_000);
        let interval_ns = interval_ms * MILLISECOND_NS;
        let current = Histogram::new_with_bounds(1, MAX_LATENCY_NS, DIGITS).map_err(|error| {
            Failure::Failed(format!("cannot make a histogram of latencies: {error}"))
        })?;
        Ok(Timeline {
            interval_ns,
            end_ns: window_ns.start + interval_ns,
            current,
            start_ns: window_ns.start,
            until_ns: window_ns.start,
            points: Vec::with_capacity(MAX_POINTS),
        })
    }

    /// Counts an answer that came by `now_ns`, with this latency.
    #[inline]
    pub(crate) fn record(&mut self, now_ns: u64, latency_ns: u64) {
        if now_ns >= self.end_ns {
            self.advance(now_ns);
        }
        self.current.saturating_record(latency_ns);
    }

    /// Ends the intervals that are over.
    #[cold]
    fn advance(&mut self, now_ns: u64) {
        while now_ns >= self.end_ns && self.points.len() + 1 < MAX_POINTS {
            self.end_ns += self.interval_ns;
            let point = self.take();
            self.points.push(point);
        }
    }

    fn take(&mut self) -> Point {
        if self.current.is_empty() {
            return Point::default();
        }
        let point = Point {
            answers: self.current.len(),
            p50_ns: self.current.value_at_quantile(0.5),
            p99_ns: self.current.value_at_quantile(0.99),
            max_ns: self.current.max(),
        };
        self.current.reset();
        point
    }

    /// The run ended at this time.
    pub(crate) fn finish(mut self, now_ns: u64) -> Timeline {
        self.advance(now_ns);
        self.until_ns = now_ns;
        // The last interval is incomplete. It becomes a point only if it has answers.
        if !self.current.is_empty() {
            let point = self.take();
            self.points.push(point);
        }
        self
    }

    /// The time from the start of the first interval to the end of the run.
    pub(crate) fn until_ns(&self) -> u64 {
        self.until_ns.saturating_sub(self.start_ns)
    }

    pub(crate) fn interval_ns(&self) -> u64 {
        self.interval_ns
    }

    /// The points, one for each interval from the start.
    pub(crate) fn points(&self) -> &[Point] {
        &self.points
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(seconds: u64) -> Timeline {
        Timeline::new(&(SECOND_NS..SECOND_NS * (seconds + 1))).unwrap()
    }

    #[test]
    fn interval_lengths_depend_on_the_run() {
        for (seconds, ms) in [(1, 10), (2, 20), (10, 100), (60, 500), (3600, 30_000)] {
            assert_eq!(of(seconds).interval_ns(), ms * MILLISECOND_NS, "{seconds}");
        }
        assert_eq!(of(86_400).interval_ns(), 900 * SECOND_NS);
    }

    #[test]
    fn a_time_without_answers_is_a_gap() {
        let mut timeline = of(10);
        timeline.record(SECOND_NS, 1000);
        timeline.record(SECOND_NS + 99 * MILLISECOND_NS, 3000);
        // No answer for two intervals.
        timeline.record(SECOND_NS + 350 * MILLISECOND_NS, 300_000_000);
        let timeline = timeline.finish(SECOND_NS + 360 * MILLISECOND_NS);
        let answers: Vec<u64> = timeline.points().iter().map(|it| it.answers).collect();
        assert_eq!(answers, [2, 0, 0, 1]);
        let [first, second, .., last] = timeline.points() else {
            panic!("{timeline:?}");
        };
        assert!((2950..3050).contains(&first.max_ns), "{first:?}");
        assert_eq!(*second, Point::default());
        assert!(last.p50_ns > 290_000_000, "{last:?}");
    }

    #[test]
    fn late_answers_are_recorded_in_a_bounded_timeline() {
        let mut timeline = of(10);
        for second in 0..2000 {
            timeline.record(SECOND_NS * (1 + second), 1000);
        }
        let timeline = timeline.finish(SECOND_NS * 3000);
        assert!(timeline.points().len() <= MAX_POINTS);
        let answers: u64 = timeline.points().iter().map(|point| point.answers).sum();
        assert_eq!(answers, 2000);
    }
}
