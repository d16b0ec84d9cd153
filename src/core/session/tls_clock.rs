//! The wall clock as rustls sees it: the time of the event that is being handled.
//!
//! rustls asks for the time by itself, when it judges a certificate or a ticket. By default it asks
//! the system; the core asks no clock. So each server's configurations get a [`TlsClock`], which
//! the server sets before each event.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ServerConfig};

use crate::core::base::settings::{NeighbourTls, TlsSettings};

/// A wall clock that shows what it was set to; clones show the same.
#[derive(Clone, Debug, Default)]
pub struct TlsClock(Arc<AtomicU64>);

impl TlsClock {
    /// Sets it to so many nanoseconds since 1970.
    #[inline]
    pub fn set(&self, wall_ns: u64) {
        self.0.store(wall_ns, Ordering::Relaxed);
    }

    /// The same configurations, which read this clock.
    #[must_use]
    pub fn settings(&self, tls: TlsSettings) -> TlsSettings {
        let neighbours = tls.neighbours.map(|tls| NeighbourTls {
            dialling: self.client(&tls.dialling),
            accepting: self.server(&tls.accepting),
            ..tls
        });
        TlsSettings {
            clients: tls.clients.map(|config| self.server(&config)),
            neighbours,
        }
    }

    /// The same configuration, which reads this clock.
    #[must_use]
    pub fn client(&self, config: &ClientConfig) -> Arc<ClientConfig> {
        let mut config = config.clone();
        config.time_provider = Arc::new(self.clone());
        config.into()
    }

    fn server(&self, config: &ServerConfig) -> Arc<ServerConfig> {
        let mut config = config.clone();
        config.time_provider = Arc::new(self.clone());
        config.into()
    }
}

impl TimeProvider for TlsClock {
    fn current_time(&self) -> Option<UnixTime> {
        let wall_ns = self.0.load(Ordering::Relaxed);
        Some(UnixTime::since_unix_epoch(Duration::from_nanos(wall_ns)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_shows_what_it_was_set_to() {
        let clock = TlsClock::default();
        let theirs: Arc<dyn TimeProvider> = Arc::new(clock.clone());
        clock.set(1_621_464_827_959_498_503);
        let shown = theirs.current_time().map(|time| time.as_secs());
        assert_eq!(shown, Some(1_621_464_827));
    }
}
