//! The `DRAIN` command: an operator asks this server to drain, that is, to close its clients one
//! after another and then to stop. See
//! [`Node::handle_drain`](crate::core::node::Node::handle_drain).

use log::info;

use super::{Effect, Link, PeerLabel};
use crate::core::session::context::Context;
use crate::core::session::herd::LinkError;

impl Link {
    /// Answers a `DRAIN`, and returns the effect that makes the node drain. If the server drains
    /// already, the answer contains the time that is left.
    pub(super) fn drain_received(&mut self, context: &mut Context<'_>) -> Effect {
        let now = context.now.time;
        let (ms, again) = match context.tally.drain_ends {
            None => (context.settings.limits.drain_ms, ""),
            Some(ends) => (
                u64::try_from(ends.since(now).as_millis()).unwrap_or(u64::MAX),
                ", and it drains already",
            ),
        };
        let who = PeerLabel(self, context.herd);
        info!("{who}: asks this server to drain{again}");
        self.send_line(format_args!("DRAINING {} {ms}", context.clients));
        self.close(LinkError::Draining, true, now);
        Effect::Drain
    }
}
