//! A simulated operator. It asks a server to forget a client, over the neighbours' port, and checks
//! the result.

use herd_mio::core::base::clock::Time;
use herd_mio::core::base::hex::{Hex, unhex};
use herd_mio::core::link::proof::{Nonce, Parties, Side};
use herd_mio::core::link::{OPERATOR, VERSION};

use crate::chronicle::{Shown, Subject};
use crate::host::Host;
use crate::ledger::Ledger;
use crate::network::{OPENER, Party, Received};
use crate::outside::{Outside, failed};
use crate::plan::Forget;
use crate::timeline::Key;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Its start time has not come.
    Before,
    Connecting,
    /// It has sent `HERD`.
    Greeting,
    /// It has sent `PROOF`, and waits for the server's.
    Proving {
        theirs: Nonce,
    },
    /// It waits for `STATUS`.
    Proven,
    /// It has sent `FORGET`.
    Asked {
        at: Time,
    },
    Done,
}

/// An operator and its connection.
pub(crate) struct Operator {
    number: usize,
    plan: Forget,
    path: usize,
    state: State,
    key: Option<Key>,
    /// The server's life at the time of the connect.
    life: Option<u32>,
    input: Vec<u8>,
}

impl Operator {
    /// An operator that has not started.
    pub(crate) fn new(number: usize, plan: Forget, path: usize) -> Operator {
        Operator {
            number,
            plan,
            path,
            state: State::Before,
            key: None,
            life: None,
            input: Vec::new(),
        }
    }

    /// Whether it has finished, or its storm has not begun.
    pub(crate) fn is_through(&self) -> bool {
        matches!(self.state, State::Done | State::Before)
    }

    /// Its state as text.
    pub(crate) fn describe(&self) -> String {
        format!(
            "operator {} of host {} is {:?}",
            self.number, self.plan.host, self.state
        )
    }

    /// Its server.
    pub(crate) fn host(&self) -> usize {
        self.plan.host
    }

    /// Its number in this run.
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// Handles an event of its connection, or its start time.
    pub(crate) fn act(&mut self, hosts: &[Host], ledger: &mut Ledger, outside: &mut Outside) {
        if self.state == State::Before {
            outside.log(&self.subjects(), || {
                format!(
                    "operator {} (number {} of the plan) connects to host {}, to forget {}",
                    self.number,
                    self.plan.number,
                    self.plan.host,
                    Shown(&self.plan.client)
                )
            });
            let server = Party::Host {
                host: self.plan.host,
                life: 0,
            };
            let (own, timeline) = (Party::Operator(self.number), &mut outside.timeline);
            self.key = Some(outside.network.connect(self.path, own, server, timeline));
            self.state = State::Connecting;
            return;
        }
        let Some(key) = self.key.filter(|_| self.state != State::Done) else {
            return;
        };
        if self.state == State::Connecting {
            if outside.network.is_reset(key, OPENER) {
                return self.leave(outside);
            }
            if !outside.network.is_connected(key, OPENER) {
                return;
            }
            if let Party::Host { life, .. } = outside.network.party(key, 1 - OPENER) {
                self.life = Some(life);
            }
            self.state = State::Greeting;
            let name = &hosts[self.plan.host].setup.settings.name;
            let hello = format!("HERD {VERSION} {OPERATOR} {name} {}\n", Hex(&self.nonce()));
            self.write(key, hello.as_bytes(), outside);
        }
        while self.state != State::Done {
            match outside
                .network
                .read(key, OPENER, usize::MAX, &mut outside.timeline)
            {
                Received::Nothing => return,
                Received::Bytes(bytes) => {
                    self.input.extend_from_slice(&bytes);
                    self.take_lines(key, hosts, ledger, outside);
                }
                Received::End | Received::Reset => {
                    self.lost(hosts, outside);
                    self.leave(outside);
                }
            }
        }
    }

    fn nonce(&self) -> Nonce {
        [self.number as u8; 16]
    }

    fn subjects(&self) -> [Subject; 2] {
        let record = Subject::Record(self.plan.client.clone());
        [Subject::Session(self.number), record]
    }

    /// Its lines are short, and the other side reads each one before the next is sent.
    fn write(&mut self, key: Key, bytes: &[u8], outside: &mut Outside) {
        let (network, timeline) = (&mut outside.network, &mut outside.timeline);
        if network.write(key, OPENER, bytes, timeline) != Some(bytes.len()) {
            self.leave(outside);
        }
    }

    fn take_lines(&mut self, key: Key, hosts: &[Host], ledger: &mut Ledger, outside: &mut Outside) {
        while let Some(end) = self.input.iter().position(|&byte| byte == b'\n')
            && self.state != State::Done
        {
            let line: Vec<u8> = self.input.drain(..=end).collect();
            self.line(&line[..end], key, hosts, ledger, outside);
        }
    }

    fn line(
        &mut self,
        line: &[u8],
        key: Key,
        hosts: &[Host],
        ledger: &mut Ledger,
        outside: &mut Outside,
    ) {
        let host = &hosts[self.plan.host];
        let name = &*host.setup.settings.name;
        let text = String::from_utf8_lossy(line).into_owned();
        let words: Vec<&str> = text.split(' ').collect();
        let nonce = self.nonce();
        let parties = |theirs| Parties {
            dialler: (OPERATOR, &nonce),
            acceptor: (name, theirs),
        };
        let secret = host.setup.settings.secrets.primary();
        match (self.state, &*words) {
            (State::Greeting, ["HERD", _, from, OPERATOR, theirs]) if *from == name => {
                let Some(theirs) = unhex(theirs.as_bytes()) else {
                    return self.fail(&text, outside);
                };
                self.state = State::Proving { theirs };
                let proof = parties(&theirs).prove(Side::Dialler, secret);
                self.write(key, format!("PROOF {proof}\n").as_bytes(), outside);
            }
            (State::Proving { theirs }, ["PROOF", proof]) => {
                if !parties(&theirs).is_valid_proof(Side::Acceptor, secret, proof.as_bytes()) {
                    return self.fail(&text, outside);
                }
                self.state = State::Proven;
            }
            (State::Proven, ["STATUS", ..]) => {
                let at = outside.timeline.now();
                self.state = State::Asked { at };
                ledger.forgets(self.plan.host, &self.plan.client);
                let command = [b"FORGET ", &self.plan.client[..], b"\n"].concat();
                self.write(key, &command, outside);
            }
            (State::Asked { at }, ["FORGOTTEN", "known" | "unknown", ttl_ms]) => {
                if *ttl_ms != host.setup.settings.limits.record_ttl_ms.to_string() {
                    return self.fail(&text, outside);
                }
                outside.log(&self.subjects(), || {
                    format!("operator {} gets {text}", self.number)
                });
                self.forgotten(at, hosts, ledger, outside);
                self.leave(outside);
            }
            (_, ["BYE", ..]) => {
                // The server stops, its disk or its table has no room, or its disk is too slow.
                let is_excused = text == "BYE stopping"
                    || text.starts_with("BYE its disk has not taken it for ")
                    || text.starts_with("BYE no room ") && host.may_refuse(outside.timeline.now());
                if !is_excused {
                    return self.fail(&text, outside);
                }
                self.leave(outside);
            }
            _ => self.fail(&text, outside),
        }
    }

    /// The server has confirmed that the client is forgotten. It must hold the tombstone or a
    /// greater record, and so must all others in the end.
    fn forgotten(
        &mut self,
        since: Time,
        hosts: &[Host],
        ledger: &mut Ledger,
        outside: &mut Outside,
    ) {
        let client = &self.plan.client;
        let made = &hosts[self.plan.host].tombstones;
        let made = made.iter().filter(|(at, ..)| *at >= since);
        let of_client = made.filter(|(.., line)| line.client() == client);
        let Some(tombstone) = of_client.map(|(.., line)| line).min() else {
            return self.fail("it made no tombstone", outside);
        };
        let (now, life) = (outside.timeline.now(), self.life.unwrap_or_default());
        let host = self.plan.host;
        match ledger.acknowledged(host, life, tombstone, client, hosts, now) {
            Ok(()) => outside.promise(client, tombstone),
            Err(text) => self.fail(&text, outside),
        }
    }

    /// The connection ended early. This is allowed only if the server has ended.
    fn lost(&mut self, hosts: &[Host], outside: &mut Outside) {
        let host = &hosts[self.plan.host];
        let is_excused = Some(host.life) != self.life || !host.is_up();
        if !is_excused {
            let text = format!("the server closed the connection in {:?}", self.state);
            self.fail(&text, outside);
        }
    }

    fn fail(&mut self, what: &str, outside: &mut Outside) {
        let text = format!(
            "operator {} of host {}: {what}",
            self.number, self.plan.host
        );
        let [session, record] = self.subjects();
        let subjects = [session, record, Subject::Host(self.plan.host)];
        failed(outside, &text, &subjects);
        self.state = State::Done;
    }

    fn leave(&mut self, outside: &mut Outside) {
        if let Some(key) = self.key {
            outside.network.close(key, OPENER, &mut outside.timeline);
        }
        self.state = State::Done;
    }

    /// Its server's life has ended, so no more answers come.
    pub(crate) fn give_up(&mut self, hosts: &[Host], outside: &mut Outside) {
        let is_over = |life| life != hosts[self.plan.host].life;
        if self.state != State::Done && self.life.is_some_and(is_over) {
            self.leave(outside);
        }
    }
}
