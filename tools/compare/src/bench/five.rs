//! Measurements of a herd of five servers of one world, all on one core: how fast updates spread,
//! and how fast a killed server recovers.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use herd_mio::presets;
use herd_testkit::clock::now;

use super::{Bench, SECRET};
use crate::children;
use crate::cores;
use crate::figures::{HEADLINE, Metric};
use crate::generator::Span;
use crate::herd::{Common, Herd};
use crate::server::LogLevel;
use crate::workshop::Program;

/// The pause between two checks whether the servers agree. Each check costs them some time.
const GLANCE: Duration = Duration::from_millis(10);
/// The number of loads for each herd. A start takes longer than a load, so one start serves several
/// loads.
const TIMES: usize = 3;
/// After this time without agreement the measurement fails.
const AGREED: Duration = Duration::from_secs(60);

impl Bench<'_> {
    pub(super) fn herd_of_five(&mut self, program: &Program) {
        let world = program.world;
        self.progress.begin("five servers", world.name);
        let all = [
            Metric::FloodP50,
            Metric::FloodP99,
            Metric::Converged,
            Metric::Recovery,
        ];
        let started = self.start_herd(program);
        if let Some((mut herd, directory)) = self.note(world, "herd of five", &all, started) {
            let flood = self.flood(&herd, &directory);
            if let Some([p50, p99]) = self.note(world, "flood", &all[..2], flood) {
                self.figures.push(world.name, Metric::FloodP50, p50);
                self.figures.push(world.name, Metric::FloodP99, p99);
            }
            for _ in 0..TIMES {
                let converged = self.converge(&herd);
                let Some(rate) = self.note(world, "convergence", &all[2..3], converged) else {
                    break;
                };
                self.figures.push(world.name, Metric::Converged, rate);
            }
            let recovery = recover(&mut herd, self.cores.server);
            if let Some(ms) = self.note(world, "recovery", &all[3..], recovery) {
                self.figures.push(world.name, Metric::Recovery, ms);
            }
        }
        self.progress.done(self.plan.one_herd());
    }

    fn start_herd(&self, program: &Program) -> Result<(Herd, PathBuf), String> {
        let preset = presets::by_year(presets::DEFAULT_YEAR).ok_or("there is no default herd")?;
        let directory = self.room(&format!("{}-herd", program.world.name))?;
        let common = Common {
            directory: directory.clone(),
            secret: SECRET.to_owned(),
            places: None,
            log_level: LogLevel::Warn,
        };
        let servers = preset.servers.map(|name| (name, program));
        let herd = cores::on(self.cores.server, || {
            Herd::start(&servers, preset.links, &common)
        })?;
        let herd = herd?;
        herd.await_links()?;
        Ok((herd, directory))
    }

    /// Median and 99th percentile of the time until all other servers have an update, in
    /// microseconds.
    fn flood(&self, herd: &Herd, directory: &Path) -> Result<[f64; 2], String> {
        let config = directory.join("flood.toml");
        fs::write(&config, flood_config(herd)?).map_err(|error| format!("flood.toml: {error}"))?;
        let names = herd.names();
        let first = names.first().ok_or("no servers")?;
        let span = self.plan.span;
        let outcome = self
            .generator
            .run(&mut self.generator.flood(first, &config, span))?;
        let latency = outcome.latency.ok_or("no round ended in time")?;
        Ok([latency.p50_us, latency.p99_us])
    }

    /// Updates per second, until all five servers hold the last one.
    fn converge(&self, herd: &Herd) -> Result<f64, String> {
        let names = herd.names();
        let first = *names.first().ok_or("no servers")?;
        let server = herd.server(first).ok_or("the first server does not run")?;
        let span = Span {
            warm_up: Duration::ZERO,
            duration: self.plan.convergence(),
        };
        let began = now();
        let mut command = self
            .generator
            .iamat(server.clients, server.pid(), HEADLINE, span);
        let outcome = self.generator.run(&mut command)?;
        await_agreement(herd, None)?;
        Ok(outcome.answers / began.elapsed().as_secs_f64())
    }
}

/// The milliseconds from SIGKILL until the server runs again, is linked, and holds the same records
/// as all others.
fn recover(herd: &mut Herd, core: usize) -> Result<f64, String> {
    let agreed = await_agreement(herd, None)?;
    // Juzang in the default herd. It dials one neighbour and is dialled by two, so both directions
    // of a link are measured.
    let name = herd.names().get(2).map(|name| (*name).to_owned());
    let name = name.ok_or("too few servers")?;
    let began = now();
    herd.kill(&name)
        .map_err(|error| format!("cannot kill {name}: {error}"))?;
    cores::on(core, || herd.start_again(&name))??;
    herd.await_links()?;
    await_agreement(herd, Some(agreed))?;
    Ok(began.elapsed().as_secs_f64() * 1000.0)
}

/// Waits until all servers hold the same records, or the records `before`. Returns their number and
/// digest.
fn await_agreement(herd: &Herd, before: Option<(u64, u64)>) -> Result<(u64, u64), String> {
    let deadline = now() + AGREED;
    loop {
        // A server that is too busy to answer counts as different.
        let standings: Result<Vec<_>, String> =
            herd.names().iter().map(|name| herd.ask(name)).collect();
        let held: Option<Vec<_>> = standings.ok().map(|standings| {
            let each = standings.iter();
            each.map(|standing| (standing.records, standing.digest))
                .collect()
        });
        if let Some(held) = held
            && let Some(first) = held.first()
            && held
                .iter()
                .all(|one| one == before.as_ref().unwrap_or(first))
        {
            return Ok(*first);
        }
        if now() >= deadline {
            let seconds = AGREED.as_secs();
            return Err(format!(
                "the servers do not hold the same after {seconds} s"
            ));
        }
        children::go_on()?;
        thread::sleep(GLANCE);
    }
}

/// The config file of the herd for herd-load, which uses only the addresses for clients.
fn flood_config(herd: &Herd) -> Result<String, String> {
    let mut text = String::new();
    let mut links = Vec::new();
    for name in herd.names() {
        let server = herd
            .server(name)
            .ok_or_else(|| format!("{name} does not run"))?;
        let (clients, peers) = (server.clients.to_string(), server.peers.to_string());
        // Writing into a String never fails.
        let _ = write!(
            text,
            "[[servers]]\nname = {name:?}\nclients = {clients:?}\npeers = {peers:?}\n"
        );
        links.extend(
            server
                .plan()
                .dial
                .iter()
                .map(|(other, _)| format!("[{name:?}, {other:?}]")),
        );
    }
    Ok(format!("links = [{}]\n{text}", links.join(", ")))
}
