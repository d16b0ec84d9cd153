//! The `FOLLOW` command: an operator reads the changes of the table as they happen.
//! [`core::session::follower`](crate::core::session::follower) explains which changes are sent, and
//! where a follower resumes. A follower is an operator that has sent `FOLLOW`.

use log::info;

use super::{Cause, Link, PeerLabel, State};
use crate::core::base::clock::Time;
use crate::core::base::counted::Counted;
use crate::core::base::limits::{LimitValue, Limits};
use crate::core::session::context::Context;
use crate::core::session::follower::{Cursor, Format, Start};
use crate::core::session::herd::LinkError;

/// The part of a link's state that only a follower's link has.
pub(super) struct Following {
    cursor: Cursor,
    /// Whether the `SYNC` that ends the catch-up was sent: the `SYNC` after all changes up to the
    /// latest one at the time of `FOLLOW`. A `SYNC` that is a heartbeat does not count.
    sent_caught_up: bool,
    /// The time since which output waits and the socket accepts none of it. `None` if no output
    /// waits.
    stalled_since: Option<Time>,
}

impl Following {
    /// Returns the number of bytes of memory for changes that were read but may not be sent yet.
    pub(super) fn held_bytes(&self) -> usize {
        self.cursor.held_bytes()
    }
}

impl Link {
    /// Whether an operator follows the changes on this link.
    #[must_use]
    pub fn is_following(&self) -> bool {
        matches!(self.state, State::Following)
    }

    /// Handles a `FOLLOW`: begins to send the changes from `start` on.
    pub(super) fn follow_received(
        &mut self,
        start: &[u8],
        context: &mut Context<'_>,
    ) -> Result<(), LinkError> {
        let limits = &context.settings.limits;
        let start = Start::parse(start)
            .ok_or("FOLLOW needs now, all, or a position such as 0123456789abcdef-7 after it")?;
        if context.herd.followers().len() >= limits.max_followers.to_count() {
            return Err(LinkError::TooManyFollowers(limits.max_followers));
        }
        let (cursor, restart) = Cursor::open(start, context);
        let (position, behind) = (cursor.position(), cursor.behind());
        self.reader = Some(cursor.reader());
        context.herd.follower_begins(self.id);
        self.send_line(format_args!(
            "FOLLOWING {position} behind={behind} heartbeat={} silence={} ttl={}",
            limits.heartbeat_ms, limits.link_silence_ms, limits.record_ttl_ms
        ));
        let who = PeerLabel(self, context.herd).to_string();
        let behind = Counted(behind, "change");
        match restart {
            None => info!("{who}: follows from {position}, {behind} behind"),
            Some(reason) => {
                info!("{who}: follows from the start, {behind} behind: {reason}");
                self.send_line(format_args!("RESTART {reason}"));
            }
        }
        self.since = context.now.time;
        self.following = Some(Box::new(Following {
            cursor,
            sent_caught_up: false,
            stalled_since: None,
        }));
        self.enter(Cause::FollowReceived, State::Following);
        Ok(())
    }

    /// If the output is empty, appends the next changes. When the follower has got all changes up
    /// to the latest one at the time of `FOLLOW`, also appends a `SYNC`, once.
    pub(super) fn fill_with_changes(&mut self, context: &mut Context<'_>) {
        if let State::Following = self.state
            && let Some(following) = &mut self.following
            && self.output.is_empty()
        {
            let cursor = &mut following.cursor;
            cursor.pull(Format::Line, context, self.output.tail());
            if cursor.has_caught_up() && !std::mem::replace(&mut following.sent_caught_up, true) {
                self.send_position();
            }
        }
    }

    /// Appends a `SYNC` with the follower's position.
    fn send_position(&mut self) {
        if let Some(following) = &self.following {
            let position = following.cursor.position();
            self.send_line(format_args!("SYNC {position}"));
        }
    }

    /// Whether all changes that may be sent now were sent to the follower.
    pub(super) fn has_followed_all(&self) -> bool {
        let is_done = |it: &Following| it.cursor.is_done();
        self.output.is_empty() && self.following.as_deref().is_none_or(is_done)
    }

    /// Restarts the measurement of the stall if the socket has accepted output. `count` is the
    /// number of accepted bytes.
    pub(super) fn follower_took(&mut self, count: usize) {
        if let Some(following) = &mut self.following
            && count > 0
        {
            following.stalled_since = None;
        }
    }

    /// Notes whether output still waits after the socket was given all output of this turn of the
    /// event loop. If so, the follower is stalled.
    pub(super) fn follower_flushed(&mut self, now: Time) {
        let is_stalled = !self.output.is_empty();
        if let Some(following) = &mut self.following {
            let since = following.stalled_since.unwrap_or(now);
            following.stalled_since = is_stalled.then_some(since);
        }
    }

    /// Returns the earliest time at which [`Link::follower_due`] has something to do, or at which
    /// the follower has been silent for too long.
    pub(super) fn follower_deadline(&self, limits: &Limits) -> Time {
        let silence_at = self.last_received.plus_ms(limits.link_silence_ms);
        let following = self.following.as_deref();
        let wants_turn = following.is_some_and(|it| it.cursor.wants_turn());
        let next = match following.and_then(|it| it.stalled_since) {
            // A time in the past, so the deadline is due in the next turn of the event loop.
            _ if wants_turn => self.since,
            Some(since) => since.plus_ms(limits.output_stall_ms),
            None => self.heartbeat_deadline(limits),
        };
        silence_at.min(next)
    }

    /// Sends a heartbeat if it is due. If the connection has to be closed, returns the reason.
    pub(super) fn follower_due(&mut self, limits: &Limits, now: Time) -> Option<LinkError> {
        let is_heartbeat_due = self.output.is_empty() && self.heartbeat_deadline(limits) <= now;
        let following = self.following.as_deref_mut()?;
        following.cursor.turn_begins();
        match following.stalled_since {
            Some(since) if since.plus_ms(limits.output_stall_ms) <= now => {
                return Some(LinkError::NotRead(limits.output_stall_ms));
            }
            Some(_) => {}
            None if is_heartbeat_due => self.send_position(),
            None => {}
        }
        None
    }
}
