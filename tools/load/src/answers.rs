//! The check of answers. Every answer is checked, so the check must be cheap: it compares bytes.
//! Only a wrong answer is examined further.

use std::fmt::{self, Write as _};

use herd_mio::core::wire::escape::Escaped;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// The greatest length of a line: a command's 4,096 bytes, a server's name and a skew.
pub(crate) const LINE_BYTES: usize = 4096 + 256;
/// The greatest length of the JSON. By default servers accept 2 MiB from Places.
pub(crate) const JSON_BYTES: usize = 16 * 1024 * 1024;
/// The shown part of a long answer.
const SHOWN_BYTES: usize = 400;

/// The rules for all answers of one server.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// The beginning of every answer, such as `AT Riley `.
    beginning: Vec<u8>,
    /// The greatest allowed difference of the server's clock.
    pub(crate) tolerance_ns: u64,
    /// The greatest number of places that a `WHATSAT` asks for.
    pub(crate) bound: usize,
}

/// A wrong answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    /// The error.
    pub(crate) what: String,
    /// The command.
    pub(crate) sent: Vec<u8>,
    /// The expected answer, with a description in place of free bytes.
    pub(crate) expected: String,
    pub(crate) got: Vec<u8>,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}\n  sent      {}\n  expected  {}\n  got       ",
            self.what,
            Escaped(self.sent.trim_ascii_end()),
            self.expected
        )?;
        let shown = &self.got[..self.got.len().min(SHOWN_BYTES)];
        write!(f, "{}", Escaped(shown))?;
        if shown.len() < self.got.len() {
            write!(f, "… ({} bytes)", self.got.len())?;
        }
        Ok(())
    }
}

impl Rules {
    /// Answers come from the server `name`.
    pub(crate) fn new(name: &[u8], tolerance_ns: u64, bound: u8) -> Rules {
        Rules {
            beginning: [b"AT ", name, b" "].concat(),
            tolerance_ns,
            bound: bound.into(),
        }
    }

    /// Checks the answer to an `IAMAT` (both without their LF) that was stamped `stamp_ns` and
    /// answered at `received_ns`.
    #[inline]
    pub(crate) fn check_at(
        &self,
        line: &[u8],
        command: &[u8],
        stamp_ns: u64,
        received_ns: u64,
    ) -> Result<(), Box<Wrong>> {
        let arguments = arguments(command);
        let skew = line
            .strip_prefix(self.beginning.as_slice())
            .and_then(|rest| rest.strip_suffix(arguments))
            .and_then(|rest| rest.strip_suffix(b" "))
            .and_then(skew_ns);
        match skew {
            Some(skew) if self.is_plausible(skew, stamp_ns, received_ns) => Ok(()),
            _ => Err(self.wrong_at(line, command, stamp_ns, received_ns)),
        }
    }

    /// Whether the receipt that the skew implies lies between the sending and the receiving.
    fn is_plausible(&self, skew_ns: i64, stamp_ns: u64, received_ns: u64) -> bool {
        let tolerance = i128::from(self.tolerance_ns);
        let latest = i128::from(received_ns) - i128::from(stamp_ns) + tolerance;
        (-tolerance..=latest).contains(&skew_ns.into())
    }

    #[cold]
    fn wrong_at(&self, line: &[u8], command: &[u8], stamp_ns: u64, received_ns: u64) -> Box<Wrong> {
        let mut expected = self.beginning.clone();
        expected.extend_from_slice(b"<skew> ");
        expected.extend_from_slice(arguments(command));
        let mut shown = Escaped(&expected).to_string();
        let what = match first_difference(line, &expected) {
            Some(what) => what,
            None => {
                let latest = received_ns.saturating_sub(stamp_ns) + self.tolerance_ns;
                // Writing into a String does not fail.
                let _ = write!(
                    shown,
                    ", with a skew from {} to {}",
                    seconds(-i128::from(self.tolerance_ns)),
                    seconds(latest.into())
                );
                let skew = line.split(|&byte| byte == b' ').nth(2).unwrap_or_default();
                match skew_ns(skew) {
                    Some(_) => {
                        "the skew: the server cannot have received the command at that time (if its clock differs from this machine's, see --clock-tolerance)"
                    }
                    None => "the skew, which is a sign, whole seconds, a point and nine digits",
                }
            }
        };
        Box::new(Wrong {
            what: what.into(),
            sent: command.to_vec(),
            expected: shown,
            got: line.to_vec(),
        })
    }

    /// Checks the JSON of a `WHATSAT` answer. Returns whether it has places or an error.
    pub(crate) fn check_json(&self, json: &[u8]) -> Result<Found, String> {
        if json.trim_ascii_start().starts_with(b"[") && !error_of(json).is_empty() {
            return Ok(Found::Error); // Google's format for errors of streaming methods
        }
        let answer: Answer = serde_json::from_slice(json)
            .map_err(|error| format!("the JSON cannot be read: {error}"))?;
        let places = answer.results.len() + answer.places.len();
        if places > self.bound {
            return Err(format!(
                "{places} places, but the command asked for at most {}",
                self.bound
            ));
        }
        let is_error =
            answer.error.is_some() || !matches!(answer.status, Status::Fine | Status::Nothing);
        Ok(if is_error {
            Found::Error
        } else {
            Found::Places
        })
    }
}

/// The content of an answer's JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// Places, or an empty result.
    Places,
    /// An error of Places. The protocol allows it, and the report counts it.
    Error,
}

/// The needed parts of Google's JSON. No element is kept, so nothing is allocated.
#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    results: Vec<IgnoredAny>,
    #[serde(default)]
    places: Vec<IgnoredAny>,
    #[serde(default)]
    status: Status,
    error: Option<IgnoredAny>,
}

/// The legacy API's status; the New API has none.
#[derive(Deserialize, Default)]
enum Status {
    #[default]
    #[serde(rename = "OK")]
    Fine,
    #[serde(rename = "ZERO_RESULTS")]
    Nothing,
    #[serde(other)]
    Error,
}

/// The message of an error of Places.
pub(crate) fn error_of(json: &[u8]) -> String {
    let Ok(mut json) = serde_json::from_slice::<serde_json::Value>(json) else {
        return String::new();
    };
    if let Some(elements) = json.as_array_mut() {
        let first = elements.iter_mut().find(|one| one.get("error").is_some());
        json = first.map(serde_json::Value::take).unwrap_or_default();
    }
    let texts = [
        &json["status"],
        &json["error_message"],
        &json["error"]["status"],
        &json["error"]["message"],
    ];
    let texts: Vec<&str> = texts.iter().filter_map(|text| text.as_str()).collect();
    Escaped(texts.join(": ").as_bytes()).to_string()
}

/// The server's name, if this line is the answer to an `IAMAT`.
pub(crate) fn server_of(line: &[u8]) -> Option<&[u8]> {
    let mut fields = line.split(|&byte| byte == b' ');
    let is_at = fields.next()? == b"AT";
    fields.next().filter(|name| is_at && !name.is_empty())
}

/// The arguments of an `IAMAT`: id, place and time. The answer repeats them.
fn arguments(command: &[u8]) -> &[u8] {
    command.strip_prefix(b"IAMAT ").unwrap_or(command)
}

/// Parses a skew: a sign, whole seconds, a point, nine digits. Leading zeros and a negative zero
/// are errors.
fn skew_ns(text: &[u8]) -> Option<i64> {
    let (&sign, size) = text.split_first()?;
    let point = size.len().checked_sub(10)?;
    let whole = &size[..point];
    if size[point] != b'.' || whole.is_empty() || (whole.len() > 1 && whole[0] == b'0') {
        return None;
    }
    let digits = whole.iter().chain(&size[point + 1..]);
    let size = digits.into_iter().try_fold(0i64, |value, digit| {
        let digit = digit.is_ascii_digit().then(|| i64::from(digit - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })?;
    match sign {
        b'+' => Some(size),
        b'-' if size != 0 => Some(-size),
        _ => None,
    }
}

/// The first difference of a line from the expected one, apart from the skew. `None` if there is
/// none.
fn first_difference(line: &[u8], expected: &[u8]) -> Option<&'static str> {
    const FIELDS: [&str; 6] = [
        "the answer is no AT line",
        "the server's name",
        "the skew",
        "the client's id",
        "the place",
        "the time",
    ];
    let mut got = line.split(|&byte| byte == b' ');
    let mut wanted = expected.split(|&byte| byte == b' ');
    for (number, field) in FIELDS.into_iter().enumerate() {
        let (got, wanted) = (got.next(), wanted.next());
        if number != 2 && got != wanted {
            return Some(field);
        }
    }
    got.next().map(|_| "more fields than an AT line has")
}

/// Nanoseconds in the format of a skew.
fn seconds(ns: i128) -> String {
    let sign = if ns < 0 { '-' } else { '+' };
    let size = ns.unsigned_abs();
    format!("{sign}{}.{:09}", size / 1_000_000_000, size % 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMAND: &[u8] = b"IAMAT load-0000001 +34.068930-118.445127 100.000000000";
    const STAMP: u64 = 100_000_000_000;
    const RECEIVED: u64 = STAMP + 500_000;

    fn check(line: &str) -> Result<(), Box<Wrong>> {
        Rules::new(b"Riley", 1_000_000, 5).check_at(line.as_bytes(), COMMAND, STAMP, RECEIVED)
    }

    fn what(line: &str) -> String {
        check(line).unwrap_err().what
    }

    #[test]
    fn right_answers_are_accepted() {
        for skew in [
            "+0.000000000",
            "+0.000400000",
            "+0.001500000", // the end of the answer's way, and the tolerance
            "-0.001000000",
        ] {
            let line = format!("AT Riley {skew} load-0000001 +34.068930-118.445127 100.000000000");
            assert_eq!(check(&line), Ok(()), "{line}");
        }
    }

    #[test]
    fn each_wrong_answer_is_named() {
        let rest = "load-0000001 +34.068930-118.445127 100.000000000";
        let line = |skew: &str| format!("AT Riley {skew} {rest}");
        for skew in [
            "0.000400000",
            "+.000400000",
            "+00.000400000",
            "+0.00040000",
            "+0.0004000000",
            "-0.000000000",
            "--0.00040000",
            "+0,000400000",
            "+4e-4",
            "+0.00040000x",
            "",
        ] {
            assert!(what(&line(skew)).starts_with("the skew, which"), "{skew}");
        }
        for skew in [
            "+0.001500001",
            "-0.001000001",
            "+9223372036.854775807",
            "-5.000000000",
        ] {
            assert!(what(&line(skew)).starts_with("the skew: "), "{skew}");
        }
        assert_eq!(
            what(&format!("AT Jaquez +0.000000001 {rest}")),
            "the server's name"
        );
        assert_eq!(
            what("AT Riley +0.000000001 load-0000002 +34.068930-118.445127 100.000000000"),
            "the client's id"
        );
        assert_eq!(
            what("AT Riley +0.000000001 load-0000001 +34.068931-118.445127 100.000000000"),
            "the place"
        );
        assert_eq!(
            what("AT Riley +0.000000001 load-0000001 +34.068930-118.445127 100.000000001"),
            "the time"
        );
        assert_eq!(
            what(&format!("AT Riley +0.000000001 {rest} more")),
            "more fields than an AT line has"
        );
        assert_eq!(
            what(&format!("AT Riley +0.000000001 {rest}\r")),
            "the time",
            "an LF alone ends a line"
        );
        assert_eq!(what(&format!("? IAMAT {rest}")), "the answer is no AT line");
    }

    #[test]
    fn a_wrong_answer_is_shown_escaped_with_the_expected_one() {
        let wrong = check("AT Riley +7.000000000 load-0000001 +34.068930-118.445127 100.000000000");
        assert_eq!(
            wrong.unwrap_err().to_string(),
            "the skew: the server cannot have received the command at that time (if its clock differs from this machine's, see --clock-tolerance)\n  \
             sent      IAMAT load-0000001 +34.068930-118.445127 100.000000000\n  \
             expected  AT Riley <skew> load-0000001 +34.068930-118.445127 100.000000000, with a skew from -0.001000000 to +0.001500000\n  \
             got       AT Riley +7.000000000 load-0000001 +34.068930-118.445127 100.000000000"
        );
        let shown = check(&format!("\x1b[2J{}", "x".repeat(5000)))
            .unwrap_err()
            .to_string();
        assert!(shown.contains("got       \\x1b[2Jxxx") && shown.ends_with("x… (5004 bytes)"));
    }

    #[test]
    fn places_in_the_json_are_counted() {
        let rules = Rules::new(b"Riley", 0, 2);
        let check = |json: &str| rules.check_json(json.as_bytes());
        for good in [
            r#"{"html_attributions" : [], "results" : [{"name": "x]}"}, {}], "status" : "OK"}"#,
            r#"{"results" : [], "status" : "ZERO_RESULTS"}"#,
            r#"{"places": [{}]}"#,
            "{}",
        ] {
            assert_eq!(check(good), Ok(Found::Places), "{good}");
        }
        for error in [
            r#"{"results" : [], "status" : "UNKNOWN_ERROR", "error_message" : "no key"}"#,
            r#"{"error": {"code": 403, "message": "no", "status": "PERMISSION_DENIED"}}"#,
        ] {
            assert_eq!(check(error), Ok(Found::Error), "{error}");
        }
        assert_eq!(
            check(r#"{"results": [1, 2, 3], "status": "OK"}"#),
            Err("3 places, but the command asked for at most 2".into())
        );
        for bad in ["", "{", "[", "{}{}", r#"{"results": 5}"#, "null", "\"OK\""] {
            assert!(
                check(bad).unwrap_err().starts_with("the JSON cannot"),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_places_error_is_shown_with_its_message() {
        let legacy = br#"{"results": [], "status": "UNKNOWN_ERROR", "error_message": "no key\n"}"#;
        assert_eq!(error_of(legacy), "UNKNOWN_ERROR: no key\\x0a");
        let array =
            br#"[{"error": {"code": 403, "status": "PERMISSION_DENIED", "message": "no"}}]"#;
        assert_eq!(error_of(array), "PERMISSION_DENIED: no");
        assert_eq!(error_of(b"[1]"), "");
        let new = br#"{"error": {"code": 403, "message": "no", "status": "PERMISSION_DENIED"}}"#;
        assert_eq!(error_of(new), "PERMISSION_DENIED: no");
        assert_eq!(error_of(b"x"), "");
    }

    #[test]
    fn the_server_name_is_read_from_an_at_line() {
        assert_eq!(
            server_of(b"AT Riley +0.000000000 a b c"),
            Some(&b"Riley"[..])
        );
        for other in ["", "AT", "AT  +0.0", "? IAMAT", "ATRiley x"] {
            assert_eq!(server_of(other.as_bytes()), None, "{other}");
        }
    }
}
