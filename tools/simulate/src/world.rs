//! One run. After each storm of a plan there is a time without faults, in which the rules are
//! checked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use herd_mio::core::base::clock::Time;
use herd_mio::core::base::limits::LimitValue;
use herd_mio::core::journal::durability::DiskErrorKind;

use crate::chronicle::{Chronicle, Seconds, Shown, Subject};
use crate::coverage::{Coverage, MACHINES};
use crate::expired::Expired;
use crate::host::{Condition, Fallen, Host, Setup};
use crate::ledger::{Ledger, when};
use crate::mobile::Mobile;
use crate::network::{Flow, Network, Notice, Party};
use crate::operator::Operator;
use crate::outside::{Failure, Outside, failed};
use crate::plan::{Plan, Trouble, Weather};
use crate::timeline::{Event, Timeline};
use crate::wire::{Counts, Wire};
use herd_testkit::at_line::Epochs;
use herd_testkit::fake_disk::{FakeDisk, Queue, Snapshot, Strike};
use herd_testkit::promises::End;
use herd_testkit::rng::Rng;

/// The interval between checks whether the herd has recovered.
const STEP: Duration = Duration::from_millis(200);
/// After the recovery, old connections may stay open this long.
const AFTERMATH: Duration = Duration::from_secs(4);
/// The number of heartbeats in which the herd at rest is checked.
const SILENT_BEATS: u32 = 4;
/// Without faults, the longest time of a record from one server to the next.
const A_HOP: Duration = Duration::from_millis(150);
/// The time for which a machine is down after its process ended in the middle of a turn.
const FALLEN: Duration = Duration::from_secs(1);
/// If records expire, the interval in which a server wakes up to look for expired ones.
const SWEEP_EVERY: Duration = Duration::from_millis(100);
/// The greatest number of pieces of disk work for expired records at rest: five compactions.
const EXPIRY_WORKS: u64 = 40;
/// The number of lines that make a link: HERD, PROOF and LIFE from both servers.
const GREETINGS: u64 = 6;
/// The greatest number of events. A run with more never comes to rest.
const MOST_EVENTS: u64 = 20_000_000;

/// The result of a run.
#[derive(Clone, Debug, Default)]
pub struct Story {
    /// The same for the same seed.
    pub hash: u64,
    /// The number of events.
    pub events: u64,
    /// The length of the run, in virtual time.
    pub length: Duration,
    /// The number of faults of each kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// The states that the faults met.
    pub coverage: Coverage,
    /// The number of acknowledged updates.
    pub acknowledged: u64,
    /// The number of kept promises: each client's, at each server, after each storm.
    pub kept: u64,
    /// The number of records that were sent over links.
    pub records_sent: u64,
    /// The longest time from the end of a storm until all servers were linked and had the same
    /// records.
    pub slowest: Duration,
    /// The failure, if there was one.
    pub failure: Option<Failure>,
    /// The events that led to it, if they were asked for.
    pub log: Vec<String>,
}

/// A running plan.
struct World {
    plan: Plan,
    hosts: Vec<Host>,
    mobiles: Vec<Mobile>,
    /// Their numbers follow those of the clients.
    operators: Vec<Operator>,
    ledger: Ledger,
    outside: Outside,
    /// The time at which a machine that is down comes back.
    back_at: BTreeMap<usize, Time>,
    /// The time since which a disk is frozen.
    slow_since: BTreeMap<usize, Time>,
    names_fail: bool,
    /// By fault: a copy of a data directory, and the time of the copy.
    copies: BTreeMap<usize, (Time, Snapshot)>,
    kept: u64,
    /// The number of faults of each kind, and the states that they met.
    struck: BTreeMap<&'static str, u64>,
    coverage: Coverage,
    slowest: Duration,
}

/// Runs a plan. With `in_words`, the story has the events that concern a failure.
pub(crate) fn run(plan: Plan, in_words: bool) -> Story {
    let mut world = World::new(plan, in_words);
    let storms = world.plan.storms.clone();
    for (storm, length) in storms.into_iter().enumerate() {
        world.storm(storm, length);
        world.peace();
        if world.outside.failure.is_some() {
            break;
        }
    }
    world.story()
}

impl World {
    fn new(plan: Plan, in_words: bool) -> World {
        let seed = plan.case.seed;
        let clients = plan.clients();
        let hosts = (0..plan.herd.servers.len()).map(|number| {
            let edges = plan.herd.edges.iter().enumerate();
            let own = edges.filter(|(_, (a, b))| *a == number || *b == number);
            Host::new(
                number,
                Setup {
                    settings: plan.herd.settings(number, &plan.limits, plan.by_name),
                    clock_off_ns: plan.clocks[number],
                    scratch: plan.scratch,
                    coarse: plan.coarse,
                    turn: plan.turn,
                    edges: own.map(|(edge, _)| edge).collect(),
                    disk: plan.disks[number],
                    clients: Arc::clone(&clients),
                },
                Rng::new(seed, &format!("disk {number}")),
            )
        });
        let hosts: Vec<Host> = hosts.collect();
        let edges = plan.herd.edges.clone();
        let sessions = plan.sessions.iter().enumerate();
        let mobiles = sessions
            .map(|(number, session)| Mobile::new(number, session.clone(), edges.len() + number));
        let mobiles: Vec<Mobile> = mobiles.collect();
        let forgets = (mobiles.len()..).zip(&plan.forgets);
        let operators = forgets
            .map(|(number, forget)| Operator::new(number, forget.clone(), edges.len() + number));
        let operators = operators.collect();
        let of_clients = plan.sessions.iter().map(|session| session.path.clone());
        let of_operators = plan.forgets.iter().map(|forget| forget.path.clone());
        let of_edges = plan.paths.iter().cloned();
        let paths = of_edges.chain(of_clients).chain(of_operators);
        let outside = Outside {
            timeline: Timeline::default(),
            network: Network::new(paths, Rng::new(seed, "network")),
            wire: Wire::new(&edges),
            epochs: Epochs::default(),
            chronicle: Chronicle::new(in_words),
            rng: Rng::new(seed, "hosts"),
            edges,
            prompt: (plan.weather == Weather::Calm).then(|| A_HOP * hosts.len() as u32),
            promises: Vec::new(),
            expired: Expired::default(),
            failure: None,
        };
        let mut world = World {
            hosts,
            mobiles,
            operators,
            ledger: Ledger::default(),
            outside,
            back_at: BTreeMap::new(),
            slow_since: BTreeMap::new(),
            names_fail: false,
            copies: BTreeMap::new(),
            kept: 0,
            struck: BTreeMap::new(),
            coverage: Coverage::default(),
            slowest: Duration::ZERO,
            plan,
        };
        for host in &world.hosts {
            world.ledger.promises.serves(host.number, host.policy());
        }
        for host in 0..world.hosts.len() {
            let wait = world.outside.rng.millis(0, 400);
            world.outside.timeline.after(wait, Event::Start { host });
        }
        world
    }

    fn storm(&mut self, storm: usize, length: Duration) {
        let Outside { timeline, .. } = &mut self.outside;
        for (fault, planned) in self.plan.faults.iter().enumerate() {
            if planned.storm == storm {
                timeline.after(planned.at, Event::Strike { fault });
            }
        }
        for (session, planned) in self.plan.sessions.iter().enumerate() {
            if planned.storm == storm {
                timeline.after(planned.at, Event::Act { session });
            }
        }
        let forgets = (self.plan.sessions.len()..).zip(&self.plan.forgets);
        for (session, planned) in forgets {
            if planned.storm == storm {
                timeline.after(planned.at, Event::Act { session });
            }
        }
        self.outside
            .log(&[Subject::Herd], || format!("storm {storm} begins"));
        self.run_for(length);
        // Faults that last end now. Their planned ends then have no effect.
        for fault in 0..self.plan.faults.len() {
            if self.plan.faults[fault].storm == storm {
                self.relieve(fault);
            }
        }
        self.outside
            .log(&[Subject::Herd], || format!("storm {storm} is over"));
    }

    fn run_for(&mut self, length: Duration) {
        let end = self.outside.timeline.now() + length;
        while self.outside.failure.is_none()
            && let Some(event) = self.outside.timeline.next_before(end)
        {
            self.happen(event);
        }
    }

    fn happen(&mut self, event: Event) {
        let outside = &mut self.outside;
        if outside.timeline.planned() > MOST_EVENTS {
            return failed(outside, "the herd does not come to rest", &[]);
        }
        match event {
            Event::Syn { key, attempt } => {
                let target = match outside.network.party(key, 1) {
                    Party::Host { host, .. } => self.hosts[host].listener(),
                    Party::Nobody => Some(Party::Nobody),
                    Party::Session(_) | Party::Operator(_) => None,
                };
                outside
                    .network
                    .syn(key, attempt, target, &mut outside.timeline);
            }
            Event::SynAnswered { key, refused } => {
                let notice = outside
                    .network
                    .syn_answered(key, refused, &mut outside.timeline);
                self.notice(notice);
            }
            Event::Arrive { key, side } => {
                let notice = outside.network.arrive(key, side, &mut outside.timeline);
                self.notice(notice);
            }
            Event::Room { key, side, count } => {
                let notice = outside
                    .network
                    .room(key, side, count, &mut outside.timeline);
                self.notice(notice);
            }
            Event::Turn { host } => {
                self.hosts[host].turn(outside);
                self.ledger.expire(&outside.expired);
                let now = outside.timeline.now();
                for kept in outside.wire.kept.drain(..) {
                    if self.hosts[kept.host].disk.is_some() {
                        self.ledger.confirmed(kept.host, &kept.line, now);
                    }
                }
                if !self.has_fallen(host) {
                    match self.hosts[host].is_stopped() {
                        true => self.stopped(host),
                        false => self.take_aim(host),
                    }
                }
            }
            Event::DiskWorked { host, life, queue } => {
                self.hosts[host].disk_worked(life, queue, outside);
            }
            Event::LookedUp { host, life, name } => {
                self.hosts[host].looked_up(life, &name, !self.names_fail, outside);
            }
            Event::Start { host } => {
                let is_due = self
                    .back_at
                    .get(&host)
                    .is_none_or(|at| *at <= outside.timeline.now());
                if self.hosts[host].condition != Condition::Up && is_due {
                    self.back_at.remove(&host);
                    self.start(host);
                }
            }
            Event::Act { session } => self.act(session),
            Event::Due { promise } => self.due(promise),
            Event::Strike { fault } => self.strike(fault),
            Event::Relieve { fault } => self.relieve(fault),
        }
    }

    /// Whether a process has ended by itself, or in the middle of a write. Then the machine goes
    /// down too.
    fn has_fallen(&mut self, host: usize) -> bool {
        match self.hosts[host].fallen.take() {
            None => return false,
            Some(Fallen::Torn) => {
                self.count("torn write", Some(host), None);
                self.fell(host, End::Killed);
            }
            // The content of the disk is known only after the system's cache is gone.
            Some(Fallen::GaveUp) => self.fell(host, End::PowerLost),
        }
        true
    }

    fn start(&mut self, host: usize) {
        self.hosts[host].start(&mut self.outside);
        self.ledger.expire(&self.outside.expired);
        if let Err((what, client)) = self.ledger.started(&self.hosts[host]) {
            let subjects = [Subject::Host(host), Subject::Record(client)];
            failed(&mut self.outside, &what, &subjects);
        }
        self.has_fallen(host);
    }

    fn act(&mut self, session: usize) {
        let (ledger, outside) = (&mut self.ledger, &mut self.outside);
        match session.checked_sub(self.mobiles.len()) {
            None => self.mobiles[session].act(&self.hosts, ledger, outside),
            Some(operator) => self.operators[operator].act(&self.hosts, ledger, outside),
        }
    }

    /// Checks that without faults an update has reached every server in time.
    fn due(&mut self, promise: usize) {
        let (client, line) = &self.outside.promises[promise];
        let late = self.hosts.iter().find(|host| {
            let held = host.held(client);
            held.as_ref() < Some(line) && !self.outside.expired.covers(line)
        });
        if let Some(host) = late {
            let text = format!(
                "without any fault, host {} still lacks {}",
                host.number,
                Shown(line.bytes())
            );
            let subjects = [Subject::Host(host.number), Subject::Record(client.clone())];
            failed(&mut self.outside, &text, &subjects);
        }
    }

    fn notice(&mut self, notice: impl IntoIterator<Item = Notice>) {
        for notice in notice {
            match notice.party {
                Party::Host { host, life } => {
                    if self.hosts[host].life == life && self.hosts[host].condition == Condition::Up
                    {
                        self.hosts[host].notice(notice, &mut self.outside);
                    }
                }
                Party::Session(session) | Party::Operator(session) => self.act(session),
                Party::Nobody => {}
            }
        }
    }

    fn strike(&mut self, number: usize) {
        let trouble = self.plan.faults[number].trouble.clone();
        match trouble {
            Trouble::Aimed { host, cell, .. } => self.hosts[host].aims.push((number, cell)),
            trouble => self.hit(number, trouble),
        }
    }

    /// Applies the faults that wait for a state in which this server is now.
    fn take_aim(&mut self, host: usize) {
        for (number, _) in self.hosts[host].aims.clone() {
            let Trouble::Aimed { cell, trouble, .. } = &self.plan.faults[number].trouble else {
                continue;
            };
            let (machine, state, _) = *cell;
            let edge = trouble.edge();
            let states = self.hosts[host].states(machine, edge, &self.outside);
            // A write is torn while it is in progress.
            let is_ready = match **trouble {
                Trouble::Tear { .. } => self.hosts[host].is_writing(),
                _ => true,
            };
            if is_ready && states.contains(&state) {
                let trouble = (**trouble).clone();
                self.hosts[host].aims.retain(|(aim, _)| *aim != number);
                self.hit(number, trouble);
            }
        }
    }

    /// Counts a fault in the coverage.
    fn count(&mut self, fault: &'static str, host: Option<usize>, edge: Option<usize>) {
        let hosts = match (host, edge) {
            (Some(host), _) => vec![host],
            (None, Some(edge)) => {
                let (a, b) = self.outside.edges[edge];
                vec![a, b]
            }
            (None, None) => (0..self.hosts.len()).collect(),
        };
        for machine in &MACHINES {
            if !machine.faults.contains(&fault) {
                continue;
            }
            for &host in &hosts {
                for state in self.hosts[host].states(machine.name, edge, &self.outside) {
                    self.coverage.met((machine.name, state, fault));
                }
            }
        }
    }

    fn hit(&mut self, number: usize, trouble: Trouble) {
        let lasts = self.plan.faults[number].lasts;
        // A torn write is counted when it happens.
        if !matches!(trouble, Trouble::Tear { .. }) {
            self.count(trouble.kind_of_one(), trouble.host(), trouble.edge());
        }
        let outside = &mut self.outside;
        outside
            .chronicle
            .mix(outside.timeline.now(), &[5, number as u64], &[]);
        outside.log(&[Subject::Herd], || {
            format!("fault {number}: {trouble:?}, for {lasts:?}")
        });
        *self.struck.entry(trouble.kind()).or_default() += 1;
        outside
            .timeline
            .after(lasts, Event::Relieve { fault: number });
        match trouble {
            Trouble::Reset { edge, spared, mute } => {
                let notices = outside.network.reset(edge, spared, mute);
                self.notice(notices);
            }
            Trouble::Swallow { edge, directions } => {
                outside
                    .network
                    .set_flow(edge, directions, Flow::Swallowed, &mut outside.timeline);
            }
            Trouble::Stall { edge, directions } => {
                outside
                    .network
                    .set_flow(edge, directions, Flow::Stalled, &mut outside.timeline);
            }
            Trouble::Slow {
                edge,
                capacity,
                latency,
            } => outside.network.slow_down(edge, capacity, latency),
            Trouble::Freeze { host } => self.hosts[host].freeze(outside.timeline.now()),
            Trouble::Kill { host, power } => self.kill(host, power, lasts),
            Trouble::KillAll { power } => {
                for host in 0..self.hosts.len() {
                    self.kill(host, power, lasts);
                }
            }
            Trouble::Tear { host } => {
                self.hosts[host].doom();
                self.has_fallen(host);
            }
            Trouble::Full { host, room } => {
                let now = outside.timeline.now();
                self.ledger.promises.full(host, true, when(now));
                self.hosts[host].set_disk_room(Some(room), now);
            }
            Trouble::BadDisk { host, strike } | Trouble::Refused { host, strike } => {
                // Writes without room at a sync are repeated, which takes time.
                if matches!(
                    strike,
                    Strike::Sync(DiskErrorKind::Full) | Strike::Any(DiskErrorKind::Full)
                ) {
                    let now = outside.timeline.now();
                    self.slow_since.entry(host).or_insert(now);
                }
                self.hosts[host].strike_disk(strike);
            }
            Trouble::SlowDisk { host, queues } => {
                self.slow_since.insert(host, outside.timeline.now());
                self.hosts[host].set_frozen_disk(&queues, true, outside);
            }
            Trouble::Stop { host } => {
                // A frozen process would get the signal only when it runs again.
                if self.hosts[host].is_up() && !self.hosts[host].frozen {
                    self.hosts[host].stop(outside);
                    let back = outside.timeline.now() + lasts;
                    self.back_at.insert(host, back);
                }
            }
            Trouble::SetClock { host, by_ms } => {
                let now = outside.timeline.now();
                self.hosts[host].set_clock(now, by_ms * 1_000_000);
            }
            Trouble::NoNames => self.names_fail = true,
            Trouble::Tight { host, records } => {
                self.hosts[host].set_room(Some(records), outside.timeline.now());
                outside.wire.set_tight(host, true);
                self.kill(host, false, FALLEN);
            }
            Trouble::Restore { host } => {
                let copy = self.hosts[host].disk.as_ref().map(FakeDisk::snapshot);
                let now = outside.timeline.now();
                if let Some(copy) = copy {
                    self.copies.insert(number, (now, copy));
                }
            }
            // The aimed fault is replaced by its inner fault before.
            Trouble::Aimed { .. } => {}
        }
    }

    fn kill(&mut self, host: usize, power: bool, lasts: Duration) {
        if self.hosts[host].condition == Condition::Up {
            self.ends(host, if power { End::PowerLost } else { End::Killed });
            self.comes_back(host, lasts);
        }
    }

    /// A server has ended in the middle of a turn.
    fn fell(&mut self, host: usize, end: End) {
        self.outside.log(&[Subject::Host(host)], || {
            format!("host {host} ends in the middle of a turn")
        });
        self.ends(host, end);
        self.comes_back(host, FALLEN);
    }

    /// The end of a server's life.
    fn ends(&mut self, host: usize, end: End) {
        let now = self.outside.timeline.now();
        let pauses = [
            self.hosts[host].frozen_since(),
            self.slow_since.get(&host).copied(),
        ];
        for since in pauses.into_iter().flatten() {
            let promises = &mut self.ledger.promises;
            promises.stood_still(host, when(since), when(now));
        }
        self.hosts[host].end(end, &mut self.outside);
        if let Err((what, client)) = self.ledger.died(host, end, now, &self.hosts) {
            let subjects = [Subject::Host(host), Subject::Record(client)];
            failed(&mut self.outside, &what, &subjects);
        }
    }

    fn comes_back(&mut self, host: usize, wait: Duration) {
        let back = self.outside.timeline.now() + wait;
        self.back_at.insert(host, back);
        self.outside.timeline.at(back, Event::Start { host });
    }

    /// A server has stopped cleanly.
    fn stopped(&mut self, host: usize) {
        if self.plan.weather == Weather::Stops
            && let Err((what, client)) = self.ledger.leaves(host, &self.hosts)
        {
            let subjects = [Subject::Host(host), Subject::Record(client)];
            failed(&mut self.outside, &what, &subjects);
        }
        self.outside.log(&[Subject::Host(host)], || {
            format!("host {host} has stopped")
        });
        self.ends(host, End::Stopped);
        let wait = self.back_at.get(&host).map_or(Duration::ZERO, |back| {
            back.since(self.outside.timeline.now())
        });
        self.comes_back(host, wait);
    }

    /// Ends a fault. If it has ended already, nothing changes.
    fn relieve(&mut self, number: usize) {
        let mut trouble = self.plan.faults[number].trouble.clone();
        if let Trouble::Aimed {
            host,
            trouble: aimed,
            ..
        } = trouble
        {
            self.hosts[host].aims.retain(|(aim, _)| *aim != number);
            trouble = *aimed;
        }
        let outside = &mut self.outside;
        match trouble {
            Trouble::Aimed { .. } => {}
            Trouble::Reset { .. } | Trouble::SetClock { .. } => {}
            Trouble::Swallow { edge, directions } | Trouble::Stall { edge, directions } => {
                outside
                    .network
                    .set_flow(edge, directions, Flow::Open, &mut outside.timeline);
            }
            Trouble::Slow { edge, .. } => {
                let notices = outside.network.speed_up(edge);
                self.notice(notices);
            }
            Trouble::Freeze { host } => {
                if let Some(since) = self.hosts[host].frozen_since() {
                    let now = outside.timeline.now();
                    let promises = &mut self.ledger.promises;
                    promises.stood_still(host, when(since), when(now));
                    self.hosts[host].thaw(outside);
                }
            }
            Trouble::Kill { host, .. } | Trouble::Stop { host } => self.back_now(host),
            Trouble::KillAll { .. } => {
                for host in 0..self.hosts.len() {
                    self.back_now(host);
                }
            }
            Trouble::Tear { host } => {
                self.hosts[host].doomed = false;
                self.back_now(host);
            }
            Trouble::Full { host, .. } => {
                let now = outside.timeline.now();
                self.ledger.promises.full(host, false, when(now));
                self.hosts[host].set_disk_room(None, now);
            }
            Trouble::BadDisk { host, .. } | Trouble::Refused { host, .. } => {
                let now = outside.timeline.now();
                if let Some(since) = self.slow_since.remove(&host) {
                    let promises = &mut self.ledger.promises;
                    promises.stood_still(host, when(since), when(now));
                }
                self.hosts[host].mend_disk(now);
                self.back_now(host);
            }
            Trouble::SlowDisk { host, .. } => {
                let now = outside.timeline.now();
                if let Some(since) = self.slow_since.remove(&host) {
                    let promises = &mut self.ledger.promises;
                    promises.stood_still(host, when(since), when(now));
                }
                self.hosts[host].set_frozen_disk(&Queue::ALL, false, outside);
            }
            Trouble::NoNames => self.names_fail = false,
            Trouble::Tight { host, .. } if !self.hosts[host].is_tight() => {}
            Trouble::Tight { host, .. } => {
                self.hosts[host].set_room(None, outside.timeline.now());
                outside.wire.set_tight(host, false);
                self.kill(host, false, FALLEN);
            }
            Trouble::Restore { host } => self.restore(number, host),
        }
    }

    /// Puts back an older copy of a server's data directory. A running server is killed for that.
    fn restore(&mut self, number: usize, host: usize) {
        let Some((since, copy)) = self.copies.remove(&number) else {
            return;
        };
        if self.hosts[host].condition == Condition::Up {
            self.ends(host, End::Killed);
            self.comes_back(host, FALLEN);
        }
        self.outside.log(&[Subject::Host(host)], || {
            format!("an older copy of the data of host {host} is put back")
        });
        self.hosts[host].put_back(&copy, &mut self.outside);
        if let Err((what, client)) = self.ledger.put_back(host, since, &self.hosts) {
            let subjects = [Subject::Host(host), Subject::Record(client)];
            failed(&mut self.outside, &what, &subjects);
        }
    }

    /// Starts a server again. If it is still stopping, it starts as soon as it has stopped.
    fn back_now(&mut self, host: usize) {
        if let Some(back) = self.back_at.get_mut(&host) {
            *back = self.outside.timeline.now();
            let start = Event::Start { host };
            self.outside.timeline.after(Duration::ZERO, start);
        }
    }

    /// After a storm, the herd must recover, and then come to rest.
    fn peace(&mut self) {
        let began = self.outside.timeline.now();
        let patience = self.patience();
        loop {
            self.run_for(STEP);
            let now = self.outside.timeline.now();
            if self.outside.failure.is_some() {
                return;
            }
            for mobile in &mut self.mobiles {
                mobile.give_up(&self.hosts, &mut self.outside);
            }
            for operator in &mut self.operators {
                operator.give_up(&self.hosts, &mut self.outside);
            }
            self.is_dialling_in_vain(now);
            if self.is_together() {
                self.slowest = self.slowest.max(now.since(began));
                break;
            }
            if now.since(began) > patience {
                return self.not_together(patience);
            }
        }
        self.run_for(AFTERMATH);
        self.outside.log(&[Subject::Herd], || {
            "the check of the herd at rest begins".to_owned()
        });
        self.silence();
        self.audit();
    }

    /// The longest time of a correct recovery. A link that broke at the end of the storm times out.
    /// The next connection fails half-way, and is dialled again. Then records cross the whole herd.
    fn patience(&self) -> Duration {
        let limits = &self.plan.limits;
        let notice = limits.link_silence_ms.to_duration() + limits.linger_ms.to_duration();
        let dial = (limits.redial_cap_ms + limits.link_connect_ms + limits.lookup_ms).to_duration();
        let across = Duration::from_millis(500) * self.hosts.len().min(60) as u32;
        notice + dial * 3 + (limits.link_proof_ms + limits.stop_ms).to_duration() + across
    }

    fn is_together(&self) -> bool {
        self.mobiles.iter().all(|mobile| self.is_through(mobile))
            && self.operators.iter().all(Operator::is_through)
            && self.hosts.iter().all(Host::is_up)
            && (0..self.outside.edges.len()).all(|edge| self.is_linked(edge))
            && self.ledger.is_equal(&self.hosts)
    }

    /// Checks that without faults an attempt to dial ends in time.
    fn is_dialling_in_vain(&mut self, now: Time) {
        let limit = self.plan.limits.link_connect_ms.to_duration() + STEP;
        let since = Time::from_nanos(now.since(Time::default() + limit).as_nanos() as u64);
        if let Some(host) = self.hosts.iter().find(|host| host.dials_in_vain(since)) {
            let text = format!("host {} has dialled for longer than {limit:?}", host.number);
            failed(&mut self.outside, &text, &[Subject::Host(host.number)]);
        }
    }

    fn is_through(&self, mobile: &Mobile) -> bool {
        mobile.is_done() || mobile.is_before()
    }

    fn is_linked(&self, edge: usize) -> bool {
        let wire = &self.outside.wire;
        wire.link(edge)
            .is_some_and(|key| self.outside.network.is_sound(key))
    }

    fn not_together(&mut self, patience: Duration) {
        let patience = patience.as_secs_f32();
        let down: Vec<usize> = self
            .hosts
            .iter()
            .filter(|host| !host.is_up())
            .map(|host| host.number)
            .collect();
        let unlinked: Vec<usize> = (0..self.outside.edges.len())
            .filter(|&edge| !self.is_linked(edge))
            .collect();
        let waiting = self.mobiles.iter().find(|mobile| !self.is_through(mobile));
        let (what, subjects) = if !down.is_empty() {
            let subjects = down.iter().map(|host| Subject::Host(*host)).collect();
            (format!("hosts {down:?} are not up"), subjects)
        } else if let Some(edge) = unlinked.first() {
            let (a, b) = self.outside.edges[*edge];
            (
                format!("edges {unlinked:?} are not linked (edge {edge} is {a}–{b})"),
                vec![Subject::Edge(*edge), Subject::Host(a), Subject::Host(b)],
            )
        } else if let Some((what, client)) = self.ledger.difference(&self.hosts) {
            (what, vec![Subject::Record(client)])
        } else if let Some(mobile) = waiting {
            let subjects = vec![
                Subject::Host(mobile.host()),
                Subject::Session(mobile.number()),
            ];
            (mobile.describe(), subjects)
        } else if let Some(operator) = self.operators.iter().find(|it| !it.is_through()) {
            let subjects = vec![
                Subject::Host(operator.host()),
                Subject::Session(operator.number()),
            ];
            (operator.describe(), subjects)
        } else {
            (
                "servers hold different numbers of records".to_owned(),
                Vec::new(),
            )
        };
        let text = format!("{patience} s after the storm, {what}");
        failed(&mut self.outside, &text, &subjects);
    }

    /// Checks that a herd at rest sends heartbeats, and nothing else.
    fn silence(&mut self) {
        let beat = self.plan.limits.heartbeat_ms.to_duration();
        let before = self.measure();
        self.run_for(beat * SILENT_BEATS);
        let after = self.measure();
        if self.outside.failure.is_some() {
            return;
        }
        let edges = 0..self.outside.edges.len();
        if let Some(lost) = edges.clone().find(|&edge| !self.is_linked(edge)) {
            let text = format!("edge {lost} is lost without a fault");
            return failed(&mut self.outside, &text, &[Subject::Edge(lost)]);
        }
        for host in &self.hosts {
            if host.connections() != (host.setup.edges.len(), 0) {
                let text = format!(
                    "at rest, host {} has {:?} connections to neighbours and clients",
                    host.number,
                    host.connections()
                );
                return failed(&mut self.outside, &text, &[Subject::Host(host.number)]);
            }
        }
        let said = Counts {
            records: after.counts.records - before.counts.records,
            syncs: 0,
            asides: 0,
            others: after.counts.others - before.counts.others,
        };
        if said != Counts::default() {
            let text = format!(
                "at rest, {} records and {} greetings were sent over links",
                said.records, said.others
            );
            let place = self.outside.wire.busiest().map(Subject::Edge);
            return failed(&mut self.outside, &text, place.as_slice());
        }
        for edge in edges {
            let (a, b) = self.outside.edges[edge];
            for (place, host) in [a, b].into_iter().enumerate() {
                let beats = after.beats[edge][place] - before.beats[edge][place];
                let most = u64::from(SILENT_BEATS) + 1;
                if !(most - 2..=most).contains(&beats) {
                    let text = format!(
                        "at rest, host {host} sent SYNC {beats} times in {SILENT_BEATS} heartbeats on edge {edge}"
                    );
                    return failed(&mut self.outside, &text, &[Subject::Edge(edge)]);
                }
            }
        }
        let is_fair = matches!(self.plan.weather, Weather::Calm | Weather::Clocks);
        let greetings = GREETINGS * self.outside.edges.len() as u64;
        if is_fair && after.counts.others != greetings {
            let text = format!(
                "without network faults, {} greetings and goodbyes were sent, instead of {greetings}",
                after.counts.others
            );
            return failed(&mut self.outside, &text, &[]);
        }
        // A heartbeat wakes its sender once, or twice if its time was moved. It wakes its receiver
        // once for each segment.
        let syncs = after.counts.syncs - before.counts.syncs;
        let asides = after.counts.asides - before.counts.asides;
        let arrivals = after.arrivals - before.arrivals;
        let turns = after.turns - before.turns;
        let mut most = arrivals + 3 * (syncs + asides) + 4 * self.hosts.len() as u64;
        if self.plan.limits.record_ttl_ms > 0 {
            let sweeps = (beat * SILENT_BEATS).as_millis() / SWEEP_EVERY.as_millis() + 1;
            most += sweeps as u64 * self.hosts.len() as u64;
            // A compaction removes expired records from the journal, and each step of it is a turn.
            let works = after.disk_works - before.disk_works;
            most += works.min(EXPIRY_WORKS * self.hosts.len() as u64);
        }
        if turns > most {
            let text = format!("at rest, servers woke up {turns} times for {syncs} heartbeats");
            failed(&mut self.outside, &text, &[]);
        }
    }

    fn measure(&self) -> Measure {
        let wire = &self.outside.wire;
        let edges = self.outside.edges.iter().enumerate();
        Measure {
            counts: wire.counts(),
            beats: edges
                .map(|(edge, (a, b))| [wire.beats(edge, *a), wire.beats(edge, *b)])
                .collect(),
            turns: self.hosts.iter().map(|host| host.turns).sum(),
            disk_works: self.hosts.iter().map(|host| host.disk_works).sum(),
            arrivals: self.outside.network.arrivals(),
        }
    }

    fn audit(&mut self) {
        let now = self.outside.timeline.now();
        for host in &self.hosts {
            match self.ledger.audit(host, &self.hosts, now) {
                Ok(kept) => self.kept += kept,
                Err((what, client)) => {
                    let subjects = [Subject::Host(host.number), Subject::Record(client)];
                    return failed(&mut self.outside, &what, &subjects);
                }
            }
        }
    }

    fn story(self) -> Story {
        let Outside {
            timeline,
            wire,
            chronicle,
            failure,
            ..
        } = self.outside;
        let log = match &failure {
            None => chronicle.about(None),
            Some(failure) => {
                let mut log = chronicle.about(Some(&failure.subjects));
                let last = format!("{}  FAILED: {}", Seconds(failure.time), failure.what);
                log.push(last);
                log
            }
        };
        Story {
            hash: chronicle.hash(),
            events: timeline.planned(),
            length: timeline.now().since(Time::default()),
            faults: self.struck,
            coverage: self.coverage,
            acknowledged: self.ledger.count(),
            kept: self.kept,
            records_sent: wire.counts().records,
            slowest: self.slowest,
            failure,
            log,
        }
    }
}

/// The counts so far.
struct Measure {
    counts: Counts,
    /// For each edge, the counts of its two servers.
    beats: Vec<[u64; 2]>,
    turns: u64,
    disk_works: u64,
    arrivals: u64,
}
