//! The updates that clients sent to the herd, and the promises of the herd.
//!
//! The promise: an acknowledged update reaches every server that is or becomes connected. It
//! survives any crash of a server with a disk. If a server without a disk is killed, the update is
//! promised only if it (or a newer one of the same client) has left that server. So each client has
//! a *floor*: the greatest update that every server must have in the end. An acknowledgement raises
//! the floor. The end of a server lowers it to the greatest line that some server holds at that
//! moment, or will find on its disk. (Updates in transit may still arrive, but are not promised.)
//! The acknowledged updates of a server with a disk must be on that disk when the server ends, and
//! in its table when it starts again. [`herd_testkit::promises`] records that.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use herd_mio::core::base::clock::Time;

use crate::chronicle::Shown;
use crate::expired::Expired;
use crate::host::Host;
use herd_testkit::at_line::{Fields, Line, receipt};
use herd_testkit::promises::{End, Promises};

/// The fields of an `IAMAT` that decide its `AT` line: the server that got it, client, location,
/// time.
type Told = (usize, Vec<u8>, Vec<u8>, Vec<u8>);

/// The ledger.
#[derive(Default)]
pub(crate) struct Ledger {
    /// The `IAMAT`s of clients, with the time of the first one with these fields.
    told: BTreeMap<Told, Time>,
    clients: BTreeSet<Vec<u8>>,
    floors: BTreeMap<Vec<u8>, Line>,
    acknowledged: u64,
    /// The servers that were asked to forget a client, with the client.
    forgotten: BTreeSet<(usize, Vec<u8>)>,
    /// The records that may have expired, and so are not promised.
    expired: Expired,
    /// The promises of each server's disk.
    pub(crate) promises: Promises,
}

impl Ledger {
    /// Takes over which records may have expired. This is cheap, so it is done after each turn.
    pub(crate) fn expire(&mut self, expired: &Expired) {
        if expired.is_on() {
            self.expired.clone_from(expired);
        }
    }

    /// Removes the records that may have expired from all promises. This looks at every promise, so
    /// it is done only before promises are checked.
    fn drop_expired(&mut self) {
        let expired = &self.expired;
        if expired.is_on() {
            self.floors.retain(|_, floor| !expired.covers(floor));
            self.promises.expire(|line| expired.covers(line));
        }
    }

    /// The record that a server holds of a client, unless it may have expired on another server.
    fn lasting(&self, host: &Host, client: &[u8]) -> Option<Line> {
        host.held(client).filter(|line| !self.expired.covers(line))
    }

    /// An operator has asked a server to forget a client.
    pub(crate) fn forgets(&mut self, host: usize, client: &[u8]) {
        self.forgotten.insert((host, client.to_vec()));
        self.clients.insert(client.to_vec());
    }

    /// Whether a record of a client may be missing by now.
    pub(crate) fn may_be_gone(&self, client: &[u8], line: &Line) -> bool {
        self.expired.covers(line) || self.forgotten.iter().any(|(_, other)| other == client)
    }

    /// A client has sent an `IAMAT` to a server. Only its LF may be missing.
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

    /// A server in its life `life` answered a client with `line`.
    pub(crate) fn acknowledged(
        &mut self,
        host: usize,
        life: u32,
        line: &Line,
        client: &[u8],
        hosts: &[Host],
        time: Time,
    ) -> Result<(), String> {
        self.acknowledged += 1;
        if self.expired.covers(line) {
            return Ok(());
        }
        let asked = &hosts[host];
        let is_alive = asked.life == life && asked.is_up();
        let is_whole = asked.setup.disk.is_some() && life >= asked.whole_since;
        if is_alive || is_whole {
            let held = asked.sure(client);
            if held.as_ref() < Some(line) {
                return Err(format!(
                    "host {host} acknowledged {} and holds {}",
                    Shown(line.bytes()),
                    Shown(held.as_ref().map_or(b"nothing", Line::bytes))
                ));
            }
            if asked.setup.disk.is_some() {
                self.promises.answered(host, line, when(time));
            }
        } else if greatest(client, hosts.iter()).as_ref() < Some(line) {
            return Ok(()); // The only server that had it has ended.
        }
        let floor = self.floors.get(client);
        if floor < Some(line) {
            self.floors.insert(client.to_vec(), line.clone());
        }
        Ok(())
    }

    /// A server has confirmed to a neighbour that it keeps a record. This is the same promise as an
    /// answer to a client.
    pub(crate) fn confirmed(&mut self, host: usize, line: &Line, time: Time) {
        if !self.expired.covers(line) {
            self.promises.kept(host, line, when(time));
        }
    }

    /// A server has ended. An error is a promise that it has broken, and the client of that record.
    pub(crate) fn died(
        &mut self,
        host: usize,
        end: End,
        time: Time,
        hosts: &[Host],
    ) -> Result<(), (String, Vec<u8>)> {
        self.drop_expired();
        self.promises.ends(host, end, when(time));
        self.promises
            .would_restart(host, &mut |client| hosts[host].sure(client))
            .map_err(|missing| (missing.to_string(), missing.client))?;
        self.lower_floors(hosts);
        Ok(())
    }

    /// Lowers the floors to records that a server holds, or will find on its disk.
    fn lower_floors(&mut self, hosts: &[Host]) {
        self.floors
            .retain(|client, floor| match greatest(client, hosts.iter()) {
                Some(left) => {
                    if left < *floor {
                        *floor = left;
                    }
                    true
                }
                None => false,
            });
    }

    /// A copy of a server's data directory was put back while its process did not run. An error is
    /// a missing record, and its client.
    pub(crate) fn put_back(
        &mut self,
        host: usize,
        copied: Time,
        hosts: &[Host],
    ) -> Result<(), (String, Vec<u8>)> {
        self.drop_expired();
        self.promises.copy_put_back(host, when(copied));
        self.promises
            .would_restart(host, &mut |client| hosts[host].sure(client))
            .map_err(|missing| (missing.to_string(), missing.client))?;
        self.lower_floors(hosts);
        Ok(())
    }

    /// A server has started again. An error is a missing record, and its client.
    pub(crate) fn started(&mut self, host: &Host) -> Result<(), (String, Vec<u8>)> {
        self.drop_expired();
        self.promises
            .restarted(host.number, &mut |client| host.held(client))
            .map_err(|missing| (missing.to_string(), missing.client))
    }

    /// Checks a server that stopped cleanly: another server must have each of its records.
    pub(crate) fn leaves(&self, host: usize, hosts: &[Host]) -> Result<(), (String, Vec<u8>)> {
        for client in &self.clients {
            let own = self.lasting(&hosts[host], client);
            let others = hosts.iter().filter(|other| other.number != host);
            if greatest(client, others) < own {
                let own = own.as_ref().map_or(&b""[..], Line::bytes);
                return Err((
                    format!(
                        "host {host} has stopped, and no other server has {}",
                        Shown(own)
                    ),
                    client.clone(),
                ));
            }
        }
        Ok(())
    }

    /// Whether all servers hold the same records.
    pub(crate) fn is_equal(&self, hosts: &[Host]) -> bool {
        let Some((first, others)) = hosts.split_first() else {
            return true;
        };
        others.iter().all(|other| {
            (other.records() == first.records() || self.expired.is_on())
                && self
                    .clients
                    .iter()
                    .all(|client| self.lasting(other, client) == self.lasting(first, client))
        })
    }

    /// A difference between the servers as text, and the client of that record.
    pub(crate) fn difference(&self, hosts: &[Host]) -> Option<(String, Vec<u8>)> {
        let (first, others) = hosts.split_first()?;
        for other in others {
            for client in &self.clients {
                let (ours, theirs) = (self.lasting(first, client), self.lasting(other, client));
                if ours != theirs {
                    let text = format!(
                        "host {} holds {}, host {} holds {}",
                        first.number,
                        Shown(ours.as_ref().map_or(b"nothing", Line::bytes)),
                        other.number,
                        Shown(theirs.as_ref().map_or(b"nothing", Line::bytes)),
                    );
                    return Some((text, client.clone()));
                }
            }
        }
        None
    }

    /// Checks the records of a server: none may be below a floor, and each must come from a client.
    /// Returns the number of floors. An error is a wrong record, and its client.
    pub(crate) fn audit(
        &self,
        holder: &Host,
        hosts: &[Host],
        now: Time,
    ) -> Result<u64, (String, Vec<u8>)> {
        let expired = &self.expired;
        let lasting = || self.floors.iter().filter(|(_, it)| !expired.covers(it));
        for (client, floor) in lasting() {
            let held = holder.held(client);
            if held.as_ref() < Some(floor) {
                let text = format!(
                    "host {} holds {}, but {} was acknowledged",
                    holder.number,
                    Shown(held.as_ref().map_or(b"nothing", Line::bytes)),
                    Shown(floor.bytes()),
                );
                return Err((text, client.clone()));
            }
        }
        let mut held = 0;
        for client in &self.clients {
            let Some(record) = holder.held(client) else {
                continue;
            };
            held += 1;
            if holder
                .expired_before(now)
                .is_some_and(|time| record.is_before(time))
            {
                let text = format!(
                    "host {} holds {}, which has expired",
                    holder.number,
                    Shown(record.bytes())
                );
                return Err((text, client.clone()));
            }
            if record.is_tombstone() != holder.line(client).is_none() {
                let text = format!(
                    "a look-up at host {} and its table disagree about {}",
                    holder.number,
                    Shown(record.bytes())
                );
                return Err((text, client.clone()));
            }
            let line = record.bytes();
            if !self.was_told(line, hosts, now) {
                let text = format!(
                    "host {} holds {}, which no client has sent",
                    holder.number,
                    Shown(line)
                );
                return Err((text, client.clone()));
            }
        }
        if held != holder.records() {
            let text = format!(
                "host {} holds {} records, but only {held} of them are of known clients",
                holder.number,
                holder.records()
            );
            return Err((text, Vec::new()));
        }
        Ok(lasting().count() as u64)
    }

    /// Whether a client has sent it to the server in the line, when that server's clock showed the
    /// line's receipt.
    pub(crate) fn was_told(&self, line: &[u8], hosts: &[Host], now: Time) -> bool {
        let Some(fields) = Fields::of(line) else {
            return false;
        };
        let name = |host: &&Host| host.setup.settings.name.as_bytes() == fields.server;
        let (Some(host), Some(receipt)) = (hosts.iter().find(name), receipt(&fields)) else {
            return false;
        };
        if fields.location == b"-" {
            return self
                .forgotten
                .contains(&(host.number, fields.client.to_vec()));
        }
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

    /// The number of acknowledged updates.
    pub(crate) fn count(&self) -> u64 {
        self.acknowledged
    }
}

/// Virtual time in the form that the promises use.
pub(crate) fn when(time: Time) -> Duration {
    Duration::from_nanos(time.as_nanos())
}

/// The greatest line of a client that one of these servers holds, or will find on its disk.
fn greatest<'a>(client: &[u8], hosts: impl Iterator<Item = &'a Host>) -> Option<Line> {
    hosts.filter_map(|host| host.sure(client)).max()
}
