//! Sends the state of the server to the service manager: datagrams to the Unix socket in
//! `$NOTIFY_SOCKET`, as sd_notify(3) describes. systemd sets this variable for units with
//! `Type=notify` or `Type=notify-reload`.
//!
//! | message | sent |
//! |---|---|
//! | `EXTEND_TIMEOUT_USEC=` | every second while the journal is read, and until the entry that begins this life is synced |
//! | `READY=1` | when the journal was read and the ports are bound; also at the end of a reload |
//! | `STATUS=` | when the numbers in it have changed, at most every 5 s |
//! | `RELOADING=1`, `MONOTONIC_USEC=` | when SIGHUP begins a reload |
//! | `WATCHDOG=1` | at the end of a turn of the loop, if half of `$WATCHDOG_USEC` has passed since the last one; also with `READY=1` at the start |
//! | `STOPPING=1` | when the server begins to stop, not when it begins to drain |
//!
//! Sending never blocks the loop, and no failure stops the server. If the socket is full, the
//! messages wait in a queue and are sent later. If sending fails for another reason, the messages
//! are dropped, and one warning is logged.
//!
//! The variables stay in the server's environment. The server starts no other programs, so no
//! program inherits them by mistake.

use std::collections::VecDeque;
use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use log::{info, warn};

use crate::core::base::clock::Time;
use crate::core::base::counted::Counted;
use crate::shell::clock::monotonic_micros;

/// The minimum time between two `STATUS` messages.
const STATUS_EVERY: Duration = Duration::from_secs(5);
/// The time between two messages that ask for more time to start.
const EXTEND_EVERY: Duration = Duration::from_secs(1);
/// The time for which each of these messages asks. If the server sends no further message in this
/// time, the manager ends the server.
const EXTENSION: Duration = Duration::from_secs(30);
/// The time between two attempts to send to a full socket.
const RETRY: Duration = Duration::from_millis(100);
/// The maximum number of messages that wait for a full socket. If there are more, the oldest ones
/// are dropped, because the newest ones contain the present state.
const MOST_WAITING: usize = 16;

/// The numbers that `STATUS` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The number of clients with a position.
    pub records: usize,
    /// The number of connected clients.
    pub clients: usize,
    /// The number of links that are up.
    pub links_up: usize,
    /// The number of neighbours.
    pub neighbours: usize,
    /// Whether the server drains.
    pub is_draining: bool,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Standing {
            records,
            clients,
            links_up,
            neighbours,
            is_draining,
        } = *self;
        if is_draining {
            f.write_str("draining: ")?;
        }
        write!(
            f,
            "{}, {}, {links_up} of {} up",
            Counted(records as u64, "record"),
            Counted(clients as u64, "client"),
            Counted(neighbours as u64, "link")
        )
    }
}

/// The sender of messages to the service manager. Without a service manager, it sends nothing.
#[derive(Default)]
pub struct ServiceManager {
    channel: Option<Channel>,
    /// Half of `$WATCHDOG_USEC`, if the manager expects pings.
    ping_every: Option<Duration>,
    ping_at: Time,
    /// The numbers in the last `STATUS`.
    told: Option<Standing>,
    status_at: Time,
    extend_at: Time,
    /// The number of reloads that have begun and not ended.
    reloads: u64,
    /// Whether `STOPPING` was sent. After `STOPPING`, no `STATUS` is sent.
    is_stopping: bool,
}

impl ServiceManager {
    /// Reads `$NOTIFY_SOCKET`, `$WATCHDOG_USEC` and `$WATCHDOG_PID`. An empty variable counts as
    /// unset. An invalid variable is logged, and counts as unset.
    #[must_use]
    pub fn from_environment() -> ServiceManager {
        let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let Some(path) = variable("NOTIFY_SOCKET") else {
            return ServiceManager::default();
        };
        let channel = match Channel::open(&path) {
            Ok(channel) => channel,
            Err(error) => {
                warn!(
                    "the service manager is told nothing: NOTIFY_SOCKET is {}: {error}",
                    path.display()
                );
                return ServiceManager::default();
            }
        };
        let text = |name: &str| variable(name).map(|it| it.to_string_lossy().into_owned());
        let own = std::process::id();
        let ping_every = match half_of(text("WATCHDOG_USEC"), text("WATCHDOG_PID"), own) {
            Ok(half) => half,
            Err(what) => {
                warn!("no pings for the service manager's watchdog: {what}");
                None
            }
        };
        if let Some(every) = ping_every {
            info!(
                "the service manager's watchdog gets a ping every {} ms",
                every.as_millis()
            );
        }
        ServiceManager {
            channel: Some(channel),
            ping_every,
            ..ServiceManager::default()
        }
    }

    /// Whether there is a service manager.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.channel.is_some()
    }

    /// Asks the manager for more time to start, at most once per second.
    pub fn starting(&mut self, now: Time) {
        if self.extend_at <= now {
            self.extend_at = now + EXTEND_EVERY;
            let text = format!(
                "EXTEND_TIMEOUT_USEC={}\nSTATUS=starting: the journal is read",
                EXTENSION.as_micros()
            );
            self.send(Kind::Extend, text, now);
        }
    }

    /// Reports that the server is ready.
    pub fn ready(&mut self, standing: Standing, now: Time) {
        self.send(Kind::Other, format!("READY=1\nSTATUS={standing}"), now);
        self.told = Some(standing);
        self.status_at = now + STATUS_EVERY;
        self.ping(now);
    }

    /// Reports that a reload begins.
    pub fn reload_begins(&mut self, now: Time) {
        self.reloads += 1;
        // With `Type=notify-reload`, a manager that sent SIGHUP ignores a `RELOADING=1` whose
        // `MONOTONIC_USEC` is missing or earlier than the signal.
        let text = format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_micros());
        self.send(Kind::Other, text, now);
    }

    /// Handles the end of a reload, with or without success: sends `READY=1` if no other reload is
    /// in progress.
    pub fn reload_ended(&mut self, now: Time) {
        self.reloads = self.reloads.saturating_sub(1);
        if self.reloads == 0 {
            self.send(Kind::Other, "READY=1".to_owned(), now);
        }
    }

    /// Reports that the server begins to stop.
    pub fn stopping(&mut self, now: Time) {
        self.is_stopping = true;
        let text = "STOPPING=1\nSTATUS=stopping".to_owned();
        self.send(Kind::Other, text, now);
    }

    /// Sends the messages that are due at the end of a turn of the loop. Only the loop sends pings,
    /// so the manager notices a loop that hangs.
    pub fn turn_ended(&mut self, standing: Standing, now: Time) {
        if self.ping_every.is_some() && self.ping_at <= now {
            self.ping(now);
        }
        if self.has_news(standing) && self.status_at <= now {
            self.told = Some(standing);
            self.status_at = now + STATUS_EVERY;
            self.send(Kind::Status, format!("STATUS={standing}"), now);
        }
        self.send_waiting(now);
    }

    /// Returns the time at which [`ServiceManager::turn_ended`] has to be called, if no event comes
    /// earlier. `standing` contains the present numbers.
    #[must_use]
    pub fn deadline(&self, standing: Standing) -> Option<Time> {
        let channel = self.channel.as_ref()?;
        let ping = self.ping_every.map(|_| self.ping_at);
        let status = self.has_news(standing).then_some(self.status_at);
        let retry = channel.retry_at;
        ping.into_iter().chain(status).chain(retry).min()
    }

    fn has_news(&self, standing: Standing) -> bool {
        self.told != Some(standing) && !self.is_stopping
    }

    fn ping(&mut self, now: Time) {
        if let Some(every) = self.ping_every {
            self.ping_at = now + every;
            self.send(Kind::Ping, "WATCHDOG=1".to_owned(), now);
        }
    }

    fn send(&mut self, kind: Kind, text: String, now: Time) {
        if let Some(channel) = &mut self.channel {
            channel.put(kind, text);
        }
        self.send_waiting(now);
    }

    fn send_waiting(&mut self, now: Time) {
        if let Some(channel) = &mut self.channel {
            channel.send_waiting(now);
        }
    }
}

/// The kinds of messages. Of each kind except [`Kind::Other`], only the newest message waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Extend,
    Status,
    Ping,
    Other,
}

/// The manager's socket.
struct Channel {
    socket: UnixDatagram,
    address: SocketAddr,
    waiting: VecDeque<(Kind, String)>,
    /// The time of the next attempt to send to a full socket.
    retry_at: Option<Time>,
    /// Whether sending the last message failed for another reason than a full socket.
    is_broken: bool,
}

impl Channel {
    fn open(path: &OsStr) -> io::Result<Channel> {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Channel {
            socket,
            address: address(path)?,
            waiting: VecDeque::new(),
            retry_at: None,
            is_broken: false,
        })
    }

    fn put(&mut self, kind: Kind, text: String) {
        if kind != Kind::Other {
            self.waiting.retain(|(other, _)| *other != kind);
        }
        if self.waiting.len() >= MOST_WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back((kind, text));
    }

    fn send_waiting(&mut self, now: Time) {
        if self.retry_at.is_some_and(|at| now < at) {
            return;
        }
        self.retry_at = None;
        while let Some((_, text)) = self.waiting.front() {
            match self.socket.send_to_addr(text.as_bytes(), &self.address) {
                Ok(_) => self.is_broken = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.retry_at = Some(now + RETRY);
                    return;
                }
                Err(error) => {
                    if !std::mem::replace(&mut self.is_broken, true) {
                        warn!(
                            "the service manager cannot be told how the server stands (NOTIFY_SOCKET): {error}; the server goes on"
                        );
                    }
                }
            }
            self.waiting.pop_front();
        }
    }
}

/// Parses `$NOTIFY_SOCKET`: an absolute path, or `@` and a name in the abstract namespace of Linux.
fn address(path: &OsStr) -> io::Result<SocketAddr> {
    let unusable = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what.to_owned());
    match path.as_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(path),
        [b'@', name @ ..] if !name.is_empty() => of_abstract(name),
        _ => Err(unusable(
            "neither an absolute path nor an abstract socket (@name)",
        )),
    }
}

#[cfg(target_os = "linux")]
fn of_abstract(name: &[u8]) -> io::Result<SocketAddr> {
    use std::os::linux::net::SocketAddrExt;
    SocketAddr::from_abstract_name(name)
}

#[cfg(not(target_os = "linux"))]
fn of_abstract(_: &[u8]) -> io::Result<SocketAddr> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Returns half of the time in `usec`, the value of `$WATCHDOG_USEC`. Returns `None` if `usec` is
/// unset or 0. Also returns `None` if `pid`, the value of `$WATCHDOG_PID`, is set and is not the
/// process id `own`.
///
/// # Errors
/// A number cannot be parsed.
fn half_of(
    usec: Option<String>,
    pid: Option<String>,
    own: u32,
) -> Result<Option<Duration>, String> {
    let number = |name: &str, text: &str| {
        text.parse::<u64>()
            .map_err(|_| format!("{name} is {text:?}, which is no number"))
    };
    let Some(usec) = usec else { return Ok(None) };
    let usec = number("WATCHDOG_USEC", &usec)?;
    if let Some(pid) = pid
        && number("WATCHDOG_PID", &pid)? != u64::from(own)
    {
        return Ok(None);
    }
    // At most one ping per millisecond: more pings would keep the processor busy.
    let half = Duration::from_micros(usec / 2).max(Duration::from_millis(1));
    Ok((usec > 0).then_some(half))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(clients: usize) -> Standing {
        Standing {
            records: 12,
            clients,
            links_up: 2,
            neighbours: 3,
            is_draining: false,
        }
    }

    fn at(ms: u64) -> Time {
        Time::from_nanos(ms * 1_000_000)
    }

    /// Returns a manager whose socket is in a new directory, and the receiving end of the socket.
    fn manager(ping_every: Option<Duration>) -> (ServiceManager, UnixDatagram, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let receiver = UnixDatagram::bind(&path).unwrap();
        receiver.set_nonblocking(true).unwrap();
        let manager = ServiceManager {
            channel: Some(Channel::open(path.as_os_str()).unwrap()),
            ping_every,
            ..ServiceManager::default()
        };
        (manager, receiver, directory)
    }

    fn received(receiver: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 1_000];
        std::iter::from_fn(|| {
            receiver
                .recv(&mut buffer)
                .ok()
                .map(|it| buffer[..it].to_vec())
        })
        .map(|message| String::from_utf8(message).unwrap())
        .collect()
    }

    #[test]
    fn the_status_is_sent_when_it_changes_and_at_most_every_five_seconds() {
        let (mut manager, receiver, _directory) = manager(None);
        manager.ready(standing(1), at(0));
        assert_eq!(
            received(&receiver),
            ["READY=1\nSTATUS=12 records, 1 client, 2 of 3 links up"]
        );
        manager.turn_ended(standing(1), at(6_000));
        assert_eq!(
            manager.deadline(standing(1)),
            None,
            "nothing wakes the loop"
        );
        manager.turn_ended(standing(2), at(6_001));
        manager.turn_ended(standing(3), at(6_002));
        assert_eq!(manager.deadline(standing(3)), Some(at(11_001)));
        manager.turn_ended(standing(3), at(11_000));
        manager.turn_ended(standing(3), at(11_001));
        assert_eq!(
            received(&receiver),
            [
                "STATUS=12 records, 2 clients, 2 of 3 links up",
                "STATUS=12 records, 3 clients, 2 of 3 links up"
            ]
        );
    }

    #[test]
    fn a_ping_is_due_at_half_of_the_watchdog_s_time_and_not_before() {
        let (mut manager, receiver, _directory) = manager(Some(Duration::from_millis(500)));
        manager.ready(standing(1), at(0));
        for ms in [1, 499, 500, 501, 999, 1_000] {
            manager.turn_ended(standing(1), at(ms));
        }
        let pings = received(&receiver);
        assert_eq!(pings.iter().filter(|it| *it == "WATCHDOG=1").count(), 3);
        assert_eq!(manager.deadline(standing(1)), Some(at(1_500)));
    }

    #[test]
    fn messages_wait_for_a_full_socket_in_their_order() {
        let (mut manager, receiver, _directory) = manager(Some(Duration::from_millis(500)));
        let mut sent = 0;
        while manager.channel.as_ref().unwrap().retry_at.is_none() {
            manager.send(Kind::Other, "FULL=1".to_owned(), at(0));
            sent += 1;
        }
        manager.ready(standing(1), at(50));
        assert_eq!(manager.deadline(standing(1)), Some(at(100)));
        manager.reload_begins(at(60));
        manager.reload_ended(at(70));
        for ms in [550, 1_050, 1_550] {
            manager.turn_ended(standing(1), at(ms)); // still full; one ping waits
        }
        assert_eq!(received(&receiver).len(), sent - 1);
        manager.turn_ended(standing(1), at(1_650));
        let later = received(&receiver);
        assert_eq!(later.len(), 5, "{later:?}");
        assert_eq!(later[0], "FULL=1");
        assert!(later[1].starts_with("READY=1\nSTATUS="), "{later:?}");
        assert!(
            later[2].starts_with("RELOADING=1\nMONOTONIC_USEC="),
            "{later:?}"
        );
        assert_eq!(later[3..], ["READY=1", "WATCHDOG=1"]);
        for _ in 0..100 {
            manager.reload_begins(at(1_700));
        }
        assert!(manager.channel.unwrap().waiting.len() <= MOST_WAITING);
    }

    #[test]
    fn ready_follows_only_the_last_of_several_reloads() {
        let (mut manager, receiver, _directory) = manager(None);
        manager.reload_begins(at(0));
        manager.reload_begins(at(1));
        manager.reload_ended(at(2));
        assert_eq!(received(&receiver).len(), 2);
        manager.reload_ended(at(3));
        assert_eq!(received(&receiver), ["READY=1"]);
    }

    #[test]
    fn the_watchdog_s_variables_are_checked() {
        let half = |usec: &str, pid: Option<&str>| {
            half_of(Some(usec.to_owned()), pid.map(str::to_owned), 7)
        };
        assert_eq!(half_of(None, None, 7), Ok(None));
        assert_eq!(half("2000000", None), Ok(Some(Duration::from_secs(1))));
        assert_eq!(half("2000000", Some("7")), Ok(Some(Duration::from_secs(1))));
        assert_eq!(half("2000000", Some("8")), Ok(None), "for another process");
        assert_eq!(half("0", None), Ok(None));
        assert_eq!(half("1", None), Ok(Some(Duration::from_millis(1))));
        assert!(half("soon", None).is_err() && half("1", Some("x")).is_err());
    }

    #[test]
    fn a_socket_is_a_path_or_an_abstract_name() {
        for good in ["/run/systemd/notify", "@herd"] {
            assert!(address(OsStr::new(good)).is_ok(), "{good}");
        }
        let long = format!("/{}", "x".repeat(200));
        for bad in ["run/notify", "@", "vsock:2:1234", &long] {
            assert!(address(OsStr::new(bad)).is_err(), "{bad}");
        }
    }
}
