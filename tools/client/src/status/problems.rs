//! The problems of a herd and what to do about them, found in the answers of its servers.

use std::collections::BTreeMap;

use crate::standing::{Buffers, Clocks, Disk, LinkStanding, Standing};
use clap::ValueEnum;
use herd_mio::core::base::counted::Counted;

use crate::survey::{Answer, Asked};

/// Clocks that differ by more are a problem.
const CLOCK_TOLERANCE_MS: i128 = 1_000;
/// A disk that needs longer is a problem. So is a neighbour that confirms nothing for longer.
const SLOW_MS: u64 = 2_000;
/// For so long after it, a closed connection is a problem; later it is a note.
const EVICTIONS_MS: u64 = 600_000;

/// The kind of a problem. `--ignore` takes its name, and `--json` prints it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Kind {
    /// A server does not answer
    NoAnswer,
    /// A disk is full or slow
    Disk,
    /// A table is full, so unknown clients are refused
    Table,
    /// A server drains: it takes no new clients, and stops soon
    Draining,
    /// The limit of connected clients is reached
    Clients,
    /// The limit of questions to Google Places is reached
    Places,
    /// Connections were closed in the last ten minutes because all buffers together were full
    Buffers,
    /// A link of the herd is down
    Link,
    /// Servers run with a config file other than this one
    File,
    /// A neighbour is late with its confirmations
    Lag,
    /// A server has refused records of its neighbours
    Lacks,
    /// Servers' clocks are more than 1 s apart
    Clock,
    /// Most clients' clocks differ from their server's
    ClientClocks,
    /// Servers run different versions
    Version,
    /// Servers hold different records; under load this is normal
    Differ,
}

impl Kind {
    /// Its name on the command line.
    pub(crate) fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// A problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) kind: Kind,
    /// The server with the problem. `None` if the whole herd has it.
    pub(crate) server: Option<String>,
    /// The problem as text, with what to do.
    pub(crate) text: String,
}

/// The problems, and notes that are no problems.
#[derive(Default)]
pub(crate) struct Findings {
    pub(crate) problems: Vec<Problem>,
    pub(crate) notes: Vec<String>,
}

/// Finds the problems. `links` and `members` are those of the herd's file.
pub(crate) fn find(asked: &[Asked], members: &[String], links: &[(String, String)]) -> Findings {
    let mut findings = Findings::default();
    for one in asked {
        match &one.answer {
            Ok(answer) => {
                findings.server(&one.name, &answer.standing);
                findings.transition(&one.name, answer);
            }
            Err(reason) => {
                // A server that refuses the question, or is refused, does run.
                let refusals = [
                    ": it said: ",
                    "its certificate was refused",
                    "it refused the TLS handshake",
                ];
                let is_there = refusals.iter().any(|refusal| reason.contains(refusal));
                let advice = match is_there {
                    true => "",
                    false => "; check that it runs, and that this is its address",
                };
                findings.add(
                    Kind::NoAnswer,
                    Some(&one.name),
                    format!("{} does not answer: {reason}{advice}", one.name),
                );
            }
        }
    }
    let answered: BTreeMap<&str, &Answer> = asked
        .iter()
        .filter_map(|one| Some((&*one.name, one.answer.as_ref().ok()?)))
        .collect();
    for (a, b) in links {
        // If a server does not answer, its missing links are not reported as well.
        let is_silent = |one: &Asked| one.answer.is_err() && (one.name == *a || one.name == *b);
        if !asked.iter().any(is_silent) {
            findings.link(a, b, &answered);
        }
    }
    for (name, answer) in &answered {
        findings.beyond_the_file(name, &answer.standing, members, links);
    }
    findings.lacks(asked, &answered);
    findings.clocks(asked, &answered);
    findings.versions(&answered);
    findings.agreement(&answered, asked);
    findings.keeps_nothing(asked);
    findings.problems.sort_by_key(|problem| problem.kind);
    findings
}

/// Whether a server had to close connections to its neighbours' port, so that a neighbour may have
/// been among them.
fn is_crowded(standing: &Standing) -> bool {
    let counters = &standing.counters;
    counters.unproven_displaced + counters.unproven_crowded + counters.unproven_throttled > 0
}

fn seconds(ms: u64) -> String {
    format!("{:.1} s", ms as f64 / 1_000.0)
}

impl Findings {
    fn add(&mut self, kind: Kind, server: Option<&str>, text: String) {
        self.problems.push(Problem {
            kind,
            server: server.map(str::to_owned),
            text,
        });
    }

    /// Notes a change of the secret, or a change to TLS, that is not finished.
    fn transition(&mut self, name: &str, answer: &Answer) {
        match (answer.refused_primary, answer.standing.secret) {
            (true, _) => self.notes.push(format!(
                "{name} does not have the first of these secrets, only the second"
            )),
            (false, Some((1, 2..))) => {
                self.notes.push(format!(
                    "{name} has this secret first, and another one second"
                ));
            }
            (false, Some((2.., _))) => {
                self.notes.push(format!(
                    "{name} has another secret first, and this one second"
                ));
            }
            (false, Some(_) | None) => {}
        }
        if let Some(plain @ 1..) = answer.standing.plain {
            let links = Counted(answer.standing.links.len() as u64, "link");
            self.notes
                .push(format!("{name} has {links}, {plain} without TLS"));
        }
    }

    /// Finds problems in the status of one server.
    fn server(&mut self, name: &str, standing: &Standing) {
        if !standing.handshakes.is_empty() {
            let (kinds, counts): (Vec<_>, Vec<_>) = standing
                .handshakes
                .iter()
                .map(|(kind, count)| (format!("{count} {kind}"), *count))
                .unzip();
            self.notes.push(format!(
                "TLS handshakes of clients with {name} failed {}: {}; its log has the reasons",
                Counted(counts.iter().sum(), "time"),
                kinds.join(", ")
            ));
        }
        match standing.disk {
            Some(Disk::Refusing { ms, wanted_bytes }) => self.add(
                Kind::Disk,
                Some(name),
                format!(
                    "{name} has refused IAMATs for {}, because its disk is full; free {} KiB on the disk of its data directory",
                    seconds(ms),
                    wanted_bytes.div_ceil(1 << 10)
                ),
            ),
            Some(Disk::Busy { ms }) if ms >= SLOW_MS => self.add(
                Kind::Disk,
                Some(name),
                format!(
                    "a write or a sync of {name} has taken {} so far: its disk hangs, or is very slow",
                    seconds(ms)
                ),
            ),
            Some(Disk::Busy { .. } | Disk::None | Disk::Well) | None => {}
        }
        if standing.is_draining == Some(true) {
            self.add(
                Kind::Draining,
                Some(name),
                format!(
                    "{name} drains: it takes no new clients, has {} left, and stops soon",
                    Counted(standing.clients, "client")
                ),
            );
        }
        if standing.is_table_full {
            self.add(
                Kind::Table,
                Some(name),
                format!(
                    "the table of {name} is full, with {}; it refuses unknown clients; raise limits.max_records or limits.max_record_bytes",
                    Counted(standing.records + standing.forgotten.unwrap_or(0), "record")
                ),
            );
        }
        // A server that refuses new clients of one address serves all others: this is no problem.
        if standing.counters.new_names_refused > 0 {
            self.notes.push(format!(
                "{name} has refused {} of new clients since its start, because too many new clients came from their address; if these are real clients behind one address, raise limits.new_names_per_address",
                Counted(standing.counters.new_names_refused, "IAMAT")
            ));
        }
        if standing
            .max_clients
            .is_some_and(|most| standing.clients >= most)
        {
            self.add(
                Kind::Clients,
                Some(name),
                format!(
                    "{name} has {} clients, which is its limit, and refuses more; raise limits.max_clients (over TLS, limits.buffer_bytes too)",
                    standing.clients
                ),
            );
        }
        self.evictions(name, standing);
        let counters = &standing.counters;
        let than = match standing.clients_clocks {
            Clocks::Near => None,
            Clocks::Ahead => Some(("ahead of", "slow")),
            Clocks::Behind => Some(("behind", "fast")),
        };
        if let Some((than, how)) = than {
            self.add(
                Kind::ClientClocks,
                Some(name),
                format!(
                    "the stamps of most clients of {name} are more than 60 s {than} its clock; check whether the clock of {name} is {how}"
                ),
            );
        } else if counters.ahead + counters.behind > 0 {
            self.notes.push(format!(
                "since its start, {name} got {} IAMATs with stamps more than 60 s ahead of its clock, and {} with stamps more than 60 s behind it",
                counters.ahead, counters.behind
            ));
        }
        if counters.refused_by_address > 0 {
            self.notes.push(format!(
                "since its start, {name} refused {} because limits.max_clients_per_address were connected from their address; behind a load balancer without the PROXY protocol, all clients have one address, so raise the limit there",
                Counted(counters.refused_by_address, "client")
            ));
        }
        if is_crowded(standing) {
            self.notes.push(format!(
                "since its start, {name} closed connections to its neighbours' port: {} because all places for unproven connections were taken (max_unproven, max_unproven_per_neighbour), {} because too many came from one network (max_unproven_new); its log has their addresses",
                counters.unproven_displaced + counters.unproven_crowded,
                counters.unproven_throttled
            ));
        }
        self.questions(name, standing);
        for link in standing.links.iter().filter(|link| link.lag_ms >= SLOW_MS) {
            self.add(
                Kind::Lag,
                Some(&link.name),
                format!(
                    "{} has not confirmed changes that {name} sent {} ago ({} in all): it hangs, or its disk or the network is slow",
                    link.name,
                    seconds(link.lag_ms),
                    Counted(link.unconfirmed, "change")
                ),
            );
        }
    }

    /// Checks how many questions a server has sent to Google Places, and refused.
    fn questions(&mut self, name: &str, standing: &Standing) {
        if let Some((asked, most)) = standing.places_day {
            let text = format!(
                "{name} asked Google Places {asked} times in 24 hours, and its limit is {most}"
            );
            if asked >= most {
                self.add(
                    Kind::Places,
                    Some(name),
                    format!(
                        "{text}; it answers a WHATSAT with an error until the oldest question is 24 hours old; raise places.max_per_day"
                    ),
                );
            } else if asked >= most - most / 5 {
                self.notes.push(text);
            }
        }
        let counters = &standing.counters;
        for (count, why) in [
            (
                counters.places_displaced,
                "the queue was full and their address had the most questions in it",
            ),
            (
                counters.places_over_second,
                "too many waited for places.max_per_second",
            ),
            (counters.places_over_day, "places.max_per_day was reached"),
        ] {
            if count > 0 {
                self.notes.push(format!(
                    "{name} has refused {} to Google Places since its start, because {why}",
                    Counted(count, "question")
                ));
            }
        }
    }

    /// Connections that a server closed because the buffers of all of them were full.
    fn evictions(&mut self, name: &str, standing: &Standing) {
        let Some(Buffers {
            maximum,
            evicted_ms: Some(ms),
            ..
        }) = standing.buffers
        else {
            return;
        };
        let closed = Counted(standing.counters.evicted, "connection");
        let text = format!(
            "{name} has closed {closed} since its start, the last {} ago, because the buffers of all connections held more than {maximum} bytes; \
             its log says which clients do not read; if these are real clients, raise limits.buffer_bytes, or give it more memory",
            seconds(ms)
        );
        match ms {
            0..EVICTIONS_MS => self.add(Kind::Buffers, Some(name), text),
            EVICTIONS_MS.. => self.notes.push(text),
        }
    }

    /// Checks a link of the herd's file: `a` dials `b`.
    fn link(&mut self, a: &str, b: &str, answered: &BTreeMap<&str, &Answer>) {
        let seen = |from: &str, to: &str| Some(End::of(&answered.get(from)?.standing, to));
        let text = match (seen(a, b), seen(b, a)) {
            (None | Some(End::Up), None | Some(End::Up)) => return,
            (Some(End::Unknown), _) | (_, Some(End::Unknown)) => {
                let without = match seen(a, b) {
                    Some(End::Unknown) => a,
                    _ => b,
                };
                return self.add(
                    Kind::File,
                    Some(without),
                    format!(
                        "{without} was started without the link between {a} and {b}; restart it with this config file"
                    ),
                );
            }
            (Some(End::Up), Some(End::Down(_))) => format!(
                "{a} is linked with {b}, but {b} is not linked with {a}: one of them has not noticed a change yet, or the network loses packets in one direction"
            ),
            (Some(End::Down(_)), Some(End::Up)) => format!(
                "{b} is linked with {a}, but {a} is not linked with {b}: one of them has not noticed a change yet, or the network loses packets in one direction"
            ),
            (one, other) => {
                let ms = [one, other].into_iter().flatten().filter_map(End::down_ms);
                let since = match ms.max() {
                    Some(ms) => format!(" for {}", seconds(ms)),
                    None => String::new(),
                };
                let crowd = match answered.get(b) {
                    Some(answer) if is_crowded(&answer.standing) => format!(
                        "; {b} has closed connections to its neighbours' port; if {a} dials from an address that the config file does not have for it, {b} keeps no place free for it"
                    ),
                    Some(_) | None => String::new(),
                };
                format!(
                    "{a} and {b} are not linked{since}; the log of {a}, which dials, says why{crowd}"
                )
            }
        };
        let server = if seen(a, b).is_some_and(|end| end != End::Up) {
            a
        } else {
            b
        };
        self.add(Kind::Link, Some(server), text);
    }

    /// Finds links that a server has and the file does not have.
    fn beyond_the_file(
        &mut self,
        name: &str,
        standing: &Standing,
        members: &[String],
        links: &[(String, String)],
    ) {
        let up = standing.links.iter().map(|link| (&link.name, true));
        let down = standing.unlinked.iter().map(|(other, _)| (other, false));
        for (other, is_up) in up.chain(down) {
            let is_known =
                |(a, b): &(String, String)| (a == name && b == other) || (b == name && a == other);
            if links.iter().any(is_known) {
                continue;
            }
            let has = if is_up {
                "is linked"
            } else {
                "is configured to link"
            };
            let lacks = match members.contains(other) {
                true => "a link that this file does not have",
                false => "a server that this file does not have",
            };
            self.add(
                Kind::File,
                Some(name),
                format!("{name} {has} with {other}, {lacks}; it runs with another config file"),
            );
        }
    }

    fn lacks(&mut self, asked: &[Asked], answered: &BTreeMap<&str, &Answer>) {
        for one in asked {
            let of_it = answered.values().flat_map(|answer| &answer.standing.links);
            let lacks = of_it
                .filter(|link| link.name == one.name)
                .map(|link| link.lacks);
            if let Some(lacks) = lacks.max().filter(|lacks| *lacks > 0) {
                self.add(
                    Kind::Lacks,
                    Some(&one.name),
                    format!(
                        "{} has refused {} of its neighbours because of its limits (max_records, max_record_bytes); raise them, and restart it",
                        one.name,
                        Counted(lacks, "record")
                    ),
                );
            }
        }
    }

    /// Compares the servers' clocks. If all servers agree, and this machine differs, then this
    /// machine's clock is wrong.
    fn clocks(&mut self, asked: &[Asked], answered: &BTreeMap<&str, &Answer>) {
        let mut clocks: Vec<i128> = answered
            .values()
            .filter(|answer| answer.standing.wall.is_some())
            .map(|answer| answer.ahead_ms)
            .collect();
        clocks.sort_unstable();
        let (Some(first), Some(last)) = (clocks.first(), clocks.last()) else {
            return;
        };
        let is_near = |ms: i128| ms.abs() <= CLOCK_TOLERANCE_MS;
        let (reference, others) = match clocks.len() {
            1 => (0, "this machine's"),
            2 if !is_near(last - first) => (0, "this machine's"),
            count => (clocks[count / 2], "those of the other servers"),
        };
        if !is_near(reference) {
            self.notes.push(format!(
                "the clock of this machine is {} the servers'",
                apart(-reference, "ahead of", "behind")
            ));
        }
        for (name, answer) in answered {
            let ahead = answer.ahead_ms - reference;
            if answer.standing.wall.is_some() && !is_near(ahead) {
                self.add(
                    Kind::Clock,
                    Some(name),
                    format!(
                        "the clock of {name} is {} {others}; synchronize it with a time server",
                        apart(ahead, "ahead of", "behind")
                    ),
                );
            }
            // The clock of a neighbour that was not asked is known only by its links.
            let is_seen = |link: &LinkStanding| answered.contains_key(&*link.name);
            for link in answer.standing.links.iter().filter(|link| !is_seen(link)) {
                let ahead = i128::from(link.apart_ms.unwrap_or(0));
                if asked.len() == 1 && !is_near(ahead) {
                    self.add(
                        Kind::Clock,
                        Some(&link.name),
                        format!(
                            "the clock of {} is {} that of {name}; synchronize both with a time server",
                            link.name,
                            apart(ahead, "ahead of", "behind")
                        ),
                    );
                }
            }
        }
    }

    fn versions(&mut self, answered: &BTreeMap<&str, &Answer>) {
        let mut servers: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, answer) in answered {
            let version = answer.standing.version.as_deref();
            let known = version.unwrap_or("unknown version");
            servers.entry(known).or_default().push(name);
        }
        let list =
            |(version, names): (&&str, &Vec<&str>)| format!("{version} ({})", names.join(" "));
        match servers.len() {
            0 => {}
            1 if answered
                .values()
                .all(|answer| answer.standing.version.is_none()) => {}
            1 => self
                .notes
                .extend(servers.keys().map(|version| format!("version {version}"))),
            _ => {
                let versions: Vec<_> = servers.iter().map(list).collect();
                self.add(
                    Kind::Version,
                    None,
                    format!(
                        "the servers' versions differ: {}; upgrade one server at a time, until all run the same version",
                        versions.join(", ")
                    ),
                );
            }
        }
    }

    fn agreement(&mut self, answered: &BTreeMap<&str, &Answer>, asked: &[Asked]) {
        if !agree(asked) && answered.len() > 1 {
            self.add(
                Kind::Differ,
                None,
                "the servers hold different records; this is normal under load; in a quiet herd it should end within a second".to_owned(),
            );
        }
    }

    fn keeps_nothing(&mut self, asked: &[Asked]) {
        let is_without = |one: &&Asked| {
            let answer = one.answer.as_ref();
            answer.is_ok_and(|answer| answer.standing.disk == Some(Disk::None))
        };
        let names: Vec<&str> = asked
            .iter()
            .filter(is_without)
            .map(|one| &*one.name)
            .collect();
        match names.as_slice() {
            [] => {}
            [one] => self.notes.push(format!(
                "{one} has no data directory, so it keeps no records on disk"
            )),
            several => self.notes.push(format!(
                "{} have no data directory, so they keep no records on disk",
                several.join(", ")
            )),
        }
    }
}

/// Whether all servers that answered hold the same records.
pub(crate) fn agree(asked: &[Asked]) -> bool {
    let held: Vec<_> = asked
        .iter()
        .filter_map(|one| one.answer.as_ref().ok())
        .map(|answer| (answer.standing.records, answer.standing.digest))
        .collect();
    held.windows(2).all(|pair| pair[0] == pair[1])
}

fn apart(ms: i128, ahead: &str, behind: &str) -> String {
    let than = if ms > 0 { ahead } else { behind };
    format!("{:.1} s {than}", ms.abs() as f64 / 1_000.0)
}

/// The state of a link, as the server at one end reports it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Up,
    /// The link is down, for so many milliseconds if that is known.
    Down(Option<u64>),
    /// The server has no such link in its config.
    Unknown,
}

impl End {
    fn of(standing: &Standing, neighbour: &str) -> End {
        if standing.linked.iter().any(|name| name == neighbour) {
            return End::Up;
        }
        let mut unlinked = standing.unlinked.iter();
        match unlinked.find(|(name, _)| name == neighbour) {
            Some((_, ms)) => End::Down(Some(*ms)),
            // A version without the `disk` key does not report links that are down.
            None if standing.disk.is_none() => End::Down(None),
            None => End::Unknown,
        }
    }

    fn down_ms(self) -> Option<u64> {
        match self {
            End::Down(ms) => ms,
            End::Up | End::Unknown => None,
        }
    }
}
