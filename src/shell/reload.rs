//! The files that a running server reads again when it gets SIGHUP: certificates, keys and secrets.

use std::sync::Arc;

use crate::core::base::settings::{Secrets, TlsSettings};

/// A function that reads files again and returns what they contain.
pub type Read<T> = Arc<dyn Fn() -> Result<T, String> + Send + Sync>;

/// How to read again each kind of file that can change while the server runs.
#[derive(Clone, Default)]
pub struct Reload {
    /// Reads the certificates and keys. `None` if the server has none.
    pub certificates: Option<Read<TlsSettings>>,
    /// Reads the herd's secrets, and returns them with notes for the operator. `None` if the
    /// secrets are not in a file.
    pub secrets: Option<Read<(Secrets, Vec<String>)>>,
}

/// The result of a reload. A part is `None` if the server does not read it again.
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

    /// Describes for the log what a reload reads.
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
