//! The five server processes, and the guard that ends all of them with the demo.
//!
//! A life of a server is one process, from its spawn until it is reaped:
//!
//! ```text
//!   (no life) ──spawn──► alive, not ready ──its line on stdout──► ready ──┐
//!       ▲                        │                                        │
//!       └──────── reaped ────────┴── its stdout closes, kill, stop, drop ─┘
//! ```

use std::fs::{self, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use herd_testkit::clock;
use herd_testkit::server::{self, Process};
use rustix::process::Signal;

use crate::events::{Event, Events};
use crate::plan::{Plan, Who};
use crate::stage::Stage;
use crate::stop::{Stop, failure};

/// A server is ready within half a second. A busy machine may need much longer.
const READY: Duration = Duration::from_secs(30);
/// Links are up within a second. A busy machine may need much longer.
const LINKED: Duration = Duration::from_secs(30);
/// After SIGTERM a server finishes its answers for at most 5 s. After this time it gets SIGKILL.
const STOP: Duration = Duration::from_secs(6);
/// The pause between two looks at a log file, or two attempts to use a port.
const GLANCE: Duration = Duration::from_millis(10);
/// Attempts to start the herd. Another program may take a port after it was chosen; then the next
/// attempt uses other ports.
const STARTS: usize = 5;
/// After a failure the demo waits so long for the ends of other servers, to report them too.
const AFTERMATH: Duration = Duration::from_millis(300);
/// The number of log lines that are shown of an ended server.
const LAST_LINES: usize = 8;

/// The secrets of the servers. They are passed in the environment, because process listings show
/// arguments.
pub(crate) struct Secrets {
    /// The shared secret with which servers prove that they belong to the herd.
    pub(crate) herd: String,
    /// The API key that the stand-in for Google Places accepts.
    pub(crate) places_key: String,
}

/// A running process of a server.
struct Life {
    process: Process,
    ready: bool,
    /// The offset in the log file at which this life's lines begin. Earlier lives wrote the lines
    /// before it.
    log_from: usize,
}

/// A server, running or not.
struct Server {
    who: Who,
    life: Option<Life>,
    /// The exit status, if the server ended without the demo's doing.
    fate: Option<ExitStatus>,
}

/// The result of an attempt to start.
enum Started {
    Ready,
    /// A port was in use. The text is the server's error message.
    PortTaken(String),
}

/// The herd. Dropping it ends all its processes and waits for them.
pub(crate) struct Herd {
    binary: PathBuf,
    directory: PathBuf,
    secrets: Secrets,
    plan: Plan,
    /// In the order of [`Who::ALL`].
    servers: [Server; 5],
}

impl Drop for Herd {
    fn drop(&mut self) {
        // The result is for a caller that stops the herd itself.
        let _ = self.stop();
    }
}

impl Herd {
    /// A herd without a running server. The config file and the logs go to the directory.
    pub(crate) fn new(binary: &Path, directory: &Path, secrets: Secrets) -> Herd {
        Herd {
            binary: binary.to_owned(),
            directory: directory.to_owned(),
            secrets,
            plan: Plan::usual(),
            servers: Who::ALL.map(|who| Server {
                who,
                life: None,
                fate: None,
            }),
        }
    }

    /// Starts all five servers and waits until every link is up.
    pub(crate) fn start(
        &mut self,
        places_url: &str,
        events: &mut Events,
        stage: &mut Stage,
    ) -> Result<(), Stop> {
        if let Some(address) = self.plan.taken() {
            stage.remark(&format!(
                "Another program uses {address}, so this herd listens on free ports instead of 10000–10004 and 11000–11004."
            ));
            self.plan = Plan::elsewhere()?;
        }
        for _ in 0..STARTS {
            fs::write(self.config_path(), self.plan.config_file(places_url))?;
            for who in Who::ALL {
                self.spawn(who, events)?;
            }
            match self.await_ready(events)? {
                Started::Ready => {
                    let all = Who::ALL.map(|who| {
                        (
                            who,
                            self.plan.doors(who),
                            self.process(who).unwrap_or_default(),
                        )
                    });
                    stage.roll_call(&all, places_url, &self.config_path());
                    return self.await_linked(&Who::ALL, events);
                }
                Started::PortTaken(words) => {
                    stage.remark(&format!("{words}\nTrying other ports."));
                    self.stop();
                    self.plan = Plan::elsewhere()?;
                }
            }
        }
        failure(format!(
            "in {STARTS} attempts, another program took a chosen port before the herd used it; try again when the machine is less busy"
        ))
    }

    /// Sends SIGKILL and waits until the process is gone.
    pub(crate) fn kill(&mut self, who: Who) -> io::Result<()> {
        if let Some(mut life) = self.server_mut(who).life.take() {
            life.process.kill()?;
        }
        Ok(())
    }

    /// Starts a killed server again, on its old ports, and waits until it is linked with all its
    /// neighbours.
    pub(crate) fn start_again(&mut self, who: Who, events: &mut Events) -> Result<(), Stop> {
        let deadline = clock::now() + READY;
        loop {
            self.spawn(who, events)?;
            match self.await_ready(events)? {
                Started::Ready => return self.await_linked(&[who], events),
                // If the system chose the ports, it may have given one to another connection in the
                // meantime.
                Started::PortTaken(_) if clock::now() < deadline => events.pause(GLANCE)?,
                Started::PortTaken(words) => return failure(words),
            }
        }
    }

    /// The addresses of all servers.
    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The id of a server's process, if it runs.
    pub(crate) fn process(&self, who: Who) -> Option<u32> {
        self.server(who).life.as_ref().map(|life| life.process.id())
    }

    /// Where a server listens for clients.
    pub(crate) fn clients(&self, who: Who) -> SocketAddr {
        self.plan.doors(who).clients
    }

    /// Reaps the server whose output this event closed, and returns it.
    pub(crate) fn ended(&mut self, event: &Event) -> Option<Who> {
        let Event::Closed { process } = event else {
            return None;
        };
        let who = self.by_process(*process)?;
        let server = self.server_mut(who);
        let mut life = server.life.take()?;
        server.fate = life.process.wait(clock::now() + STOP);
        Some(who)
    }

    /// Text that says how a server ended without the demo's doing, with the end of its log.
    pub(crate) fn obituary(&self, who: Who) -> String {
        let name = who.name();
        let how = self.server(who).fate.map_or_else(
            || "it closed its standard output".to_owned(),
            |fate| fate.to_string(),
        );
        let mut text = format!("{name} has ended ({how}). The demo did not end it.");
        let words = self.last_words(who);
        if !words.is_empty() {
            text.push_str("\n  Its standard error:");
        }
        for line in words.lines() {
            text.push_str(&format!("\n    {line}"));
        }
        let path = self.log_path(who);
        let log = fs::read(&path).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        if !lines.is_empty() {
            text.push_str(&format!("\n  The end of {}:", path.display()));
        }
        for line in &lines[lines.len().saturating_sub(LAST_LINES)..] {
            text.push_str(&format!("\n    {line}"));
        }
        text
    }

    /// Whether a server failed by itself. A signal that a user sends with `kill` or Ctrl-C is no
    /// failure.
    pub(crate) fn failed(&self, who: Who) -> bool {
        let by_hand = [Signal::INT, Signal::TERM, Signal::KILL, Signal::HUP].map(Signal::as_raw);
        self.server(who).fate.is_some_and(|fate| {
            !fate.success()
                && !fate
                    .signal()
                    .is_some_and(|signal| by_hand.contains(&signal))
        })
    }

    /// Text about servers that ended without the demo's doing: all about the first, the names of
    /// the others.
    pub(crate) fn obituaries(&mut self, events: &mut Events) -> String {
        // A client often sees a broken connection before the server's end is reported here.
        let deadline = clock::now() + AFTERMATH;
        while let Ok(Some(event)) = events.next(Some(deadline)) {
            self.ended(&event);
        }
        let dead = self.servers.iter().filter(|server| server.fate.is_some());
        let mut dead = dead.map(|server| server.who);
        let Some(first) = dead.next() else {
            return String::new();
        };
        let mut text = format!("\n{}", self.obituary(first));
        let others: Vec<&str> = dead.map(Who::name).collect();
        if !others.is_empty() {
            text.push_str(&format!("\nThese have ended too: {}.", others.join(", ")));
        }
        text
    }

    /// Ends every server. Returns a complaint for each that did not end well.
    pub(crate) fn stop(&mut self) -> Vec<String> {
        for server in &mut self.servers {
            if let Some(life) = &mut server.life {
                life.process.signal(Signal::TERM);
            }
        }
        let deadline = clock::now() + STOP;
        let mut complaints = Vec::new();
        for server in &mut self.servers {
            let Some(mut life) = server.life.take() else {
                continue;
            };
            let name = server.who.name();
            match life.process.wait(deadline) {
                Some(status) if status.success() => {}
                Some(status) => complaints.push(format!("{name} did not stop cleanly: {status}")),
                None => {
                    let seconds = STOP.as_secs();
                    complaints.push(format!("{name} still ran {seconds} s after SIGTERM"));
                    // Dropping it kills it.
                }
            }
        }
        complaints
    }

    fn spawn(&mut self, who: Who, events: &Events) -> Result<(), Stop> {
        let log = self.log_path(who);
        let log_from = fs::metadata(&log).map_or(0, |metadata| metadata.len());
        let mut command = Command::new(&self.binary);
        command
            .arg(who.name())
            .arg("--config")
            .arg(self.config_path())
            .arg("--log-file")
            .arg(&log)
            .current_dir(&self.directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(self.words_path(who))?)
            // In its own process group, a server does not get Ctrl-C from the terminal. The demo
            // gets it, and stops the servers in order.
            .process_group(0);
        server::without_settings(&mut command);
        command
            .env("HERD_SECRET", &self.secrets.herd)
            .env("HERD_PLACES_KEY", &self.secrets.places_key);
        let mut process = Process::spawn(&mut command)
            .or_else(|error| failure(format!("cannot run {}: {error}", self.binary.display())))?;
        let (id, output) = (process.id(), process.child.stdout.take());
        // From here on a drop of the herd ends this process.
        let server = self.server_mut(who);
        server.fate = None;
        server.life = Some(Life {
            process,
            ready: false,
            log_from: usize::try_from(log_from).unwrap_or(usize::MAX),
        });
        if let Some(output) = output {
            events.listen(id, output)?;
        }
        Ok(())
    }

    /// Waits until every running server has reported that it is ready.
    fn await_ready(&mut self, events: &mut Events) -> Result<Started, Stop> {
        let deadline = clock::now() + READY;
        while let Some(late) = self.unready() {
            let Some(event) = events.next(Some(deadline))? else {
                let seconds = READY.as_secs();
                return failure(format!("{} is not ready after {seconds} s", late.name()));
            };
            if let Event::Line { process, text } = &event
                && let Some(who) = self.by_process(*process)
            {
                self.hear(who, text)?;
            }
            if let Some(who) = self.ended(&event) {
                let words = self.last_words(who);
                if words.contains("Address already in use") {
                    return Ok(Started::PortTaken(words));
                }
                return failure(format!("{} does not start", who.name()));
            }
        }
        Ok(Started::Ready)
    }

    /// The first running server that is not ready.
    fn unready(&self) -> Option<Who> {
        let mut servers = self.servers.iter();
        servers
            .find(|server| server.life.as_ref().is_some_and(|life| !life.ready))
            .map(|server| server.who)
    }

    /// Handles a line of a server's standard output. The only line that a server prints names its
    /// addresses.
    fn hear(&mut self, who: Who, text: &str) -> Result<(), Stop> {
        let name = who.name();
        let doors = self.plan.doors(who);
        let log = self.log_path(who);
        let expected = format!(
            "herd-mio {name}: clients on {}, neighbours on {}, log in {}",
            doors.clients,
            doors.peers,
            log.display()
        );
        match &mut self.server_mut(who).life {
            Some(life) if text == expected && !life.ready => {
                life.ready = true;
                Ok(())
            }
            Some(_) | None => failure(format!(
                "{name} printed an unexpected line\n  expected  {expected}\n  got       {text}"
            )),
        }
    }

    /// Waits until the logs of these servers report links with all their neighbours.
    fn await_linked(&mut self, whom: &[Who], events: &mut Events) -> Result<(), Stop> {
        let deadline = clock::now() + LINKED;
        for who in whom {
            while let Some(missing) = self.unlinked(*who) {
                let (name, missing) = (who.name(), missing.name());
                let now = clock::now();
                if now >= deadline {
                    let seconds = LINKED.as_secs();
                    return failure(format!(
                        "{name} is not linked with {missing} after {seconds} s"
                    ));
                }
                if let Some(event) = events.next(Some(now + GLANCE))?
                    && let Some(dead) = self.ended(&event)
                {
                    let dead = dead.name();
                    return failure(format!(
                        "{dead} ended before {name} and {missing} were linked"
                    ));
                }
            }
        }
        Ok(())
    }

    /// The first neighbour for which this server's log reports no link.
    fn unlinked(&self, who: Who) -> Option<Who> {
        let log = fs::read(self.log_path(who)).unwrap_or_default();
        let from = self
            .server(who)
            .life
            .as_ref()
            .map_or(0, |life| life.log_from);
        let log = String::from_utf8_lossy(log.get(from..).unwrap_or_default());
        who.neighbours()
            .find(|neighbour| !log.lines().any(|line| says_linked(line, neighbour.name())))
    }

    /// The server's standard error: one line, if it could not start.
    fn last_words(&self, who: Who) -> String {
        let words = fs::read(self.words_path(who)).unwrap_or_default();
        String::from_utf8_lossy(&words).trim_end().to_owned()
    }

    fn config_path(&self) -> PathBuf {
        self.directory.join("herd.toml")
    }

    fn log_path(&self, who: Who) -> PathBuf {
        self.directory.join(format!("{}.log", who.name()))
    }

    fn words_path(&self, who: Who) -> PathBuf {
        self.directory.join(format!("{}.stderr", who.name()))
    }

    fn by_process(&self, process: u32) -> Option<Who> {
        Who::ALL
            .into_iter()
            .find(|who| self.process(*who) == Some(process))
    }

    fn server(&self, who: Who) -> &Server {
        &self.servers[who as usize]
    }

    fn server_mut(&mut self, who: Who) -> &mut Server {
        &mut self.servers[who as usize]
    }
}

/// Whether this line of a log says `neighbour NAME ADDRESS: linked, …`.
fn says_linked(line: &str, neighbour: &str) -> bool {
    let Some((_, event)) = line.split_once("] ") else {
        return false;
    };
    event
        .strip_prefix("neighbour ")
        .and_then(|rest| rest.strip_prefix(neighbour))
        .is_some_and(|rest| rest.starts_with(' ') && rest.contains(": linked, "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_read_from_the_log() {
        let linked = "2026-11-21T00:48:07.659507Z [INFO ] neighbour Juzang 127.0.0.1:11002: linked, to be sent all 0 records";
        assert!(says_linked(linked, "Juzang"));
        assert!(!says_linked(linked, "Juz"));
        assert!(!says_linked(linked, "Jaquez"));
        assert!(!says_linked(
            "2026-11-21T00:48:07.658185Z [WARN ] neighbour Jaquez 127.0.0.1:11001: not linked: Connection refused (os error 111); trying on",
            "Jaquez"
        ));
        // A client can send this text, and the log quotes it.
        assert!(!says_linked(
            "2026-11-21T00:48:07.658185Z [INFO ] client 1 127.0.0.1:50000 <- neighbour Jaquez x: linked, x",
            "Jaquez"
        ));
    }
}
