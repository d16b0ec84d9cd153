//! What a [`Node`] does for its clients.

use std::net::SocketAddr;

use log::{debug, warn};

use super::journaling::Journal;
use super::{ConnId, Node, Phase, Session};
use crate::core::admission::Verdict;
use crate::core::client::{Asked, Client, World};
use crate::core::clock::Now;
use crate::core::places::answer::Outcome;
use crate::core::tls::{NOT_LET_IN, Secure, Tls};

impl Node {
    pub(super) fn client_connected(&mut self, address: SocketAddr) -> Option<ConnId> {
        if self.phase != Phase::Running {
            return None;
        }
        let verdict = self.admission.enter(address.ip(), &self.settings.limits);
        match verdict {
            Verdict::Welcome => {}
            Verdict::TurnedAway(reason) => {
                self.tell_refusal(address, &reason);
                // A handshake is too much for that; an alert goes before it.
                let last_words = match self.settings.tls.clients {
                    Some(_) => NOT_LET_IN.to_vec(),
                    None => format!("? {reason}\n").into_bytes(),
                };
                let session = |id: ConnId| {
                    Session::Client(Client::turned_away(id.serial(), address, &last_words))
                };
                return Some(self.admit(None, session));
            }
            Verdict::Shut(reason) => {
                self.tell_refusal(address, &reason);
                return None;
            }
        }
        let secure = match &self.settings.tls.clients {
            None => None,
            Some(config) => match Tls::server(config.clone()) {
                Ok(tls) => Some(Secure::new(tls.bounded(&self.settings.limits))),
                Err(error) => {
                    warn!("client {address}: refused: {error}");
                    self.admission.leave(address.ip());
                    return None;
                }
            },
        };
        let session = |id: ConnId| Session::Client(Client::connection_made(id.serial(), address));
        Some(self.admit(secure, session))
    }

    fn tell_refusal(&self, address: SocketAddr, reason: &str) {
        let refused = self.admission.refused();
        if refused.is_power_of_two() {
            warn!("client {address}: refused: {reason}; {refused} so far");
        } else {
            debug!("client {address}: refused: {reason}");
        }
    }

    pub(super) fn client_sent(&mut self, id: ConnId, data: &[u8], now: Now) {
        let asked = self.with_client(id, now, |client, world| client.data_received(data, world));
        self.client_goes_on(id, asked, now);
    }

    pub(super) fn client_ended(&mut self, id: ConnId, now: Now) {
        let asked = self.with_client(id, now, Client::eof_received);
        self.client_goes_on(id, asked, now);
    }

    pub(super) fn client_cut_off(&mut self, id: ConnId, now: Now) {
        let asked = self.with_client(id, now, Client::cut_off);
        self.client_goes_on(id, asked, now);
    }

    pub(super) fn client_took(&mut self, id: ConnId, taken: usize, now: Now) {
        let asked = self.with_client(id, now, |client, world| {
            client.output_sent(taken, now.time);
            if client.can_go_on(&world.settings.limits) {
                client.go_on(world)
            } else {
                None
            }
        });
        self.client_goes_on(id, asked, now);
    }

    /// The call that it waits for is answered.
    pub(super) fn client_answered(&mut self, id: ConnId, outcome: &mut Outcome, now: Now) {
        let asked = self.with_client(id, now, |client, world| {
            client.resume(outcome);
            client.go_on(world)
        });
        self.client_goes_on(id, asked, now);
        self.mark_dirty(id);
    }

    /// The journal has room for what it wants to say.
    pub(super) fn client_has_room(&mut self, id: ConnId, now: Now) {
        let asked = self.with_client(id, now, Client::go_on);
        self.client_goes_on(id, asked, now);
    }

    /// Asks what the client wants asked; if the answer is there at once, its next commands follow.
    fn client_goes_on(&mut self, id: ConnId, mut asked: Option<Asked>, now: Now) {
        while let Some(wanted) = asked {
            let call = self.ask(&wanted.question, id, now);
            asked = self.with_client(id, now, |client, world| match call {
                Ok(call) => {
                    client.suspend(call, wanted);
                    None
                }
                Err(reason) => {
                    client.answer_now(
                        &wanted,
                        &mut Outcome::new(world.settings.places.api, Err(reason)),
                    );
                    client.go_on(world)
                }
            });
        }
    }

    pub(super) fn client_lost(&mut self, id: ConnId, client: &Client, why: Option<&str>, now: Now) {
        if client.is_turned_away() {
            self.admission.leave_turned_away();
        } else {
            self.admission.leave(client.address().ip());
        }
        if self.admission.clients() == 0 && self.phase != Phase::Running {
            self.mark_all_dirty(); // the links waited for the last one
        }
        client.connection_lost(why);
        if let Some(call) = client.awaits() {
            self.asker_lost(call, id, now);
        }
    }

    fn with_client<T: Default>(
        &mut self,
        id: ConnId,
        now: Now,
        act: impl FnOnce(&mut Client, &mut World<'_>) -> T,
    ) -> T {
        match self.sessions.get_mut(id).map(|slot| &mut slot.session) {
            Some(Session::Client(client)) => act(
                client,
                &mut World {
                    records: &mut self.records,
                    durability: self.journal.as_mut().map(Journal::durability),
                    tally: &mut self.tally,
                    settings: &self.settings,
                    now,
                },
            ),
            Some(Session::Link(_) | Session::Exchange(_)) | None => T::default(),
        }
    }
}
