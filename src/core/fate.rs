//! The end of a connection, as its session sees it.

/// What is to become of a connection, as far as its session is concerned. Derived from its state, each time anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It goes on.
    Open,
    /// All is said: shut down the writing side, and read until the other side closes.
    Finish,
    /// Close it, then its one `connection_lost`.
    Close,
}
