//! Delivers signals as bytes in a socket that the loop polls, as asyncio's `add_signal_handler`
//! does.
//!
//! | signal | request |
//! |---|---|
//! | SIGTERM, SIGINT | stop; a second one stops at once |
//! | SIGHUP | read certificates, keys and the herd secret again, and open the log file again |
//! | SIGUSR1 | open the log file again |
//! | SIGUSR2 | drain, then stop; a second SIGUSR2 does nothing |
//! | SIGXFSZ | none: when a file reaches the size limit, the write fails with an error instead |
//!
//! A process inherits its signal mask from its parent, also across `exec` (sigprocmask(2)). A
//! signal that the parent blocked would never arrive, so the server unblocks all signals in the
//! table except SIGXFSZ. The disposition "ignore" is inherited too (`nohup` sets it for SIGHUP). A
//! handler replaces that disposition, so SIGHUP reloads a server that was started with `nohup`.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mio::net::UnixStream;
use nix::sys::signal::{SigSet, Signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGXFSZ};
use signal_hook::flag;
use signal_hook::low_level::pipe;

/// The signals that are unblocked at start. SIGQUIT keeps its default action: it ends the process
/// with a core file.
const UNBLOCKED: [Signal; 6] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGQUIT,
];

/// Flags that the signal handlers set. Clones share the same flags.
#[derive(Clone, Default)]
pub struct SignalFlags {
    stop: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
    reopen_log: Arc<AtomicBool>,
    sigusr2: Arc<AtomicBool>,
    /// Asks the log's writer thread to open the log file again. SIGHUP and SIGUSR1 set this flag.
    /// The writer thread clears it.
    log: Arc<AtomicBool>,
}

/// The reading end of the socket to which the signal handlers write.
pub struct Signals {
    stream: UnixStream,
    flags: SignalFlags,
}

/// The requests that signals made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SignalRequests {
    /// Stop the server: SIGTERM or SIGINT.
    pub stop: bool,
    /// Read files again: SIGHUP.
    pub reload: bool,
    /// Open the log file again, and do nothing else: SIGUSR1.
    pub reopen_log: bool,
    /// Drain, then stop: SIGUSR2.
    pub drain: bool,
}

/// Unblocks the signals that end a process, in case the parent blocked them. `herd-journal` calls
/// this at its start.
pub fn unblock_termination_signals() {
    let signals = [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
    ];
    // Cannot fail: the set contains only valid signals.
    let _ = signals.into_iter().collect::<SigSet>().thread_unblock();
}

impl SignalFlags {
    /// Catches SIGHUP, SIGUSR1, SIGUSR2 and SIGXFSZ, so that they no longer end the process, and
    /// unblocks the signals in `UNBLOCKED`. Threads inherit the signal mask, so call this before
    /// any thread is started.
    ///
    /// SIGTERM and SIGINT keep their default action until [`Signals::catch`]. Reading a config file
    /// that is a pipe without a writer blocks, and these signals must be able to end the process
    /// then.
    ///
    /// # Errors
    /// The signals cannot be caught.
    pub fn register() -> io::Result<SignalFlags> {
        let flags = SignalFlags::default();
        // The `log` flag is registered first, so a signal sets it before the flags that the loop
        // reads. When the loop then flushes the log, the writer thread must find the `log` flag
        // set.
        flag::register(SIGHUP, flags.log.clone())?;
        flag::register(SIGUSR1, flags.log.clone())?;
        flag::register(SIGHUP, flags.reload.clone())?;
        flag::register(SIGUSR1, flags.reopen_log.clone())?;
        flag::register(SIGUSR2, flags.sigusr2.clone())?;
        flag::register(SIGXFSZ, Arc::default())?;
        UNBLOCKED.into_iter().collect::<SigSet>().thread_unblock()?;
        Ok(flags)
    }

    /// Returns the flag that asks for the log file to be opened again. The log's writer thread
    /// clears the flag.
    #[must_use]
    pub fn reopen_log(&self) -> Arc<AtomicBool> {
        self.log.clone()
    }
}

impl Signals {
    /// Makes SIGTERM and SIGINT stop the server in an orderly way. From now on, each signal also
    /// writes a byte to the socket.
    ///
    /// # Errors
    /// The socket pair cannot be made, or the signals cannot be caught.
    pub fn catch(flags: SignalFlags) -> io::Result<Signals> {
        let (receiver, mut sender) = StdUnixStream::pair()?;
        receiver.set_nonblocking(true)?;
        flag::register(SIGTERM, flags.stop.clone())?;
        flag::register(SIGINT, flags.stop.clone())?;
        for signal in [SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2] {
            // Handlers run in the order of registration, so the flag is set before the byte
            // arrives.
            pipe::register(signal, sender.try_clone()?)?;
        }
        // This byte makes the first poll of the loop return, so that the loop handles signals that
        // came before this call.
        sender.write_all(&[0])?;
        Ok(Signals {
            stream: UnixStream::from_std(receiver),
            flags,
        })
    }

    /// Returns the socket to register with the poll.
    pub fn source(&mut self) -> &mut UnixStream {
        &mut self.stream
    }

    /// Whether SIGTERM or SIGINT requested a stop. This function does not clear the request: only
    /// [`Signals::take_requests`] does.
    #[must_use]
    pub fn is_stop_requested(&self) -> bool {
        self.flags.stop.load(Ordering::SeqCst)
    }

    /// Whether a signal came since the last call of [`Signals::take_requests`].
    #[must_use]
    pub fn is_pending(&self) -> bool {
        let SignalFlags {
            stop,
            reload,
            reopen_log,
            sigusr2,
            log: _,
        } = &self.flags;
        let mut flags = [stop, reload, reopen_log, sigusr2].into_iter();
        flags.any(|flag| flag.load(Ordering::Relaxed))
    }

    /// Returns the requests since the last call, and clears them.
    pub fn take_requests(&mut self) -> SignalRequests {
        let mut bytes = [0; 64];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break, // would block: all read
            }
        }
        SignalRequests {
            stop: self.flags.stop.swap(false, Ordering::SeqCst),
            reload: self.flags.reload.swap(false, Ordering::SeqCst),
            reopen_log: self.flags.reopen_log.swap(false, Ordering::SeqCst),
            drain: self.flags.sigusr2.swap(false, Ordering::SeqCst),
        }
    }
}
