//! The names of the states of a [`Node`]'s state machines. The simulator counts its faults by
//! state.

use super::session::Session;
use super::{ConnId, Node};
use crate::core::session::protocol::Protocol;

impl Node {
    /// Returns each link with the name of its state, one of
    /// [`Link::STATES`](crate::core::link::Link::STATES).
    pub fn link_states(&self) -> impl Iterator<Item = (ConnId, &'static str)> {
        self.sessions
            .iter()
            .filter_map(|(id, slot)| match &slot.session {
                Session::Link(link) => Some((id, link.state_name())),
                Session::Client(_) | Session::Proxied(_) | Session::Exchange(_) => None,
            })
    }

    /// Returns each client with the name of its state, one of
    /// [`Client::STATES`](crate::core::client::Client::STATES).
    pub fn client_states(&self) -> impl Iterator<Item = (ConnId, &'static str)> {
        self.sessions
            .iter()
            .filter_map(|(id, slot)| match &slot.session {
                Session::Client(client) => Some((id, client.state_name())),
                Session::Proxied(_) | Session::Link(_) | Session::Exchange(_) => None,
            })
    }

    /// Returns the name of each neighbour with the state of dialling it, one of
    /// [`Dial::STATES`](crate::core::session::herd::Dial::STATES).
    pub fn dial_states(&self) -> impl Iterator<Item = (&str, &'static str)> {
        self.herd
            .iter()
            .map(|neighbour| (neighbour.name(), neighbour.dial().name()))
    }
}
