//! The handshake, from `HERD` to `LIFE`: the names, the proofs, and the positions in both feeds.

use log::{info, warn};

use super::acknowledgement::Acknowledgement;
use super::feed::CatchUp;
use super::{
    Cause, Effect, Identity, Link, OPERATOR, PeerLabel, State, VERSION, excerpt, parse_number,
};
use crate::core::base::boot_id::BootId;
use crate::core::base::counted::Counted;
use crate::core::base::hex::{Hex, unhex};
use crate::core::base::settings::{Secret, Secrets};
use crate::core::link::proof::{Nonce, Parties, Side};
use crate::core::session::context::Context;
use crate::core::session::herd::{ClockChange, LinkError, NeighbourId};
use crate::core::session::tls::{TlsSession, is_valid_for};

/// Which part of our feed a neighbour has not received.
enum Resume {
    /// All changes after the change with this number.
    After(u64),
    /// The whole feed, because we do not know which changes the neighbour has.
    All,
    /// Unknown. The neighbour has a position that no `SYNC` of ours has sent, so our history was
    /// rolled back.
    RolledBack,
}

impl Resume {
    /// Returns which part of our feed `neighbour` has not received. The neighbour's `LIFE` names
    /// `boot`, a life of ours, and `position`, up to which the neighbour has the changes of that
    /// life.
    fn of(neighbour: NeighbourId, boot: BootId, position: u64, context: &Context<'_>) -> Resume {
        if boot == context.boot {
            return match position <= context.herd.get(neighbour).synced() {
                true => Resume::After(position),
                false => Resume::RolledBack,
            };
        }
        if context.herd.was_rolled_back() {
            return Resume::All;
        }
        let durability = context.durability.as_deref();
        match durability.and_then(|durability| durability.resume_position(boot, position)) {
            // According to our journal, the life `boot` ended before `position`.
            Some(after) if after < position => Resume::RolledBack,
            // Our journal can be an older copy, without the last part of that life. So the feed is
            // sent from the last `SYNC` in the journal, or from an earlier position.
            Some(after) => {
                let synced = context.herd.get(neighbour).journaled_synced();
                Resume::After(after.min(synced).min(context.records.last_seq()))
            }
            None => Resume::All,
        }
    }
}

/// Compares `wall`, the time that a neighbour's wall clock shows, with our wall clock. Logs when
/// the clocks begin to differ, and when they agree again.
pub(super) fn compare_clocks(neighbour: NeighbourId, wall: u64, context: &mut Context<'_>) {
    let entry = context.herd.get_mut(neighbour);
    let change = entry.compare_clocks(wall, context.now.wall);
    let name = entry.name();
    match change {
        Some(ClockChange::Differs(nanos)) => {
            let than = if nanos > 0 { "ahead of" } else { "behind" };
            warn!(
                "neighbour {name}: its clock is {} s {than} ours; both should follow a time server",
                nanos.unsigned_abs() / 1_000_000_000
            );
        }
        Some(ClockChange::Agrees) => info!("neighbour {name}: its clock agrees with ours again"),
        None => {}
    }
}

/// Returns the reason why a proof is wrong. If both sides have a secret, the reason says how many
/// secrets this server has: two while the herd's secret is being changed, otherwise one.
fn wrong_proof(parties: &Parties<'_>, sender: Side, proof: &[u8], secrets: &Secrets) -> LinkError {
    let (name, _) = match sender {
        Side::Dialler => parties.dialler,
        Side::Acceptor => parties.acceptor,
    };
    let has_no_secret = parties.is_valid_proof(sender, &Secret::default(), proof);
    let name = name.to_owned();
    match (has_no_secret, secrets.is_none()) {
        (true, _) => LinkError::NoPeerSecret(name),
        (false, true) => LinkError::NoOwnSecret(name),
        (false, false) => LinkError::WrongSecret {
            name,
            count: secrets.count(),
        },
    }
}

impl Link {
    /// Sends our `HERD`: our name, and the name of the server that we expect.
    pub(super) fn greet(&mut self, from: &str, to: &str) {
        let nonce = self.nonce;
        self.send_line(format_args!("HERD {VERSION} {from} {to} {}", Hex(&nonce)));
    }

    /// Handles the other side's `HERD`, in which it claims a name.
    pub(super) fn herd_received(
        &mut self,
        from: &[u8],
        to: &[u8],
        nonce: &[u8],
        context: &Context<'_>,
    ) -> Result<(), LinkError> {
        if to != context.settings.name.as_bytes() {
            return Err(LinkError::WrongReceiver {
                name: excerpt(to).to_string(),
                own_name: context.settings.name.clone(),
            });
        }
        let their_nonce = unhex(nonce).ok_or("a nonce that is not 32 hexadecimal digits")?;
        // When we dial, TLS has already checked that the certificate is for the neighbour's name.
        if self.side == Side::Acceptor
            && let Some(certificate) = context.tls.and_then(TlsSession::certificate)
            && !std::str::from_utf8(from).is_ok_and(|name| is_valid_for(certificate, name))
        {
            return Err(LinkError::WrongCertificate(excerpt(from).to_string()));
        }
        if self.side == Side::Acceptor && from == OPERATOR.as_bytes() {
            self.identity = Identity::Claimed;
            self.greet(&context.settings.name, OPERATOR);
            self.enter(Cause::Greeted, State::Proving { their_nonce });
            return Ok(());
        }
        let name = || excerpt(from).to_string();
        let own_name = || context.settings.name.clone();
        let neighbour = context
            .herd
            .find(from)
            .ok_or_else(|| LinkError::NoNeighbour {
                name: name(),
                own_name: own_name(),
            })?;
        match self.side {
            Side::Dialler if self.neighbour != Some(neighbour) => {
                return Err(LinkError::WrongServer(name()));
            }
            Side::Acceptor if context.herd.get(neighbour).we_dial() => {
                return Err(LinkError::WeDial {
                    name: name(),
                    own_name: own_name(),
                });
            }
            Side::Acceptor if context.herd.get(neighbour).is_rejected(context.now.time) => {
                return Err(LinkError::Rejected(name()));
            }
            Side::Dialler => {
                let proof = self
                    .parties(&their_nonce, context)
                    .prove(self.side, context.settings.secrets.primary());
                self.send_line(format_args!("PROOF {proof}"));
            }
            Side::Acceptor => {
                self.neighbour = Some(neighbour);
                let name = context.herd.get(neighbour).name();
                self.greet(&context.settings.name, name);
            }
        }
        self.identity = Identity::Claimed;
        self.enter(Cause::Greeted, State::Proving { their_nonce });
        Ok(())
    }

    /// Returns the names and the nonces of both ends.
    fn parties<'a>(&'a self, their_nonce: &'a Nonce, context: &'a Context<'_>) -> Parties<'a> {
        let their_name = self
            .neighbour
            .map_or(OPERATOR, |neighbour| context.herd.get(neighbour).name());
        let (own, other) = (
            (&*context.settings.name, &self.nonce),
            (their_name, their_nonce),
        );
        match self.side {
            Side::Dialler => Parties {
                dialler: own,
                acceptor: other,
            },
            Side::Acceptor => Parties {
                dialler: other,
                acceptor: own,
            },
        }
    }

    /// Handles the other side's `PROOF` of the name that it claimed.
    pub(super) fn proof_received(
        &mut self,
        proof: &[u8],
        their_nonce: &Nonce,
        context: &mut Context<'_>,
    ) -> Result<(), LinkError> {
        let parties = self.parties(their_nonce, context);
        let other = self.side.other();
        let mut accepted = (1..).zip(context.settings.secrets.accepted());
        let Some((secret_number, secret)) =
            accepted.find(|(_, secret)| parties.is_valid_proof(other, secret, proof))
        else {
            return Err(wrong_proof(
                &parties,
                other,
                proof,
                &context.settings.secrets,
            ));
        };
        // Our proof uses the secret of the other side's proof, because the other side may not have
        // our other secret.
        let own_proof = parties.prove(self.side, secret);
        self.identity = Identity::Proven;
        if self.side == Side::Acceptor {
            let limits = &context.settings.limits;
            context.unproven.remove_proven(self.id, limits);
            self.send_line(format_args!("PROOF {own_proof}"));
        }
        let Some(neighbour) = self.neighbour else {
            return self.send_status(secret_number, context);
        };
        let (boot, wall) = (context.boot, context.now.wall);
        self.resume_position = context.herd.get(neighbour).received();
        match self.resume_position {
            Some(received) => self.send_line(format_args!(
                "LIFE {boot} {wall} {} {}",
                received.boot, received.position
            )),
            None => self.send_line(format_args!("LIFE {boot} {wall} - 0")),
        }
        self.enter(Cause::Proven, State::Starting);
        Ok(())
    }

    /// Handles the other side's `LIFE`. From now on, both sides send records.
    pub(super) fn life_received(
        &mut self,
        [boot, wall, own_boot, position]: [&[u8]; 4],
        context: &mut Context<'_>,
    ) -> Result<Option<Effect>, LinkError> {
        let neighbour = self.neighbour.ok_or("a LIFE of an operator")?;
        let boot = BootId::parse(boot).ok_or("a LIFE without a boot id")?;
        let wall = parse_number(wall).ok_or("a LIFE without a clock")?;
        let position = parse_number(position).ok_or("a LIFE without a position")?;
        let had_another_life = context.herd.get(neighbour).had_another_life(boot);
        let resume = match BootId::parse(own_boot) {
            Some(own) => Resume::of(neighbour, own, position, context),
            None => Resume::All,
        };
        let from = match resume {
            Resume::After(position) => position,
            Resume::All => 0,
            Resume::RolledBack => {
                warn!(
                    "{}: it has heard {position} changes of a life of ours that never told it so many: this server's history was rolled back, by an older copy of its data directory that was put back or by a snapshot of its machine; it begins a new life, sends everything to every neighbour, and asks for everything",
                    PeerLabel(self, context.herd)
                );
                self.end(LinkError::RolledBack, context.now.time);
                return Ok(Some(Effect::RolledBack));
            }
        };
        let origin = context.herd.origin_of_life(neighbour, boot);
        let reader = context.records.open_reader(from);
        self.reader = Some(reader);
        self.next_sync = from;
        self.last_sync = from;
        self.enter(
            Cause::LifeReceived,
            State::Linked {
                reader,
                origin,
                boot,
            },
        );
        if let Some(received) = self.resume_position
            && received.boot == boot
        {
            self.acknowledgement = Acknowledgement::after_life(received.position);
        }
        self.last_clock = context.now.time;
        self.last_batch = context.now.time;
        compare_clocks(neighbour, wall, context);

        let name = context.herd.get(neighbour).name();
        let behind = context.records.last_seq() - from;
        self.catch_up = (behind > 0).then(|| CatchUp {
            until: context.records.last_seq(),
            since: context.now.time,
            records: 0,
            is_read: false,
        });
        let after = match context.herd.get(neighbour).failures() {
            0 => String::new(),
            count => format!(", after {} that failed", Counted(count, "attempt")),
        };
        let is_over_tls = context.tls.is_some();
        let over = if is_over_tls { "over TLS" } else { "plain" };
        match resume {
            Resume::After(_) => info!(
                "{}: linked, {} behind{after}, {over}",
                PeerLabel(self, context.herd),
                Counted(behind, "change")
            ),
            Resume::All | Resume::RolledBack => info!(
                "{}: linked, to be sent all {}{after}, {over}",
                PeerLabel(self, context.herd),
                Counted(context.records.len() as u64, "record")
            ),
        }
        // When a neighbour's process restarts, its old connection is normally closed before it
        // connects again. So if the old link still exists, it is likely that two processes use the
        // same name.
        let is_linked = context.herd.get(neighbour).link().is_some();
        if is_linked && had_another_life {
            warn!(
                "neighbour {name}: another process of that name was linked until now; does {name} run twice? This one is at {}",
                self.address
            );
        }
        let entry = context.herd.get_mut(neighbour);
        if entry.refused_records() > 0 {
            self.resend_end = Some(entry.sync_after_refusal(boot));
        }
        let replaced = entry.set_linked(self.id, is_over_tls, from, context.now.time);
        Ok(replaced.map(Effect::Replaces))
    }
}
