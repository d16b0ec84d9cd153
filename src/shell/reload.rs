//! What a running server reads anew when a signal asks for it: certificates, keys and secrets.

use std::sync::Arc;

use crate::core::base::settings::{Secrets, TlsSettings};

/// Reads something anew, which takes files.
pub type Read<T> = Arc<dyn Fn() -> Result<T, String> + Send + Sync>;

/// What is read anew while a server runs.
#[derive(Clone, Default)]
pub struct Reload {
    /// Certificates and keys, if it has any.
    pub certificates: Option<Read<TlsSettings>>,
    /// The herd's secrets, if they are in a file; and what the operator should know of them.
    pub secrets: Option<Read<(Secrets, Vec<String>)>>,
}

/// What was read, and why it could not be.
pub(super) struct Reloaded {
    pub(super) certificates: Option<Result<TlsSettings, String>>,
    pub(super) secrets: Option<Result<(Secrets, Vec<String>), String>>,
}

impl Reload {
    pub(super) fn read(self) -> Reloaded {
        Reloaded {
            certificates: self.certificates.map(|read| read()),
            secrets: self.secrets.map(|read| read()),
        }
    }

    /// For the log.
    pub(super) fn describe(&self) -> &'static str {
        match (&self.certificates, &self.secrets) {
            (Some(_), Some(_)) => {
                "certificates, keys and the herd secret are read anew; a changed config file or Places key takes a restart"
            }
            (Some(_), None) => {
                "certificates and keys are read anew; a changed config file, secret or Places key takes a restart"
            }
            (None, Some(_)) => {
                "the herd secret is read anew, there are no certificates to read anew; a changed config file or Places key takes a restart"
            }
            (None, None) => {
                "there are no certificates to read anew; a changed config file, secret or Places key takes a restart"
            }
        }
    }
}
