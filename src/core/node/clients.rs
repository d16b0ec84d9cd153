//! How a [`Node`] admits clients, asks Google Places for them, and gives them the answers.

use std::net::{IpAddr, SocketAddr};

use log::{debug, warn};

use super::session::{Effect, Session};
use super::{ConnId, Node, Phase, context};
use crate::core::base::clock::Now;
use crate::core::client::proxied::ClientSource;
use crate::core::client::{self, Client, PendingWhatsat};
use crate::core::places::answer::Outcome;
use crate::core::session::admission::Admission;
use crate::core::session::context::Context;
use crate::core::session::origins::origin;
use crate::core::session::protocol::Protocol;
use crate::core::session::tls::{REJECTED_ALERT, Tls, TlsSession};

/// A client whose session is about to be created: admitted or rejected, with or without TLS.
pub(super) struct NewClient {
    /// The bytes that a rejected client gets before the connection is closed. `None` if the client
    /// is admitted.
    rejection: Option<Vec<u8>>,
    /// The TLS session, if clients use TLS.
    pub(super) tls: Option<TlsSession>,
}

impl NewClient {
    /// Returns the session for the client.
    pub(super) fn client(&self, serial: u32, from: ClientSource) -> Client {
        match &self.rejection {
            None => Client::new(serial, from),
            Some(rejection) => Client::rejected(serial, from.client, rejection),
        }
    }
}

impl Node {
    /// Accepts a connection to the clients' port. If the address is that of a proxy in
    /// `clients.proxies`, the client is known only after the PROXY header: see
    /// [`crate::core::client::proxied`].
    pub(super) fn client_connected(&mut self, address: SocketAddr) -> Option<ConnId> {
        if self.phase.is_stopping() {
            return None;
        }
        if self.settings.proxies.contains(address.ip()) {
            return Some(self.proxy_connected(address));
        }
        let from = ClientSource {
            client: address,
            proxy: None,
        };
        let mut new_client = self.enter(from)?;
        let tls = new_client.tls.take();
        let id = self.admit(tls, |id: ConnId| {
            Session::Client(new_client.client(id.serial(), from))
        });
        if self.phase == Phase::Draining {
            self.drain.add(id);
        }
        Some(id)
    }

    /// Decides whether a client from this source is admitted. Returns `None` if the connection is
    /// closed without an answer.
    pub(super) fn enter(&mut self, from: ClientSource) -> Option<NewClient> {
        let ip = from.client.ip();
        match self.admission.enter(ip, &self.settings.limits) {
            Admission::Admit => {}
            Admission::Reject(reason) => {
                self.log_refusal(from, &reason);
                // With TLS, a rejected client gets an unencrypted alert, because a handshake would
                // cost too much.
                let rejection = match self.settings.tls.clients {
                    Some(_) => REJECTED_ALERT.to_vec(),
                    None => format!("? {reason}\n").into_bytes(),
                };
                return Some(NewClient {
                    rejection: Some(rejection),
                    tls: None,
                });
            }
            Admission::Drop(reason) => {
                self.log_refusal(from, &reason);
                return None;
            }
        }
        let tls = match &self.settings.tls.clients {
            None => None,
            Some(config) => match Tls::server(config.clone()) {
                Ok(tls) => Some(TlsSession::new(
                    tls.with_input_limits(&self.settings.limits),
                )),
                Err(error) => {
                    warn!("client {from}: refused: {error}");
                    self.admission.leave(ip);
                    return None;
                }
            },
        };
        Some(NewClient {
            rejection: None,
            tls,
        })
    }

    fn log_refusal(&mut self, from: ClientSource, reason: &str) {
        self.tally.counters.refused_by_address = self.admission.refused_by_address();
        let refused = self.admission.refused();
        if refused.is_power_of_two() {
            warn!("client {from}: refused: {reason}; {refused} so far");
        } else {
            debug!("client {from}: refused: {reason}");
        }
    }

    /// Gives a client the answer to its question, and runs the client's next commands.
    pub(super) fn deliver_answer(&mut self, id: ConnId, outcome: &mut Outcome, now: Now) {
        self.on_client(id, now, |client, context| {
            client.resume(outcome, context);
            client.resume_input(context)
        });
        self.mark_dirty(id);
    }

    /// Asks Places the question of a client. If no call can begin, the client gets an error at
    /// once, and the client's next commands run.
    pub(super) fn ask_places(&mut self, id: ConnId, asked: PendingWhatsat, now: Now) {
        let mut next = Some(asked);
        while let Some(asked) = next.take() {
            let slot = self.sessions.get(id);
            let Some(client) = slot.and_then(|slot| slot.session.client()) else {
                return;
            };
            let origin = origin(client.address().ip());
            let call = self.ask(&asked.question, id, origin, now);
            let Some(slot) = self.sessions.get_mut(id) else {
                return;
            };
            let Session::Client(client) = &mut slot.session else {
                return;
            };
            match call {
                Ok(call) => client.suspend(call, asked),
                Err(reason) => {
                    let mut outcome = Outcome::new(self.settings.places.api, Err(reason));
                    let tls = slot.tls.as_deref();
                    let context = &mut context!(self, tls, now);
                    client.answer_now(&asked, &mut outcome, context);
                    match client.resume_input(context) {
                        Some(client::Effect::AskPlaces(asked)) => next = Some(asked),
                        Some(effect @ client::Effect::Lost { .. }) => {
                            return self.apply(id, effect.into(), now);
                        }
                        None => {}
                    }
                }
            }
        }
    }

    fn on_client(
        &mut self,
        id: ConnId,
        now: Now,
        event: impl FnOnce(&mut Client, &mut Context<'_>) -> Option<client::Effect>,
    ) {
        self.on_session(id, now, |session, context| {
            event(session.client_mut()?, context).map(Effect::from)
        });
    }

    /// Updates the number of clients after the connection of a client was closed. If no client is
    /// left, a drain ends. If the server is stopping and no client is left, also marks all
    /// connections dirty, and logs how many lines were omitted.
    pub(super) fn client_lost(&mut self, address: IpAddr, was_rejected: bool) {
        match was_rejected {
            true => self.admission.leave_rejected(),
            false => self.admission.leave(address),
        }
        if self.admission.clients() > 0 {
            return;
        }
        match self.phase {
            Phase::Running => {}
            Phase::Draining => self.end_drain_soon(),
            Phase::Stopping | Phase::Overdue => {
                self.mark_all_dirty(); // links that have unsent records send them now
                self.tally.log_budget.log_left_out(&self.settings.limits);
            }
        }
    }
}
