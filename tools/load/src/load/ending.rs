//! The end of a run: when it comes, its reason, and the result.

use super::{GRACE_NS, Outcome, Run};
use crate::crew::{Connection, Trouble};
use crate::outages::MissingByKind;
use crate::schedule::Schedule;
use crate::stop::Stop;
use crate::tally::Tally;

/// The reason for the end.
pub(super) enum End {
    /// No answer is due any more.
    Planned,
    Signal,
    /// The server did not answer for too long.
    Silence(String),
}

impl Run<'_> {
    /// The reason, if the run ends now.
    pub(super) fn end(&mut self, now_ns: u64, stop: &Stop) -> Option<End> {
        if stop.is_wanted() && self.stopping_ns.is_none() {
            self.stopping_ns = Some(now_ns);
        }
        let window_end_ns = self.tally.window_ns.end;
        let is_stopping = self.stopping_ns.is_some();
        self.issuing = !is_stopping
            && match &self.schedule {
                Some(schedule) => !schedule.is_over(),
                None => now_ns < window_end_ns && self.remaining > 0,
            };
        // Commands that became due in time are sent late, but only for a limited time.
        let last_ns = window_end_ns.saturating_add(self.plan.timeout_ns);
        self.given_up = is_stopping || now_ns > last_ns;
        if let Some(since_ns) = self.stopping_ns {
            let is_over = now_ns.saturating_sub(since_ns) > GRACE_NS;
            return (is_over || self.in_flight == 0).then_some(End::Signal);
        }
        let owes = self.owed() > 0 && !self.given_up;
        if !self.issuing && !owes && self.in_flight == 0 {
            return Some(End::Planned);
        }
        self.silence(now_ns).map(End::Silence)
    }

    pub(super) fn outcome(mut self, end: End) -> Outcome {
        let now_ns = self.crew.clock.now_ns();
        self.outages.end(now_ns);
        let mut unanswered = MissingByKind::default();
        for connection in &self.crew.connections {
            unanswered = unanswered.with(&connection.conversation.missing(now_ns));
        }
        let owed_since_ns = self
            .schedule
            .as_ref()
            .filter(|schedule| schedule.owed_that_count() > 0)
            .and_then(|schedule| schedule.owed_since_ns(&self.sent));
        let (interrupted, trouble) = match end {
            End::Planned => (false, None),
            End::Signal => (true, None),
            End::Silence(what) => (false, Some(what)),
        };
        Outcome {
            elapsed_ns: self.elapsed_ns(now_ns),
            unsent: self.schedule.as_ref().map_or(0, Schedule::owed_that_count),
            oldest_unsent_ns: owed_since_ns.map_or(0, |since_ns| now_ns.saturating_sub(since_ns)),
            unanswered,
            trouble: trouble.or_else(|| self.absence()),
            lost: self.lost,
            outages: self.outages,
            tally: Tally {
                timeline: self.tally.timeline.finish(now_ns),
                ..self.tally
            },
            interrupted,
        }
    }

    /// The message if answers are due and none came for too long.
    fn silence(&self, now_ns: u64) -> Option<String> {
        let silent_ns = now_ns.saturating_sub(self.progress_ns);
        if self.in_flight == 0 || silent_ns <= self.plan.timeout_ns {
            return None;
        }
        let waiting = |connection: &Connection| connection.conversation.in_flight() > 0;
        let index = self.crew.connections.iter().position(waiting);
        let failure = self.trouble(index.unwrap_or_default(), Trouble::Silent(silent_ns));
        Some(failure.into_words())
    }

    /// The length of the time in which commands counted.
    fn elapsed_ns(&self, now_ns: u64) -> u64 {
        let window = &self.tally.window_ns;
        let until = if let Some(stopped_ns) = self.stopping_ns {
            stopped_ns.min(window.end)
        } else if self.plan.count == Some(self.tally.answers()) {
            self.tally.last_ns
        } else if now_ns < window.end {
            // Silence; or all commands were sent, and some were lost.
            now_ns
        } else if self.schedule.is_some() {
            // Commands that became due in time may have been answered much later.
            self.tally.last_ns.max(window.end)
        } else {
            window.end
        };
        until.saturating_sub(window.start)
    }
}
