//! Passes the bytes of a connection to its session, and the session's output back. TLS for all
//! kinds of session is here.
//!
//! ```text
//!   socket ─ ciphertext ─► TlsSession ─ plaintext ─► Session ─ effect ─► Node::apply
//!   socket ◄─ ciphertext ─ TlsSession ◄─ plaintext ─ Session
//! ```
//!
//! Without TLS, the bytes of the socket are plaintext.

use super::session::{Effect, Session};
use super::{ConnId, Node, Slot, context};
use crate::core::base::clock::Now;
use crate::core::client;
use crate::core::client::proxied;
use crate::core::link;
use crate::core::session::context::Context;
use crate::core::session::protocol::{Protocol, StreamEnd};
use crate::core::session::tls::{HANDSHAKE, TlsEnd, TlsError, TlsEvents, TlsSession};

impl Node {
    /// Passes an event to a session, and handles the session's effect at once.
    #[inline]
    pub(super) fn on_session(
        &mut self,
        id: ConnId,
        now: Now,
        event: impl FnOnce(&mut Session, &mut Context<'_>) -> Option<Effect>,
    ) {
        let Some(slot) = self.sessions.get_mut(id) else {
            return;
        };
        let tls = slot.tls.as_deref();
        let effect = event(&mut slot.session, &mut context!(self, tls, now));
        if let Some(effect) = effect {
            self.apply(id, effect, now);
        }
    }

    /// Handles the effect of a session. Sessions do not call each other: an event of one session
    /// acts on another only through the node.
    #[inline(never)]
    pub(super) fn apply(&mut self, id: ConnId, effect: Effect, now: Now) {
        match effect {
            Effect::Client(client::Effect::AskPlaces(asked)) => self.ask_places(id, asked, now),
            Effect::Client(client::Effect::Lost {
                address,
                was_rejected,
                call,
            }) => {
                self.client_lost(address, was_rejected);
                if let Some(call) = call {
                    self.asker_lost(call, id, now);
                }
            }
            Effect::Proxied(proxied::Effect::HeaderReceived { from, .. }) => {
                self.identified(id, from)
            }
            Effect::Proxied(proxied::Effect::Refused(refusal)) => self.refuse_proxied(id, refusal),
            Effect::Proxied(proxied::Effect::Lost { proxy, refusal }) => {
                if let Some(refusal) = refusal {
                    self.count_refusal(proxy, refusal);
                }
            }
            Effect::Link(link::Effect::Replaces(old)) => self.replace_link(old, now),
            Effect::Link(link::Effect::RolledBack) => self.begin_life(now),
            Effect::Link(link::Effect::Drain) => self.begin_drain(now),
            Effect::Link(link::Effect::Lost {
                neighbour,
                plaintext_retry,
            }) => self.dial_again(neighbour, plaintext_retry, now),
            Effect::Exchange(effect) => self.apply_exchange_effect(id, effect, now),
            Effect::Http(effect) => self.apply_http_effect(id, effect, now),
        }
    }

    /// A connection that we dialled is connected. If the connection uses TLS, the handshake begins
    /// now.
    pub(super) fn socket_connected(&mut self, id: ConnId, now: Now) {
        match self.tls_of_dialled(id, now) {
            Ok(Some(tls)) => {
                if let Some(slot) = self.sessions.get_mut(id) {
                    slot.tls = Some(Box::new(tls));
                }
            }
            Ok(None) => self.on_session(id, now, Session::connection_made),
            Err(error) => self.on_session(id, now, |it, context| it.tls_failed(&error, context)),
        }
    }

    /// Returns the TLS session for a socket that we dialled, or `None` if the connection is plain.
    fn tls_of_dialled(&mut self, id: ConnId, now: Now) -> Result<Option<TlsSession>, TlsError> {
        match self.session(id) {
            Some(session) if session.link().is_some() => self.tls_of_link(id, now),
            Some(session) if session.exchange().is_some() => self.tls_of_exchange(id, now),
            Some(_) | None => Ok(None), // the server dials no other kind
        }
    }

    pub(super) fn bytes_received(&mut self, id: ConnId, data: &[u8], now: Now) {
        if data.first() == Some(&HANDSHAKE) {
            self.accept_offered_tls(id, now);
        }
        let Some(slot) = self.sessions.get(id) else {
            return;
        };
        self.traffic.received[slot.session.kind()] += data.len() as u64;
        match slot.tls {
            Some(_) => self.ciphertext_received(id, data, now),
            None => self.plaintext_received(id, data, now),
        }
    }

    fn plaintext_received(&mut self, id: ConnId, data: &[u8], now: Now) {
        let Some(slot) = self.sessions.get_mut(id) else {
            return;
        };
        let tls = slot.tls.as_deref();
        let effect = slot
            .session
            .data_received(data, &mut context!(self, tls, now));
        let Some(effect) = effect else {
            return;
        };
        // Bytes after a proxy's header belong to the client.
        let rest = match effect {
            Effect::Proxied(proxied::Effect::HeaderReceived { header_bytes, .. }) => {
                &data[header_bytes..]
            }
            Effect::Proxied(proxied::Effect::Refused(_) | proxied::Effect::Lost { .. })
            | Effect::Client(_)
            | Effect::Link(_)
            | Effect::Exchange(_)
            | Effect::Http(_) => &[],
        };
        self.apply(id, effect, now);
        if !rest.is_empty() {
            // `bytes_received` counts these bytes again, as bytes of a client.
            self.traffic.received[Session::PROXY] -= rest.len() as u64;
            self.bytes_received(id, rest, now);
        }
    }

    fn ciphertext_received(&mut self, id: ConnId, data: &[u8], now: Now) {
        let Some(Slot { tls: Some(tls), .. }) = self.sessions.get_mut(id) else {
            return;
        };
        let mut plaintext = std::mem::take(&mut self.plaintext);
        plaintext.clear();
        let TlsEvents {
            handshake_done,
            peer_closed,
            has_failed,
        } = tls.data_received(data, &mut plaintext);
        if handshake_done {
            self.watch_link_certificate(id, now);
            self.on_session(id, now, Session::connection_made);
        }
        if !plaintext.is_empty() {
            self.plaintext_received(id, &plaintext, now);
        }
        if peer_closed {
            self.stream_ended(id, StreamEnd::Whole, now);
        }
        if has_failed {
            self.tls_failed(id, now);
        }
        self.plaintext = plaintext;
    }

    /// The socket's input has ended.
    pub(super) fn socket_ended(&mut self, id: ConnId, now: Now) {
        match self.sessions.get_mut(id).map(|slot| &mut slot.tls) {
            Some(Some(tls)) => match tls.eof_received() {
                TlsEnd::Known => {}
                TlsEnd::Ended(end) => self.stream_ended(id, end, now),
                TlsEnd::Failed => self.tls_failed(id, now),
            },
            Some(None) => self.stream_ended(id, StreamEnd::Whole, now),
            None => {}
        }
    }

    fn stream_ended(&mut self, id: ConnId, end: StreamEnd, now: Now) {
        self.on_session(id, now, |it, context| it.eof_received(end, context));
    }

    #[cold]
    fn tls_failed(&mut self, id: ConnId, now: Now) {
        self.on_session(id, now, |it, context| {
            let error = context.tls.and_then(TlsSession::error)?;
            it.tls_failed(error, context)
        });
    }

    pub(super) fn output_sent(&mut self, id: ConnId, mut count: usize, now: Now) {
        let Some(slot) = self.sessions.get_mut(id) else {
            return;
        };
        slot.usage.output_sent(count);
        self.traffic.sent[slot.session.kind()] += count as u64;
        if let Some(tls) = &mut slot.tls {
            count = tls.output_sent(count);
            if count == 0 {
                return;
            }
        }
        let tls = slot.tls.as_deref();
        let effect = slot
            .session
            .output_sent(count, &mut context!(self, tls, now));
        if let Some(effect) = effect {
            self.apply(id, effect, now);
        }
    }

    pub(super) fn connection_due(&mut self, id: ConnId, now: Now) {
        let limits = &self.settings.limits;
        let Some(slot) = self.sessions.get_mut(id) else {
            return;
        };
        slot.armed = None;
        if let Some(tls) = &mut slot.tls
            && tls.deadline_reached(limits, now.time)
        {
            self.tls_failed(id, now);
        }
        self.on_session(id, now, Session::deadline_reached);
        self.mark_dirty(id);
    }
}
