//! The face of a session: the same for each kind. asyncio's `Protocol`, and more of it derived.

use crate::core::base::clock::Time;
use crate::core::base::limits::Limits;
use crate::core::session::context::Context;
use crate::core::session::disposition::Disposition;
use crate::core::session::tls::TlsError;

/// How the other side's bytes ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamEnd {
    /// Nothing was cut off.
    Whole,
    /// They went over TLS, and `close_notify` is missing: something else may have cut the stream
    /// off, in the middle of a line.
    CutOff,
}

/// A session: the state machine above one connection. Bytes are plaintext here; see
/// [`TlsSession`](crate::core::session::tls::TlsSession) for what is below.
///
/// An event may have an effect outside the session. It is returned, and the caller has to act on
/// it; a session keeps nothing to be collected.
pub trait Protocol {
    /// What an event may have for an effect outside.
    type Effect;

    /// Bytes may flow: the socket that we dialled with is connected, or the handshake of TLS is
    /// done.
    fn connection_made(&mut self, context: &mut Context<'_>) -> Option<Self::Effect>;

    /// Bytes came in.
    fn data_received(&mut self, data: &[u8], context: &mut Context<'_>) -> Option<Self::Effect>;

    /// No more bytes will come in.
    fn eof_received(&mut self, end: StreamEnd, context: &mut Context<'_>) -> Option<Self::Effect>;

    /// TLS cannot go on. The other side is told in an alert; then the connection is lost.
    fn tls_failed(&mut self, error: &TlsError, context: &mut Context<'_>) -> Option<Self::Effect>;

    /// The connection is gone: the last event. `why` is missing if the core closed it.
    fn connection_lost(
        &mut self,
        why: Option<&str>,
        context: &mut Context<'_>,
    ) -> Option<Self::Effect>;

    /// The journal has room again: goes on with what waits for that.
    fn go_on(&mut self, context: &mut Context<'_>) -> Option<Self::Effect>;

    /// The deadline may have come.
    fn deadline_reached(&mut self, context: &mut Context<'_>) -> Option<Self::Effect>;

    /// The server stops: what is being answered is the last thing.
    fn stop(&mut self, context: &mut Context<'_>);

    /// What the socket is to take. Some is made only when it is asked for.
    fn output(&mut self, context: &mut Context<'_>) -> &[u8];

    /// The socket took `count` bytes of it.
    fn output_sent(&mut self, count: usize, context: &mut Context<'_>) -> Option<Self::Effect>;

    /// The socket has taken what it could in this turn: notes since when something waits.
    fn flushed(&mut self, context: &mut Context<'_>);

    /// What happens to the connection.
    fn disposition(&self) -> Disposition;

    /// Whether bytes from the socket are wanted: asyncio's `pause_reading` and `resume_reading`.
    fn wants_read(&self) -> bool;

    /// Whether the next line waits until the journal has room.
    fn wants_room(&self) -> bool;

    /// Which change has to be safe in the journal before the output may leave.
    fn held_until(&self) -> u64;

    /// When [`Protocol::deadline_reached`] has to be called.
    fn deadline(&self, limits: &Limits) -> Option<Time>;

    /// The name of the state that it is in.
    fn state_name(&self) -> &'static str;

    /// Whether its parts agree with one another. For tests.
    ///
    /// # Errors
    /// What does not hold, in words.
    fn check_invariants(&self) -> Result<(), String>;
}
