//! `herd-client follow`: prints the changes of a server as they happen.
//!
//! ```text
//!   server ──► network (this thread: reads, sends ALIVE, reconnects) ──► queue ──► printer ──► standard output
//! ```
//!
//! The queue is short. While the reader of the standard output waits, the network is not read, and
//! the server keeps a cursor. The server closes a connection whose output waits for too long, and
//! the command resumes at the last position.

use std::cell::Cell;
use std::ffi::OsString;
use std::io::{self, BufRead, ErrorKind, IsTerminal, Write};
use std::net::ToSocketAddrs;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::standing::{Deadline, Proven, is_wrong_proof, prove};
use clap::Parser;
use herd_mio::config::Member;
use herd_mio::core::base::counted::Counted;
use herd_mio::core::session::follower::{Position, Start, in_json};
use herd_mio::core::wire::json;
use herd_mio::core::wire::message::At;
use herd_testkit::clock::now;
use herd_testkit::failure::Failure;
use herd_testkit::output;
use herd_testkit::stop::Stop;

use crate::operator::{self, HerdOptions, seconds};
use crate::printable;
use crate::survey::Question;

/// The number of lines that wait for the standard output.
const QUEUE_LINES: usize = 1_024;
/// The time between two looks at signals and at the clock.
const TICK: Duration = Duration::from_millis(100);
/// The first wait before a lost connection is made again. It doubles with each failure.
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// The greatest such wait.
const RETRY_MOST: Duration = Duration::from_secs(5);
/// With `--own`, a position is printed at least this often while the changes of others come.
const MARK_EVERY: Duration = Duration::from_secs(3);
/// The time for the last lines at the end.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Print the changes of a server's table as they happen
///
/// Each change has a position, <life>-<number>. To continue later, give the last position that you
/// have handled. Then no change is missing, even after a restart of a server with a data directory.
/// After a lost connection the program reconnects, and continues at the last position.
///
/// Only a client's newest record counts. If a client moves twice before this program has read the
/// first move, only the second one is printed. A forgotten client has - in the place of the
/// location. The end of an expired record (limits.record_ttl_ms) is not printed. The changes
/// include those that came from other servers; --own prints only those that came from this server's
/// clients.
///
/// Lines on the standard output:
///   CHANGE <position> AT <server> <skew> <client> <location> <time>
///       a change; EPOCH <n> stands before AT if clocks of servers were wrong (the greater n wins)
///   SYNC <position>
///       all changes up to this position were sent, including those that are not printed
///   RESTART <reason>
///       the server could not resume, so all records follow, up to the next SYNC; a client without
///       a record among them no longer exists
#[derive(Parser)]
#[command(name = "herd-client follow", bin_name = "herd-client follow", version, args_override_self = true, after_help = AFTER_HELP, max_term_width = 110, verbatim_doc_comment)]
struct Cli {
    /// The server to follow
    server: String,

    #[command(flatten)]
    herd: HerdOptions,

    /// The start: after a position, with all records, or with the changes from now on
    #[arg(long, value_name = "POSITION|all|now", default_value = "now", value_parser = start)]
    from: Start,

    /// Print each line as a JSON object
    #[arg(long)]
    json: bool,

    /// Print only changes that came from this server's own clients
    #[arg(long)]
    own: bool,

    /// End when all changes that existed at the start are printed
    #[arg(long)]
    until_caught_up: bool,

    /// The time limit of a connect; with --until-caught-up, also the longest time without a
    /// connection
    #[arg(long, value_name = "SECONDS", default_value = "3", value_parser = seconds)]
    timeout: Duration,
}

const AFTER_HELP: &str = "\
Examples:
  herd-client follow Riley                                        the herd of 2021 on this machine, from now on
  herd-client follow Riley --from all --until-caught-up --json    all records, one JSON object on a line, then end
  herd-client follow Alice --config herd.toml --own --from 0123456789abcdef-4711 >> alice.log
                                                                  continue after that position, in your own herd

In JSON, a change has position, client, latitude and longitude (or forgotten), time, server, skew, epoch and
effective; of two records of a client, the one with the greater epoch, then the later effective time, wins.
The other lines are {\"sync\":POSITION} and {\"restart\":REASON}.

After Ctrl-C or SIGTERM, the standard error has the last printed position.
Exit status: 0 after Ctrl-C, SIGTERM or --until-caught-up, or if the reader of the output has closed it; 1 if the
server refuses; 2 for a mistake in usage or configuration.";

fn start(text: &str) -> Result<Start, String> {
    Start::parse(text.as_bytes()).ok_or_else(|| {
        "not all, now, or a position: sixteen hexadecimal digits, -, and a number".to_owned()
    })
}

/// The command line as clap knows it.
pub(crate) fn command() -> clap::Command {
    <Cli as clap::CommandFactory>::command()
}

/// Runs the command. `arguments` are the program's, and the first of them is `follow`.
pub(crate) fn main(arguments: &[OsString]) -> ExitCode {
    operator::main("herd-client follow", arguments, run)
}

fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let (herd, question) = cli.herd.read(Some(&cli.server), cli.timeout)?;
    let is_meant = |member: &&Member| member.name == cli.server;
    let Some(member) = herd.members.iter().find(is_meant) else {
        return Err(Failure::Usage(format!("there is no {}", cli.server)));
    };
    let stop = Stop::catch()
        .map_err(|error| Failure::Failed(format!("cannot handle signals: {error}")))?;
    let (printer, ended) = Printer::start()
        .map_err(|error| Failure::Failed(format!("cannot start a thread to print: {error}")))?;
    let follower = Follower {
        cli: &cli,
        member,
        question,
        stop,
        printer,
        position: Cell::new(None),
        last_printed: Cell::new(None),
        head: Cell::new(0),
        owes_sync: Cell::new(true),
        marked: Cell::new(now()),
    };
    let outcome = follower.run();
    let printed = follower.printer.printed.clone();
    drop(follower); // The printer ends when it has printed everything.
    let is_read = !matches!(outcome, Ok(End::NobodyReads));
    if is_read {
        // If the reader of the output does not read, the last lines are lost and not counted.
        let _ = ended.recv_timeout(LAST_LINES);
    }
    let last = *printed.lock().unwrap_or_else(PoisonError::into_inner);
    let place = match (last, cli.from) {
        (Some(position), _) => format!("; to continue: --from {position}"),
        (None, Start::After(position)) => format!("; to continue: --from {position}"),
        (None, Start::Now | Start::All) => "; nothing was printed".to_owned(),
    };
    match outcome {
        Ok(End::Stopped) => output::tell(format_args!("ended by a signal{place}")),
        Ok(End::CaughtUp | End::NobodyReads) => {}
        Err(reason) => {
            return Err(Failure::Failed(format!("{}: {reason}{place}", cli.server)));
        }
    }
    Ok(output::status(0))
}

/// Why the command ends well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Stopped,
    CaughtUp,
    NobodyReads,
}

/// Why a connection is over.
enum Lost {
    End(End),
    /// It can be made again.
    Retry(String),
    /// A new connection would fail, too.
    Refused(String),
}

impl From<End> for Lost {
    fn from(end: End) -> Lost {
        Lost::End(end)
    }
}

impl From<io::Error> for Lost {
    fn from(error: io::Error) -> Lost {
        Lost::Retry(error.to_string())
    }
}

/// What is printed: a line, and the position that is reached with it.
type Printed = (Vec<u8>, Option<Position>);

/// The thread that writes to the standard output.
struct Printer {
    queue: SyncSender<Printed>,
    /// Whether a write to the standard output has failed, because its reader is gone.
    has_failed: Arc<AtomicBool>,
    /// The last position that was written.
    printed: Arc<Mutex<Option<Position>>>,
}

impl Printer {
    /// Starts the thread. The receiver hears of its end.
    fn start() -> io::Result<(Printer, Receiver<()>)> {
        let (queue, lines) = sync_channel(QUEUE_LINES);
        let (ends, ended) = sync_channel(1);
        let printed = Arc::new(Mutex::new(None));
        let last = printed.clone();
        let has_failed = Arc::new(AtomicBool::new(false));
        let failed = has_failed.clone();
        thread::Builder::new().spawn(move || {
            // The thread that reads from the network checks this flag.
            failed.store(print(&lines, &last).is_err(), Ordering::Relaxed);
            drop(lines);
            let _ = ends.send(());
        })?;
        let printer = Printer {
            queue,
            has_failed,
            printed,
        };
        Ok((printer, ended))
    }
}

/// Writes lines until there are no more. Waits for the next line only after a flush.
fn print(lines: &Receiver<Printed>, last: &Mutex<Option<Position>>) -> io::Result<()> {
    let mut out = io::BufWriter::with_capacity(64 * 1024, io::stdout().lock());
    let mut reached = None;
    loop {
        let (line, position) = match lines.try_recv() {
            Ok(next) => next,
            Err(_) => {
                out.flush()?;
                if reached.is_some() {
                    *last.lock().unwrap_or_else(PoisonError::into_inner) = reached;
                }
                match lines.recv() {
                    Ok(next) => next,
                    Err(_) => return Ok(()),
                }
            }
        };
        out.write_all(&line)?;
        reached = position.or(reached);
    }
}

struct Follower<'a> {
    cli: &'a Cli,
    member: &'a Member,
    question: Question,
    stop: Stop,
    printer: Printer,
    /// The position up to which everything has come, if it is known.
    position: Cell<Option<Position>>,
    /// The last position that was given to the printer, and when.
    last_printed: Cell<Option<Position>>,
    /// The number of the latest change when the server began to send. A `SYNC` before it is only a
    /// heartbeat.
    head: Cell<u64>,
    /// Whether a `SYNC` has to say that all records were printed.
    owes_sync: Cell<bool>,
    marked: Cell<Instant>,
}

impl Follower<'_> {
    /// Follows until the end, over as many connections as it takes.
    fn run(&self) -> Result<End, String> {
        let (mut wait, mut last_reason, mut lost_at) = (RETRY_FIRST, String::new(), now());
        loop {
            let before = self.position.get();
            let reason = match self.follow_once() {
                Lost::End(end) => return Ok(end),
                Lost::Refused(reason) => return Err(reason),
                Lost::Retry(reason) => reason,
            };
            if self.position.get() != before {
                (wait, lost_at) = (RETRY_FIRST, now());
                last_reason.clear();
            }
            if self.cli.until_caught_up && lost_at.elapsed() >= self.cli.timeout {
                return Err(reason);
            }
            if reason != last_reason {
                output::tell(format_args!("{}: {reason}; trying again", self.member.name));
                last_reason = reason;
            }
            let until = now() + wait;
            while now() < until {
                if self.stop.signal().is_some() {
                    return Ok(End::Stopped);
                }
                thread::sleep(TICK.min(until.saturating_duration_since(now())));
            }
            wait = (wait * 2).min(RETRY_MOST);
        }
    }

    /// Follows over one connection.
    fn follow_once(&self) -> Lost {
        match self.connect().and_then(|proven| self.converse(proven)) {
            Ok(end) => Lost::End(end),
            Err(lost) => lost,
        }
    }

    /// Connects to the first address of the server that answers, with the first secret that it
    /// takes.
    fn connect(&self) -> Result<Proven, Lost> {
        let name = &self.member.name;
        let address = self.member.peers.as_ref();
        let address =
            address.ok_or_else(|| Lost::Refused("it has no address for neighbours".into()))?;
        let found: Vec<_> = (address.host.as_str(), address.port)
            .to_socket_addrs()?
            .collect();
        let mut failure = Lost::Retry("the look-up of its name gave no address".to_owned());
        for address in found {
            for secret in self.question.secrets.accepted() {
                let tls = self.question.tls.as_ref();
                match prove(address, name, secret, tls, self.question.timeout) {
                    Ok(proven) if proven.standing.followers.is_none() => {
                        let version = proven
                            .standing
                            .version
                            .as_deref()
                            .unwrap_or("an old version");
                        return Err(Lost::Refused(format!(
                            "it runs {version}, which cannot be followed; upgrade it"
                        )));
                    }
                    Ok(proven) => return Ok(proven),
                    Err(error) if is_wrong_proof(&error) => {
                        failure = Lost::Refused(format!("{address}: {error}"));
                    }
                    Err(error) => {
                        failure = Lost::Retry(format!("{address}: {error}"));
                        break;
                    }
                }
            }
        }
        Err(failure)
    }

    /// Sends `FOLLOW`, and prints the lines of the answer.
    fn converse(&self, proven: Proven) -> Result<End, Lost> {
        let Proven {
            mut stream,
            deadline,
            ..
        } = proven;
        let start = match (self.position.get(), self.cli.from) {
            (Some(position), _) | (None, Start::After(position)) => position.to_string(),
            (None, Start::Now) => "now".to_owned(),
            (None, Start::All) => "all".to_owned(),
        };
        deadline.extend(self.question.timeout);
        let follow = format!("FOLLOW {start}\n");
        stream.get_mut().write_all(follow.as_bytes())?;
        stream.get_mut().flush()?;
        let mut line = Vec::new();
        // The server sends its own values.
        let (mut heartbeat, mut silence) = (Duration::from_secs(1), Duration::from_secs(10));
        let (mut heard, mut said) = (now(), now());
        loop {
            if self.stop.signal().is_some() {
                return Ok(End::Stopped);
            }
            if self.printer.has_failed.load(Ordering::Relaxed) {
                return Ok(End::NobodyReads);
            }
            say_alive(stream.get_mut(), &mut said, heartbeat, silence, &deadline)?;
            deadline.extend(TICK);
            match stream.read_until(b'\n', &mut line) {
                Ok(_) if line.ends_with(b"\n") => line.truncate(line.len() - 1),
                Ok(_) => return Err(Lost::Retry("it closed the connection".into())),
                Err(error) if is_tick(&error) => {
                    if heard.elapsed() >= silence {
                        let seconds = silence.as_secs_f64();
                        return Err(Lost::Retry(format!("it sent nothing for {seconds} s")));
                    }
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            if let Some(rest) = line.strip_prefix(b"FOLLOWING ") {
                let following = following(rest).ok_or_else(|| strange(&line))?;
                (heartbeat, silence) = (following.heartbeat / 2, following.silence);
                self.begins(&following);
            } else {
                let mut alive =
                    || say_alive(stream.get_mut(), &mut said, heartbeat, silence, &deadline);
                if let Some(end) = self.line(&line, &mut alive)? {
                    return Ok(end);
                }
            }
            heard = now();
            line.clear();
        }
    }

    /// The server has sent the position at which it begins.
    fn begins(&self, following: &Following) {
        let Following {
            position, behind, ..
        } = *following;
        self.position.set(Some(position));
        self.head.set(position.seq.saturating_add(behind));
        output::tell(format_args!(
            "{}: following from {position}, {} behind",
            self.member.name,
            Counted(behind, "change")
        ));
    }

    /// Handles a line after `FOLLOWING`.
    fn line(
        &self,
        line: &[u8],
        alive: &mut dyn FnMut() -> io::Result<()>,
    ) -> Result<Option<End>, Lost> {
        if let Some(rest) = line.strip_prefix(b"CHANGE ") {
            let change = change(rest).ok_or_else(|| strange(line))?;
            if !self.cli.own || change.at.server == self.member.name.as_bytes() {
                let text = match self.cli.json {
                    false => shown(line),
                    true => in_json(change.position, change.epoch, change.line)
                        .ok_or_else(|| strange(line))?
                        .into_bytes(),
                };
                self.last_printed.set(Some(change.position));
                self.print(text, Some(change.position), alive)?;
            } else if self.marked.get().elapsed() >= MARK_EVERY && !self.owes_sync.get() {
                self.mark(change.position, alive)?;
            }
            self.position.set(Some(change.position));
        } else if let Some(rest) = line.strip_prefix(b"SYNC ") {
            let position = Position::parse(rest).ok_or_else(|| strange(line))?;
            self.position.set(Some(position));
            let has_caught_up = position.seq >= self.head.get();
            if has_caught_up || !self.owes_sync.get() {
                self.mark(position, alive)?;
            }
            if has_caught_up && self.cli.until_caught_up {
                return Ok(Some(End::CaughtUp));
            }
        } else if let Some(reason) = line.strip_prefix(b"RESTART ") {
            let shown = printable::line(reason);
            output::tell(format_args!(
                "{}: the stream starts again with all records: {shown}",
                self.member.name
            ));
            let text = match self.cli.json {
                false => self::shown(line),
                true => format!("{{\"restart\":{}}}", json::string(reason)).into_bytes(),
            };
            self.owes_sync.set(true);
            self.print(text, None, alive)?;
        } else if let Some(reason) = line.strip_prefix(b"BYE ") {
            return Err(Lost::Retry(format!("it said: {}", printable::line(reason))));
        } else {
            return Err(strange(line));
        }
        Ok(None)
    }

    /// Prints a position, unless it is the last one that was printed. It is always printed when
    /// all records were.
    fn mark(
        &self,
        position: Position,
        alive: &mut dyn FnMut() -> io::Result<()>,
    ) -> Result<(), Lost> {
        let is_known = self.last_printed.replace(Some(position)) == Some(position);
        if !self.owes_sync.replace(false) && is_known {
            return Ok(());
        }
        let text = match self.cli.json {
            false => format!("SYNC {position}"),
            true => format!("{{\"sync\":\"{position}\"}}"),
        };
        self.print(text.into_bytes(), Some(position), alive)
    }

    /// Puts a line in the queue. While the queue is full, calls `alive` now and then.
    fn print(
        &self,
        mut line: Vec<u8>,
        position: Option<Position>,
        alive: &mut dyn FnMut() -> io::Result<()>,
    ) -> Result<(), Lost> {
        line.push(b'\n');
        let mut next = (line, position);
        loop {
            next = match self.printer.queue.try_send(next) {
                Ok(()) => {
                    self.marked.set(now());
                    return Ok(());
                }
                Err(TrySendError::Disconnected(_)) => return Err(End::NobodyReads.into()),
                Err(TrySendError::Full(next)) => next,
            };
            if self.stop.signal().is_some() {
                return Err(End::Stopped.into());
            }
            alive()?;
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Sends `ALIVE` if nothing was sent for `heartbeat`.
fn say_alive(
    stream: &mut dyn Write,
    said: &mut Instant,
    heartbeat: Duration,
    patience: Duration,
    deadline: &Deadline,
) -> io::Result<()> {
    if said.elapsed() < heartbeat {
        return Ok(());
    }
    *said = now();
    deadline.extend(patience);
    stream.write_all(b"ALIVE\n")?;
    stream.flush()
}

/// Whether a read has ended because of [`TICK`].
fn is_tick(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// A line as it is printed.
fn shown(line: &[u8]) -> Vec<u8> {
    match io::stdout().is_terminal() {
        true => printable::line(line).into_bytes(),
        false => line.to_vec(),
    }
}

fn strange(line: &[u8]) -> Lost {
    Lost::Retry(format!("it said: {}", printable::line(line)))
}

/// The rest of a `FOLLOWING` line.
#[derive(Debug, PartialEq, Eq)]
struct Following {
    position: Position,
    behind: u64,
    heartbeat: Duration,
    silence: Duration,
}

/// Parses `<position> behind=<n> heartbeat=<ms> silence=<ms> …`.
fn following(rest: &[u8]) -> Option<Following> {
    let text = std::str::from_utf8(rest).ok()?;
    let mut words = text.split(' ');
    let position = Position::parse(words.next()?.as_bytes())?;
    let pairs: Vec<(&str, &str)> = words
        .map(|word| word.split_once('='))
        .collect::<Option<_>>()?;
    let number = |key: &str| -> Option<u64> {
        let (_, value) = pairs.iter().find(|(known, _)| *known == key)?;
        value.parse().ok()
    };
    Some(Following {
        position,
        behind: number("behind")?,
        heartbeat: Duration::from_millis(number("heartbeat")?),
        silence: Duration::from_millis(number("silence")?),
    })
}

/// The rest of a `CHANGE` line.
struct Change<'a> {
    position: Position,
    epoch: u32,
    line: &'a [u8],
    at: At<'a>,
}

/// Parses `<position> AT …` or `<position> EPOCH <n> AT …`.
fn change(rest: &[u8]) -> Option<Change<'_>> {
    let space = rest.iter().position(|&byte| byte == b' ')?;
    let position = Position::parse(&rest[..space])?;
    let mut line = &rest[space + 1..];
    let mut epoch = 0;
    if let Some(text) = line.strip_prefix(b"EPOCH ") {
        let space = text.iter().position(|&byte| byte == b' ')?;
        epoch = std::str::from_utf8(&text[..space]).ok()?.parse().ok()?;
        line = &text[space + 1..];
    }
    let at = At::parse(line)?;
    Some(Change {
        position,
        epoch,
        line,
        at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_server_are_taken_apart() {
        let position = Position::parse(b"00000000000000aa-7").unwrap();
        assert_eq!(
            following(b"00000000000000aa-7 behind=3 heartbeat=3000 silence=10000 ttl=0 later=x"),
            Some(Following {
                position,
                behind: 3,
                heartbeat: Duration::from_secs(3),
                silence: Duration::from_secs(10),
            })
        );
        assert_eq!(following(b"00000000000000aa-7"), None);
        let line = b"AT Riley +0.500000000 kiwi +34.0-118.4 3";
        let plain = [b"00000000000000aa-7 ", &line[..]].concat();
        let later = [b"00000000000000aa-7 EPOCH 12 ", &line[..]].concat();
        for (text, epoch) in [(plain, 0), (later, 12)] {
            let change = change(&text).unwrap();
            assert_eq!(
                (change.position, change.epoch, change.line),
                (position, epoch, &line[..])
            );
        }
        assert!(change(b"00000000000000aa-7 AT what").is_none());
    }
}
