//! The names of the states of a [`Node`]'s state machines, and how many connections it has. The
//! simulator counts the faults that it injects by these states.

use super::{ConnId, Node};
use crate::core::session::protocol::Protocol;

impl Node {
    /// Returns each link with the name of its state, one of
    /// [`Link::STATES`](crate::core::link::Link::STATES).
    pub fn link_states(&self) -> impl Iterator<Item = (ConnId, &'static str)> {
        self.sessions
            .iter()
            .filter_map(|(id, slot)| Some((id, slot.session.link()?.state_name())))
    }

    /// Returns each client with the name of its state, one of
    /// [`Client::STATES`](crate::core::client::Client::STATES).
    pub fn client_states(&self) -> impl Iterator<Item = (ConnId, &'static str)> {
        self.sessions
            .iter()
            .filter_map(|(id, slot)| Some((id, slot.session.client()?.state_name())))
    }

    /// Returns the number of admitted clients that are connected.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.admission.clients()
    }

    /// Returns the number of neighbours, and how many of them have a link that is up.
    #[must_use]
    pub fn links(&self) -> (usize, usize) {
        let up = self.herd.iter().filter(|it| it.link().is_some());
        (self.herd.iter().count(), up.count())
    }

    /// Returns each connection to the HTTP port with the name of its state, one of
    /// [`HttpConnection::STATES`](crate::core::http::HttpConnection::STATES).
    pub fn http_states(&self) -> impl Iterator<Item = (ConnId, &'static str)> {
        self.sessions
            .iter()
            .filter_map(|(id, slot)| Some((id, slot.session.http()?.state_name())))
    }

    /// Returns the name of each neighbour with the state of dialling it, one of
    /// [`Dial::STATES`](crate::core::session::herd::Dial::STATES).
    pub fn dial_states(&self) -> impl Iterator<Item = (&str, &'static str)> {
        self.herd
            .iter()
            .map(|neighbour| (neighbour.name(), neighbour.dial().name()))
    }
}
