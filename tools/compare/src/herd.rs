//! A herd of servers, each of whatever world, on one machine.
//!
//! Each herd lives on a loopback address of its own, on ports that the system chose there: see [`ports`].

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

/// Links are there within a second; a machine that is busy may take its time.
const LINKED: Duration = Duration::from_secs(30);
/// How long a server may take for each step of telling how it stands.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a server is asked how it stands.
const GLANCE: Duration = Duration::from_millis(10);

/// How the server called `name` stands whose neighbours' port is `peers`.
///
/// # Errors
/// It does not answer, or otherwise than the protocol has it.
pub fn ask(peers: SocketAddr, name: &str, secret: &str) -> io::Result<Standing> {
    let secret = Secret::new(secret.as_bytes().to_vec());
    herd_client::standing::ask(peers, name, &secret, None, PATIENCE)
}

/// What all servers of a herd have in common.
#[derive(Clone, Debug)]
pub struct Common {
    /// Where their logs go.
    pub directory: PathBuf,
    /// What they prove to one another that they know.
    pub secret: String,
    /// Whom they ask for places.
    pub places: Option<Places>,
    /// How much they log.
    pub log_level: LogLevel,
}

/// A member of a herd, and its server while it runs.
#[derive(Debug)]
struct Member {
    program: Program,
    plan: Plan,
    server: Option<Server>,
}

/// Running servers and their links. All are killed when this is dropped.
#[derive(Debug)]
pub struct Herd {
    members: Vec<Member>,
}

impl Herd {
    /// Starts servers with these names, and links, the first of two dials; waits until all are ready, not until they are linked.
    ///
    /// # Errors
    /// A server does not get ready, or a link names none.
    pub fn start(
        servers: &[(&str, &Program)],
        links: &[(&str, &str)],
        common: &Common,
    ) -> Result<Herd, String> {
        Herd::start_with_guests(servers, links, &[], common)
    }

    /// As [`Herd::start`]; besides, each guest, which is no server of the herd, may dial the server
    /// that it is paired with.
    ///
    /// # Errors
    /// A server does not get ready, or a link or a guest's server names none.
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
            found.ok_or_else(|| format!("{name} is linked, and no server of the herd"))
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
        // All at once: some take a second to get ready.
        let started: Vec<Result<Server, String>> = thread::scope(|scope| {
            let starting: Vec<_> = herd
                .members
                .iter()
                .map(|member| scope.spawn(|| Server::start(&member.program, &member.plan)))
                .collect();
            let ended = |thread: thread::ScopedJoinHandle<'_, _>| {
                let failed = |_| Err("starting a server failed".to_owned());
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

    /// The running server of that name.
    #[must_use]
    pub fn server(&self, name: &str) -> Option<&Server> {
        self.member(name)?.server.as_ref()
    }

    fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.plan.name == name)
    }

    /// How a server stands.
    ///
    /// # Errors
    /// It does not run, or does not say.
    pub fn ask(&self, name: &str) -> Result<Standing, String> {
        let server = self.server(name).ok_or(format!("{name} does not run"))?;
        ask(server.peers, name, &server.plan().secret)
            .map_err(|error| format!("{name} does not say how it stands: {error}"))
    }

    /// Waits until every server that runs is linked with all its neighbours that run.
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

    /// SIGKILL. The server is gone when this returns.
    ///
    /// # Errors
    /// There is no such server, or the system does not let it be killed.
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

    /// Starts a server that was killed again, where it was.
    ///
    /// # Errors
    /// There is no such server, or it does not get ready.
    pub fn start_again(&mut self, name: &str) -> Result<(), String> {
        let member = self
            .members
            .iter_mut()
            .find(|member| member.plan.name == name);
        let member = member.ok_or_else(|| format!("{name} is no server of the herd"))?;
        member.server = Some(Server::start(&member.program, &member.plan)?);
        Ok(())
    }

    /// SIGTERM to all, and their end; says which did not end as it should.
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

    /// The logs of all, and what they wrote to their standard errors, under their names: for whoever looks for a failure.
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
