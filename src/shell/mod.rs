//! The server's outside: sockets, `Poll`, clocks and threads, and nothing of what is said over
//! them.

pub mod clock;
pub mod disk;
pub mod event_loop;
pub mod executor;
pub mod listen;
pub mod look_up;
mod ports;
pub mod reload;
pub mod signals;
pub mod sockets;
pub mod start;
pub mod transport;
