//! What a [`Node`] does for listed proxies: waits for the header, then lets its client in.

use std::net::SocketAddr;

use log::{debug, warn};

use super::session::Session;
use super::{ConnId, Node, Phase};
use crate::core::base::limits::count;
use crate::core::client::Client;
use crate::core::client::proxied::{ClientSource, Proxied, Refusal};
use crate::core::wire::proxy_header::HeaderError;

/// What a connection without a header hears: an operator who tries the port from the proxy's
/// machine, or a client of a proxy that sends none.
const IN_AN_ANSWER: &str =
    "a connection from this address has to begin with a PROXY header (clients.proxies)";

impl Node {
    /// A listed proxy connected to the clients' port.
    pub(super) fn proxy_connected(&mut self, address: SocketAddr) -> ConnId {
        let most = count(self.settings.limits.max_unidentified);
        if self.unidentified.len() >= most {
            let sessions = &self.sessions;
            self.unidentified.retain(|id| {
                let session = sessions.get(*id).map(|slot| &slot.session);
                matches!(session, Some(Session::Proxied(_)))
            });
            if self.unidentified.len() >= most
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

    /// The header is whole: from here on, the connection is a client's, if it is let in.
    pub(super) fn identified(&mut self, id: ConnId, from: ClientSource) {
        let entry = match self.phase {
            Phase::Running => self.enter(from),
            Phase::Stopping | Phase::Overdue => None,
        };
        let Some(slot) = self.sessions.get_mut(id) else {
            return;
        };
        match entry {
            Some(entry) => {
                slot.session = Session::Client(entry.client(id.serial(), from));
                slot.secure = entry.secure.map(Box::new);
            }
            None => {
                if let Session::Proxied(proxied) = &mut slot.session {
                    proxied.close();
                }
            }
        }
    }

    /// Closes it, and tells the log; and it, if that is of use and it does not expect TLS.
    pub(super) fn refuse_proxied(&mut self, id: ConnId, refusal: Refusal) {
        let is_plain = self.settings.tls.clients.is_none();
        let Some(slot) = self.sessions.get_mut(id) else {
            return;
        };
        let Session::Proxied(proxied) = &mut slot.session else {
            return;
        };
        proxied.close();
        let proxy = proxied.proxy();
        let why = match refusal {
            Refusal::Invalid(HeaderError::Absent) | Refusal::Late { .. } => IN_AN_ANSWER.to_owned(),
            Refusal::Invalid(_) | Refusal::CutOff | Refusal::Displaced => refusal.to_string(),
        };
        if refusal.is_told() && is_plain && self.admission.reject() {
            slot.session = Session::Client(Client::rejected(
                id.serial(),
                proxy,
                format!("? {why}\n").as_bytes(),
            ));
        }
        self.count_refusal(proxy, refusal);
    }

    /// Each kind is told the first time and at every power of two: a proxy that is set up wrongly
    /// is, for all of its clients.
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
