//! From `HERD` to `LIFE`: who is at the two ends, how far each has got with the other, and what an operator is told instead.

use log::{info, warn};

use super::feed::CatchUp;
use super::{Broken, Link, OPERATOR, State, Who, World, number, shown};
use crate::core::herd::{BootId, Dial};
use crate::core::proof::{Hex, Nonce, Parties, Side, unhex};
use crate::core::tls::is_for;

/// A wall clock that is further off than this is told in the log.
const CLOCK_TOLERANCE_NS: u64 = 1_000_000_000;

impl World<'_> {
    /// From which change on a neighbour lacks something that says it knows our life `boot` up to `position`; `None` if that
    /// life is not known.
    fn resume(&self, boot: BootId, position: u64) -> Option<u64> {
        let last_seq = self.records.last_seq();
        if boot == self.boot {
            return (position <= last_seq).then_some(position);
        }
        Some(
            self.durability
                .as_ref()?
                .resume(boot, position)?
                .min(last_seq),
        )
    }
}

impl Link {
    /// Says who we are, and whom we mean.
    pub(super) fn greet(&mut self, from: &str, to: &str) {
        let nonce = self.nonce;
        self.say(format_args!("HERD 1 {from} {to} {}", Hex(&nonce)));
    }

    /// The other side says who it is.
    pub(super) fn herd(
        &mut self,
        from: &[u8],
        to: &[u8],
        nonce: &[u8],
        world: &World<'_>,
    ) -> Result<(), Broken> {
        if to != world.settings.name.as_bytes() {
            return Err(format!(
                "it looks for {}, this is {}",
                shown(to),
                world.settings.name
            ));
        }
        let their_nonce = unhex(nonce).ok_or("a nonce that is not 32 hexadecimal digits")?;
        // Whom we dialled, TLS has made sure of.
        if self.side == Side::Acceptor
            && let Some(certificate) = world.certificate
            && !std::str::from_utf8(from).is_ok_and(|name| is_for(certificate, name))
        {
            return Err(format!(
                "its certificate is for another name than {}",
                shown(from)
            ));
        }
        if self.side == Side::Acceptor && from == OPERATOR.as_bytes() {
            self.is_operator = true;
            self.greet(&world.settings.name, OPERATOR);
            self.state = State::Proving { their_nonce };
            return Ok(());
        }
        let neighbour = world
            .herd
            .find(from)
            .ok_or_else(|| format!("{} is not linked with {}", shown(from), world.settings.name))?;
        match self.side {
            Side::Dialler if self.neighbour != Some(neighbour) => {
                return Err(format!("{} answered instead", shown(from)));
            }
            Side::Acceptor if world.herd.neighbours[neighbour].settings.we_dial => {
                return Err(format!(
                    "it is {} that dials {}",
                    world.settings.name,
                    shown(from)
                ));
            }
            Side::Acceptor if world.now.time < world.herd.neighbours[neighbour].kept_out_until => {
                return Err(format!(
                    "{} broke the protocol just now, and has to wait",
                    shown(from)
                ));
            }
            Side::Dialler => {
                let proof = self
                    .parties(&their_nonce, world)
                    .prove(self.side, &world.settings.secret);
                self.say(format_args!("PROOF {proof}"));
            }
            Side::Acceptor => {
                self.neighbour = Some(neighbour);
                self.greet(
                    &world.settings.name,
                    &world.herd.neighbours[neighbour].settings.name,
                );
            }
        }
        self.state = State::Proving { their_nonce };
        Ok(())
    }

    /// Who is at the two ends.
    fn parties<'a>(&'a self, their_nonce: &'a Nonce, world: &'a World<'_>) -> Parties<'a> {
        let their_name = self.neighbour.map_or(OPERATOR, |neighbour| {
            &world.herd.neighbours[neighbour].settings.name
        });
        let (us, them) = (
            (&*world.settings.name, &self.nonce),
            (their_name, their_nonce),
        );
        match self.side {
            Side::Dialler => Parties {
                dialler: us,
                acceptor: them,
            },
            Side::Acceptor => Parties {
                dialler: them,
                acceptor: us,
            },
        }
    }

    /// The other side proves it.
    pub(super) fn proof(
        &mut self,
        proof: &[u8],
        their_nonce: &Nonce,
        world: &mut World<'_>,
    ) -> Result<(), Broken> {
        let secret = &world.settings.secret;
        let parties = self.parties(their_nonce, world);
        if !parties.is_proven(self.side.other(), secret, proof) {
            return Err("a wrong proof: do both servers have the same herd secret?".to_owned());
        }
        let own_proof = parties.prove(self.side, secret);
        self.is_proven = true;
        if self.side == Side::Acceptor {
            self.say(format_args!("PROOF {own_proof}"));
        }
        let Some(neighbour) = self.neighbour else {
            return self.status(world);
        };
        let (boot, wall) = (world.boot, world.now.wall);
        match world.herd.neighbours[neighbour].heard {
            Some(heard) => self.say(format_args!(
                "LIFE {boot} {wall} {} {}",
                heard.boot, heard.position
            )),
            None => self.say(format_args!("LIFE {boot} {wall} - 0")),
        }
        self.state = State::Starting;
        Ok(())
    }

    /// Tells an operator how the server stands; that is all an operator is told.
    fn status(&mut self, world: &World<'_>) -> Result<(), Broken> {
        let World {
            boot,
            records,
            clients,
            herd,
            ..
        } = world;
        let mut line = format!(
            "STATUS {boot} {} {:016x} {clients}",
            records.len(),
            records.digest()
        );
        for neighbour in herd
            .neighbours
            .iter()
            .filter(|neighbour| neighbour.link.is_some())
        {
            line.push(' ');
            line.push_str(&neighbour.settings.name);
        }
        self.say(format_args!("{line}"));
        self.close("told how the server stands".to_owned(), world.now.time);
        Ok(())
    }

    /// The other side tells of its life, and of what it knows of ours: from here on records flow.
    pub(super) fn life(
        &mut self,
        [boot, wall, own_boot, position]: [&[u8]; 4],
        world: &mut World<'_>,
    ) -> Result<(), Broken> {
        let neighbour = self.neighbour.ok_or("a life of nobody")?;
        let boot = BootId::parse(boot).ok_or("a LIFE without a boot id")?;
        let wall = number(wall).ok_or("a LIFE without a clock")?;
        let position = number(position).ok_or("a LIFE without a position")?;
        let was_another = world.herd.neighbours[neighbour].was_another(boot);
        let teacher = world.herd.lives(neighbour, boot);
        let resumed = BootId::parse(own_boot).and_then(|boot| world.resume(boot, position));
        let from = resumed.unwrap_or(0);
        let reader = world.records.open_reader(from);
        self.reader = Some(reader);
        self.confirmed = from;
        self.state = State::Linked {
            reader,
            teacher,
            boot,
        };

        let name = &world.herd.neighbours[neighbour].settings.name;
        let behind = world.records.last_seq() - from;
        self.catch_up = (behind > 0).then(|| CatchUp {
            until: world.records.last_seq(),
            since: world.now.time,
            records: 0,
            is_said: false,
        });
        match resumed {
            Some(_) => info!("{}: linked, {behind} changes behind", Who(self, world.herd)),
            None => info!(
                "{}: linked, to be sent all {} records",
                Who(self, world.herd),
                world.records.len()
            ),
        }
        // A server that restarts has lost its old connection first; two that take each other's place are two.
        let is_linked = world.herd.neighbours[neighbour].link.is_some();
        if is_linked && was_another {
            warn!(
                "neighbour {name}: another process of that name was linked until now; does {name} run twice? This one is at {}",
                self.address
            );
        }
        let apart = wall.abs_diff(world.now.wall);
        if apart > CLOCK_TOLERANCE_NS {
            let seconds = apart / 1_000_000_000;
            let than = if wall > world.now.wall {
                "ahead of"
            } else {
                "behind"
            };
            warn!(
                "neighbour {name}: its clock is {seconds} s {than} ours; both should follow a time server"
            );
        }
        let entry = &mut world.herd.neighbours[neighbour];
        entry.dial = Dial::Nothing;
        entry.linked_since = world.now.time;
        entry.complaints.clear();
        self.replaced = entry.link.replace(self.id);
        Ok(())
    }
}
