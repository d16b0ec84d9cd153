//! Everything of the server that touches the operating system: sockets, `Poll`, clocks, threads and
//! files. The protocols are in [`core`](crate::core).

pub mod clock;
pub mod disk;
pub mod event_loop;
pub mod executor;
pub mod listen;
pub mod look_up;
pub mod memory;
pub mod ports;
mod process;
pub mod reload;
pub mod service_manager;
pub mod signals;
pub mod sockets;
pub mod start;
mod stopwatch;
pub mod transport;
