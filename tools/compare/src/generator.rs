//! The load generator herd-load: its commands, and its JSON.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::children;
use crate::cores;
use crate::figures::Setting;

/// If a server is silent for so long while an answer is due, the run fails.
const PATIENCE_S: &str = "20";
/// The number of reporting clients. Their table does not fit into the first-level cache.
pub const CLIENTS: u32 = 10_000;

/// herd-load and its core.
#[derive(Clone, Debug)]
pub struct Generator {
    /// The program.
    pub executable: PathBuf,
    /// Its core.
    pub core: usize,
}

/// The time of a load, and the warm-up before it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Span {
    /// The measured time.
    pub duration: Duration,
    /// The time before it, which does not count.
    pub warm_up: Duration,
}

/// Latencies, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Latency {
    /// The median.
    pub p50_us: f64,
    /// The 99th percentile.
    pub p99_us: f64,
    /// The 99.9th percentile.
    pub p999_us: f64,
}

/// The parts of herd-load's result that are used here.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// The number of answers. herd-load has checked all of them.
    pub answers: f64,
    /// Answers per second.
    pub rate_per_s: f64,
    /// The latencies. In a flood, the times until all servers had an update.
    pub latency: Option<Latency>,
    /// Processor time of the server per answer.
    pub cpu_us_per_answer: Option<f64>,
    /// The server's resident memory at the end.
    pub memory_bytes: Option<f64>,
    /// The server's memory per idle connection.
    pub idle_bytes: Option<f64>,
    /// The part of the time in which herd-load itself was busy.
    pub generator_share: Option<f64>,
}

impl Generator {
    /// The command that sends IAMATs to this server. `pid` is the server's process id.
    #[must_use]
    pub fn iamat(&self, server: SocketAddr, pid: u32, setting: Setting, span: Span) -> Command {
        let mut command = self.command("iamat", span);
        command.arg(server.to_string());
        command.args(["--pid", &pid.to_string()]);
        command.args(["--connections", &setting.connections.to_string()]);
        command.args(["--depth", &setting.depth.to_string()]);
        command.args(["--clients", &CLIENTS.to_string()]);
        // A restarted server must not be measured, so a lost connection ends the run.
        command.arg("--stop-on-loss");
        command
    }

    /// The command that makes connections which send one command and then nothing.
    #[must_use]
    pub fn idle(&self, server: SocketAddr, pid: u32, connections: u32, span: Span) -> Command {
        let mut command = self.command("idle", span);
        command.arg(server.to_string());
        command.args(["--pid", &pid.to_string()]);
        command.args(["--connections", &connections.to_string()]);
        command
    }

    /// The command that sends updates to one server of the herd in `config`, and asks all others
    /// until they have them.
    #[must_use]
    pub fn flood(&self, name: &str, config: &Path, span: Span) -> Command {
        let mut command = self.command("flood", span);
        command.arg(name).arg("--config").arg(config);
        command
    }

    fn command(&self, mode: &str, span: Span) -> Command {
        let seconds = |time: Duration| OsString::from(time.as_secs_f64().to_string());
        let mut command = Command::new(&self.executable);
        command.args([mode, "--json", "--timeout", PATIENCE_S]);
        command.arg("--duration").arg(seconds(span.duration));
        command.arg("--warm-up").arg(seconds(span.warm_up));
        command
    }

    /// Runs such a command to its end on the generator's core.
    ///
    /// # Errors
    /// The command cannot be run, or a server answered wrongly or not at all. The text is
    /// herd-load's.
    pub fn run(&self, command: &mut Command) -> Result<Outcome, String> {
        let output = cores::on(self.core, || children::output(command))?;
        let output = output.map_err(|error| {
            let program = command.get_program().to_string_lossy();
            format!("cannot run {program}: {error}")
        })?;
        if output.status.success() {
            return outcome(&String::from_utf8_lossy(&output.stdout));
        }
        let errors = String::from_utf8_lossy(&output.stderr);
        let words = errors.trim().lines().take(6).collect::<Vec<_>>();
        Err(format!("{} ({})", words.join(" / "), output.status))
    }
}

/// Parses herd-load's JSON.
///
/// # Errors
/// The text is no such JSON.
pub fn outcome(text: &str) -> Result<Outcome, String> {
    let json: Value = serde_json::from_str(text.trim())
        .map_err(|error| format!("herd-load's figures are not JSON: {error}"))?;
    let number = |value: &Value, what: &str| {
        let missing = || format!("{what} is missing in herd-load's figures");
        value.as_f64().ok_or_else(missing)
    };
    let process = &json["processes"][0];
    let latency = &json["latency_us"];
    let latency = match latency.is_null() {
        true => None,
        false => Some(Latency {
            p50_us: number(&latency["p50"], "latency_us.p50")?,
            p99_us: number(&latency["p99"], "latency_us.p99")?,
            p999_us: number(&latency["p99_9"], "latency_us.p99_9")?,
        }),
    };
    let duration_s = number(&json["duration_s"], "duration_s")?;
    let own = &json["generator"];
    let busy_ms = own["user_ms"].as_f64().zip(own["system_ms"].as_f64());
    let busy_s = busy_ms.map(|(user, system)| (user + system) / 1000.0);
    Ok(Outcome {
        answers: number(&json["answers"], "answers")?,
        rate_per_s: number(&json["rate_per_s"], "rate_per_s")?,
        latency,
        cpu_us_per_answer: process["cpu_us_per_answer"].as_f64(),
        memory_bytes: process["rss_after_bytes"].as_f64(),
        idle_bytes: json["idle"][0]["bytes_per_connection"].as_f64(),
        generator_share: busy_s
            .filter(|_| duration_s > 0.0)
            .map(|busy| busy / duration_s),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = r#"{"program":"herd-load","version":"0.1.0","mode":"iamat","server":{"name":"Riley","address":"127.0.0.1:1"},
        "parameters":{"connections":50},"interrupted":false,"duration_s":2.0,"answers":1000,"rate_per_s":500.0,"errors":0,
        "first_error":null,"unsent":0,"latency_us":{"count":1000,"min":1.0,"mean":2.0,"p50":100.5,"p90":3.0,"p99":200.25,
        "p99_9":300.0,"p99_99":4.0,"max":5.0},"series":[],"processes":[{"pid":42,"user_ms":400,"system_ms":600,
        "rss_before_bytes":5000000,"rss_after_bytes":7340032,"cpu_us_per_answer":1000.0}],
        "generator":{"pid":43,"user_ms":500,"system_ms":500,"rss_before_bytes":1,"rss_after_bytes":2,"cpu_us_per_answer":1.0}}"#;

    #[test]
    fn the_load_generator_s_json_is_parsed() {
        let latency = Latency {
            p50_us: 100.5,
            p99_us: 200.25,
            p999_us: 300.0,
        };
        let expected = Outcome {
            answers: 1000.0,
            rate_per_s: 500.0,
            latency: Some(latency),
            cpu_us_per_answer: Some(1000.0),
            memory_bytes: Some(7_340_032.0),
            idle_bytes: None,
            generator_share: Some(0.5),
        };
        assert_eq!(outcome(SAID), Ok(expected));
        let idle = SAID.replace(
            "\"series\":[]",
            "\"series\":[],\"idle\":[{\"pid\":42,\"bytes_per_connection\":147.5}]",
        );
        assert_eq!(outcome(&idle).unwrap().idle_bytes, Some(147.5));
    }

    #[test]
    fn missing_items_are_named() {
        assert!(outcome("").unwrap_err().contains("not JSON"));
        assert_eq!(
            outcome("{\"latency_us\":null,\"duration_s\":1}").unwrap_err(),
            "answers is missing in herd-load's figures"
        );
        let no_latency = SAID.replace("\"p99_9\"", "\"other\"");
        assert_eq!(
            outcome(&no_latency).unwrap_err(),
            "latency_us.p99_9 is missing in herd-load's figures"
        );
    }

    #[test]
    fn a_missing_load_generator_is_reported() {
        let generator = Generator {
            executable: "/no/such/herd-load".into(),
            core: cores::Cores::choose().unwrap().generator,
        };
        let span = Span {
            duration: Duration::from_millis(10),
            warm_up: Duration::ZERO,
        };
        let mut command = generator.iamat(
            "127.0.0.1:1".parse().unwrap(),
            1,
            crate::figures::SINGLE,
            span,
        );
        assert!(
            generator
                .run(&mut command)
                .unwrap_err()
                .starts_with("cannot run /no/such/herd-load: ")
        );
    }
}
