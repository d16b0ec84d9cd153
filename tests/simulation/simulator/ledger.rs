//! What the herd was told, and what it has promised.
//!
//! The promise: an update that was acknowledged reaches every server that is or becomes connected, provided that it, or a newer
//! one of the same client, had left the server that acknowledged it before that server was killed. So for each client there is a
//! *floor*: the greatest update that must be everywhere in the end. An acknowledgement raises it; a server's death lowers it to
//! the greatest line that some other server holds at that moment. (What was under way then may arrive all the same, and is not
//! promised.)

use std::collections::{BTreeMap, BTreeSet};

use herd_mio::core::clock::Time;

use super::chronicle::Shown;
use super::host::Host;
use super::order::{Fields, Line, receipt};

/// The fields of an `IAMAT` that decide its `AT` line, and which server was told: server, client, location, time.
type Told = (usize, Vec<u8>, Vec<u8>, Vec<u8>);

/// The book.
#[derive(Default)]
pub(crate) struct Ledger {
    /// What clients said, and when each first said it.
    told: BTreeMap<Told, Time>,
    clients: BTreeSet<Vec<u8>>,
    floors: BTreeMap<Vec<u8>, Line>,
    acknowledged: u64,
}

impl Ledger {
    /// A client has sent an `IAMAT` to a server, whole or as good as whole.
    pub(crate) fn told(
        &mut self,
        host: usize,
        client: &[u8],
        location: &[u8],
        time: &[u8],
        now: Time,
    ) {
        let told = (host, client.to_vec(), location.to_vec(), time.to_vec());
        self.told.entry(told).or_insert(now);
        self.clients.insert(client.to_vec());
    }

    /// A client was answered with `line` by a server in its life `life`.
    pub(crate) fn acknowledged(
        &mut self,
        host: usize,
        life: u32,
        line: &Line,
        client: &[u8],
        hosts: &[Host],
    ) -> Result<(), String> {
        self.acknowledged += 1;
        let asked = &hosts[host];
        if asked.life == life && asked.is_up() {
            let held = asked.held(client);
            if held.as_ref() < Some(line) {
                return Err(format!(
                    "host {host} acknowledged {} and holds {}",
                    Shown(line.bytes()),
                    Shown(held.as_ref().map_or(b"nothing", Line::bytes))
                ));
            }
        } else if greatest(client, hosts.iter()).as_ref() < Some(line) {
            return Ok(()); // it died with the only server that knew
        }
        let floor = self.floors.get(client);
        if floor < Some(line) {
            self.floors.insert(client.to_vec(), line.clone());
        }
        Ok(())
    }

    /// A server is about to lose its table.
    pub(crate) fn dies(&mut self, host: usize, hosts: &[Host]) {
        self.floors.retain(|client, floor| {
            let others = hosts.iter().filter(|other| other.number != host);
            match greatest(client, others) {
                Some(left) => {
                    if left < *floor {
                        *floor = left;
                    }
                    true
                }
                None => false,
            }
        });
    }

    /// A server that stopped in good order leaves nothing behind that nobody else has.
    pub(crate) fn leaves(&self, host: usize, hosts: &[Host]) -> Result<(), (String, Vec<u8>)> {
        for client in &self.clients {
            let own = hosts[host].held(client);
            let others = hosts.iter().filter(|other| other.number != host);
            if greatest(client, others) < own {
                let own = own.as_ref().map_or(&b""[..], Line::bytes);
                return Err((
                    format!(
                        "host {host} has stopped, and nobody else has {}",
                        Shown(own)
                    ),
                    client.clone(),
                ));
            }
        }
        Ok(())
    }

    /// Whether every server holds the same of every client.
    pub(crate) fn is_equal(&self, hosts: &[Host]) -> bool {
        let Some((first, others)) = hosts.split_first() else {
            return true;
        };
        others.iter().all(|other| {
            other.records() == first.records()
                && self
                    .clients
                    .iter()
                    .all(|client| other.line(client) == first.line(client))
        })
    }

    /// What the servers differ in, in words, and whose record it is.
    pub(crate) fn difference(&self, hosts: &[Host]) -> Option<(String, Vec<u8>)> {
        let (first, others) = hosts.split_first()?;
        for other in others {
            for client in &self.clients {
                let (ours, theirs) = (first.line(client), other.line(client));
                if ours != theirs {
                    let text = format!(
                        "host {} holds {}, host {} holds {}",
                        first.number,
                        Shown(ours.as_deref().unwrap_or(b"nothing")),
                        other.number,
                        Shown(theirs.as_deref().unwrap_or(b"nothing")),
                    );
                    return Some((text, client.clone()));
                }
            }
        }
        None
    }

    /// Checks what a server holds: nothing below a floor, and nothing that no client said. Returns how many floors there are; or
    /// what is wrong, and whose record it is about.
    pub(crate) fn audit(
        &self,
        holder: &Host,
        hosts: &[Host],
        now: Time,
    ) -> Result<u64, (String, Vec<u8>)> {
        for (client, floor) in &self.floors {
            let held = holder.held(client);
            if held.as_ref() < Some(floor) {
                let text = format!(
                    "host {} holds {}, though {} was acknowledged",
                    holder.number,
                    Shown(held.as_ref().map_or(b"nothing", Line::bytes)),
                    Shown(floor.bytes()),
                );
                return Err((text, client.clone()));
            }
        }
        let mut held = 0;
        for client in &self.clients {
            let Some(line) = holder.line(client) else {
                continue;
            };
            held += 1;
            if !self.was_told(&line, hosts, now) {
                let text = format!(
                    "host {} holds {}, which no client said",
                    holder.number,
                    Shown(&line)
                );
                return Err((text, client.clone()));
            }
        }
        if held != holder.records() {
            let text = format!(
                "host {} holds {} records, of which {held} are of clients that exist",
                holder.number,
                holder.records()
            );
            return Err((text, Vec::new()));
        }
        Ok(self.floors.len() as u64)
    }

    /// Whether a client said it, to the server it names, when that server's clock said so.
    pub(crate) fn was_told(&self, line: &[u8], hosts: &[Host], now: Time) -> bool {
        let Some(fields) = Fields::of(line) else {
            return false;
        };
        let name = |host: &&Host| host.setup.settings.name.as_bytes() == fields.server;
        let (Some(host), Some(receipt)) = (hosts.iter().find(name), receipt(&fields)) else {
            return false;
        };
        let told = (
            host.number,
            fields.client.to_vec(),
            fields.location.to_vec(),
            fields.time.to_vec(),
        );
        self.told
            .get(&told)
            .is_some_and(|&since| host.showed(receipt, since, now))
    }

    /// How many updates were acknowledged.
    pub(crate) fn count(&self) -> u64 {
        self.acknowledged
    }
}

/// The greatest line of a client that any of these holds.
fn greatest<'a>(client: &[u8], hosts: impl Iterator<Item = &'a Host>) -> Option<Line> {
    hosts.filter_map(|host| host.held(client)).max()
}
