//! The trait that all kinds of session implement. It is like asyncio's `Protocol`, except that a
//! session calls no transport: the loop asks the session whether to read, to write or to close.

use crate::core::base::clock::Time;
use crate::core::base::limits::Limits;
use crate::core::session::connection_error::ConnectionError;
use crate::core::session::context::Context;
use crate::core::session::disposition::Disposition;
use crate::core::session::tls::TlsError;

/// How the other side's stream of bytes ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// The stream is complete.
    Whole,
    /// The connection uses TLS, and the stream ended without `close_notify`. An attacker may have
    /// cut the stream off, even in the middle of a line.
    CutOff,
}

/// What is derived from a session's state at the end of a turn. A turn is one iteration of the
/// event loop.
pub struct TurnEnd {
    /// See [`Protocol::disposition`].
    pub disposition: Disposition,
    /// See [`Protocol::deadline`].
    pub deadline: Option<Time>,
    /// See [`Protocol::held_bytes`].
    pub held_bytes: usize,
}

/// A session: the state machine above one connection. It handles only plaintext. TLS is below it,
/// in [`TlsSession`](crate::core::session::tls::TlsSession).
///
/// An event may require an action outside the session. Then the method returns an effect, and the
/// caller has to act on it. A session does not store effects.
pub trait Protocol {
    /// An action outside the session that an event can require.
    type Effect;

    /// The connection can carry data now. Called when the TLS handshake is done or, without TLS,
    /// when the socket that we dialled is connected. Not called for a connection that was accepted
    /// without TLS.
    fn connection_made(&mut self, context: &mut Context<'_>) -> Option<Self::Effect>;

    /// Bytes arrived.
    fn data_received(&mut self, data: &[u8], context: &mut Context<'_>) -> Option<Self::Effect>;

    /// The input has ended. No more bytes will arrive.
    fn eof_received(&mut self, end: StreamEnd, context: &mut Context<'_>) -> Option<Self::Effect>;

    /// Handles a failure of TLS. The TLS layer sends an alert to the other side if it can, and then
    /// closes the connection.
    fn tls_failed(&mut self, error: &TlsError, context: &mut Context<'_>) -> Option<Self::Effect>;

    /// The connection is closed. This is the last event. `why` is `None` if the core closed the
    /// connection.
    fn connection_lost(
        &mut self,
        why: Option<&ConnectionError>,
        context: &mut Context<'_>,
    ) -> Option<Self::Effect>;

    /// Handles the input that waited for disk space. The journal has reserved disk space again.
    fn resume_input(&mut self, context: &mut Context<'_>) -> Option<Self::Effect>;

    /// Handles the deadlines of the session that have passed. The call may come before any deadline
    /// has passed: then the session does nothing.
    fn deadline_reached(&mut self, context: &mut Context<'_>) -> Option<Self::Effect>;

    /// The server is stopping. The session finishes its present work, and begins no new work.
    fn stop(&mut self, context: &mut Context<'_>);

    /// Returns the bytes for the socket. A session may append output first: a link to a neighbour
    /// appends records from the table.
    fn output(&mut self, context: &mut Context<'_>) -> &[u8];

    /// The socket accepted the first `count` bytes of the output.
    fn output_sent(&mut self, count: usize, context: &mut Context<'_>) -> Option<Self::Effect>;

    /// The socket accepted as much of this turn's output as it could. If output is left, the
    /// session can begin to measure here how long the socket accepts nothing.
    fn flushed(&mut self, context: &mut Context<'_>);

    /// Calls [`Protocol::flushed`], then returns the disposition, the deadline and the held bytes.
    /// The loop needs all three at the end of each turn. One method returns them, so the caller has
    /// to match on the kind of session only once.
    #[inline]
    fn end_turn(&mut self, context: &mut Context<'_>) -> TurnEnd {
        self.flushed(context);
        TurnEnd {
            disposition: self.disposition(),
            deadline: self.deadline(&context.settings.limits),
            held_bytes: self.held_bytes(),
        }
    }

    /// Returns whether the connection stays open, ends its output, or closes.
    fn disposition(&self) -> Disposition;

    /// Whether the event loop has to read bytes from the socket. This replaces asyncio's
    /// `pause_reading` and `resume_reading`.
    fn wants_read(&self) -> bool;

    /// Whether input of the session has to wait until the journal has reserved disk space.
    fn awaits_disk_space(&self) -> bool;

    /// Returns the sequence number of the change that the journal has to store before the output
    /// may be sent. Returns 0 if the output does not wait for the journal.
    fn required_seq(&self) -> u64;

    /// Returns the time at which [`Protocol::deadline_reached`] has to be called.
    fn deadline(&self, limits: &Limits) -> Option<Time>;

    /// Returns the number of bytes of memory that the session's buffers hold. This includes unused
    /// capacity. The fixed size of a session does not count.
    fn held_bytes(&self) -> usize;

    /// Returns the name of the session's state.
    fn state_name(&self) -> &'static str;

    /// Checks that the parts of the session agree with each other. For tests.
    ///
    /// # Errors
    /// A condition does not hold. The text describes this condition.
    fn check_invariants(&self) -> Result<(), String>;
}
