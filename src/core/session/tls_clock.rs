//! The wall clock that rustls reads: it shows the time of the event that is being handled.
//!
//! rustls needs the time when it checks a certificate or a session ticket. By default it reads the
//! system's clock, but the core must not read a clock. So the TLS configurations of each server get
//! a [`TlsClock`]. The server sets that clock before each event.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, ServerConfig};

use crate::core::base::settings::{NeighbourTls, TlsSettings};

/// A wall clock that shows the time that was set last. All clones show the same time.
#[derive(Clone, Debug, Default)]
pub struct TlsClock(Arc<AtomicU64>);

impl TlsClock {
    /// Sets the time, in nanoseconds since the POSIX epoch.
    #[inline]
    pub fn set(&self, wall_ns: u64) {
        self.0.store(wall_ns, Ordering::Relaxed);
    }

    /// Returns the same configurations, but with this clock.
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
            own: tls.own,
        }
    }

    /// Returns the same configuration, but with this clock.
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
    fn the_tls_clock_shows_the_time_it_was_set_to() {
        let clock = TlsClock::default();
        let theirs: Arc<dyn TimeProvider> = Arc::new(clock.clone());
        clock.set(1_621_464_827_959_498_503);
        let shown = theirs.current_time().map(|time| time.as_secs());
        assert_eq!(shown, Some(1_621_464_827));
    }
}
