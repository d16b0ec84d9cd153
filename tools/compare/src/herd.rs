//! A herd of servers on one machine. Each may be of another world.
//!
//! Each herd has its own loopback address, and ports that the system chose there: see [`ports`].

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use herd_client::standing::Standing;
use herd_mio::core::base::settings::Secret;
use herd_testkit::clock::now;
use herd_testkit::ports;

use crate::children;
use crate::server::{LogLevel, Places, Plan, Server};
use crate::workshop::Program;

/// Links are up within a second, but the machine may be busy.
const LINKED: Duration = Duration::from_secs(30);
/// The time limit for a server's status.
const PATIENCE: Duration = Duration::from_secs(5);
/// The pause between two questions for the status.
const GLANCE: Duration = Duration::from_millis(10);

/// Asks the server `name` for its status. `peers` is its address for neighbours.
///
/// # Errors
/// There is no answer, or the answer breaks the protocol.
pub fn ask(peers: SocketAddr, name: &str, secret: &str) -> io::Result<Standing> {
    let secret = Secret::new(secret.as_bytes().to_vec());
    herd_client::standing::ask(peers, name, &secret, None, PATIENCE)
}

/// The settings that all servers of a herd share.
#[derive(Clone, Debug)]
pub struct Common {
    /// The directory of their logs.
    pub directory: PathBuf,
    /// The secret with which they prove that they belong to the herd.
    pub secret: String,
    /// The server that they ask for places.
    pub places: Option<Places>,
    /// Their log level.
    pub log_level: LogLevel,
}

/// A member of a herd, and its server while it runs.
#[derive(Debug)]
struct Member {
    program: Program,
    plan: Plan,
    server: Option<Server>,
}

/// Running servers and their links. Dropping it kills all of them.
#[derive(Debug)]
pub struct Herd {
    members: Vec<Member>,
}

impl Herd {
    /// Starts servers with these names and links. The first server of a link dials. Waits until all
    /// are ready, but not until they are linked.
    ///
    /// # Errors
    /// A server does not become ready, or a link has an unknown name.
    pub fn start(
        servers: &[(&str, &Program)],
        links: &[(&str, &str)],
        common: &Common,
    ) -> Result<Herd, String> {
        Herd::start_with_guests(servers, links, &[], common)
    }

    /// Like [`Herd::start`]. Each guest may also dial the server that it is paired with. A guest is
    /// a name without a server in the herd.
    ///
    /// # Errors
    /// A server does not become ready, or a link or a guest has an unknown server.
    pub fn start_with_guests(
        servers: &[(&str, &Program)],
        links: &[(&str, &str)],
        guests: &[(&str, &str)],
        common: &Common,
    ) -> Result<Herd, String> {
        let addresses =
            ports::free(2 * servers.len()).map_err(|error| format!("no free ports: {error}"))?;
        let mut members: Vec<Member> = servers
            .iter()
            .zip(addresses.chunks(2))
            .map(|((name, program), addresses)| Member {
                program: (*program).clone(),
                plan: Plan {
                    name: (*name).to_owned(),
                    clients: addresses[0],
                    peers: addresses[1],
                    dial: Vec::new(),
                    accept: Vec::new(),
                    secret: common.secret.clone(),
                    places: common.places.clone(),
                    log_level: common.log_level,
                    directory: common.directory.clone(),
                },
                server: None,
            })
            .collect();
        let names: Vec<&str> = servers.iter().map(|(name, _)| *name).collect();
        let place = |name: &str| {
            let found = names.iter().position(|server| *server == name);
            found.ok_or_else(|| format!("{name} has a link, but it is not a server of the herd"))
        };
        for (guest, host) in guests {
            members[place(host)?].plan.accept.push((*guest).to_owned());
        }
        for (dialler, acceptor) in links {
            let (from, to) = (place(dialler)?, place(acceptor)?);
            let address = members[to].plan.peers;
            members[from]
                .plan
                .dial
                .push(((*acceptor).to_owned(), address));
            members[to].plan.accept.push((*dialler).to_owned());
        }
        let mut herd = Herd { members };
        // They start in parallel, because some need a second to become ready.
        let started: Vec<Result<Server, String>> = thread::scope(|scope| {
            let starting: Vec<_> = herd
                .members
                .iter()
                .map(|member| scope.spawn(|| Server::start(&member.program, &member.plan)))
                .collect();
            let ended = |thread: thread::ScopedJoinHandle<'_, _>| {
                let failed = |_| Err("cannot start a server".to_owned());
                thread.join().unwrap_or_else(failed)
            };
            starting.into_iter().map(ended).collect()
        });
        let mut failures = Vec::new();
        for (member, started) in herd.members.iter_mut().zip(started) {
            match started {
                Ok(server) => member.server = Some(server),
                Err(failure) => failures.push(failure),
            }
        }
        if failures.is_empty() {
            Ok(herd)
        } else {
            Err(failures.join("\n"))
        }
    }

    /// Their names, in order.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let names = self.members.iter().map(|member| member.plan.name.as_str());
        names.collect()
    }

    /// The running server with this name.
    #[must_use]
    pub fn server(&self, name: &str) -> Option<&Server> {
        self.member(name)?.server.as_ref()
    }

    fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.plan.name == name)
    }

    /// Asks a server for its status.
    ///
    /// # Errors
    /// The server does not run, or does not answer.
    pub fn ask(&self, name: &str) -> Result<Standing, String> {
        let server = self.server(name).ok_or(format!("{name} does not run"))?;
        ask(server.peers, name, &server.plan().secret)
            .map_err(|error| format!("{name} does not report its status: {error}"))
    }

    /// Waits until every running server is linked with all its running neighbours.
    ///
    /// # Errors
    /// A link is still missing after a while.
    pub fn await_links(&self) -> Result<(), String> {
        let deadline = now() + LINKED;
        let is_running = |name: &&String| self.server(name).is_some();
        for member in self.members.iter().filter(|member| member.server.is_some()) {
            let plan = &member.plan;
            let dialled = plan.dial.iter().map(|(name, _)| name);
            let neighbours: Vec<&String> = dialled.chain(&plan.accept).filter(is_running).collect();
            loop {
                let linked = self.ask(&plan.name)?.linked;
                let Some(missing) = neighbours.iter().find(|name| !linked.contains(name)) else {
                    break;
                };
                if now() >= deadline {
                    let (name, seconds) = (&plan.name, LINKED.as_secs());
                    return Err(format!(
                        "{name} is not linked with {missing} after {seconds} s"
                    ));
                }
                children::go_on()?;
                thread::sleep(GLANCE);
            }
        }
        Ok(())
    }

    /// Sends SIGKILL to a server and waits for its end.
    ///
    /// # Errors
    /// There is no such server, or the system refuses the signal.
    pub fn kill(&mut self, name: &str) -> io::Result<()> {
        let member = self
            .members
            .iter_mut()
            .find(|member| member.plan.name == name);
        match member.and_then(|member| member.server.take()) {
            Some(server) => server.kill(),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Starts a killed server again, with the same addresses.
    ///
    /// # Errors
    /// There is no such server, or it does not become ready.
    pub fn start_again(&mut self, name: &str) -> Result<(), String> {
        let member = self
            .members
            .iter_mut()
            .find(|member| member.plan.name == name);
        let member = member.ok_or_else(|| format!("{name} is not a server of the herd"))?;
        member.server = Some(Server::start(&member.program, &member.plan)?);
        Ok(())
    }

    /// Sends SIGTERM to all servers and waits for their ends. Returns a complaint for each that did
    /// not end well.
    #[must_use]
    pub fn stop(mut self) -> Vec<String> {
        let servers = self
            .members
            .iter_mut()
            .filter_map(|member| member.server.as_mut());
        let mut servers: Vec<&mut Server> = servers.collect();
        for server in &servers {
            server.ask_to_stop();
        }
        let deadline = Server::stop_deadline();
        let ends = servers.iter_mut().map(|server| server.await_stop(deadline));
        ends.filter_map(Result::err).collect()
    }

    /// The logs and the standard errors of all servers, to explain a failure.
    #[must_use]
    pub fn logs(&self) -> String {
        let mut text = String::new();
        for server in self
            .members
            .iter()
            .filter_map(|member| member.server.as_ref())
        {
            let name = &server.plan().name;
            text.push_str(&format!("--- {name}\n{}{}", server.errors(), server.log()));
        }
        text
    }
}
