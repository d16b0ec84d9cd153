//! `herd-load abuse`: attacks a server, and measures polite clients, the links, the memory and the
//! disk of the server meanwhile.
//!
//! ```text
//!   cli, sources, consent ─► mod ─┬─► attack ─► payload     a thread: the connections of the attack
//!                                 ├─► polite                this thread: the polite clients
//!                                 ├─► links                 a thread: asks the server's STATUS
//!                                 ├─► footprint             a thread: memory, descriptors, log, data
//!                                 └─► report ─► table
//! ```
//!
//! The attack has its own thread, so that its work does not add to the polite latencies.

mod attack;
mod cli;
mod consent;
mod footprint;
mod links;
mod payload;
mod polite;
mod report;
mod sources;
mod table;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use herd_client::dial::Target;
use herd_client::standing::Standing;
use herd_mio::config::{HerdConfig, Overrides, SecretSource, Source};
use herd_mio::core::base::settings::{HostPort, Secret, Secrets};
use herd_mio::core::link::OPERATOR;
use herd_testkit::failure::Failure;
use herd_testkit::output;

use crate::abuse::attack::Attack;
pub(crate) use crate::abuse::cli::Abuse;
use crate::abuse::cli::Kind;
use crate::abuse::footprint::Watched as Footprint;
use crate::abuse::links::Operator;
use crate::abuse::payload::Payload;
use crate::abuse::polite::{Manner, PATIENCE, Phase, Polite, ns};
use crate::abuse::report::{Parameters, Report};
use crate::abuse::sources::Sources;
use crate::abuse::table::Table;
use crate::clock::{Clock, MILLISECOND_NS, SECOND_NS};
use crate::dial::Dialler;
use crate::files;
use crate::process::Watched;
use crate::progress::Progress;
use crate::report::Server;
use crate::stop::Stop;

/// The length of the measurement before the attack.
const ALONE_NS: u64 = 1000 * MILLISECOND_NS;
/// The longest wait for the last answers after the attack. It is longer if the servers ask Places,
/// because they wait 10 s for Places by default.
const GRACE_NS: u64 = 2000 * MILLISECOND_NS;
const GRACE_OF_PLACES_NS: u64 = 12_000 * MILLISECOND_NS;

/// The server and its addresses.
struct Subject {
    target: Target,
    clients: SocketAddr,
    /// Its neighbours' port.
    peers: Option<(HostPort, SocketAddr)>,
    /// The herd of the server, unless only its address is known.
    herd: Option<HerdConfig>,
}

/// Attacks, and prints the report.
pub(crate) fn run(abuse: &Abuse, stop: &Stop) -> Result<(), Failure> {
    let report = measure(abuse, stop)?;
    if abuse.json {
        output::say(report.json()? + "\n");
    } else {
        output::say(Table(&report));
    }
    match report.failure() {
        Some(what) => Err(Failure::Failed(what)),
        None => Ok(()),
    }
}

fn measure(abuse: &Abuse, stop: &Stop) -> Result<Report, Failure> {
    let subject = Subject::find(abuse)?;
    let aim = subject.aim(abuse.kind)?;
    abuse.from.check("--from", aim)?;
    abuse.polite_from.check("--polite-from", subject.clients)?;
    files::allow(abuse.connections() + abuse.polite as usize + abuse.askers())?;
    let secrets = subject.secrets(abuse)?;
    let footprint = Footprint {
        pid: abuse.pid,
        log_file: abuse.log_file.clone(),
        data_dir: abuse.data_dir.clone(),
    };
    footprint.begin()?;
    let pids: Vec<u32> = abuse.pid.into_iter().collect();
    let mut watched = Watched::new(&pids)?;

    let wall_ns = Clock::start().wall_ns();
    let run = format!("{:x}", wall_ns / MILLISECOND_NS);
    let mut progress = Progress::on_stderr();
    let manner = Manner {
        clients: abuse.polite as usize,
        askers: abuse.askers(),
        prefix: abuse.prefix.clone(),
        run: run.clone(),
    };
    let polite_dialler = subject.dialler(subject.clients, &abuse.polite_from, stop);
    let mut polite = Polite::connect(manner, polite_dialler, &mut progress, stop)?;
    let mut notes = notes(abuse, &subject);
    let operator = match subject.operator(secrets, polite.server())? {
        None => None,
        Some(operator) => match operator.ask() {
            Ok(before) => Some((operator, before)),
            Err(why) if abuse.secret_file.is_some() => {
                return Err(Failure::Failed(format!(
                    "the server does not report its links: {why}"
                )));
            }
            Err(why) => {
                notes.push(format!("the state of the links is unknown: {why}"));
                None
            }
        },
    };
    let alone_ns = polite.clock.now_ns() + ALONE_NS;
    polite.run(Phase::Alone, alone_ns, &mut progress, stop)?;
    if stop.is_wanted() {
        return Err(crate::stop::before_measuring());
    }

    let payload = Payload::new(abuse.kind, &abuse.prefix, &run, wall_ns);
    let threads = Threads {
        kind: abuse.kind,
        connections: abuse.connections(),
        dialler: subject.dialler(aim, &abuse.from, stop),
        payload,
        operator: operator.as_ref(),
        footprint: &footprint,
        grace_ns: match abuse.polite_whatsat {
            true => GRACE_OF_PLACES_NS,
            false => GRACE_NS,
        },
    };
    let watched = &mut watched;
    let found = threads.run(&mut polite, abuse.duration, watched, &mut progress, stop)?;
    progress.finish();
    let (processes, generator) = watched.usage()?;
    let first_failure = found.attack.first_failure.clone();
    let report = Report {
        program: "herd-load",
        version: env!("CARGO_PKG_VERSION"),
        mode: "abuse",
        kind: abuse.kind.name(),
        server: Server {
            name: polite.server().to_owned(),
            address: subject.target.address.to_string(),
        },
        parameters: parameters(abuse, &subject),
        interrupted: stop.is_wanted(),
        duration_s: found.duration_s,
        attack: report::Attack::of(found.attack, found.duration_s),
        polite: report::Polite::of(polite.figures()),
        links: found.links.map(report::Links::from),
        memory: None,
        descriptors: None,
        log: None,
        data: None,
        processes,
        generator,
        notes,
        failures: Vec::new(),
    };
    Ok(report
        .beside(found.seen.over(found.duration_s))
        .warned()
        .judged(first_failure.as_deref()))
}

/// The parts that run in parallel, each on its own thread. The polite clients run on the calling
/// thread.
struct Threads<'a> {
    kind: Kind,
    connections: usize,
    dialler: Dialler,
    payload: Payload,
    operator: Option<&'a (Operator, Standing)>,
    footprint: &'a Footprint,
    /// The longest wait for the last answers.
    grace_ns: u64,
}

/// The results of all threads.
struct Found {
    attack: Attack,
    links: Option<links::Links>,
    seen: footprint::Seen,
    duration_s: f64,
}

impl Threads<'_> {
    fn run(
        self,
        polite: &mut Polite,
        duration: Duration,
        watched: &mut Watched,
        progress: &mut Progress,
        stop: &Stop,
    ) -> Result<Found, Failure> {
        let seen = self.footprint.begin()?;
        watched.begin()?;
        let ends = AtomicBool::new(false);
        let ends = &ends;
        thread::scope(|scope| {
            let attack = scope.spawn(move || {
                // However this thread ends, the other threads end too.
                let _end = End(ends);
                let (kind, connections) = (self.kind, self.connections);
                attack::run(kind, connections, self.dialler, self.payload, ends)
            });
            let operator = self.operator;
            let links = operator.map(|(it, before)| scope.spawn(move || it.watch(before, ends)));
            let footprint = self.footprint;
            let seen = scope.spawn(move || footprint.watch(seen, ends));

            let start_ns = polite.clock.now_ns();
            let ran = {
                let _end = End(ends);
                let until_ns = start_ns + ns(duration);
                polite.run(Phase::UnderAttack, until_ns, progress, stop)
            };
            let attack = joined(attack);
            let end_ns = polite.clock.now_ns();
            watched.end()?;
            ran?;
            polite.run(Phase::Over, end_ns + self.grace_ns, progress, stop)?;
            Ok(Found {
                attack: attack??,
                links: links.map(joined).transpose()?,
                seen: joined(seen)?,
                duration_s: (end_ns - start_ns) as f64 / SECOND_NS as f64,
            })
        })
    }
}

/// Joins a thread. If it panicked, it has already printed the reason.
fn joined<T>(thread: thread::ScopedJoinHandle<'_, T>) -> Result<T, Failure> {
    let failed = |_| Failure::Failed("a thread of the measurement failed".to_owned());
    thread.join().map_err(failed)
}

/// Ends the attack when it is dropped.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Subject {
    /// Finds the server, and checks that it may be attacked.
    fn find(abuse: &Abuse) -> Result<Subject, Failure> {
        let source = abuse.source();
        let target = Target::resolve(&abuse.server, &source, &abuse.tls)?;
        let is_address = matches!(source, Source::Name) && abuse.server.contains(':');
        let herd = match is_address {
            true => None,
            false => Some(HerdConfig::load(&source, Some(&abuse.server))?),
        };
        let member = herd.as_ref().and_then(|herd| {
            let mut members = herd.members.iter();
            members.find(|member| member.name == abuse.server)
        });
        let peers = abuse.peers.clone();
        let peers = peers.or_else(|| member.and_then(|member| member.peers.clone()));
        let resolve = |place: &HostPort| consent::resolve(place, abuse.i_own_this_server);
        let clients = resolve(&target.address)?;
        let peers = match peers {
            Some(place) => {
                let address = resolve(&place)?;
                Some((place, address))
            }
            None => None,
        };
        Ok(Subject {
            target,
            clients,
            peers,
            herd,
        })
    }

    /// A dialler for one of the server's addresses. The name was looked up and checked, and is not
    /// looked up again.
    fn dialler(&self, address: SocketAddr, sources: &Sources, stop: &Stop) -> Dialler {
        let is_clients = address == self.clients;
        let target = Target {
            name: self.target.name.clone(),
            address: HostPort {
                host: address.ip().to_string(),
                port: address.port(),
            },
            // Connections to the neighbours' port send nothing.
            tls: self.target.tls.clone().filter(|_| is_clients),
        };
        Dialler::new(&target, PATIENCE, stop).from(sources.addresses().to_vec())
    }

    /// The attacked address of the server.
    fn aim(&self, kind: Kind) -> Result<SocketAddr, Failure> {
        match (kind, &self.peers) {
            (Kind::Links, Some((_, peers))) => Ok(*peers),
            (Kind::Links, None) => Err(needs_peers("links attacks it")),
            (Kind::Lines | Kind::Unread | Kind::Faults | Kind::Names | Kind::Places, _) => {
                Ok(self.clients)
            }
        }
    }

    /// The herd's secrets, found like those of `herd-client status`. `None` if the server cannot be
    /// asked, because only its address is known and no secret is given.
    fn secrets(&self, abuse: &Abuse) -> Result<Option<Secrets>, Failure> {
        if abuse.secret_file.is_some() && self.peers.is_none() {
            return Err(needs_peers("--secret-file is for questions to it"));
        }
        let variable = std::env::var("HERD_SECRET").ok();
        let variable = variable.map(|text| text.trim().to_owned());
        let variable = variable.filter(|text| !text.is_empty());
        let overrides = Overrides {
            secret_file: abuse.secret_file.clone(),
            secret: variable.map(|text| Secret::new(text.into_bytes())),
            ..Overrides::default()
        };
        if let Some(herd) = &self.herd {
            return Ok(Some(herd.secrets(&overrides)?.0));
        }
        // A preset has no secret, so this is the one of the options.
        let preset = HerdConfig::load(&Source::Preset("2021".to_owned()), None)?;
        Ok(match preset.secrets(&overrides)? {
            (_, SecretSource::None) => None,
            (secrets, SecretSource::File(_) | SecretSource::Variable) => Some(secrets),
        })
    }

    /// The operator that asks for the STATUS of the server `name`, if that is possible.
    fn operator(&self, secrets: Option<Secrets>, name: &str) -> Result<Option<Operator>, Failure> {
        let (Some(secrets), Some((_, address))) = (secrets, &self.peers) else {
            return Ok(None);
        };
        let herd = self.herd.as_ref();
        let tls = herd.map(|herd| herd.tls_files(OPERATOR).read_for_neighbours());
        Ok(Some(Operator {
            address: *address,
            name: name.to_owned(),
            secrets,
            tls: tls.transpose()?.flatten(),
        }))
    }
}

fn needs_peers(why: &str) -> Failure {
    Failure::Usage(format!(
        "the server's address for neighbours is needed, because {why}; give --peers host:port, or the server's name with --config FILE"
    ))
}

/// Notes for the reader of the figures.
fn notes(abuse: &Abuse, subject: &Subject) -> Vec<String> {
    let mut notes = Vec::new();
    let usual = Sources::of(match subject.clients.ip() {
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    });
    let effective = |sources: &Sources| match sources.addresses() {
        [] if subject.clients.ip().is_loopback() => usual.clone(),
        _ => sources.clone(),
    };
    if effective(&abuse.from).share_one_with(&effective(&abuse.polite_from)) {
        notes.push(
            "the attack and the polite clients use the same address, so limits by address count them together; see --from and --polite-from".to_owned(),
        );
    }
    notes
}

fn parameters(abuse: &Abuse, subject: &Subject) -> Parameters {
    Parameters {
        tls: subject.target.tls.is_some(),
        peers: subject.peers.as_ref().map(|(place, _)| place.to_string()),
        duration_s: abuse.duration.as_secs_f64(),
        connections: abuse.connections(),
        from: abuse.from.to_string(),
        polite: abuse.polite,
        polite_from: abuse.polite_from.to_string(),
        polite_whatsat: abuse.polite_whatsat,
        polite_p99_ms: abuse.polite_p99.as_secs_f64() * 1000.0,
        whatsat_p99_ms: abuse.whatsat_p99.as_secs_f64() * 1000.0,
        prefix: abuse.prefix.clone(),
    }
}
