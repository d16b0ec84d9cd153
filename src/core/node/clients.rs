//! What a [`Node`] does for its clients.

use std::net::{IpAddr, SocketAddr};

use log::{debug, warn};

use super::session::{Effect, Session};
use super::{ConnId, Node, Phase, context};
use crate::core::base::clock::Now;
use crate::core::client::proxied::ClientSource;
use crate::core::client::{self, Asked, Client};
use crate::core::places::answer::Outcome;
use crate::core::session::admission::Admission;
use crate::core::session::context::Context;
use crate::core::session::protocol::Protocol;
use crate::core::session::tls::{NOT_LET_IN, Tls, TlsSession};

/// How a client comes in.
pub(super) struct Entry {
    /// The last words to one that may not; it hears nothing else.
    refused: Option<Vec<u8>>,
    /// TLS, where that is spoken.
    pub(super) secure: Option<TlsSession>,
}

impl Entry {
    /// The session of a client that comes in like this.
    pub(super) fn client(&self, serial: u32, from: ClientSource) -> Client {
        match &self.refused {
            None => Client::new(serial, from),
            Some(last_words) => Client::rejected(serial, from.client, last_words),
        }
    }
}

impl Node {
    /// If a proxy is listed with that address, which client it is for is known when its header has
    /// come: see [`crate::core::client::proxied`].
    pub(super) fn client_connected(&mut self, address: SocketAddr) -> Option<ConnId> {
        if self.phase != Phase::Running {
            return None;
        }
        if self.settings.proxies.contains(address.ip()) {
            return Some(self.proxy_connected(address));
        }
        let from = ClientSource {
            client: address,
            proxy: None,
        };
        let mut entry = self.enter(from)?;
        let secure = entry.secure.take();
        Some(self.admit(secure, |id: ConnId| {
            Session::Client(entry.client(id.serial(), from))
        }))
    }

    /// Whether a client from there may come in. `None` if it is closed without a word.
    pub(super) fn enter(&mut self, from: ClientSource) -> Option<Entry> {
        let ip = from.client.ip();
        match self.admission.enter(ip, &self.settings.limits) {
            Admission::Admit => {}
            Admission::Reject(reason) => {
                self.tell_refusal(from, &reason);
                // A handshake is too much for that; an alert goes before it.
                let last_words = match self.settings.tls.clients {
                    Some(_) => NOT_LET_IN.to_vec(),
                    None => format!("? {reason}\n").into_bytes(),
                };
                return Some(Entry {
                    refused: Some(last_words),
                    secure: None,
                });
            }
            Admission::Drop(reason) => {
                self.tell_refusal(from, &reason);
                return None;
            }
        }
        let secure = match &self.settings.tls.clients {
            None => None,
            Some(config) => match Tls::server(config.clone()) {
                Ok(tls) => Some(TlsSession::new(tls.bounded(&self.settings.limits))),
                Err(error) => {
                    warn!("client {from}: refused: {error}");
                    self.admission.leave(ip);
                    return None;
                }
            },
        };
        Some(Entry {
            refused: None,
            secure,
        })
    }

    fn tell_refusal(&self, from: ClientSource, reason: &str) {
        let refused = self.admission.refused();
        if refused.is_power_of_two() {
            warn!("client {from}: refused: {reason}; {refused} so far");
        } else {
            debug!("client {from}: refused: {reason}");
        }
    }

    /// The call that it waits for is answered.
    pub(super) fn client_answered(&mut self, id: ConnId, outcome: &mut Outcome, now: Now) {
        self.on_client(id, now, |client, context| {
            client.resume(outcome, context.is_stopping);
            client.go_on(context)
        });
        self.mark_dirty(id);
    }

    /// Asks what the client wants asked. If that fails, it is told so, and its next commands
    /// follow.
    pub(super) fn ask_for(&mut self, id: ConnId, asked: Asked, now: Now) {
        let mut next = Some(asked);
        while let Some(asked) = next.take() {
            let call = self.ask(&asked.question, id, now);
            let Some(slot) = self.sessions.get_mut(id) else {
                return;
            };
            let Session::Client(client) = &mut slot.session else {
                return;
            };
            match call {
                Ok(call) => client.suspend(call, asked),
                Err(reason) => {
                    let api = self.settings.places.api;
                    client.answer_now(&asked, &mut Outcome::new(api, Err(reason)));
                    let tls = slot.secure.as_deref();
                    match client.go_on(&mut context!(self, tls, now)) {
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
        self.on_session(id, now, |session, context| match session {
            Session::Client(client) => event(client, context).map(Effect::from),
            Session::Proxied(_) | Session::Link(_) | Session::Exchange(_) => None,
        });
    }

    /// A client is gone.
    pub(super) fn client_lost(&mut self, address: IpAddr, was_rejected: bool) {
        match was_rejected {
            true => self.admission.leave_rejected(),
            false => self.admission.leave(address),
        }
        if self.admission.clients() == 0 && self.phase != Phase::Running {
            self.mark_all_dirty(); // the links waited for the last one
        }
    }
}
