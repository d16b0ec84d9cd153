//! What a [`Node`] does for its clients.

use std::net::SocketAddr;

use log::{debug, warn};

use super::journaling::Journal;
use super::{ConnId, Node, Phase, Session};
use crate::core::base::clock::Now;
use crate::core::client::proxied::ClientSource;
use crate::core::client::{Asked, Client, Context};
use crate::core::places::answer::Outcome;
use crate::core::session::admission::Admission;
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
            None => Client::connection_made(serial, from),
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

    pub(super) fn client_sent(&mut self, id: ConnId, data: &[u8], now: Now) {
        let asked = self.with_client(id, now, |client, context| {
            client.data_received(data, context)
        });
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
        let asked = self.with_client(id, now, |client, context| {
            client.output_sent(taken, now.time);
            if client.can_go_on(&context.settings.limits) {
                client.go_on(context)
            } else {
                None
            }
        });
        self.client_goes_on(id, asked, now);
    }

    /// The call that it waits for is answered.
    pub(super) fn client_answered(&mut self, id: ConnId, outcome: &mut Outcome, now: Now) {
        let asked = self.with_client(id, now, |client, context| {
            client.resume(outcome);
            client.go_on(context)
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
            asked = self.with_client(id, now, |client, context| match call {
                Ok(call) => {
                    client.suspend(call, wanted);
                    None
                }
                Err(reason) => {
                    client.answer_now(
                        &wanted,
                        &mut Outcome::new(context.settings.places.api, Err(reason)),
                    );
                    client.go_on(context)
                }
            });
        }
    }

    pub(super) fn client_lost(&mut self, id: ConnId, client: &Client, why: Option<&str>, now: Now) {
        if client.is_rejected() {
            self.admission.leave_rejected();
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
        act: impl FnOnce(&mut Client, &mut Context<'_>) -> T,
    ) -> T {
        match self.sessions.get_mut(id).map(|slot| &mut slot.session) {
            Some(Session::Client(client)) => act(
                client,
                &mut Context {
                    records: &mut self.records,
                    durability: self.journal.as_mut().map(Journal::durability),
                    tally: &mut self.tally,
                    settings: &self.settings,
                    now,
                },
            ),
            Some(Session::Proxied(_) | Session::Link(_) | Session::Exchange(_)) | None => {
                T::default()
            }
        }
    }
}
