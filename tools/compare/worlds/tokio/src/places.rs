//! Asks Google Places over HTTPS (the legacy Nearby Search), and cuts Google's text for a client.
//!
//! hyper keeps connections and uses them again. A connection that was closed while idle is replaced
//! without an error. Clients with the same question at the same time share one request.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::error::Error;
use std::fs::File;
use std::io::{self, BufReader};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::sync::{OnceCell, Semaphore};
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use crate::cli::{Cli, variable};

/// The time limit of an answer, with the wait for a connection.
const PATIENCE: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(3);
const IDLE: Duration = Duration::from_secs(60);
/// The greatest number of requests at once, and so of connections.
const MAX_CALLS: usize = 16;
const BODY_BYTES: usize = 2 * 1024 * 1024;
/// A shorter key would be found in many good answers by chance. Google's have 39 characters.
const LEAST_KEY_BYTES: usize = 8;

/// One request for all clients that wait for it.
type Call = Arc<OnceCell<Arc<Answer>>>;

pub(crate) struct Places {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    origin: String,
    key: Option<String>,
    turns: Semaphore,
    calls: Mutex<HashMap<String, Call>>,
}

/// Google's own text, or why there is none, as advice for a client.
pub(crate) struct Answer(Result<String, String>);

impl Places {
    pub(crate) fn new(cli: &Cli) -> Result<Places, String> {
        let origin = cli.places_url.trim_end_matches('/').to_owned();
        let is_origin = |uri: &Uri| uri.scheme_str() == Some("https") && uri.path() == "/";
        if !origin.parse().is_ok_and(|uri| is_origin(&uri)) {
            return Err(format!(
                "--places-url {origin:?} is not https://host[:port]"
            ));
        }
        let tls =
            ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
                .with_safe_default_protocol_versions()
                .map_err(|error| error.to_string())?
                .with_root_certificates(trusted(cli)?)
                .with_no_client_auth();
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(Some(CONNECT));
        http.set_nodelay(true);
        let https = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_only()
            .enable_http1()
            .wrap_connector(http);
        Ok(Places {
            client: Client::builder(TokioExecutor::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(IDLE)
                .pool_max_idle_per_host(MAX_CALLS)
                .build(https),
            origin,
            key: variable("HERD_PLACES_KEY"),
            turns: Semaphore::new(MAX_CALLS),
            calls: Mutex::default(),
        })
    }

    /// Asks Places, or waits for the same question of another client.
    pub(crate) async fn ask(&self, question: &str) -> Arc<Answer> {
        let Some(key) = &self.key else {
            return Arc::new(Answer(Err(
                "this server has no key for Google Places; its operator can give it one (HERD_PLACES_KEY)"
                    .to_owned(),
            )));
        };
        let call = self.calls().entry(question.to_owned()).or_default().clone();
        // If the asking client disconnects, the next waiting one asks.
        let answer = call
            .get_or_init(|| async { Arc::new(Answer(self.call(question, key).await)) })
            .await
            .clone();
        // Answers are shared, but not cached.
        if let Entry::Occupied(entry) = self.calls().entry(question.to_owned())
            && Arc::ptr_eq(entry.get(), &call)
        {
            entry.remove();
        }
        answer
    }

    fn calls(&self) -> MutexGuard<'_, HashMap<String, Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn call(&self, question: &str, key: &str) -> Result<String, String> {
        let began = Instant::now();
        let answer = match timeout(PATIENCE, self.fetch(question, key)).await {
            Ok(answer) => answer,
            Err(_) => {
                let patience = PATIENCE.as_secs();
                Err(format!(
                    "Google Places did not answer within {patience} s; try again later"
                ))
            }
        };
        let took = began.elapsed().as_secs_f64();
        match &answer {
            Ok(text) => info!(
                "places call {question}: {} bytes in {took:.6} s",
                text.len()
            ),
            Err(reason) => warn!("places call {question}: {reason} ({took:.6} s)"),
        }
        answer
    }

    async fn fetch(&self, question: &str, key: &str) -> Result<String, String> {
        // The semaphore is never closed, so this cannot fail.
        let _turn = self.turns.acquire().await;
        let uri = format!(
            "{}/maps/api/place/nearbysearch/json?{question}&key={}",
            self.origin,
            percent_encoded(key)
        );
        let request = Request::get(uri)
            .header("accept", "application/json")
            .header(
                "user-agent",
                concat!("herd-tokio/", env!("CARGO_PKG_VERSION")),
            )
            .body(Empty::new())
            .map_err(|_| "the key for Google Places cannot be sent".to_owned())?;
        let mut response = self.client.request(request.clone()).await;
        if response.as_ref().is_err_and(|error| !error.is_connect()) {
            // A kept connection may have been closed while idle. A GET may be sent twice.
            response = self.client.request(request).await;
        }
        let response = response.map_err(|error| {
            let reason = root_cause(&error);
            let (what, advice) = if !error.is_connect() {
                ("gave no answer that can be used", "try again later")
            } else if reason.contains("certificate") {
                let advice = "its operator has to look at the certificate authority that it trusts (--places-ca)";
                ("cannot be reached", advice)
            } else {
                ("cannot be reached", "try again later")
            };
            format!("Google Places {what}: {reason}; {advice}")
        })?;
        let status = response.status();
        let body = Limited::new(response.into_body(), BODY_BYTES)
            .collect()
            .await;
        let body = body.map_err(|error| {
            let reason = root_cause(&*error);
            format!("Google Places gave no answer that can be used: {reason}; try again later")
        })?;
        judge(status, &body.to_bytes(), key)
    }
}

/// The trusted certificate authorities.
fn trusted(cli: &Cli) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    let Some(path) = &cli.places_ca else {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        return Ok(roots);
    };
    let cannot = |what: &dyn std::fmt::Display| format!("--places-ca {}: {what}", path.display());
    let file = File::open(path).map_err(|error| cannot(&error))?;
    for certificate in CertificateDer::pem_reader_iter(BufReader::new(file)) {
        let certificate = certificate.map_err(|error| cannot(&error))?;
        roots.add(certificate).map_err(|error| cannot(&error))?;
    }
    if roots.is_empty() {
        return Err(cannot(&"there is no certificate in it"));
    }
    Ok(roots)
}

/// The innermost error. hyper's own text is only "client error (Connect)".
fn root_cause(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    let kind = cause.downcast_ref().map(io::Error::kind);
    match kind {
        Some(io::ErrorKind::UnexpectedEof) => "it closed the connection".to_owned(),
        _ => cause.to_string(),
    }
}

/// Accepts Google's text with status 200, and its JSON of an error. A response that contains the
/// key is refused: an error page of a proxy could repeat it.
fn judge(status: StatusCode, body: &[u8], key: &str) -> Result<String, String> {
    let status = status.as_u16();
    if key.len() >= LEAST_KEY_BYTES && memchr::memmem::find(body, key.as_bytes()).is_some() {
        return Err(format!(
            "Google Places answered with HTTP status {status}, and something that may not be shown"
        ));
    }
    let text = std::str::from_utf8(body).ok();
    match (status, text.filter(|text| Reply::parse(text).is_some())) {
        (200 | 400..=599, Some(text)) => Ok(text.to_owned()),
        (200, None) => Err(
            "Google Places answered with something that is not JSON; try again later".to_owned(),
        ),
        _ => Err(format!(
            "Google Places answered with HTTP status {status}; try again later"
        )),
    }
}

fn percent_encoded(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| match is_plain(byte) {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        })
        .collect()
}

/// The part of Google's answer that is used.
#[derive(Deserialize)]
struct Reply<'a> {
    #[serde(borrow)]
    results: Option<&'a RawValue>,
}

impl<'a> Reply<'a> {
    /// `None` if the text is not one JSON object.
    fn parse(text: &'a str) -> Option<Reply<'a>> {
        // serde would also accept a list for a struct.
        let is_object = text.trim_start().starts_with('{');
        serde_json::from_str(text).ok().filter(|_| is_object)
    }

    /// The elements of the list of results, as Google wrote them.
    fn elements(&self) -> Vec<&'a RawValue> {
        self.results
            .and_then(|results| serde_json::from_str(results.get()).ok())
            .unwrap_or_default()
    }
}

impl Answer {
    /// The source of the answer, for the log.
    pub(crate) fn source(&self) -> &'static str {
        match self.0 {
            Ok(_) => "from Places",
            Err(_) => "an error of our own",
        }
    }

    /// The JSON with at most `bound` places.
    pub(crate) fn json(&self, bound: usize) -> String {
        match &self.0 {
            Ok(text) => without_blank_lines(&cut(text, bound)),
            Err(reason) => format!(
                r#"{{"html_attributions" : [], "results" : [], "status" : "UNKNOWN_ERROR", "error_message" : {}}}"#,
                serde_json::Value::from(reason.as_str())
            ),
        }
    }
}

/// Google's text with at most `bound` elements in its list of results. Google's layout varies, so
/// the text is cut and not written anew.
fn cut(text: &str, bound: usize) -> String {
    let elements = Reply::parse(text).map_or(Vec::new(), |reply| reply.elements());
    // The end of an element in the text, of which it is a slice.
    let end = |element: &RawValue| {
        element.get().as_ptr() as usize - text.as_ptr() as usize + element.get().len()
    };
    match (
        bound.checked_sub(1).and_then(|last| elements.get(last)),
        elements.last(),
    ) {
        (Some(last_kept), Some(last)) => {
            format!("{}{}", &text[..end(last_kept)], &text[end(last)..])
        }
        _ => text.to_owned(),
    }
}

/// Reduces each run of newlines to one, and removes those at both ends. An empty line would end the
/// answer.
fn without_blank_lines(text: &str) -> String {
    const NEWLINES: [char; 2] = ['\r', '\n'];
    let mut rest = text.trim_matches(NEWLINES);
    let mut kept = String::with_capacity(rest.len());
    while let Some(at) = rest.find(NEWLINES) {
        let end = if rest[at..].starts_with("\r\n") { 2 } else { 1 };
        kept.push_str(&rest[..at + end]);
        rest = rest[at..].trim_start_matches(NEWLINES);
    }
    kept.push_str(rest);
    kept
}
