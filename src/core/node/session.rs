//! The session of a connection: one of five kinds, with one trait.

use crate::core::base::clock::Time;
use crate::core::base::limits::Limits;
use crate::core::client::proxied::{self, Proxied};
use crate::core::client::{self, Client};
use crate::core::http::{self, HttpConnection};
use crate::core::link::{self, Link};
use crate::core::places::exchange::{self, Exchange};
use crate::core::session::connection_error::ConnectionError;
use crate::core::session::context::Context;
use crate::core::session::disposition::Disposition;
use crate::core::session::protocol::{Protocol, StreamEnd, TurnEnd};
use crate::core::session::tls::TlsError;

/// A session of any kind.
pub(super) enum Session {
    Client(Client),
    /// A connection of a listed proxy, until its header names the client.
    Proxied(Box<Proxied>),
    /// In a box, because a link is large: without the box, every client would use as much memory as
    /// a link.
    Link(Box<Link>),
    Exchange(Box<Exchange>),
    /// A connection to the HTTP port.
    Http(Box<HttpConnection>),
}

/// Makes getters for each kind of session. A getter returns `None` for all other kinds, so its
/// callers need no change when a kind is added.
macro_rules! getters {
    ($($kind:ident: $get:ident, $get_mut:ident -> $type:ty;)+) => {
        impl Session {
            $(
                #[inline]
                pub(super) fn $get(&self) -> Option<&$type> {
                    if let Session::$kind(it) = self {
                        Some(it)
                    } else {
                        None
                    }
                }

                #[inline]
                pub(super) fn $get_mut(&mut self) -> Option<&mut $type> {
                    if let Session::$kind(it) = self {
                        Some(it)
                    } else {
                        None
                    }
                }
            )+
        }
    };
}

getters! {
    Client: client, client_mut -> Client;
    Proxied: proxied, proxied_mut -> Proxied;
    Link: link, link_mut -> Link;
    Exchange: exchange, exchange_mut -> Exchange;
    Http: http, http_mut -> HttpConnection;
}

/// An effect of a session of any kind: see `Node::apply`.
pub(super) enum Effect {
    Client(client::Effect),
    Proxied(proxied::Effect),
    Link(link::Effect),
    Exchange(exchange::Effect),
    Http(http::Effect),
}

impl From<client::Effect> for Effect {
    fn from(effect: client::Effect) -> Effect {
        Effect::Client(effect)
    }
}

impl From<proxied::Effect> for Effect {
    fn from(effect: proxied::Effect) -> Effect {
        Effect::Proxied(effect)
    }
}

impl From<link::Effect> for Effect {
    fn from(effect: link::Effect) -> Effect {
        Effect::Link(effect)
    }
}

impl From<exchange::Effect> for Effect {
    fn from(effect: exchange::Effect) -> Effect {
        Effect::Exchange(effect)
    }
}

impl From<http::Effect> for Effect {
    fn from(effect: http::Effect) -> Effect {
        Effect::Http(effect)
    }
}

/// Evaluates the same expression for each kind of session.
macro_rules! on_each {
    ($session:expr, $it:ident => $call:expr) => {
        match $session {
            Session::Client($it) => $call,
            Session::Proxied($it) => $call,
            Session::Link($it) => $call,
            Session::Exchange($it) => $call,
            Session::Http($it) => $call,
        }
    };
}

impl Session {
    /// The names of the kinds, in the order of [`Session::kind`].
    pub(super) const KINDS: [&'static str; 5] = ["client", "proxy", "link", "places", "http"];

    /// The kind of a proxy's connection whose PROXY header has not arrived yet.
    pub(super) const PROXY: usize = 1;

    /// Returns the session's kind as a number from 0.
    #[inline]
    pub(super) fn kind(&self) -> usize {
        match self {
            Session::Client(_) => 0,
            Session::Proxied(_) => Session::PROXY,
            Session::Link(_) => 2,
            Session::Exchange(_) => 3,
            Session::Http(_) => 4,
        }
    }
}

impl Protocol for Session {
    type Effect = Effect;

    fn connection_made(&mut self, context: &mut Context<'_>) -> Option<Effect> {
        on_each!(self, it => it.connection_made(context).map(Effect::from))
    }

    #[inline]
    fn data_received(&mut self, data: &[u8], context: &mut Context<'_>) -> Option<Effect> {
        on_each!(self, it => it.data_received(data, context).map(Effect::from))
    }

    fn eof_received(&mut self, end: StreamEnd, context: &mut Context<'_>) -> Option<Effect> {
        on_each!(self, it => it.eof_received(end, context).map(Effect::from))
    }

    fn tls_failed(&mut self, error: &TlsError, context: &mut Context<'_>) -> Option<Effect> {
        on_each!(self, it => it.tls_failed(error, context).map(Effect::from))
    }

    fn connection_lost(
        &mut self,
        why: Option<&ConnectionError>,
        context: &mut Context<'_>,
    ) -> Option<Effect> {
        on_each!(self, it => it.connection_lost(why, context).map(Effect::from))
    }

    fn resume_input(&mut self, context: &mut Context<'_>) -> Option<Effect> {
        on_each!(self, it => it.resume_input(context).map(Effect::from))
    }

    fn deadline_reached(&mut self, context: &mut Context<'_>) -> Option<Effect> {
        on_each!(self, it => it.deadline_reached(context).map(Effect::from))
    }

    fn stop(&mut self, context: &mut Context<'_>) {
        on_each!(self, it => it.stop(context));
    }

    #[inline]
    fn output(&mut self, context: &mut Context<'_>) -> &[u8] {
        on_each!(self, it => it.output(context))
    }

    #[inline]
    fn output_sent(&mut self, count: usize, context: &mut Context<'_>) -> Option<Effect> {
        on_each!(self, it => it.output_sent(count, context).map(Effect::from))
    }

    #[inline]
    fn flushed(&mut self, context: &mut Context<'_>) {
        on_each!(self, it => it.flushed(context));
    }

    #[inline]
    fn end_turn(&mut self, context: &mut Context<'_>) -> TurnEnd {
        on_each!(self, it => it.end_turn(context))
    }

    #[inline]
    fn disposition(&self) -> Disposition {
        on_each!(self, it => it.disposition())
    }

    #[inline]
    fn wants_read(&self) -> bool {
        on_each!(self, it => it.wants_read())
    }

    #[inline]
    fn awaits_disk_space(&self) -> bool {
        on_each!(self, it => it.awaits_disk_space())
    }

    #[inline]
    fn required_seq(&self) -> u64 {
        on_each!(self, it => it.required_seq())
    }

    #[inline]
    fn deadline(&self, limits: &Limits) -> Option<Time> {
        on_each!(self, it => it.deadline(limits))
    }

    #[inline]
    fn held_bytes(&self) -> usize {
        on_each!(self, it => it.held_bytes())
    }

    fn state_name(&self) -> &'static str {
        on_each!(self, it => it.state_name())
    }

    fn check_invariants(&self) -> Result<(), String> {
        on_each!(self, it => it.check_invariants())
    }
}
