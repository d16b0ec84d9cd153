//! Signals as bytes in a socket that the loop polls: asyncio's `add_signal_handler`.
//!
//! | signal | asks |
//! |---|---|
//! | SIGTERM, SIGINT | to stop; the second one, not to wait |
//! | SIGHUP | to read certificates, keys and the herd secret anew, and to open the log anew |
//! | SIGUSR1 | to open the log anew |
//! | SIGUSR2 | nothing yet: it is logged |
//! | SIGXFSZ | nothing: a file that may not grow is an error of the write |
//!
//! A program inherits its signal mask from its starter, also across `exec` (sigprocmask(2)). A
//! signal that the starter blocked would never arrive, so all of these are unblocked. A disposition
//! "ignore" is inherited too (`nohup`); a handler replaces it, so a server that was started with
//! `nohup` still reloads.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mio::net::UnixStream;
use nix::sys::signal::{SigSet, Signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGXFSZ};
use signal_hook::flag;
use signal_hook::low_level::pipe;

/// Whatever the starter blocked, these arrive. SIGQUIT keeps its default: it ends the process with
/// a core file.
const UNBLOCKED: [Signal; 6] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGQUIT,
];

/// What signals have asked for since the process began.
#[derive(Clone, Default)]
pub struct Requests {
    stop: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
    reopen_log: Arc<AtomicBool>,
    drain: Arc<AtomicBool>,
    /// For the log's writer: SIGHUP and SIGUSR1.
    log: Arc<AtomicBool>,
}

/// The reading end.
pub struct Signals {
    stream: UnixStream,
    requests: Requests,
}

/// What signals asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// To stop: SIGTERM or SIGINT.
    pub stop: bool,
    /// To read files anew: SIGHUP.
    pub reload: bool,
    /// To open the log anew, and no more: SIGUSR1.
    pub reopen_log: bool,
    /// SIGUSR2, which has no meaning yet.
    pub drain: bool,
}

/// Lets signals arrive that end a program, whatever its starter blocked: for programs beside the
/// server.
pub fn unblock_ends() {
    let ends = [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
    ];
    // These are signals, and this is their mask: it does not fail.
    let _ = ends.into_iter().collect::<SigSet>().thread_unblock();
}

impl Requests {
    /// From now on SIGHUP, SIGUSR1, SIGUSR2 and SIGXFSZ end no process, and none of the signals is
    /// blocked. To be called before any thread is started: threads inherit the mask.
    ///
    /// SIGTERM and SIGINT keep their default until [`Signals::catch`]: a config file that is a pipe
    /// without a writer blocks the start, and has to be interruptible.
    ///
    /// # Errors
    /// The signals cannot be caught.
    pub fn note() -> io::Result<Requests> {
        let requests = Requests::default();
        // The log's first: it is set when the loop hears of the signal, and the loop's next flush
        // has to find it.
        flag::register(SIGHUP, requests.log.clone())?;
        flag::register(SIGUSR1, requests.log.clone())?;
        flag::register(SIGHUP, requests.reload.clone())?;
        flag::register(SIGUSR1, requests.reopen_log.clone())?;
        flag::register(SIGUSR2, requests.drain.clone())?;
        flag::register(SIGXFSZ, Arc::default())?;
        UNBLOCKED.into_iter().collect::<SigSet>().thread_unblock()?;
        Ok(requests)
    }

    /// Is set when the log is to be opened anew; its writer takes it back.
    #[must_use]
    pub fn reopen_log(&self) -> Arc<AtomicBool> {
        self.log.clone()
    }
}

impl Signals {
    /// From now on SIGTERM and SIGINT are an orderly stop, and every request is a byte in the
    /// stream, too.
    ///
    /// # Errors
    /// The socket pair cannot be made, or the signals cannot be caught.
    pub fn catch(requests: Requests) -> io::Result<Signals> {
        let (receiver, mut sender) = StdUnixStream::pair()?;
        receiver.set_nonblocking(true)?;
        flag::register(SIGTERM, requests.stop.clone())?;
        flag::register(SIGINT, requests.stop.clone())?;
        for signal in [SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2] {
            // Behind the flags: what was asked is there when the byte is.
            pipe::register(signal, sender.try_clone()?)?;
        }
        // For requests from before.
        sender.write_all(&[0])?;
        Ok(Signals {
            stream: UnixStream::from_std(receiver),
            requests,
        })
    }

    /// What to register with the poll.
    pub fn source(&mut self) -> &mut UnixStream {
        &mut self.stream
    }

    /// Whether a stop was asked for. Other requests wait for [`Signals::asked`].
    #[must_use]
    pub fn is_stop_asked(&self) -> bool {
        self.requests.stop.load(Ordering::SeqCst)
    }

    /// Whether anything was asked since the last call of [`Signals::asked`].
    #[must_use]
    pub fn is_pending(&self) -> bool {
        let Requests {
            stop,
            reload,
            reopen_log,
            drain,
            log: _,
        } = &self.requests;
        let mut flags = [stop, reload, reopen_log, drain].into_iter();
        flags.any(|flag| flag.load(Ordering::Relaxed))
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
            stop: self.requests.stop.swap(false, Ordering::SeqCst),
            reload: self.requests.reload.swap(false, Ordering::SeqCst),
            reopen_log: self.requests.reopen_log.swap(false, Ordering::SeqCst),
            drain: self.requests.drain.swap(false, Ordering::SeqCst),
        }
    }
}
