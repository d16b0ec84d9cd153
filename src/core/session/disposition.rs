//! What happens to a connection at the end of a turn.

/// What happens to a connection next. Each session derives it from its state, every time anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// It stays open.
    Open,
    /// Everything is said: shut down the writing side, and read until the other side closes.
    Finish,
    /// Close it; its one `connection_lost` follows.
    Close,
}
