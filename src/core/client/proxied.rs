//! A connection from a proxy that the setting `proxies` lists, before the PROXY header has named
//! the client.
//!
//! ```text
//!   accepted ──► Proxied ── a whole header ──► a client, with the address that the header names
//!                   └────── anything else ───► refused, and closed
//! ```
//!
//! # How connections are counted
//!
//! A proxy has one address and many clients, so its connections are not counted by its address. A
//! connection of a proxy is *unidentified* until its header has arrived. At most
//! `limits.max_unidentified` connections are unidentified. When the header has arrived, the client
//! is admitted or rejected ([`crate::core::session::admission`]), as if the client had connected
//! from the address in the header.
//!
//! If there are too many unidentified connections, the server still accepts a new connection, and
//! closes the unidentified connection that has waited longest. Most proxies send the header as soon
//! as they connect. A header that does not arrive soon has one of two causes. The proxy has a
//! fault, or the proxy sends the header only together with the client's first bytes (AWS). With
//! such a proxy, the oldest unidentified connections belong to clients that send nothing. So a
//! client that opens many connections and sends nothing loses only these connections. If a client
//! sends a command, its header arrives long before its connection is the oldest.
//!
//! No byte before the end of the header is handled as a command. A connection from a listed address
//! without a header is refused. The specification of the PROXY protocol forbids a server to guess
//! whether there is a header: then a client could send a header itself, and so choose its address.

use std::fmt;
use std::net::SocketAddr;

use log::debug;

use crate::core::base::clock::Time;
use crate::core::base::invariants::ensure;
use crate::core::base::limits::{LimitValue, Limits};
use crate::core::client::close_reason::CloseReason;
use crate::core::session::buffer::Buffer;
use crate::core::session::buffer_budget::Eviction;
use crate::core::session::connection_error::ConnectionError;
use crate::core::session::context::Context;
use crate::core::session::disposition::Disposition;
use crate::core::session::protocol::{Protocol, StreamEnd};
use crate::core::session::tls::TlsError;
use crate::core::wire::proxy_header::{Header, HeaderError, Parsed, parse};

/// The addresses of a client, and of the proxy in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientSource {
    /// The client's address.
    pub client: SocketAddr,
    /// The address of the proxy, if the client comes through one.
    pub proxy: Option<SocketAddr>,
}

impl fmt::Display for ClientSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", canonical(self.client))?;
        match self.proxy {
            None => Ok(()),
            Some(proxy) => write!(f, " through {}", canonical(proxy)),
        }
    }
}

/// Returns `address`. Converts an IPv4-mapped IPv6 address to IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Why a proxy's connection is closed before its header has named a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The first bytes are not a valid header.
    Invalid(HeaderError),
    /// The header was not complete in time.
    Late {
        /// The time limit.
        limit_ms: u64,
    },
    /// The connection ended in the middle of the header.
    CutOff,
    /// Too many connections waited for their header, and this connection was the oldest of them.
    Displaced,
    /// The buffers of all connections together are full. The server chose this connection to free
    /// memory.
    Evicted(Eviction),
}

impl Refusal {
    /// The number of kinds that [`Refusal::kind`] distinguishes.
    pub const KINDS: usize = 6;

    /// Returns the number of the refusal's kind, from 0. An operator fixes each kind in a different
    /// way.
    #[must_use]
    pub fn kind(&self) -> usize {
        match self {
            Refusal::Invalid(HeaderError::Absent) => 0,
            Refusal::Invalid(
                HeaderError::Line
                | HeaderError::LongLine
                | HeaderError::Version(_)
                | HeaderError::Command(_)
                | HeaderError::Family(_)
                | HeaderError::Short(_)
                | HeaderError::Long { .. },
            ) => 1,
            Refusal::Late { .. } => 2,
            Refusal::CutOff => 3,
            Refusal::Displaced => 4,
            Refusal::Evicted(_) => 5,
        }
    }

    /// Whether the server sends the reason to the other side before it closes the connection. After
    /// [`Refusal::CutOff`], the other side may have stopped reading. A [`Refusal::Displaced`]
    /// connection is closed at once, because a new connection takes its place.
    #[must_use]
    pub fn sends_reason(&self) -> bool {
        match self {
            Refusal::Invalid(_) | Refusal::Late { .. } => true,
            Refusal::CutOff | Refusal::Displaced | Refusal::Evicted(_) => false,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Invalid(error) => write!(f, "{error}"),
            Refusal::Late { limit_ms } => {
                write!(f, "it sent no whole PROXY header within {limit_ms} ms")
            }
            Refusal::CutOff => f.write_str("it ended in the middle of its PROXY header"),
            Refusal::Evicted(eviction) => write!(f, "{eviction}"),
            Refusal::Displaced => f.write_str(
                "as many as limits.max_unidentified waited for their PROXY header, and it had waited longest",
            ),
        }
    }
}

/// What the node has to do after an event of a [`Proxied`] connection, outside its session.
pub enum Effect {
    /// The header is complete. From now on, the connection is the connection of a client.
    HeaderReceived {
        /// The addresses of the client and of the proxy. If the proxy connects for itself, as in a
        /// health check, the client's address is the address of the proxy.
        from: ClientSource,
        /// The number of bytes that belong to the header, at the start of the data that was
        /// received last.
        header_bytes: usize,
    },
    /// The connection is refused for this reason, and has to be closed.
    Refused(Refusal),
    /// The connection is closed.
    Lost {
        /// The address of the proxy.
        proxy: SocketAddr,
        /// The reason for the refusal if the connection ended in the middle of its header,
        /// otherwise `None`.
        refusal: Option<Refusal>,
    },
}

/// A connection whose header has not arrived yet.
pub struct Proxied {
    proxy: SocketAddr,
    /// The received part of the header.
    input: Buffer,
    /// The time at which the wait for the header began. The first call of [`Protocol::flushed`]
    /// sets this field.
    waiting_since: Option<Time>,
    is_closing: bool,
}

impl Proxied {
    /// Creates the session of a connection that was accepted from `proxy`.
    #[must_use]
    pub fn new(proxy: SocketAddr) -> Proxied {
        Proxied {
            proxy: canonical(proxy),
            input: Buffer::default(),
            waiting_since: None,
            is_closing: false,
        }
    }

    /// Returns the address of the proxy.
    #[must_use]
    pub fn proxy(&self) -> SocketAddr {
        self.proxy
    }

    /// Handles received bytes. When the header is complete, returns the header and the number of
    /// bytes of `data` that belong to the header.
    ///
    /// # Errors
    /// The bytes are not a valid header.
    pub fn receive(
        &mut self,
        data: &[u8],
        limits: &Limits,
    ) -> Result<Option<(Header, usize)>, Refusal> {
        if self.is_closing {
            return Ok(None);
        }
        let max = limits.proxy_header_bytes.to_count();
        let held = self.input.len();
        let parsed = if held == 0 {
            parse(data, max)
        } else {
            // `max` bytes are always enough to decide whether the input begins with a header.
            self.input.extend(&data[..data.len().min(max - held)]);
            parse(self.input.as_slice(), max)
        };
        match parsed {
            Parsed::Incomplete => {
                if held == 0 {
                    self.input.extend(data);
                }
                debug_assert!(self.input.len() < max, "so many bytes are always enough");
                Ok(None)
            }
            Parsed::Header(header) => Ok(Some((header, header.length - held))),
            Parsed::Invalid(error) => Err(Refusal::Invalid(error)),
        }
    }

    /// Closes the session, because the input has ended. Returns the refusal if a part of the header
    /// had arrived. If nothing had arrived, the end is no error: a health check may connect and
    /// send nothing.
    fn input_ended(&mut self) -> Option<Refusal> {
        let has_part = !self.input.is_empty() && !self.is_closing;
        self.close();
        has_part.then_some(Refusal::CutOff)
    }

    /// Marks the connection to be closed.
    pub fn close(&mut self) {
        self.is_closing = true;
        self.input.clear();
    }
}

impl Protocol for Proxied {
    type Effect = Effect;

    /// Does nothing: before the header, there is no TLS.
    fn connection_made(&mut self, _: &mut Context<'_>) -> Option<Effect> {
        None
    }

    #[cold]
    fn data_received(&mut self, data: &[u8], context: &mut Context<'_>) -> Option<Effect> {
        match self.receive(data, &context.settings.limits) {
            Ok(None) => None,
            Ok(Some((header, header_bytes))) => {
                let from = match header.source {
                    Some(client) => ClientSource {
                        client,
                        proxy: Some(self.proxy),
                    },
                    None => ClientSource {
                        client: self.proxy,
                        proxy: None,
                    },
                };
                Some(Effect::HeaderReceived { from, header_bytes })
            }
            Err(refusal) => Some(Effect::Refused(refusal)),
        }
    }

    fn eof_received(&mut self, _: StreamEnd, _: &mut Context<'_>) -> Option<Effect> {
        self.input_ended().map(Effect::Refused)
    }

    fn tls_failed(&mut self, _: &TlsError, _: &mut Context<'_>) -> Option<Effect> {
        None
    }

    /// Reports the loss. A connection that was lost in the middle of its header counts as refused.
    fn connection_lost(
        &mut self,
        why: Option<&ConnectionError>,
        _: &mut Context<'_>,
    ) -> Option<Effect> {
        let reason = why.map_or(CloseReason::Closed, |why| CloseReason::Lost(why.clone()));
        debug!("proxy {}: gone: {reason}", self.proxy);
        Some(Effect::Lost {
            proxy: self.proxy,
            refusal: self.input_ended(),
        })
    }

    fn resume_input(&mut self, _: &mut Context<'_>) -> Option<Effect> {
        None
    }

    #[cold]
    fn deadline_reached(&mut self, context: &mut Context<'_>) -> Option<Effect> {
        let (limits, now) = (&context.settings.limits, context.now.time);
        let is_due = self.deadline(limits).is_some_and(|due| due <= now) && !self.is_closing;
        let limit_ms = limits.proxy_header_ms;
        is_due.then_some(Effect::Refused(Refusal::Late { limit_ms }))
    }

    /// Does nothing here: [`Proxied::flushed`] closes the connection when the server is stopping.
    fn stop(&mut self, _: &mut Context<'_>) {}

    fn output(&mut self, _: &mut Context<'_>) -> &[u8] {
        &[]
    }

    fn output_sent(&mut self, _: usize, _: &mut Context<'_>) -> Option<Effect> {
        None
    }

    /// The first call starts the wait for the header.
    #[cold]
    fn flushed(&mut self, context: &mut Context<'_>) {
        self.waiting_since.get_or_insert(context.now.time);
        if context.is_stopping {
            self.close();
        }
    }

    #[cold]
    fn disposition(&self) -> Disposition {
        match self.is_closing {
            true => Disposition::Close,
            false => Disposition::Open,
        }
    }

    fn wants_read(&self) -> bool {
        true
    }

    fn awaits_disk_space(&self) -> bool {
        false
    }

    fn required_seq(&self) -> u64 {
        0
    }

    /// Returns the time at which the header must be complete. Received bytes do not extend this
    /// time.
    #[cold]
    fn deadline(&self, limits: &Limits) -> Option<Time> {
        Some(self.waiting_since? + limits.proxy_header_ms.to_duration())
    }

    fn held_bytes(&self) -> usize {
        self.input.held_bytes()
    }

    fn state_name(&self) -> &'static str {
        match self.is_closing {
            true => "closing",
            false => "waiting for a header",
        }
    }

    fn check_invariants(&self) -> Result<(), String> {
        ensure!(
            self.input.is_empty() || !self.is_closing,
            "a proxy's connection that is over keeps the beginning of a header"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADERS: [&[u8]; 3] = [
        b"PROXY TCP4 192.0.2.9 198.51.100.1 56324 10000\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0f\xc0\0\x02\x09\xc6\x33\x64\x01\xdc\x04\x27\x10\x04\0\0",
        b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
    ];

    fn proxied() -> Proxied {
        Proxied::new("[::ffff:10.0.0.2]:4444".parse().unwrap())
    }

    #[test]
    fn bytes_after_the_proxy_header_go_to_the_client() {
        let limits = Limits::default();
        for header in HEADERS {
            let bytes = [header, b"IAMAT kiwi"].concat();
            for first in 0..=bytes.len() {
                for second in first..=bytes.len() {
                    let mut proxied = proxied();
                    let mut rest = Vec::new();
                    let mut found = None;
                    let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                    for piece in pieces {
                        if found.is_some() {
                            rest.extend_from_slice(piece);
                        } else if let Some((header, header_bytes)) =
                            proxied.receive(piece, &limits).unwrap()
                        {
                            found = Some(header);
                            rest.extend_from_slice(&piece[header_bytes..]);
                        }
                    }
                    assert_eq!(found.map(|found| found.length), Some(header.len()));
                    assert_eq!(rest, b"IAMAT kiwi", "{first} {second}");
                }
            }
        }
    }

    #[test]
    fn no_more_than_proxy_header_bytes_is_buffered() {
        let limits = Limits {
            proxy_header_bytes: 232,
            ..Limits::default()
        };
        let mut proxied = proxied();
        let begun = [&HEADERS[1][..14], &[0, 217]].concat();
        assert_eq!(proxied.receive(&begun[..15], &limits), Ok(None));
        let (bytes, max) = (233, 232);
        let long = Refusal::Invalid(HeaderError::Long { bytes, max });
        let flood = [&begun[15..], &[0; 65_536]].concat();
        assert_eq!(proxied.receive(&flood, &limits), Err(long));
        assert!(proxied.input.len() <= 232);
    }

    #[test]
    fn input_after_the_end_of_a_proxied_connection_is_ignored() {
        let mut proxied = proxied();
        assert_eq!(proxied.input_ended(), None, "it had not begun");
        let limits = Limits::default();
        assert_eq!(proxied.receive(HEADERS[0], &limits), Ok(None));
        assert_eq!(proxied.disposition(), Disposition::Close);
        assert_eq!(proxied.proxy().to_string(), "10.0.0.2:4444");
    }
}
