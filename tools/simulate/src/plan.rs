//! The plan of a seed: the herd, its networks, its storms, its faults and its clients. All of it is
//! decided before the run begins.
//!
//! A plan is data. So a failing plan can be made smaller (see `shrink.rs`), and a run can use a
//! part of a plan.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use herd_mio::core::base::limits::{LINE_BYTES, LINK_LINE_BYTES, Limits};
use herd_mio::core::journal::durability::{DiskErrorKind, Fsync};

use crate::coverage::{self, Cell};
use crate::herds::Herd;
use herd_testkit::fake_disk::{Queue, Strike};
use herd_testkit::rng::Rng;

/// The wall clock at the beginning of every run, in nanoseconds since the epoch.
pub(crate) const WALL_ORIGIN: u64 = 1_621_464_828_000_000_000;

/// The disk of a machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DiskPlan {
    pub(crate) fsync: Fsync,
    /// Whether room can be reserved.
    pub(crate) reserves: bool,
    /// The longest time of an operation.
    pub(crate) slowness: Duration,
}
/// A year in milliseconds.
const YEAR_MS: i64 = 31_536_000_000;

/// The parameters of a run. Everything else follows from them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// The seed of all random numbers.
    pub seed: u64,
    /// One of [`crate::herds`].
    pub herd: String,
    /// The numbers of the faults to keep. `None` keeps all.
    pub faults: Option<Vec<usize>>,
    /// The numbers of the clients to keep. `None` keeps all.
    pub sessions: Option<Vec<usize>>,
}

impl fmt::Display for Case {
    /// The arguments of the command that runs it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "--seed {} --herd {}", self.seed, self.herd)?;
        for (flag, kept) in [("--faults", &self.faults), ("--sessions", &self.sessions)] {
            if let Some(kept) = kept {
                let numbers: Vec<String> = kept.iter().map(usize::to_string).collect();
                write!(f, " {flag} '{}'", numbers.join(","))?;
            }
        }
        Ok(())
    }
}

/// The kinds of faults in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weather {
    /// None.
    Calm,
    /// Links break in every way.
    Links,
    /// Servers are killed, and start again with the records on their disks, if they have disks.
    Crashes,
    /// Disks are slow, full or broken, and power is lost.
    Disks,
    /// Servers stop, one after the other, on a network without faults. No record may be lost.
    Stops,
    /// Small buffers, long delays, many large records.
    Slow,
    /// Clocks of servers jump.
    Clocks,
    /// All kinds.
    Everything,
}

const WEATHERS: [Weather; 12] = [
    Weather::Calm,
    Weather::Links,
    Weather::Crashes,
    Weather::Disks,
    Weather::Disks,
    Weather::Stops,
    Weather::Slow,
    Weather::Clocks,
    Weather::Links,
    Weather::Everything,
    Weather::Everything,
    Weather::Everything,
];

impl Weather {
    /// Whether it has faults of that kind, aimed at that state machine.
    fn brings(self, machine: &str, fault: &str) -> bool {
        let is_disk = [
            "full disk",
            "bad disk",
            "refusing disk",
            "torn write",
            "slow disk",
            "older copy",
        ]
        .contains(&fault);
        match self {
            Weather::Calm | Weather::Stops => false,
            Weather::Links => [
                "reset",
                "half-open",
                "silent cut",
                "one-way cut",
                "stall",
                "slow link",
            ]
            .contains(&fault),
            Weather::Crashes => ["kill", "power cut", "stop"].contains(&fault),
            Weather::Disks => {
                is_disk
                    || machine != "link" && machine != "dial" && fault != "clock set"
                    || ["kill", "power cut", "stop"].contains(&fault)
            }
            Weather::Slow => ["slow link", "freeze", "half-open"].contains(&fault),
            Weather::Clocks => fault == "clock set",
            Weather::Everything => true,
        }
    }
}

/// The way in which a stream is cut into segments.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Segments {
    /// Each write is one segment.
    Whole,
    /// Segments of at most this many bytes, each with its own delay.
    UpTo(usize),
}

/// The properties of a network path.
#[derive(Clone, Debug)]
pub(crate) struct Path {
    /// The delay from the connecting side to the other, and back.
    pub(crate) latency: [Duration; 2],
    /// The greatest additional delay, random for each segment.
    pub(crate) jitter: Duration,
    /// The greatest number of bytes in transit or unread in one direction.
    pub(crate) capacity: usize,
    pub(crate) segments: Segments,
}

/// A fault.
#[derive(Clone, Debug)]
pub(crate) enum Trouble {
    /// The connections over an edge are reset. A spared side gets no reset, and the other side's
    /// kernel has lost the connection. With `mute`, the spared side does not even get an answer to
    /// its segments.
    Reset {
        edge: usize,
        spared: Option<usize>,
        mute: bool,
    },
    /// Bytes in these directions are lost, without a notice.
    Swallow { edge: usize, directions: [bool; 2] },
    /// Bytes in these directions arrive only at the end of the fault.
    Stall { edge: usize, directions: [bool; 2] },
    /// Small windows and long delays.
    Slow {
        edge: usize,
        capacity: usize,
        latency: Duration,
    },
    /// The process is frozen, but its kernel works.
    Freeze { host: usize },
    /// The process ends at once, and its kernel closes the connections. With `power`, the machine
    /// loses its power.
    Kill { host: usize, power: bool },
    /// All servers at once.
    KillAll { power: bool },
    /// The process ends in the middle of the next write to its journal, if it has one.
    Tear { host: usize },
    /// Its disk has only this many free bytes.
    Full { host: usize, room: u64 },
    /// The next operation of a kind fails on its disk.
    BadDisk { host: usize, strike: Strike },
    /// The next operation of a kind is refused because there is no room.
    Refused { host: usize, strike: Strike },
    /// One queue of its disk, or both, are frozen.
    SlowDisk { host: usize, queues: Vec<Queue> },
    /// The process gets SIGTERM.
    Stop { host: usize },
    /// The wall clock is set.
    SetClock { host: usize, by_ms: i64 },
    /// The name server fails.
    NoNames,
    /// The server is restarted with room for only a few records. At the end it is restarted with
    /// the room of the others.
    Tight { host: usize, records: u64 },
    /// The server's data directory is copied, and put back at the end.
    Restore { host: usize },
    /// The inner fault starts as soon as a server is in a certain state of one of its state
    /// machines.
    Aimed {
        host: usize,
        cell: Cell,
        trouble: Box<Trouble>,
    },
}

impl Trouble {
    /// Its name in the summary.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Trouble::Reset { spared: None, .. } => "reset",
            Trouble::Reset {
                spared: Some(_), ..
            } => "half-open",
            Trouble::Swallow {
                directions: [true, true],
                ..
            } => "silent cut",
            Trouble::Swallow { .. } => "one-way cut",
            Trouble::Stall { .. } => "stall",
            Trouble::Slow { .. } => "slow link",
            Trouble::Freeze { .. } => "freeze",
            Trouble::Kill { power: false, .. } => "kill",
            Trouble::Kill { power: true, .. } => "power cut",
            Trouble::KillAll { power: false } => "kill of all",
            Trouble::KillAll { power: true } => "power cut of all",
            Trouble::Tear { .. } => "torn write",
            Trouble::Full { .. } => "full disk",
            Trouble::BadDisk { .. } => "bad disk",
            Trouble::Refused { .. } => "refusing disk",
            Trouble::SlowDisk { .. } => "slow disk",
            Trouble::Stop { .. } => "stop",
            Trouble::SetClock { .. } => "clock set",
            Trouble::NoNames => "no name server",
            Trouble::Tight { .. } => "few records",
            Trouble::Restore { .. } => "older copy",
            Trouble::Aimed { trouble, .. } => trouble.kind(),
        }
    }

    /// Its server, if it has one.
    pub(crate) fn host(&self) -> Option<usize> {
        match *self {
            Trouble::Freeze { host }
            | Trouble::Kill { host, .. }
            | Trouble::Tear { host }
            | Trouble::Full { host, .. }
            | Trouble::BadDisk { host, .. }
            | Trouble::Refused { host, .. }
            | Trouble::SlowDisk { host, .. }
            | Trouble::Tight { host, .. }
            | Trouble::Restore { host }
            | Trouble::Stop { host }
            | Trouble::SetClock { host, .. }
            | Trouble::Aimed { host, .. } => Some(host),
            Trouble::Reset { .. }
            | Trouble::Swallow { .. }
            | Trouble::Stall { .. }
            | Trouble::Slow { .. }
            | Trouble::KillAll { .. }
            | Trouble::NoNames => None,
        }
    }

    /// Its edge, if it has one.
    pub(crate) fn edge(&self) -> Option<usize> {
        match *self {
            Trouble::Reset { edge, .. }
            | Trouble::Swallow { edge, .. }
            | Trouble::Stall { edge, .. }
            | Trouble::Slow { edge, .. } => Some(edge),
            Trouble::Freeze { .. }
            | Trouble::Kill { .. }
            | Trouble::Tear { .. }
            | Trouble::Full { .. }
            | Trouble::BadDisk { .. }
            | Trouble::Refused { .. }
            | Trouble::SlowDisk { .. }
            | Trouble::Tight { .. }
            | Trouble::Restore { .. }
            | Trouble::Stop { .. }
            | Trouble::SetClock { .. }
            | Trouble::KillAll { .. }
            | Trouble::NoNames
            | Trouble::Aimed { .. } => None,
        }
    }

    /// Its name in the coverage, which is the same for one server and for all.
    pub(crate) fn kind_of_one(&self) -> &'static str {
        match self {
            Trouble::KillAll { power: false } => "kill",
            Trouble::KillAll { power: true } => "power cut",
            one => one.kind(),
        }
    }
}

/// A fault and its time.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    /// Its number in the plan of the whole seed.
    pub(crate) number: usize,
    pub(crate) storm: usize,
    /// After the storm began.
    pub(crate) at: Duration,
    pub(crate) lasts: Duration,
    pub(crate) trouble: Trouble,
}

/// The meaning of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// `IAMAT`, with the fields that the answer repeats.
    Iamat {
        client: Vec<u8>,
        location: Vec<u8>,
        time: Vec<u8>,
    },
    /// `WHATSAT`
    Whatsat { client: Vec<u8> },
    /// A blank line, which has no answer.
    Blank,
    /// Not a command.
    Garbage,
    /// A line that is too long. The server closes the connection after its answer.
    Overlong,
}

/// A command and its bytes, LF included.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    pub(crate) bytes: Vec<u8>,
    pub(crate) meaning: Meaning,
}

impl Command {
    /// The line as a server quotes it, without its LF or CRLF.
    pub(crate) fn line(&self) -> &[u8] {
        let line = self.bytes.strip_suffix(b"\n").unwrap_or(&self.bytes);
        line.strip_suffix(b"\r").unwrap_or(line)
    }
}

/// The end of a client, after its chunks are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It shuts down its writing side, and reads until the server closes.
    HalfClose,
    /// It waits for every answer, then closes.
    Leave,
    /// It closes at once.
    Vanish,
    /// It resets the connection at once.
    Abort,
}

/// One client's connection.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    /// Its number in the plan of the whole seed.
    pub(crate) number: usize,
    pub(crate) storm: usize,
    /// After the storm began.
    pub(crate) at: Duration,
    pub(crate) host: usize,
    pub(crate) path: Path,
    pub(crate) commands: Vec<Command>,
    /// The writes: a wait, then a number of bytes. The last commands may be cut.
    pub(crate) chunks: Vec<(Duration, usize)>,
    /// Whether each command waits for the answer to the one before.
    pub(crate) lockstep: bool,
    pub(crate) ending: Ending,
    /// The greatest number of bytes of one read, and the pause after it.
    pub(crate) sips: Option<(usize, Duration)>,
}

/// An operator that makes a server forget a client.
#[derive(Clone, Debug)]
pub(crate) struct Forget {
    /// Its number in the plan of the whole seed, after the numbers of clients.
    pub(crate) number: usize,
    pub(crate) storm: usize,
    /// After the storm began.
    pub(crate) at: Duration,
    pub(crate) host: usize,
    pub(crate) path: Path,
    pub(crate) client: Vec<u8>,
}

/// The plan of a whole run.
pub(crate) struct Plan {
    pub(crate) case: Case,
    pub(crate) herd: Herd,
    pub(crate) weather: Weather,
    pub(crate) limits: Limits,
    /// Whether neighbours are configured by host name.
    pub(crate) by_name: bool,
    /// The greatest number of bytes of one read of a server.
    pub(crate) scratch: usize,
    /// Whether the servers' wall clocks show only whole seconds.
    pub(crate) coarse: bool,
    /// The length of one turn of a server's loop.
    pub(crate) turn: Duration,
    /// The disk of each server, if it has one.
    pub(crate) disks: Vec<Option<DiskPlan>>,
    /// The path of each edge of the herd.
    pub(crate) paths: Vec<Path>,
    /// The length of each storm.
    pub(crate) storms: Vec<Duration>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) sessions: Vec<Session>,
    pub(crate) forgets: Vec<Forget>,
    /// The nanoseconds by which the clock of each server is ahead.
    pub(crate) clocks: Vec<i64>,
}

impl Plan {
    /// The plan of a case. `None` if there is no herd of that name.
    pub(crate) fn new(case: &Case) -> Option<Plan> {
        let herd = Herd::new(&case.herd, case.seed)?;
        let rng = &mut Rng::new(case.seed, "plan");
        let weather = *rng.pick(&WEATHERS);
        let is_large = herd.servers.len() > 20;
        let rough = matches!(
            weather,
            Weather::Slow | Weather::Stops | Weather::Everything
        );
        let bulky = (rough || weather == Weather::Disks) && rng.percent(40);
        let finest = if bulky || is_large { 300 } else { 1 };
        let paths = herd.edges.iter().map(|_| path(rng, rough, finest));
        let paths: Vec<Path> = paths.collect();
        let count = if is_large { 1 } else { 1 + rng.below(3) };
        let storms: Vec<Duration> = (0..count)
            .map(|_| rng.millis(4_000, if is_large { 6_000 } else { 16_000 }))
            .collect();
        let mut plan = Plan {
            case: case.clone(),
            weather,
            limits: limits(rng, rough || weather == Weather::Disks),
            by_name: !is_large && rng.percent(25),
            // At least a line. So a server that was frozen reads the end of a line before it checks
            // the line's deadline.
            scratch: *rng.pick(&[64 * 1024, 64 * 1024, LINK_LINE_BYTES + 1]),
            coarse: rng.percent(10),
            turn: *rng.pick(&[
                Duration::from_micros(3),
                Duration::from_micros(40),
                Duration::from_millis(2),
            ]),
            disks: disks(
                &mut Rng::new(case.seed, "disks"),
                weather,
                herd.servers.len(),
            ),
            paths,
            storms,
            faults: Vec::new(),
            sessions: Vec::new(),
            forgets: Vec::new(),
            clocks: vec![0; herd.servers.len()],
            herd,
        };
        plan.let_records_expire(&mut Rng::new(case.seed, "expiry"));
        plan.faults = plan.make_faults(&mut Rng::new(case.seed, "faults"), is_large);
        plan.sessions = plan.make_sessions(&mut Rng::new(case.seed, "sessions"), bulky);
        plan.forgets = plan.make_forgets(&mut Rng::new(case.seed, "forgets"));
        if let Some(kept) = &case.faults {
            plan.faults.retain(|fault| kept.contains(&fault.number));
        }
        if let Some(kept) = &case.sessions {
            plan.sessions
                .retain(|session| kept.contains(&session.number));
            plan.forgets.retain(|forget| kept.contains(&forget.number));
        }
        Some(plan)
    }

    /// All clients of the run.
    pub(crate) fn clients(&self) -> Arc<[Vec<u8>]> {
        let commands = self.sessions.iter().flat_map(|session| &session.commands);
        let named = commands.filter_map(|command| match &command.meaning {
            Meaning::Iamat { client, .. } => Some(client.clone()),
            Meaning::Whatsat { .. } | Meaning::Blank | Meaning::Garbage | Meaning::Overlong => None,
        });
        let forgotten = self.forgets.iter().map(|forget| forget.client.clone());
        let all: BTreeSet<_> = named.chain(forgotten).collect();
        all.into_iter().collect()
    }

    /// In some of the seeds, records expire, and the servers' clocks differ.
    fn let_records_expire(&mut self, rng: &mut Rng) {
        if rng.percent(30) {
            self.limits.record_ttl_ms = rng.between(3_000, 40_000);
            let apart_ms = *rng.pick(&[0, 1_000, 1_000, 2_500, 20_000]);
            for clock in &mut self.clocks {
                *clock = (rng.between(0, 2 * apart_ms) as i64 - apart_ms as i64) * 1_000_000;
            }
        }
    }

    fn expires(&self) -> bool {
        self.limits.record_ttl_ms > 0
    }

    /// In half of the seeds, operators make servers forget clients: some known ones, and one
    /// unknown.
    fn make_forgets(&self, rng: &mut Rng) -> Vec<Forget> {
        let mut forgets = Vec::new();
        let mut clients: Vec<Vec<u8>> = self.clients().to_vec();
        clients.push(b"nobody".to_vec());
        if rng.percent(50) {
            return forgets;
        }
        for (storm, &length) in self.storms.iter().enumerate() {
            for _ in 0..1 + rng.below(4) {
                forgets.push(Forget {
                    number: self.sessions.len() + forgets.len(),
                    storm,
                    at: length.mul_f64(rng.below(1_000) as f64 / 1_000.0),
                    host: rng.below(self.herd.servers.len()),
                    path: client_path(rng, false),
                    client: rng.pick(&clients).clone(),
                });
            }
        }
        forgets
    }

    fn make_faults(&self, rng: &mut Rng, is_large: bool) -> Vec<Fault> {
        let mut faults = Vec::new();
        for (storm, &length) in self.storms.iter().enumerate() {
            if self.weather == Weather::Stops {
                faults.extend(self.one_stop(rng, storm, faults.len()));
                continue;
            }
            let count = match self.weather {
                Weather::Calm => 0,
                _ if is_large => 10 + rng.below(20),
                _ => 1 + rng.below(8),
            };
            for _ in 0..count {
                let at = length.mul_f64(rng.below(1_000) as f64 / 1_000.0);
                let lasts = if rng.percent(70) {
                    rng.millis(0, 3_000)
                } else {
                    rng.millis(3_000, 14_000)
                };
                let trouble = if rng.percent(50) {
                    self.aimed(rng)
                } else {
                    self.trouble(rng)
                };
                let aftershock = self.aftershock(rng, &trouble);
                let after = at + lasts + rng.millis(0, 1_500);
                let mut add = |at, lasts, trouble| {
                    faults.push(Fault {
                        number: faults.len(),
                        storm,
                        at,
                        lasts,
                        trouble,
                    });
                };
                add(at, lasts, trouble);
                if let Some(trouble) = aftershock.filter(|_| after < length) {
                    add(after, Duration::ZERO, trouble);
                }
            }
        }
        faults
    }

    /// A second fault that often breaks a link again, before all records are sent.
    fn aftershock(&self, rng: &mut Rng, trouble: &Trouble) -> Option<Trouble> {
        let edge = match *trouble {
            Trouble::Reset { edge, .. }
            | Trouble::Swallow { edge, .. }
            | Trouble::Stall { edge, .. }
            | Trouble::Slow { edge, .. } => edge,
            Trouble::Freeze { host }
            | Trouble::Kill { host, .. }
            | Trouble::Tear { host }
            | Trouble::BadDisk { host, .. }
            | Trouble::Tight { host, .. }
            | Trouble::Restore { host }
            | Trouble::Stop { host } => {
                let edges = self.herd.edges.iter();
                edges.clone().position(|(a, b)| *a == host || *b == host)?
            }
            Trouble::SetClock { .. }
            | Trouble::NoNames
            | Trouble::KillAll { .. }
            | Trouble::Aimed { .. }
            | Trouble::Full { .. }
            | Trouble::Refused { .. }
            | Trouble::SlowDisk { .. } => return None,
        };
        rng.percent(25).then_some(Trouble::Reset {
            edge,
            spared: None,
            mute: false,
        })
    }

    /// One stop of a server. It starts when the herd is linked, and the server comes back after the
    /// storm.
    fn one_stop(&self, rng: &mut Rng, storm: usize, number: usize) -> Option<Fault> {
        Some(Fault {
            number,
            storm,
            at: rng.millis(3_000, 3_900),
            lasts: rng.millis(6_000, 9_000),
            trouble: Trouble::Stop {
                host: rng.below(self.herd.servers.len()),
            },
        })
    }

    /// A fault that aims at a cell of the coverage, if this weather has such faults.
    fn aimed(&self, rng: &mut Rng) -> Trouble {
        let cells: Vec<Cell> = coverage::cells()
            .filter(|(machine, _, fault)| self.weather.brings(machine, fault))
            .collect();
        if cells.is_empty() {
            return self.trouble(rng);
        }
        let is_rare = |cell: &&Cell| coverage::RARE.contains(&cell.1);
        let rare: Vec<Cell> = cells.iter().filter(is_rare).copied().collect();
        let cell = match !rare.is_empty() && rng.percent(30) {
            true => *rng.pick(&rare),
            false => *rng.pick(&cells),
        };
        let (edge, (a, b)) = {
            let edge = rng.below(self.herd.edges.len());
            (edge, self.herd.edges[edge])
        };
        // Only the first server of a pair dials.
        let host = match cell.0 {
            "link" | "dial" if rng.percent(70) => a,
            "link" | "dial" => *rng.pick(&[a, b]),
            // Only a server with a disk waits for room.
            _ => {
                let has_disk = |host: &usize| self.disks[*host].is_some();
                let hosts: Vec<usize> = (0..self.disks.len()).filter(has_disk).collect();
                match coverage::RARE.contains(&cell.1) && !hosts.is_empty() {
                    true => *rng.pick(&hosts),
                    false => rng.below(self.herd.servers.len()),
                }
            }
        };
        let trouble = self.of_kind(rng, cell.2, host, edge);
        Trouble::Aimed {
            host,
            cell,
            trouble: Box::new(trouble),
        }
    }

    /// A fault of a kind, for that server or that edge.
    fn of_kind(&self, rng: &mut Rng, kind: &str, host: usize, edge: usize) -> Trouble {
        match kind {
            "reset" => Trouble::Reset {
                edge,
                spared: None,
                mute: false,
            },
            "half-open" => Trouble::Reset {
                edge,
                spared: Some(rng.below(2)),
                mute: rng.percent(60),
            },
            "silent cut" => Trouble::Swallow {
                edge,
                directions: [true, true],
            },
            "one-way cut" => Trouble::Swallow {
                edge,
                directions: *rng.pick(&[[true, false], [false, true]]),
            },
            "stall" => Trouble::Stall {
                edge,
                directions: *rng.pick(&[[true, true], [true, false], [false, true]]),
            },
            "slow link" => Trouble::Slow {
                edge,
                capacity: *rng.pick(&[64, 500, 2_000, 10_000]),
                latency: rng.millis(1, 300),
            },
            "kill" => Trouble::Kill { host, power: false },
            "power cut" => Trouble::Kill { host, power: true },
            "stop" => Trouble::Stop { host },
            "freeze" => Trouble::Freeze { host },
            // A clock that is far ahead would make all records expire.
            "clock set" if self.expires() => Trouble::SetClock {
                host,
                by_ms: *rng.pick(&[-5_000, -1_500, -700, 0, 700, 1_500, 5_000]),
            },
            "clock set" => Trouble::SetClock {
                host,
                by_ms: match rng.below(8) {
                    0 => YEAR_MS,
                    1 => -YEAR_MS,
                    2 => rng.between(60_000, 121_000) as i64,
                    3 => -(rng.between(60_000, 121_000) as i64),
                    _ => *rng.pick(&[-86_400_000, -120_000, -61_000, -700, 700, 61_000, 120_000]),
                },
            },
            "no name server" => Trouble::NoNames,
            "torn write" => Trouble::Tear { host },
            "full disk" => Trouble::Full {
                host,
                room: *rng.pick(&[0, 0, 0, 500, 5_000, 20_000, 60_000]),
            },
            "bad disk" => Trouble::BadDisk {
                host,
                strike: strike(rng, DiskErrorKind::Broken),
            },
            "refusing disk" => Trouble::Refused {
                host,
                strike: strike(rng, DiskErrorKind::Full),
            },
            "slow disk" => Trouble::SlowDisk {
                host,
                queues: rng
                    .pick(&[
                        vec![Queue::Writer],
                        vec![Queue::Keeper],
                        Queue::ALL.to_vec(),
                    ])
                    .clone(),
            },
            "older copy" => Trouble::Restore { host },
            "few records" => Trouble::Tight {
                host,
                records: rng.between(1, 3),
            },
            other => unreachable!("there is no fault called {other}"),
        }
    }

    fn trouble(&self, rng: &mut Rng) -> Trouble {
        let edge = rng.below(self.herd.edges.len());
        let host = rng.below(self.herd.servers.len());
        let directions = *rng.pick(&[[true, true], [true, false], [false, true]]);
        let kind = match self.weather {
            Weather::Calm | Weather::Stops => unreachable!("this weather has no such faults"),
            Weather::Links => rng.below(9),
            Weather::Crashes => *rng.pick(&[9, 10, 11, 23, 23]),
            Weather::Slow => *rng.pick(&[8, 8, 12, 2]),
            Weather::Clocks => 13,
            Weather::Disks => {
                *rng.pick(&[9, 10, 11, 12, 15, 16, 17, 18, 18, 19, 20, 21, 22, 22, 23])
            }
            Weather::Everything => rng.below(24),
        };
        let name = match kind {
            0..2 => "reset",
            2..4 => "half-open",
            4..6 if directions == [true, true] => "silent cut",
            4..6 => "one-way cut",
            6..8 => "stall",
            8 => "slow link",
            9 => "kill",
            10 => "power cut",
            11 => "stop",
            12 => "freeze",
            13 => "clock set",
            14 => "no name server",
            15 => return Trouble::KillAll { power: false },
            16 => return Trouble::KillAll { power: true },
            17 => "torn write",
            18 => "full disk",
            19 => "bad disk",
            20 => "refusing disk",
            21 => "slow disk",
            22 => "older copy",
            _ => "few records",
        };
        self.of_kind(rng, name, host, edge)
    }

    fn make_sessions(&self, rng: &mut Rng, bulky: bool) -> Vec<Session> {
        let mut author = Author::new(rng, bulky);
        let mut sessions = Vec::new();
        for (storm, &length) in self.storms.iter().enumerate() {
            for _ in 0..3 + rng.below(8) + self.herd.servers.len() / 20 {
                let at = length.mul_f64(rng.below(1_000) as f64 / 1_000.0);
                let start: Duration = self.storms[..storm].iter().sum::<Duration>() + at;
                let commands: Vec<Command> = (0..1 + rng.below(if bulky { 24 } else { 6 }))
                    .map(|_| author.command(rng, start))
                    .collect();
                let lockstep = rng.percent(30);
                let ending = *rng.pick(&[
                    Ending::HalfClose,
                    Ending::HalfClose,
                    Ending::Leave,
                    Ending::Leave,
                    Ending::Vanish,
                    Ending::Abort,
                ]);
                sessions.push(Session {
                    number: sessions.len(),
                    storm,
                    at,
                    host: rng.below(self.herd.servers.len()),
                    path: client_path(rng, bulky),
                    chunks: chunks(rng, &commands, lockstep, ending),
                    commands,
                    lockstep,
                    ending,
                    sips: rng
                        .percent(20)
                        .then(|| (200 + rng.below(400), rng.millis(1, 10))),
                });
            }
        }
        sessions
    }
}

/// The operation that fails in this way.
fn strike(rng: &mut Rng, kind: DiskErrorKind) -> Strike {
    *rng.pick(&[
        Strike::WriteCurrent(kind),
        Strike::WriteNext(kind),
        Strike::Reserve(kind),
        Strike::Sync(kind),
        Strike::Create(kind),
        Strike::SwitchRefused(kind),
        // After this error it is unknown which file has the name, so it is never an error about
        // room.
        match kind {
            DiskErrorKind::Broken => Strike::SwitchUnknown(kind),
            DiskErrorKind::Full => Strike::Any(kind),
        },
        Strike::Any(kind),
    ])
}

fn path(rng: &mut Rng, rough: bool, finest: usize) -> Path {
    let is_narrow = rough && rng.percent(50);
    let latency = |rng: &mut Rng| match rng.below(3) {
        0 => rng.micros(20, 200),
        1 => rng.millis(0, 4),
        // A path that is narrow and slow would need minutes for the records after a storm.
        _ if is_narrow => rng.millis(1, 5),
        _ => rng.millis(1, 120),
    };
    Path {
        latency: [latency(rng), latency(rng)],
        jitter: rng.micros(0, 3_000),
        capacity: if is_narrow {
            *rng.pick(&[1_000, 5_000, 20_000])
        } else {
            200_000
        },
        segments: match rng.below(5) {
            0 => Segments::UpTo(finest + rng.below(9)),
            1 => Segments::UpTo(1_460),
            _ => Segments::Whole,
        },
    }
}

fn client_path(rng: &mut Rng, bulky: bool) -> Path {
    let latency = rng.micros(20, 30_000);
    Path {
        latency: [latency, latency],
        jitter: rng.micros(0, 500),
        // More than a whole line. So a server that was frozen reads the end of each line together
        // with its beginning.
        capacity: *rng.pick(&[3 * LINE_BYTES, 64 * 1024, 200_000]),
        segments: *rng.pick(&[
            Segments::Whole,
            Segments::Whole,
            Segments::UpTo(1_460),
            Segments::UpTo(if bulky { 700 } else { 11 }),
        ]),
    }
}

/// The disks: all servers have one, none, or some.
fn disks(rng: &mut Rng, weather: Weather, servers: usize) -> Vec<Option<DiskPlan>> {
    let share = match weather {
        Weather::Disks => *rng.pick(&[100, 100, 100, 60]),
        _ => *rng.pick(&[0, 0, 100, 60]),
    };
    let fsync = *rng.pick(&[Fsync::Always, Fsync::Always, Fsync::Interval, Fsync::Never]);
    let slowest_ms = match weather {
        Weather::Calm => 5,
        _ => *rng.pick(&[0, 5, 40, 300]),
    };
    let disk = |rng: &mut Rng| DiskPlan {
        fsync: if rng.percent(80) {
            fsync
        } else {
            *rng.pick(&[Fsync::Always, Fsync::Interval, Fsync::Never])
        },
        reserves: rng.percent(80),
        slowness: Duration::from_millis(slowest_ms),
    };
    (0..servers)
        .map(|_| rng.percent(share).then(|| disk(rng)))
        .collect()
}

/// The limits: some are defaults, others make rare states reachable.
fn limits(rng: &mut Rng, rough: bool) -> Limits {
    let mut limits = Limits::default();
    if rng.percent(40) {
        limits.heartbeat_ms = rng.between(500, 3_000);
        limits.link_silence_ms = limits.heartbeat_ms * 2 + rng.between(500, 5_000);
    }
    if rng.percent(30) {
        limits.redial_first_ms = rng.between(1, 500);
        limits.redial_cap_ms = limits.redial_first_ms + rng.between(0, 1_500);
    }
    if rough || rng.percent(30) {
        limits.output_high_bytes = rng.between(100, 6_000);
        limits.output_low_bytes = rng.between(0, limits.output_high_bytes - 1);
    }
    if rng.percent(80) {
        limits.compact_bytes = *rng.pick(&[1, 300, 3_000, 20_000]);
        limits.fsync_ms = rng.between(20, 1_500);
        limits.journal_ahead_bytes = *rng.pick(&[16_384, 16_384, 40_000]);
    }
    if rng.percent(60) {
        limits.unpacked_records = rng.between(0, 4);
    }
    limits
}

/// Cuts the commands into writes. A client that does not wait for its answers leaves at a random
/// point.
fn chunks(
    rng: &mut Rng,
    commands: &[Command],
    lockstep: bool,
    ending: Ending,
) -> Vec<(Duration, usize)> {
    let pause = |rng: &mut Rng| {
        if rng.percent(50) {
            Duration::ZERO
        } else {
            rng.millis(0, 400)
        }
    };
    let mut chunks = Vec::new();
    if lockstep {
        for command in commands {
            chunks.push((pause(rng), command.bytes.len()));
        }
    } else {
        let total: usize = commands.iter().map(|command| command.bytes.len()).sum();
        let largest = *rng.pick(&[total, total / 3 + 1, total / 10 + 1]);
        let mut left = total;
        while left > 0 {
            let size = (1 + rng.below(largest)).min(left);
            chunks.push((pause(rng), size));
            left -= size;
        }
    }
    let leaves_early = match ending {
        Ending::Leave => false,
        Ending::HalfClose => rng.percent(30) && !lockstep,
        Ending::Vanish | Ending::Abort => true,
    };
    if leaves_early {
        chunks.truncate(1 + rng.below(chunks.len()));
    }
    chunks
}

/// Makes commands. There are only a few ids, so that updates conflict. Each position is used once,
/// so that updates can be told apart.
struct Author {
    ids: Vec<Vec<u8>>,
    /// The offset of each id's clock.
    off_s: Vec<i64>,
    /// The last stamp of each id. Some ids use one twice.
    last_time: Vec<Option<String>>,
    updates: u64,
}

impl Author {
    fn new(rng: &mut Rng, bulky: bool) -> Author {
        let mut ids: Vec<Vec<u8>> = [&b"kiwi"[..], b"ada", b"\xff\xfe\x80\xc2\xa0", b"x"]
            .map(<[u8]>::to_vec)
            .to_vec();
        if bulky {
            for number in 0..40 {
                let mut id = format!("bulk{number}-").into_bytes();
                id.resize(LINE_BYTES - 120 - rng.below(1_000), b'A' + number);
                ids.push(id);
            }
        }
        let keep = if bulky {
            ids.len()
        } else {
            1 + rng.below(ids.len())
        };
        ids.truncate(keep);
        Author {
            off_s: ids.iter().map(|_| Author::off(rng)).collect(),
            last_time: vec![None; ids.len()],
            ids,
            updates: 0,
        }
    }

    /// The offset of a clock: mostly a few seconds, else an amount that the protocol treats
    /// differently.
    fn off(rng: &mut Rng) -> i64 {
        *rng.pick(&[
            0,
            0,
            0,
            -3,
            2,
            59,
            60,
            60,
            61,
            -61,
            3_600,
            31_536_000,
            -31_536_000,
        ])
    }

    fn command(&mut self, rng: &mut Rng, at: Duration) -> Command {
        match rng.below(20) {
            0..13 => self.iamat(rng, at),
            13..17 => self.whatsat(rng),
            17 => Command {
                bytes: rng.pick(&[&b"\n"[..], b" \t\r\n", b"\x0b\x0c\n"]).to_vec(),
                meaning: Meaning::Blank,
            },
            18 | 19 if rng.percent(4) => {
                let mut bytes = vec![b'z'; LINE_BYTES + 1 + rng.below(100)];
                bytes.push(b'\n');
                Command {
                    bytes,
                    meaning: Meaning::Overlong,
                }
            }
            _ => Command {
                bytes: rng
                    .pick(&[
                        &b"AT Riley +0.000000000 kiwi +1+2 3\n"[..],
                        b"IAMAT kiwi +1 3\n",
                        b"IAMAT kiwi +1+2 -3\r\n",
                        b"IAMAT kiwi +91+2 3\n",
                        b"WHATSAT kiwi 51 1\n",
                        b"WHATSAT kiwi 1 21\n",
                        b"hello\n",
                        b"\xff\x00 \x85 \n",
                    ])
                    .to_vec(),
                meaning: Meaning::Garbage,
            },
        }
    }

    fn iamat(&mut self, rng: &mut Rng, at: Duration) -> Command {
        let who = rng.below(self.ids.len());
        if rng.percent(7) {
            self.off_s[who] = Author::off(rng);
        }
        let time = match &self.last_time[who] {
            // The same stamp again, or the same number with other digits.
            Some(last) if rng.percent(15) => match last.split_once('.') {
                None => format!("{last}.0"),
                Some((_, fraction)) if fraction.len() < 18 && rng.percent(50) => format!("{last}0"),
                Some(_) => last.clone(),
            },
            Some(_) | None => {
                let seconds = (WALL_ORIGIN / 1_000_000_000).saturating_add_signed(self.off_s[who])
                    + at.as_secs();
                let decimals = *rng.pick(&[0, 0, 1, 3, 9, 9, 12, 18]);
                let fraction = format!("{:018}", rng.next_u64() % 1_000_000_000_000_000_000);
                match decimals {
                    0 => seconds.to_string(),
                    _ => format!("{seconds}.{}", &fraction[..decimals]),
                }
            }
        };
        self.last_time[who] = Some(time.clone());
        self.updates += 1;
        let location = format!("+34.{:06}-118.{:06}", self.updates, rng.below(1_000_000));
        let client = self.ids[who].clone();
        let (gap, end) = separators(rng);
        let mut bytes = b"IAMAT".to_vec();
        for field in [&client[..], location.as_bytes(), time.as_bytes()] {
            bytes.extend_from_slice(gap);
            bytes.extend_from_slice(field);
        }
        bytes.extend_from_slice(end);
        Command {
            bytes,
            meaning: Meaning::Iamat {
                client,
                location: location.into_bytes(),
                time: time.into_bytes(),
            },
        }
    }

    fn whatsat(&mut self, rng: &mut Rng) -> Command {
        let client = rng.pick(&self.ids).clone();
        let (gap, end) = separators(rng);
        let mut bytes = b"WHATSAT".to_vec();
        for field in [&client[..], b"10", b"5"] {
            bytes.extend_from_slice(gap);
            bytes.extend_from_slice(field);
        }
        bytes.extend_from_slice(end);
        Command {
            bytes,
            meaning: Meaning::Whatsat { client },
        }
    }
}

/// The separators between the fields of a line, and its end.
fn separators(rng: &mut Rng) -> (&'static [u8], &'static [u8]) {
    (
        *rng.pick(&[&b" "[..], b" ", b"\t", b"  ", b" \x0b\x0c "]),
        *rng.pick(&[&b"\n"[..], b"\n", b"\r\n", b" \n"]),
    )
}
