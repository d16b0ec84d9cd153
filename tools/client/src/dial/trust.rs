//! TLS with a server: whether to use it, which authorities to trust, and the advice after a refused
//! certificate.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use herd_mio::config::{ConfigError, TlsFiles, client_tls_config};
use herd_mio::core::session::tls::TlsError;
use rustls::pki_types::{ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig};
use time::{Date, OffsetDateTime};

/// What the command line says about it.
#[derive(Debug, Default, Args)]
pub struct TlsOptions {
    /// Use TLS, for servers with [clients.tls]; not needed with a --config file that has that table
    #[arg(long)]
    pub tls: bool,

    /// Trust only the authorities in this PEM file (implies --tls) [default: those that browsers
    /// trust, and ca_file in the config file's [peers.tls]]
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,

    /// The name or IP address that the server's certificate must be for (implies --tls) [default:
    /// the host in its address]
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub tls_name: Option<String>,
}

fn name(text: &str) -> Result<String, &'static str> {
    match ServerName::try_from(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("it must be a DNS name or an IP address"),
    }
}

/// Where the decision for TLS comes from.
#[derive(Clone, Copy, Debug)]
enum Because {
    Options,
    ConfigFile,
}

/// The trusted authorities, and the name that the certificate must have.
#[derive(Clone, Debug)]
pub struct Trust {
    pub(crate) config: Arc<ClientConfig>,
    pub(crate) name: String,
    /// For messages: the trusted authorities as text, and whether a handshake has succeeded before.
    authorities: String,
    has_spoken: Arc<AtomicBool>,
    because: Because,
}

impl TlsOptions {
    /// The trust for a server at `host`. `files` are those of its herd's config file. `None` stands
    /// for plain TCP.
    ///
    /// # Errors
    /// A file cannot be read, or its content cannot be used.
    pub fn trust(
        &self,
        host: &str,
        files: Option<&TlsFiles>,
    ) -> Result<Option<Trust>, ConfigError> {
        let because = if self.tls || self.ca.is_some() || self.tls_name.is_some() {
            Because::Options
        } else if files.is_some_and(TlsFiles::has_clients) {
            Because::ConfigFile
        } else {
            return Ok(None);
        };
        let own = files.and_then(TlsFiles::authority);
        Ok(Some(Trust {
            config: client_tls_config(self.ca.as_deref(), own)?,
            name: self.tls_name.clone().unwrap_or_else(|| host.to_owned()),
            authorities: match (&self.ca, own) {
                (Some(path), _) => format!("those of {}", path.display()),
                (None, Some(path)) => {
                    format!("those that browsers trust and those of {}", path.display())
                }
                (None, None) => "those that browsers trust".to_owned(),
            },
            has_spoken: Arc::default(),
            because,
        }))
    }
}

impl Trust {
    /// The message for an error of TLS, with what to do.
    pub(crate) fn explain(&self, error: TlsError) -> String {
        match error.certificate_error {
            Some(reason) => self.mistrust(&reason),
            // A server with too many connections sends this alert.
            None if error.reason.ends_with("InternalError") => format!(
                "{}; a server with too many connections answers so; its log says why",
                error.reason
            ),
            None => error.reason,
        }
    }

    /// Notes that a handshake has succeeded.
    pub(crate) fn spoke(&self) {
        self.has_spoken.store(true, Ordering::Relaxed);
    }

    /// The message if the handshake gets no answer: `what`. A server with too many clients closes
    /// their connections too.
    pub(crate) fn no_answer(&self, what: impl fmt::Display) -> String {
        if self.has_spoken.load(Ordering::Relaxed) {
            return format!(
                "{what}; it used TLS before, so it may have too many connections; its log says why"
            );
        }
        self.not_tls(what)
    }

    /// The message if the handshake gets no answer, or one of another protocol: `what`.
    pub(crate) fn not_tls(&self, what: impl fmt::Display) -> String {
        let advice = match self.because {
            Because::Options => "without --tls, --ca and --tls-name this program uses plain TCP",
            Because::ConfigFile => {
                "was it started with the config file's [clients.tls]? for plain TCP, give the server as host:port, without --config"
            }
        };
        format!("{what}, so it seems not to use TLS; {advice}")
    }

    fn mistrust(&self, reason: &CertificateError) -> String {
        match reason {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
                "its certificate is from an authority that is not trusted; the trusted authorities are {}; give its authority's file with --ca",
                self.authorities
            ),
            CertificateError::NotValidForNameContext { presented, .. } => format!(
                "its certificate is not for {}, but for {}; if that is the right server, give its name with --tls-name",
                self.name,
                listed(presented)
            ),
            CertificateError::ExpiredContext { not_after, .. } => format!(
                "its certificate has expired{}; the server needs a new one (herd-certificates --renew), or this machine's clock is wrong",
                day(*not_after).map_or(String::new(), |day| format!(" on {day}"))
            ),
            CertificateError::NotValidYetContext { not_before, .. } => format!(
                "its certificate is not valid yet{}; this machine's clock is slow, or the clock of the machine that made it is fast",
                day(*not_before).map_or(String::new(), |day| format!(" (from {day} on)"))
            ),
            other => format!("its certificate was refused: {other}"),
        }
    }
}

fn day(time: UnixTime) -> Option<Date> {
    let seconds = i64::try_from(time.as_secs()).ok()?;
    Some(OffsetDateTime::from_unix_timestamp(seconds).ok()?.date())
}

/// Names in plain text. rustls writes them as `DnsName("localhost")`.
fn listed(names: &[String]) -> String {
    let plain = |name: &String| {
        let inner = name
            .split_once('(')
            .and_then(|(_, rest)| rest.strip_suffix(')'));
        inner.unwrap_or(name).trim_matches('"').to_owned()
    };
    match names {
        [] => "no name at all".to_owned(),
        _ => names.iter().map(plain).collect::<Vec<_>>().join(", "),
    }
}
