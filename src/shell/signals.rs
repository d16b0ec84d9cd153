//! SIGTERM, SIGINT and SIGHUP as bytes in a socket that the loop polls: asyncio's `add_signal_handler`.

use std::io::{self, Read};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mio::net::UnixStream;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;
use signal_hook::low_level::pipe;

/// The reading end.
pub struct Signals {
    stream: UnixStream,
    stop: Arc<AtomicBool>,
    renew: Arc<AtomicBool>,
}

/// What signals asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// To stop: SIGTERM or SIGINT.
    pub stop: bool,
    /// To read files anew: SIGHUP.
    pub renew: bool,
}

impl Signals {
    /// From now on, these signals are only bytes in this stream.
    ///
    /// # Errors
    /// The socket pair can not be made, or the signals not be caught.
    pub fn catch() -> io::Result<Signals> {
        let (receiver, sender) = StdUnixStream::pair()?;
        receiver.set_nonblocking(true)?;
        let (stop, renew) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        for (signal, asked) in [(SIGTERM, &stop), (SIGINT, &stop), (SIGHUP, &renew)] {
            // In this order: what was asked is there when the byte is.
            flag::register(signal, asked.clone())?;
            pipe::register(signal, sender.try_clone()?)?;
        }
        // A file that may not grow is an error of the write, not the end of the server.
        flag::register(SIGXFSZ, Arc::default())?;
        Ok(Signals {
            stream: UnixStream::from_std(receiver),
            stop,
            renew,
        })
    }

    /// What to register with the poll.
    pub fn source(&mut self) -> &mut UnixStream {
        &mut self.stream
    }

    /// What was asked since the last call.
    pub fn asked(&mut self) -> Asked {
        let mut bytes = [0; 64];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break, // would block: all read
            }
        }
        Asked {
            stop: self.stop.swap(false, Ordering::SeqCst),
            renew: self.renew.swap(false, Ordering::SeqCst),
        }
    }
}
