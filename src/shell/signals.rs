//! SIGTERM and SIGINT as bytes in a socket that the loop polls: asyncio's `add_signal_handler`.

use std::io::{self, Read};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;

use mio::net::UnixStream;
use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::low_level::pipe;

/// The reading end.
pub struct Signals {
    stream: UnixStream,
}

impl Signals {
    /// From now on, SIGTERM and SIGINT are only bytes in this stream.
    ///
    /// # Errors
    /// The socket pair can not be made, or the signals not be caught.
    pub fn catch() -> io::Result<Signals> {
        let (receiver, sender) = StdUnixStream::pair()?;
        receiver.set_nonblocking(true)?;
        pipe::register(SIGTERM, sender.try_clone()?)?;
        pipe::register(SIGINT, sender)?;
        // A file that may not grow is an error of the write, not the end of the server.
        signal_hook::flag::register(SIGXFSZ, Arc::default())?;
        Ok(Signals {
            stream: UnixStream::from_std(receiver),
        })
    }

    /// What to register with the poll.
    pub fn source(&mut self) -> &mut UnixStream {
        &mut self.stream
    }

    /// Whether a signal came since the last call.
    pub fn came(&mut self) -> bool {
        let mut bytes = [0; 64];
        let mut came = false;
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => return came,
                Ok(_) => came = true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return came, // would block: all read
            }
        }
    }
}
