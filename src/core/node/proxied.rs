//! How a [`Node`] treats connections of listed proxies, which are the addresses in
//! `clients.proxies`. The node waits for the PROXY header, which contains the client's address.
//! Then the node admits or rejects the client.

use std::net::SocketAddr;

use log::{debug, warn};

use super::session::Session;
use super::{ConnId, Node, Phase};
use crate::core::base::limits::LimitValue;
use crate::core::client::Client;
use crate::core::client::proxied::{ClientSource, Proxied, Refusal};
use crate::core::wire::proxy_header::HeaderError;

/// The text that is sent on a proxy's connection that does not begin with a PROXY header. It tells
/// an operator on the proxy's machine, or a client whose proxy sends no header, why the connection
/// is closed.
const HEADER_REQUIRED: &str =
    "a connection from this address has to begin with a PROXY header (clients.proxies)";

impl Node {
    /// Accepts a connection to the clients' port from a proxy in `clients.proxies`. If too many
    /// connections wait for their header, the oldest of them is closed.
    pub(super) fn proxy_connected(&mut self, address: SocketAddr) -> ConnId {
        let max = self.settings.limits.max_unidentified.to_count();
        if self.unidentified.len() >= max {
            let sessions = &self.sessions;
            let proxied = |id: ConnId| sessions.get(id)?.session.proxied();
            self.unidentified.retain(|id| proxied(*id).is_some());
            if self.unidentified.len() >= max
                && let Some(oldest) = self.unidentified.pop_front()
            {
                self.refuse_proxied(oldest, Refusal::Displaced);
                self.mark_dirty(oldest);
            }
        }
        debug!("proxy {address}: connected");
        let session = |_| Session::Proxied(Box::new(Proxied::new(address)));
        let id = self.admit(None, session);
        self.unidentified.push_back(id);
        id
    }

    /// Handles a complete PROXY header, which named the client `from`. If the client is admitted,
    /// or rejected with an answer, the session becomes a client session. Otherwise the connection
    /// is closed.
    pub(super) fn identified(&mut self, id: ConnId, from: ClientSource) {
        let new_client = match self.phase {
            Phase::Running | Phase::Draining => self.enter(from),
            Phase::Stopping | Phase::Overdue => None,
        };
        let Some(slot) = self.sessions.get_mut(id) else {
            return;
        };
        match new_client {
            Some(new_client) => {
                slot.session = Session::Client(new_client.client(id.serial(), from));
                slot.tls = new_client.tls.map(Box::new);
                if self.phase == Phase::Draining {
                    self.drain.add(id);
                }
            }
            None => {
                if let Some(proxied) = slot.session.proxied_mut() {
                    proxied.close();
                }
            }
        }
    }

    /// Closes a proxy's connection, and logs the reason. The reason is sent only if
    /// [`Refusal::sends_reason`] allows it and the clients' port does not use TLS. The reason is
    /// also not sent if too many rejected clients are being answered already.
    pub(super) fn refuse_proxied(&mut self, id: ConnId, refusal: Refusal) {
        let is_plain = self.settings.tls.clients.is_none();
        let Some(slot) = self.sessions.get_mut(id) else {
            return;
        };
        let Some(proxied) = slot.session.proxied_mut() else {
            return;
        };
        proxied.close();
        let proxy = proxied.proxy();
        let why = match refusal {
            Refusal::Invalid(HeaderError::Absent) | Refusal::Late { .. } => {
                HEADER_REQUIRED.to_owned()
            }
            Refusal::Invalid(_) | Refusal::CutOff | Refusal::Displaced | Refusal::Evicted(_) => {
                refusal.to_string()
            }
        };
        if refusal.sends_reason() && is_plain && self.admission.try_reject() {
            slot.session = Session::Client(Client::rejected(
                id.serial(),
                proxy,
                format!("? {why}\n").as_bytes(),
            ));
        }
        self.count_refusal(proxy, refusal);
    }

    /// Counts a refusal. If the number of refusals of this kind is a power of two, logs a warning.
    /// Otherwise logs only at level `debug`, because a badly configured proxy causes a refusal for
    /// each of its clients.
    pub(super) fn count_refusal(&mut self, proxy: SocketAddr, refusal: Refusal) {
        let times = &mut self.proxied_refused[refusal.kind()];
        *times += 1;
        if times.is_power_of_two() {
            warn!("proxy {proxy}: refused: {refusal}; {times} so far");
        } else {
            debug!("proxy {proxy}: refused: {refusal}");
        }
    }
}
