//! One channel for everything that the demo waits for: signals, and the output of its child
//! processes.
//!
//! ```text
//!   signals ────────────┐
//!   a child's stdout ───┼──► channel ──► next(), pause()
//!   a child's stdout ───┘
//! ```
//!
//! A child's end is an event too, because it closes the child's standard output. A signal ends the
//! current wait and all later ones with `Stop::Signal`. Callers return that with `?`, and guards
//! clean up on the way.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use herd_testkit::clock;
use herd_testkit::signals;
use signal_hook::iterator::Signals;

use crate::stop::{Stop, failure};

/// An event of a child, which `process` identifies.
#[derive(Debug)]
pub(crate) enum Event {
    /// It printed a line.
    Line { process: u32, text: String },
    /// Its standard output is closed, so the child has ended.
    Closed { process: u32 },
}

enum Happening {
    Signal(i32),
    Child(Event),
}

/// The receiving end of the channel, and the events that a pause took out of it.
pub(crate) struct Events {
    sender: Sender<Happening>,
    receiver: Receiver<Happening>,
    /// The first signal that came.
    signal: Option<i32>,
    /// Events that came during a pause. `next` returns them first.
    aside: VecDeque<Event>,
}

impl Events {
    /// From now on SIGINT, SIGTERM and SIGHUP are events. Under `nohup`, SIGHUP stays ignored.
    pub(crate) fn start() -> io::Result<Events> {
        let (sender, receiver) = mpsc::channel();
        signals::keep_children()?;
        let mut signals = Signals::new(signals::ends())?;
        let to_channel = sender.clone();
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                for signal in signals.forever() {
                    // Fails only when the demo is ending and the receiver is gone.
                    let _ = to_channel.send(Happening::Signal(signal));
                }
            })?;
        Ok(Events {
            sender,
            receiver,
            signal: None,
            aside: VecDeque::new(),
        })
    }

    /// From now on each line that this child prints is an event. The thread ends with the child's
    /// output.
    pub(crate) fn listen(
        &self,
        process: u32,
        output: impl Read + Send + 'static,
    ) -> io::Result<()> {
        let to_channel = self.sender.clone();
        thread::Builder::new()
            .name(format!("output of {process}"))
            .spawn(move || {
                let mut output = BufReader::new(output);
                let mut line = Vec::new();
                // An output that cannot be read is treated as closed.
                while output
                    .read_until(b'\n', &mut line)
                    .is_ok_and(|count| count > 0)
                {
                    let text = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
                    let _ = to_channel.send(Happening::Child(Event::Line { process, text }));
                    line.clear();
                }
                let _ = to_channel.send(Happening::Child(Event::Closed { process }));
            })?;
        Ok(())
    }

    /// The next event, or `None` at the deadline.
    pub(crate) fn next(&mut self, deadline: Option<Instant>) -> Result<Option<Event>, Stop> {
        match self.aside.pop_front() {
            Some(event) => Ok(Some(event)),
            None => self.receive(deadline),
        }
    }

    /// Waits for this time, or until a signal. Events of children are kept for
    /// [`next`](Events::next).
    pub(crate) fn pause(&mut self, duration: Duration) -> Result<(), Stop> {
        let deadline = clock::now() + duration;
        while let Some(event) = self.receive(Some(deadline))? {
            self.aside.push_back(event);
        }
        Ok(())
    }

    fn receive(&mut self, deadline: Option<Instant>) -> Result<Option<Event>, Stop> {
        if let Some(signal) = self.signal {
            return Err(Stop::Signal(signal));
        }
        let happening = match deadline {
            Some(deadline) => {
                let patience = deadline.saturating_duration_since(clock::now());
                match self.receiver.recv_timeout(patience) {
                    Ok(happening) => happening,
                    Err(_) => return Ok(None),
                }
            }
            None => match self.receiver.recv() {
                Ok(happening) => happening,
                // Cannot happen: `self` holds a sender.
                Err(_) => return failure("the channel of events is closed"),
            },
        };
        match happening {
            Happening::Signal(signal) => {
                self.signal = Some(signal);
                Err(Stop::Signal(signal))
            }
            Happening::Child(event) => Ok(Some(event)),
        }
    }
}
