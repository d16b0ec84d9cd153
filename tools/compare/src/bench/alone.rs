//! Measurements of one server at a time under load: throughput, latency, processor time, system
//! calls, instructions, and the cost of the log.

use std::fs::File;

use super::{Bench, in_turn};
use crate::counters::Counts;
use crate::figures::{HEADLINE, Metric, Setting};
use crate::generator::{Outcome, Span};
use crate::redis::{REDIS, Redis};
use crate::server::{LogLevel, Server};
use crate::workshop::Program;
use crate::worlds::World;

/// Attempts at a count that other work of the machine has disturbed.
const ATTEMPTS: usize = 5;
/// So many `GEOADD`s give a rough rate of Redis.
const TRIAL: u32 = 20_000;

/// A running server that waits for its turn.
struct Fielded {
    world: &'static World,
    log: LogLevel,
    server: Server,
}

impl Bench<'_> {
    pub(super) fn alone(&mut self, programs: &[Program]) {
        let fielded = self.field(programs);
        let redis = Redis::start(self.cores, self.directory);
        self.redis = match &redis {
            Ok(redis) => Ok(redis.version.clone()),
            Err(reason) => Err(reason.clone()),
        };
        // The number of `GEOADD`s that Redis handles in the time of one run. A trial gives the
        // rate.
        let geoadds = redis.as_ref().ok().and_then(|redis| {
            let rate = redis.geoadd(self.cores, HEADLINE, TRIAL).ok()?;
            Some(((rate * self.plan.span.duration.as_secs_f64()) as u32).max(TRIAL))
        });
        for setting in self.plan.settings.clone() {
            for round in 0..self.plan.rounds {
                for one in in_turn(&fielded, round) {
                    self.rate(one, setting);
                }
                if let (Ok(redis), HEADLINE) = (&redis, setting) {
                    self.geoadd(redis, geoadds.unwrap_or(TRIAL));
                }
            }
        }
        for setting in self.plan.counted.clone() {
            for one in &fielded {
                self.count(one, setting);
            }
        }
        for one in fielded {
            // A server's stop is not measured.
            if let Err(trouble) = one.server.stop() {
                self.troubles.push(self.without_paths(&trouble));
            }
        }
    }

    fn geoadd(&mut self, redis: &Redis, count: u32) {
        self.progress.begin("throughput", "Redis GEOADD");
        match redis.geoadd(self.cores, HEADLINE, count) {
            Ok(rate) => self.figures.push(REDIS, Metric::Rate(HEADLINE), rate),
            Err(reason) => self.troubles.push(reason),
        }
        self.progress.done(self.plan.span.duration);
    }

    /// Starts all servers. Each gets some load, so that just-in-time compilers have compiled before
    /// the measurement.
    fn field(&mut self, programs: &[Program]) -> Vec<Fielded> {
        let mut fielded = Vec::new();
        for program in programs {
            let world = program.world;
            let mut levels = vec![LogLevel::Warn];
            if self.plan.is_logged(world.name) {
                levels.push(LogLevel::Info);
            }
            for log in levels {
                self.progress.begin("starting", world.name);
                let metrics: Vec<Metric> = match log {
                    LogLevel::Warn => self.plan.settings.iter().flat_map(|s| of(*s)).collect(),
                    LogLevel::Info => of(HEADLINE.with_log()).to_vec(),
                };
                let started = self.start(program, log);
                let Some(server) = self.note(world, "starting", &metrics, started) else {
                    continue;
                };
                let one = Fielded { world, log, server };
                let span = Span {
                    duration: self.plan.settling,
                    ..self.plan.span
                };
                let outcome = self.load(&one, HEADLINE, span);
                if self.note(world, "settling", &[], outcome).is_some() {
                    fielded.push(one);
                }
                self.progress.done(self.plan.settling);
            }
        }
        fielded
    }

    /// Measures the throughput once.
    fn rate(&mut self, one: &Fielded, setting: Setting) {
        let setting = Setting {
            log: one.log,
            ..setting
        };
        if one.log == LogLevel::Info && setting != HEADLINE.with_log() {
            return;
        }
        let world = one.world;
        self.progress
            .begin("throughput", &format!("{} at {setting}", world.name));
        let result = self.load(one, setting, self.plan.span);
        let what = format!("at {setting}");
        if let Some(outcome) = self.note(world, &what, &of(setting), result) {
            self.push(world, setting, &outcome);
        }
        self.progress.done(self.plan.one_run());
    }

    fn push(&mut self, world: &'static World, setting: Setting, outcome: &Outcome) {
        let mut push = |metric, value: Option<f64>| {
            if let Some(value) = value {
                self.figures.push(world.name, metric, value);
            }
        };
        push(Metric::Rate(setting), Some(outcome.rate_per_s));
        push(
            Metric::P50(setting),
            outcome.latency.map(|latency| latency.p50_us),
        );
        push(
            Metric::P99(setting),
            outcome.latency.map(|latency| latency.p99_us),
        );
        push(
            Metric::P999(setting),
            outcome.latency.map(|latency| latency.p999_us),
        );
        push(Metric::Cpu(setting), outcome.cpu_us_per_answer);
        push(Metric::Generator(setting), outcome.generator_share);
        if setting == HEADLINE {
            push(Metric::Memory, outcome.memory_bytes);
        }
    }

    fn load(&self, one: &Fielded, setting: Setting, span: Span) -> Result<Outcome, String> {
        let server = &one.server;
        let mut command = self
            .generator
            .iamat(server.clients, server.pid(), setting, span);
        let outcome = self.generator.run(&mut command);
        if one.log == LogLevel::Info {
            // The log is emptied: lines for millions of commands would fill the disk. The cost of
            // writing them was measured.
            let log = File::options().write(true).open(server.plan().log_file());
            log.and_then(|log| log.set_len(0))
                .map_err(|error| format!("its log: {error}"))?;
        }
        outcome
    }

    /// Counts system calls and instructions.
    fn count(&mut self, one: &Fielded, setting: Setting) {
        let setting = Setting {
            log: one.log,
            ..setting
        };
        if one.log == LogLevel::Info && setting != HEADLINE.with_log() {
            return;
        }
        let (syscalls, instructions) = (Metric::Syscalls(setting), Metric::Instructions(setting));
        let name = one.world.name;
        if let Err(reason) = &self.counters.syscalls {
            self.figures.miss(name, syscalls, reason);
        }
        if let Err(reason) = &self.counters.instructions {
            self.figures.miss(name, instructions, reason);
        }
        self.progress
            .begin("counting", &format!("{name} at {setting}"));
        let result = self.counted(one, setting);
        let what = format!("counting at {setting}");
        if let Some([of_syscalls, of_instructions]) =
            self.note(one.world, &what, &[syscalls, instructions], result)
        {
            for (metric, value) in [(syscalls, of_syscalls), (instructions, of_instructions)] {
                match value {
                    Some(value) => self.figures.push(name, metric, value),
                    None => self.figures.miss(name, metric, "not counted"),
                }
            }
        }
        self.progress.done(self.plan.one_count());
    }

    /// System calls and instructions per answer.
    fn counted(&self, one: &Fielded, setting: Setting) -> Result<[Option<f64>; 2], String> {
        for _ in 0..ATTEMPTS {
            let [short, long] = self.plan.counted_spans();
            let (few, counts_of_few) = self.counted_run(one, setting, short)?;
            let (many, counts_of_many) = self.counted_run(one, setting, long)?;
            let answers = many - few;
            // If the machine was busy, the longer run may have fewer answers.
            if answers > few {
                let each = |few: Option<f64>, many: Option<f64>| Some((many? - few?) / answers);
                return Ok([
                    each(counts_of_few.syscalls, counts_of_many.syscalls),
                    each(counts_of_few.instructions, counts_of_many.instructions),
                ]);
            }
        }
        Err(
            "in every attempt, the longer run had hardly more answers than the shorter one"
                .to_owned(),
        )
    }

    fn counted_run(
        &self,
        one: &Fielded,
        setting: Setting,
        span: Span,
    ) -> Result<(f64, Counts), String> {
        let (server, pid) = (&one.server, one.server.pid());
        let (outcome, counts) = self.counters.around(pid, self.directory, |wrapper| {
            let command = self.generator.iamat(server.clients, pid, setting, span);
            self.generator.run(&mut wrapper.wrap(command))
        })?;
        Ok((outcome.answers, counts))
    }
}

/// The metrics that one run under this load yields.
fn of(setting: Setting) -> [Metric; 5] {
    [
        Metric::Rate(setting),
        Metric::P50(setting),
        Metric::P99(setting),
        Metric::P999(setting),
        Metric::Cpu(setting),
    ]
}
