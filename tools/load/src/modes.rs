//! From the command line to a report: each subcommand that measures.

use crate::cli::{Common, Flood, Idle, Load, Question, Speak};
use crate::clock::SECOND_NS;
use crate::crew::{Crew, Manner};
use crate::failure::Failure;
use crate::load::{self, Outcome, Plan, Work};
use crate::process::Watched;
use crate::progress::Progress;
use crate::report::{self, Latency, Parameters, Report, Series, Server};
use crate::stop::Stop;
use crate::target::Target;
use crate::{flood, idle};

/// What a WHATSAT asks where nothing is said of it.
const RADIUS: &str = "10";
const BOUND: u8 = 1;

/// `iamat`, `whatsat` and `mix`.
pub(crate) fn load(
    mode: &'static str,
    load: &Load,
    question: Option<&Question>,
    work: Work,
    stop: &Stop,
) -> Result<Report, Failure> {
    let common = &load.common;
    let target = Target::resolve(&common.server, &common.source())?;
    let manner = Manner {
        connections: load.connections as usize,
        clients: load.clients(),
        radius: question.map_or(RADIUS.into(), |question| question.radius.clone()),
        bound: question.map_or(BOUND, |question| question.bound),
        introduce_all: question.is_some(),
        ..manner(common)
    };
    let plan = Plan {
        work,
        depth: load.depth() as usize,
        rate_per_s: load.rate,
        count: load.count,
        ..plan(common)
    };
    let parameters = Parameters {
        connections: Some(manner.connections),
        depth: Some(plan.depth),
        rate_per_s: load.rate,
        clients: Some(manner.clients),
        whatsat_percent: match work {
            Work::Mix { whatsat_percent } => Some(whatsat_percent),
            Work::Iamat | Work::Whatsat => None,
        },
        radius_km: question.map(|question| question.radius.clone()),
        bound: question.map(|question| question.bound),
        count: load.count,
        ..parameters(common)
    };
    let mut watched = Watched::new(&common.pid)?;
    let mut progress = Progress::on_stderr();
    let mut crew = Crew::new(target, &manner)?;
    crew.connect(&manner, plan.depth, &mut progress, stop)?;
    let outcome = load::run(&mut crew, &plan, &mut watched, &mut progress, stop)?;
    progress.finish();

    let duration_s = in_seconds(outcome.elapsed_ns);
    let Outcome {
        tally,
        interrupted,
        unsent,
        ..
    } = outcome;
    let mut all = tally.iamat.clone();
    all.add(&tally.whatsat)
        .map_err(|error| Failure::Failed(format!("cannot add latencies: {error}")))?;
    let answers = all.len();
    let rate_per_s = report::rate(answers, duration_s);
    let latency_us = Latency::of(&all);
    let errors = tally.errors;
    let series = match work {
        Work::Iamat => vec![Series::new("IAMAT", tally.iamat, duration_s, 0)],
        Work::Whatsat => vec![Series::new("WHATSAT", tally.whatsat, duration_s, errors)],
        Work::Mix { .. } => vec![
            Series::new("both", all, duration_s, errors),
            Series::new("IAMAT", tally.iamat, duration_s, 0),
            Series::new("WHATSAT", tally.whatsat, duration_s, errors),
        ],
    };
    Ok(Report {
        interrupted,
        duration_s,
        answers,
        rate_per_s,
        errors,
        first_error: tally.first_error,
        unsent,
        latency_us,
        series,
        ..report(mode, &crew.target, parameters, &watched, answers)?
    })
}

/// `flood`.
pub(crate) fn flood(flood: &Flood, stop: &Stop) -> Result<Report, Failure> {
    let common = &flood.common;
    let (target, others) = Target::resolve_with_others(&common.server, &common.source())
        .map_err(|failure| needs_a_herd(failure, &common.server))?;
    if others.is_empty() {
        return Err(Failure::Usage(format!(
            "{} is alone in its herd: there is nobody to flood",
            common.server
        )));
    }
    let started_ms = crate::clock::Clock::start().wall_ns() / 1_000_000;
    let manner = Manner {
        connections: 1,
        clients: 1,
        // Nobody has heard of these clients, however often this is run.
        prefix: format!("{}-{started_ms:x}", common.prefix),
        ..manner(common)
    };
    let plan = flood::Plan {
        warm_up_ns: ns(common.warm_up),
        duration_ns: ns(common.duration),
        count: flood.count,
        timeout_ns: ns(common.timeout),
        poll_interval_ns: flood.poll_interval * 1000,
        spin: common.spin,
    };
    let parameters = Parameters {
        poll_interval_us: Some(flood.poll_interval),
        count: flood.count,
        ..parameters(common)
    };
    let mut watched = Watched::new(&common.pid)?;
    let mut progress = Progress::on_stderr();
    let mut crew = Crew::new(target, &manner)?;
    crew.connect(&manner, 1, &mut progress, stop)?;
    let outcome = flood::run(&mut crew, others, &plan, &mut watched, &mut progress, stop)?;
    progress.finish();

    let duration_s = in_seconds(outcome.elapsed_ns);
    let answers = outcome.all.len();
    let latency_us = Latency::of(&outcome.all);
    let mut series = vec![Series::new("all servers", outcome.all, duration_s, 0)];
    for (name, latencies) in outcome.each {
        series.push(Series::new(name, latencies, duration_s, 0));
    }
    Ok(Report {
        interrupted: outcome.interrupted,
        duration_s,
        answers,
        rate_per_s: report::rate(answers, duration_s),
        latency_us,
        series,
        flood: Some(report::Flood {
            polls: outcome.polls,
            asked_places: outcome.asked_places,
            since_sent_us: Latency::of(&outcome.since_sent),
            resolution_us: Latency::of(&outcome.resolution),
        }),
        ..report("flood", &crew.target, parameters, &watched, answers)?
    })
}

/// A flood is watched at all servers of a herd; an address says nothing of the others.
fn needs_a_herd(failure: Failure, server: &str) -> Failure {
    match failure {
        Failure::Usage(_) if server.contains(':') => Failure::Usage(format!(
            "a flood needs the name of a server, not its address {server}: --config or --herd say who the others are"
        )),
        other => other,
    }
}

/// `idle`.
pub(crate) fn idle(idle: &Idle, stop: &Stop) -> Result<Report, Failure> {
    let common = &idle.common;
    let target = Target::resolve(&common.server, &common.source())?;
    let manner = Manner {
        connections: idle.connections as usize,
        ..manner(common)
    };
    let plan = plan(common);
    let parameters = Parameters {
        connections: Some(manner.connections),
        speak: Some(match idle.speak {
            Speak::Never => "never",
            Speak::Once => "once",
            Speak::Half => "half",
        }),
        ..parameters(common)
    };
    let mut watched = Watched::new(&common.pid)?;
    let mut progress = Progress::on_stderr();
    let mut crew = Crew::new(target, &manner)?;
    let found = idle::run(
        &mut crew,
        &manner,
        &plan,
        idle.speak,
        (&mut watched, &common.pid),
        &mut progress,
        stop,
    )?;
    progress.finish();

    let duration_s = in_seconds(found.among.elapsed_ns);
    let among = found.among.tally.iamat;
    let answers = among.len();
    let alone_s = in_seconds(found.alone.elapsed_ns);
    Ok(Report {
        interrupted: found.alone.interrupted || found.among.interrupted,
        duration_s,
        answers,
        rate_per_s: report::rate(answers, duration_s),
        latency_us: Latency::of(&among),
        series: vec![
            Series::new("alone", found.alone.tally.iamat, alone_s, 0),
            Series::new("among them", among, duration_s, 0),
        ],
        idle: Some(found.memory),
        ..report("idle", &crew.target, parameters, &watched, answers)?
    })
}

fn manner(common: &Common) -> Manner {
    Manner {
        connections: 1,
        clients: 1,
        prefix: common.prefix.clone(),
        radius: RADIUS.into(),
        bound: BOUND,
        tolerance_ns: ns(common.clock_tolerance),
        timeout_ns: ns(common.timeout),
        introduce_all: false,
    }
}

fn plan(common: &Common) -> Plan {
    Plan {
        work: Work::Iamat,
        depth: 1,
        rate_per_s: None,
        warm_up_ns: ns(common.warm_up),
        duration_ns: ns(common.duration),
        count: None,
        timeout_ns: ns(common.timeout),
        spin: common.spin,
    }
}

fn parameters(common: &Common) -> Parameters {
    Parameters {
        duration_s: common.duration.as_secs_f64(),
        warm_up_s: common.warm_up.as_secs_f64(),
        timeout_s: common.timeout.as_secs_f64(),
        clock_tolerance_ms: common.clock_tolerance.as_secs_f64() * 1000.0,
        prefix: common.prefix.clone(),
        spin: common.spin,
        ..Parameters::default()
    }
}

/// What is the same in all reports; the figures are still to come.
fn report(
    mode: &'static str,
    target: &Target,
    parameters: Parameters,
    watched: &Watched,
    answers: u64,
) -> Result<Report, Failure> {
    let (processes, own) = watched.usage()?;
    let work = |usage| report::Work::new(usage, answers);
    Ok(Report {
        program: "herd-load",
        version: env!("CARGO_PKG_VERSION"),
        mode,
        server: Server {
            name: target.name.clone().unwrap_or_default(),
            address: target.address.to_string(),
        },
        parameters,
        interrupted: false,
        duration_s: 0.0,
        answers,
        rate_per_s: 0.0,
        errors: 0,
        first_error: None,
        unsent: 0,
        latency_us: None,
        series: Vec::new(),
        processes: processes.into_iter().map(work).collect(),
        generator: work(own),
        flood: None,
        idle: None,
    })
}

fn ns(length: std::time::Duration) -> u64 {
    // At most a day.
    u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)
}

fn in_seconds(ns: u64) -> f64 {
    ns as f64 / SECOND_NS as f64
}
