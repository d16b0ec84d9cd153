//! The query of a request: its path, and the parameters after `?`.

use crate::core::base::limits::{LimitValue, Limits};
use crate::core::http::exposition::Format;

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Query {
    /// `/healthz/live`: whether the event loop runs.
    Live,
    /// `/healthz/ready`: whether the server should get clients.
    Ready,
    /// `/metrics`, in this format.
    Metrics(Format),
    /// `/status`: a summary.
    Status,
    /// `/links`: each neighbour (another server of the herd).
    Links,
    /// `/connections`: each connection.
    Connections(Page),
    /// `/calls`: each question to Google Places that has no answer yet.
    Calls(Page),
    /// `/slow`: the last slow turns (iterations of the event loop).
    Slow,
    /// `/clients/<id>`: the record of the client with this name.
    Client(Vec<u8>),
}

/// The part of a list that has not been written yet. The answer is made in steps, and each step
/// writes some entries. The entries of the list are in the order of their indices in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// The index at which the next step begins.
    pub from: usize,
    /// The number of entries that may still be written.
    pub left: usize,
    /// The index of the last entry that was written. `None` before the first entry.
    pub last: Option<usize>,
    /// Whether the first step was written.
    pub has_begun: bool,
}

/// Why a query is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueryError {
    /// There is no such path.
    NotFound,
    /// A `%` in the path is not followed by two hexadecimal digits.
    Encoding,
    /// A parameter is unknown, or its value is wrong.
    Parameter,
}

impl Query {
    /// Parses the target of a request. `accept` is the value of its `Accept`.
    ///
    /// # Errors
    /// There is no such path, or a parameter is wrong.
    pub fn parse(target: &str, accept: &str, limits: &Limits) -> Result<Query, QueryError> {
        let (path, parameters) = target.split_once('?').unwrap_or((target, ""));
        if let Some(id) = path.strip_prefix("/clients/") {
            return decoded(id).map(Query::Client);
        }
        match path {
            "/healthz/live" => Ok(Query::Live),
            "/healthz/ready" => Ok(Query::Ready),
            "/metrics" => Ok(Query::Metrics(Format::accepted(accept))),
            "/status" => Ok(Query::Status),
            "/links" => Ok(Query::Links),
            "/connections" => Page::parse(parameters, limits).map(Query::Connections),
            "/calls" => Page::parse(parameters, limits).map(Query::Calls),
            "/slow" => Ok(Query::Slow),
            _ => Err(QueryError::NotFound),
        }
    }
}

impl Page {
    /// Parses `after=…&limit=…`. Both may be missing.
    fn parse(parameters: &str, limits: &Limits) -> Result<Page, QueryError> {
        let most = limits.http_page_entries.to_count();
        let mut page = Page {
            from: 0,
            left: most,
            last: None,
            has_begun: false,
        };
        for parameter in parameters.split('&').filter(|it| !it.is_empty()) {
            let (name, value) = parameter.split_once('=').ok_or(QueryError::Parameter)?;
            let value: u32 = match value.bytes().all(|byte| byte.is_ascii_digit()) {
                true => value.parse().map_err(|_| QueryError::Parameter)?,
                false => return Err(QueryError::Parameter),
            };
            match name {
                "after" => page.from = value as usize + 1,
                "limit" => page.left = (value as usize).clamp(1, most),
                _ => return Err(QueryError::Parameter),
            }
        }
        Ok(page)
    }
}

/// Decodes percent-encoding: `%41` is `A` (RFC 3986, section 2.1). A client's name can have any
/// bytes.
fn decoded(text: &str) -> Result<Vec<u8>, QueryError> {
    let digit = |byte: Option<u8>| {
        let digit = byte.and_then(|byte| char::from(byte).to_digit(16));
        digit.map(|digit| digit as u8).ok_or(QueryError::Encoding)
    };
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => digit(bytes.next())? << 4 | digit(bytes.next())?,
            _ => byte,
        });
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(target: &str) -> Result<Query, QueryError> {
        Query::parse(target, "", &Limits::default())
    }

    #[test]
    fn paths_and_parameters_are_parsed() {
        assert_eq!(parse("/healthz/live"), Ok(Query::Live));
        assert_eq!(parse("/metrics?x"), Ok(Query::Metrics(Format::Prometheus)));
        for missing in [
            "/",
            "/healthz",
            "/healthz/live/",
            "/Metrics",
            "//metrics",
            "/clients",
        ] {
            assert_eq!(parse(missing), Err(QueryError::NotFound), "{missing}");
        }
        let page = |from, left| Page {
            from,
            left,
            last: None,
            has_begun: false,
        };
        assert_eq!(
            parse("/connections"),
            Ok(Query::Connections(page(0, 1_000)))
        );
        assert_eq!(
            parse("/connections?limit=5&after=9"),
            Ok(Query::Connections(page(10, 5)))
        );
        assert_eq!(
            parse("/calls?limit=999999"),
            Ok(Query::Calls(page(0, 1_000)))
        );
        assert_eq!(parse("/calls?limit=0"), Ok(Query::Calls(page(0, 1))));
        for wrong in [
            "after",
            "after=-1",
            "after=+1",
            "limit=",
            "limit=4294967296",
            "x=1",
        ] {
            assert_eq!(
                parse(&format!("/connections?{wrong}")),
                Err(QueryError::Parameter),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_client_s_name_can_have_any_bytes() {
        let client = |id: &str| parse(&format!("/clients/{id}"));
        assert_eq!(client("kiwi"), Ok(Query::Client(b"kiwi".to_vec())));
        assert_eq!(
            client("a%2Fb%00%ff/c%3f+"),
            Ok(Query::Client(b"a/b\0\xff/c?+".to_vec()))
        );
        for wrong in ["%", "%4", "%4g", "a%"] {
            assert_eq!(client(wrong), Err(QueryError::Encoding), "{wrong}");
        }
    }
}
