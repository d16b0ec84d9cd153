//! The state and the settings that every thread of the server can see.

use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;

use crate::event::{Event, Observer};
use crate::ledger::Ledger;

/// Each server has one.
pub(crate) struct Shared {
    pub(crate) ledger: Ledger,
    pub(crate) tls: Arc<ServerConfig>,
    pub(crate) key: String,
    pub(crate) silent_accept: bool,
    pub(crate) keep_alive: Duration,
    pub(crate) max_connections: usize,
    pub(crate) observer: Option<Observer>,
}

impl Shared {
    pub(crate) fn report(&self, event: &Event) {
        if let Some(observer) = &self.observer {
            observer(event);
        }
    }
}
