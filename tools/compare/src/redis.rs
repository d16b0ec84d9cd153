//! Redis `GEOADD` as an outside measure. It is a usual choice for storing positions.
//!
//! Redis does less than a server of a herd (no log line, no neighbours), and its own benchmark
//! loads it. So it is a reference value, and not part of the comparison.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use herd_testkit::clock::now;
use herd_testkit::ports;

use crate::children::{self, Running};
use crate::cores::{self, Cores};
use crate::figures::Setting;
use crate::generator::CLIENTS;

/// Its name among the figures.
pub const REDIS: &str = "redis";
const READY: Duration = Duration::from_secs(10);
const GLANCE: Duration = Duration::from_millis(10);

/// A running Redis. Dropping it kills it.
#[derive(Debug)]
pub struct Redis {
    _process: Running,
    address: SocketAddr,
    /// Its version.
    pub version: String,
}

impl Redis {
    /// Starts Redis on the server's core, without a file on disk.
    ///
    /// # Errors
    /// Redis is missing or does not start. Then it is left out, for this reason.
    pub fn start(cores: Cores, directory: &Path) -> Result<Redis, String> {
        let install = "apt install redis-server redis-tools";
        let said = |program: &str| {
            let output = children::output(Command::new(program).arg("--version"));
            output.map_err(|error| format!("{program}: {error}; {install}"))
        };
        said("redis-benchmark")?;
        let version = String::from_utf8_lossy(&said("redis-server")?.stdout).into_owned();
        let version = version
            .split_whitespace()
            .find_map(|word| word.strip_prefix("v="));
        let version = version.unwrap_or("of unknown version").to_owned();
        let addresses = ports::free(1).map_err(|error| format!("no free port: {error}"))?;
        let address = *addresses.first().ok_or("no free port")?;
        let mut command = Command::new("redis-server");
        command.args([
            "--port",
            &address.port().to_string(),
            "--bind",
            &address.ip().to_string(),
        ]);
        command.args(["--save", "", "--appendonly", "no", "--daemonize", "no"]);
        command.arg("--dir").arg(directory);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = cores::on(cores.server, || Running::spawn(&mut command))?;
        let process = process.map_err(|error| format!("redis-server: {error}; {install}"))?;
        let redis = Redis {
            _process: process,
            address,
            version,
        };
        let deadline = now() + READY;
        while TcpStream::connect(address).is_err() {
            children::go_on()?;
            if now() >= deadline {
                return Err(format!(
                    "redis-server is not ready after {} s",
                    READY.as_secs()
                ));
            }
            thread::sleep(GLANCE);
        }
        Ok(redis)
    }

    /// The number of `GEOADD`s per second, measured with `count` of them.
    ///
    /// # Errors
    /// Its benchmark fails.
    pub fn geoadd(&self, cores: Cores, setting: Setting, count: u32) -> Result<f64, String> {
        let mut command = Command::new("redis-benchmark");
        command.args([
            "-h",
            &self.address.ip().to_string(),
            "-p",
            &self.address.port().to_string(),
        ]);
        command.args([
            "-c",
            &setting.connections.to_string(),
            "-P",
            &setting.depth.to_string(),
        ]);
        command.args([
            "-n",
            &count.to_string(),
            "-r",
            &CLIENTS.to_string(),
            "--csv",
        ]);
        command.args(["geoadd", "herd", "-118.445127", "34.068930", "__rand_int__"]);
        let output = cores::on(cores.generator, || children::output(&mut command))?;
        let output = output.map_err(|error| format!("redis-benchmark: {error}"))?;
        let said = String::from_utf8_lossy(&output.stdout);
        let rate = benchmark_rate(&said).filter(|_| output.status.success());
        rate.ok_or_else(|| format!("redis-benchmark: {} ({})", said.trim(), output.status))
    }
}

/// The rate in `redis-benchmark --csv`: the second field of the last line.
#[must_use]
pub fn benchmark_rate(said: &str) -> Option<f64> {
    let line = said.lines().rev().find(|line| !line.trim().is_empty())?;
    // The command is quoted and contains no comma.
    line.split(',').nth(1)?.trim_matches('"').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redis_benchmark_output_is_parsed() {
        let said = "\"test\",\"rps\",\"avg_latency_ms\"\n\"geoadd herd -118.445127 34.068930 __rand_int__\",\"312500.00\",\"1.5\"\n";
        assert_eq!(benchmark_rate(said), Some(312_500.0));
        assert_eq!(benchmark_rate("Could not connect to Redis"), None);
        assert_eq!(benchmark_rate(""), None);
    }
}
