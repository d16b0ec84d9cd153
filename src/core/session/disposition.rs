//! The disposition of a connection: what happens to the connection at the end of a turn. A turn is
//! one iteration of the event loop.

/// What the event loop does with a connection next. A session does not store this value: it
/// computes the value from its state each time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Keep the connection open.
    Open,
    /// Shut down the writing side, because all output is written. Then read until the other side
    /// closes.
    Finish,
    /// Close the connection. Then `connection_lost` is called, exactly once.
    Close,
}
