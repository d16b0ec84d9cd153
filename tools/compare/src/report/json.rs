//! The whole comparison as JSON, for other programs.

use serde_json::{Value, json};

use super::{Comparison, Standing};
use crate::claims::{CLAIMS, Verdict};
use crate::figures::{Figure, Metric};
use crate::server::LogLevel;
use crate::targets::{Goal, targets};

/// The whole comparison.
#[must_use]
pub fn json(of: &Comparison) -> Value {
    let figures = of
        .figures
        .iter()
        .map(|(who, metric, figure)| one(who, metric, figure));
    let worlds = of.worlds.iter().map(|(world, standing)| match standing {
        Standing::Measured { versions } => {
            json!({"name": world.name, "label": world.label, "measured": true, "versions": versions})
        }
        Standing::Skipped(reason) => {
            json!({"name": world.name, "label": world.label, "measured": false, "reason": reason})
        }
    });
    let targets = targets(&of.figures).into_iter().map(|target| {
        let (relation, value) = match target.goal {
            Goal::AtLeast(value) => ("at least", value),
            Goal::AtMost(value) => ("at most", value),
            Goal::About(value) => ("about", value),
        };
        json!({"what": target.what, "relation": relation, "goal": value, "measured": target.measured, "met": target.is_met()})
    });
    let claims = CLAIMS.iter().map(|claim| {
        let verdict = match claim.finding(&of.figures).verdict {
            Verdict::Confirmed => "confirmed",
            Verdict::Refuted => "refuted",
            Verdict::Undecided => "undecided",
            Verdict::NotMeasured => "not measured",
        };
        json!({"author": claim.author, "year": claim.year, "found": claim.found, "says": claim.says, "verdict": verdict})
    });
    json!({
        "program": "herd-compare",
        "version": env!("CARGO_PKG_VERSION"),
        "command": of.command,
        "date": of.date,
        "took_s": of.took.as_secs(),
        "optimized": of.is_optimized,
        "machine": {
            "processor": of.machine.processor,
            "cores": of.machine.cores,
            "memory_bytes": of.machine.memory_bytes,
            "kernel": of.machine.kernel,
            "virtual": of.machine.is_virtual,
            "server_core": of.cores.server,
            "generator_core": of.cores.generator,
        },
        "noise": {
            "load_average_before": of.noise.load_before,
            "typical_spread": of.noise.typical_spread,
            "complaints": of.noise.complaints(of.machine.cores),
        },
        "plan": {
            "quick": of.plan.is_quick,
            "rounds": of.plan.rounds,
            "herd_rounds": of.plan.herd_rounds,
            "duration_s": of.plan.span.duration.as_secs_f64(),
            "warm_up_s": of.plan.span.warm_up.as_secs_f64(),
            "idle_connections": of.plan.idle_connections,
        },
        "worlds": worlds.collect::<Vec<_>>(),
        "redis": match &of.redis {
            Ok(version) => json!({"measured": true, "version": version}),
            Err(reason) => json!({"measured": false, "reason": reason}),
        },
        "figures": figures.collect::<Vec<_>>(),
        "targets": targets.collect::<Vec<_>>(),
        "claims": claims.collect::<Vec<_>>(),
        "troubles": of.troubles,
    })
}

fn one(who: &str, metric: Metric, figure: &Figure) -> Value {
    let mut value = json!({"world": who, "figure": metric.name()});
    if let Some(setting) = metric.setting() {
        value["connections"] = setting.connections.into();
        value["depth"] = setting.depth.into();
        value["log"] = match setting.log {
            LogLevel::Info => "info".into(),
            LogLevel::Warn => "warn".into(),
        };
    }
    match figure {
        Figure::Measured(sample) => {
            value["median"] = sample.median().into();
            value["spread"] = sample.spread().into();
            value["values"] = sample.values().into();
        }
        Figure::Missing(reason) => value["missing"] = reason.as_str().into(),
    }
    value
}
