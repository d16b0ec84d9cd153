//! The subcommands that measure: each turns its options into a report.

use herd_client::dial::Target;
use herd_testkit::failure::Failure;

use crate::cli::{Common, Flood, Idle, Load, Question, Speak};
use crate::clock::SECOND_NS;
use crate::crew::{Crew, Manner};
use crate::load::{self, Outcome, Plan, Work};
use crate::outages::{Missing, MissingByKind, Outages};
use crate::process::Watched;
use crate::progress::Progress;
use crate::report::{self, Latency, Parameters, Report, Series, Server, seconds};
use crate::stop::Stop;
use crate::{flood, idle};

/// The radius and bound of a WHATSAT if there is no option for them.
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
    let target = Target::resolve(&common.server, &common.source(), &common.tls)?;
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
        stops_at_loss: load.stop_on_loss,
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
        stop_on_loss: Some(load.stop_on_loss),
        count: load.count,
        ..parameters(common, &target)
    };
    let mut watched = Watched::new(&common.pid)?;
    let mut progress = Progress::on_stderr();
    let mut crew = Crew::new(target, &manner, stop)?;
    crew.connect(&manner, plan.depth, &mut progress)?;
    let outcome = load::run(&mut crew, &plan, &mut watched, &mut progress, stop)?;
    progress.finish();

    let duration_s = in_seconds(outcome.elapsed_ns);
    let Outcome {
        tally,
        interrupted,
        unsent,
        oldest_unsent_ns,
        unanswered,
        lost,
        outages,
        trouble,
        elapsed_ns: _,
    } = outcome;
    let not_sent = Missing {
        count: unsent,
        oldest_ns: oldest_unsent_ns,
    };
    let missing = unanswered.with(&lost);
    let mut all = tally.iamat.clone();
    all.add(&tally.whatsat)
        .map_err(|error| Failure::Failed(format!("cannot add histograms of latencies: {error}")))?;
    let answers = all.len();
    let rate_per_s = report::rate(answers, duration_s);
    let latency_us = Latency::of(&all);
    let errors = tally.errors;
    let all_missing = missing.all().with(not_sent);
    let iamat =
        |name, missing| Series::new(name, tally.iamat.clone(), duration_s, 0).beside(missing);
    let whatsat = |name, missing| {
        Series::new(name, tally.whatsat.clone(), duration_s, errors).beside(missing)
    };
    let series = match work {
        Work::Iamat => vec![iamat("IAMAT", all_missing)],
        Work::Whatsat => vec![whatsat("WHATSAT", all_missing)],
        Work::Mix { .. } => vec![
            Series::new("both", all, duration_s, errors).beside(all_missing),
            iamat("IAMAT", missing.iamat),
            whatsat("WHATSAT", missing.whatsat),
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
        oldest_unsent_ms: report::oldest_ms(not_sent),
        trouble,
        latency_us,
        series,
        over_time: Some(report::OverTime::of(&tally.timeline)),
        ..lacking(
            lost,
            unanswered,
            &outages,
            tally.window_ns.start,
            report(mode, &crew.target, parameters, &watched, answers)?,
        )
    })
}

/// The report, with lost connections and commands without an answer.
fn lacking(
    lost: MissingByKind,
    unanswered: MissingByKind,
    outages: &Outages,
    start_ns: u64,
    report: Report,
) -> Report {
    let (lost, unanswered) = (lost.all(), unanswered.all());
    let outage = |outage: &crate::outages::Outage| report::Outage {
        // Negative if it was in the warm-up.
        from_s: (outage.from_ns as f64 - start_ns as f64) / SECOND_NS as f64,
        duration_s: seconds(outage.to_ns.saturating_sub(outage.from_ns)),
        is_over: outage.is_over,
        connections: outage.connections,
        disconnected_s: seconds(outage.disconnected_ns),
    };
    Report {
        lost: lost.count,
        oldest_lost_ms: report::oldest_ms(lost),
        unanswered: unanswered.count,
        oldest_unanswered_ms: report::oldest_ms(unanswered),
        connections_lost: outages.lost,
        connections_remade: outages.remade,
        disconnected_s: seconds(outages.disconnected_ns()),
        outages: outages.list.iter().map(outage).collect(),
        ..report
    }
}

/// `flood`.
pub(crate) fn flood(flood: &Flood, stop: &Stop) -> Result<Report, Failure> {
    let common = &flood.common;
    let found = Target::resolve_with_others(&common.server, &common.source(), &common.tls);
    let (target, others) = found.map_err(|error| needs_a_herd(error.into(), &common.server))?;
    if others.is_empty() {
        return Err(Failure::Usage(format!(
            "{} is the only server of its herd, so there is no flood to measure",
            common.server
        )));
    }
    let started_ms = crate::clock::Clock::start().wall_ns() / 1_000_000;
    let manner = Manner {
        connections: 1,
        clients: 1,
        // No server knows these clients, even if this runs again.
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
        ..parameters(common, &target)
    };
    let mut watched = Watched::new(&common.pid)?;
    let mut progress = Progress::on_stderr();
    let mut crew = Crew::new(target, &manner, stop)?;
    crew.connect(&manner, 1, &mut progress)?;
    let outcome = flood::run(&mut crew, others, &plan, &mut watched, &mut progress, stop)?;
    progress.finish();

    let duration_s = in_seconds(outcome.elapsed_ns);
    let answers = outcome.all.len();
    let latency_us = Latency::of(&outcome.all);
    let all = Series::new("all servers", outcome.all, duration_s, 0);
    let mut series = vec![all.beside(outcome.unanswered)];
    for (name, latencies) in outcome.each {
        series.push(Series::new(name, latencies, duration_s, 0));
    }
    Ok(Report {
        interrupted: outcome.interrupted,
        duration_s,
        answers,
        rate_per_s: report::rate(answers, duration_s),
        unanswered: outcome.unanswered.count,
        oldest_unanswered_ms: report::oldest_ms(outcome.unanswered),
        latency_us,
        series,
        over_time: Some(report::OverTime::of(&outcome.timeline)),
        flood: Some(report::Flood {
            polls: outcome.polls,
            asked_places: outcome.asked_places,
            since_sent_us: Latency::of(&outcome.since_sent),
            resolution_us: Latency::of(&outcome.resolution),
        }),
        ..report("flood", &crew.target, parameters, &watched, answers)?
    })
}

/// A flood is measured at all servers of a herd, and an address does not name the others.
fn needs_a_herd(failure: Failure, server: &str) -> Failure {
    match failure {
        Failure::Usage(_) if server.contains(':') => Failure::Usage(format!(
            "a flood needs the name of a server, not its address {server}; --config or --herd gives the other servers"
        )),
        other => other,
    }
}

/// `idle`.
pub(crate) fn idle(idle: &Idle, stop: &Stop) -> Result<Report, Failure> {
    let common = &idle.common;
    let target = Target::resolve(&common.server, &common.source(), &common.tls)?;
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
        ..parameters(common, &target)
    };
    let mut watched = Watched::new(&common.pid)?;
    let mut progress = Progress::on_stderr();
    let mut crew = Crew::new(target, &manner, stop)?;
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

    let memory = found.memory;
    let mut series = Vec::new();
    let mut unanswered = Missing::default();
    let mut last = None;
    let parts = [("alone", Some(found.alone)), ("among them", found.among)];
    for (name, outcome) in parts.into_iter().filter_map(|(name, it)| Some((name, it?))) {
        let (latencies, missing) = (outcome.tally.iamat.clone(), outcome.unanswered.all());
        let part = Series::new(name, latencies, in_seconds(outcome.elapsed_ns), 0);
        series.push(part.beside(missing));
        unanswered = unanswered.with(missing);
        last = Some(outcome);
    }
    // The figures are those of the second part, or of the first part if a signal ended it.
    let nothing = || Failure::Failed("there are no figures".into());
    let last = last.ok_or_else(nothing)?;
    let duration_s = in_seconds(last.elapsed_ns);
    let answers = last.tally.answers();
    Ok(Report {
        interrupted: last.interrupted,
        duration_s,
        answers,
        rate_per_s: report::rate(answers, duration_s),
        latency_us: Latency::of(&last.tally.iamat),
        series,
        unanswered: unanswered.count,
        oldest_unanswered_ms: report::oldest_ms(unanswered),
        trouble: last.trouble,
        over_time: Some(report::OverTime::of(&last.tally.timeline)),
        idle: Some(memory),
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
        stops_at_loss: true,
        spin: common.spin,
    }
}

fn parameters(common: &Common, target: &Target) -> Parameters {
    Parameters {
        tls: target.tls.is_some(),
        duration_s: common.duration.as_secs_f64(),
        warm_up_s: common.warm_up.as_secs_f64(),
        timeout_s: common.timeout.as_secs_f64(),
        clock_tolerance_ms: common.clock_tolerance.as_secs_f64() * 1000.0,
        prefix: common.prefix.clone(),
        spin: common.spin,
        ..Parameters::default()
    }
}

/// The common part of all reports. The figures are added later.
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
        lost: 0,
        oldest_lost_ms: None,
        unanswered: 0,
        oldest_unanswered_ms: None,
        unsent: 0,
        oldest_unsent_ms: None,
        connections_lost: 0,
        connections_remade: 0,
        disconnected_s: 0.0,
        outages: Vec::new(),
        trouble: None,
        latency_us: None,
        series: Vec::new(),
        over_time: None,
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
