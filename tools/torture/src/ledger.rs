//! The positions that clients sent and the answers that they got. They decide what a later answer
//! may be.
//!
//! An acknowledged position must not be lost. A later position without an acknowledgement may have
//! been taken or not. So there are two right answers about a client. One is its last acknowledged
//! line, byte for byte. The other is an AT line for a position that was sent after it.

use std::collections::BTreeMap;
use std::time::Duration;

use herd_testkit::clock;
use serde_json::Value;

use crate::verdict::{Failure, Kind, Reply};

/// Places near a client are at most so many degrees away.
const NEAR_DEGREES: f64 = 1.0;
/// At most so many characters of a wrong answer are shown.
const SHOWN_CHARS: usize = 300;

/// A client and its home. No two homes are near one another, so the places in an answer show whose
/// answer it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Client {
    pub(crate) name: &'static str,
    /// Whole degrees.
    latitude: i32,
    longitude: i32,
}

const fn client(name: &'static str, latitude: i32, longitude: i32) -> Client {
    Client {
        name,
        latitude,
        longitude,
    }
}

/// Sends its positions to the server under test.
pub(crate) const KIWI: Client = client("kiwi", 34, -118);
/// Sends its positions to the server under test too.
pub(crate) const MANGO: Client = client("mango", -33, 151);
/// Sends its positions to the neighbour.
pub(crate) const PLUM: Client = client("plum", 51, 0);
/// Sent their positions to an earlier life of the server under test.
pub(crate) const EARLIER: [Client; 3] = [
    client("fig", 48, 2),
    client("lime", -22, -43),
    client("pear", 35, 139),
];

/// A position that was sent.
#[derive(Clone, Debug)]
struct Said {
    server: &'static str,
    /// `client location time`
    words: String,
    time: Duration,
    /// The AT line that acknowledged it.
    answer: Option<String>,
}

/// An IAMAT command, and where the ledger has its position.
#[derive(Debug)]
pub(crate) struct Iamat {
    /// The command without its LF.
    pub(crate) text: String,
    client: Client,
    index: usize,
}

/// All positions that were sent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    said: BTreeMap<Client, Vec<Said>>,
    last_time: Duration,
}

impl Ledger {
    /// The next position of this client, for this server.
    pub(crate) fn iamat(&mut self, server: &'static str, client: Client) -> Iamat {
        let time = clock::since_1970().max(self.last_time + Duration::from_nanos(1));
        self.last_time = time;
        let said = self.said.entry(client).or_default();
        let index = said.len();
        let Client {
            name,
            latitude,
            longitude,
        } = client;
        // Each position is about a hundred metres north of the one before.
        let thousandths = index % 1000;
        let words = format!(
            "{name} {latitude:+}.{thousandths:03}{longitude:+}.5 {}.{:09}",
            time.as_secs(),
            time.subsec_nanos()
        );
        let text = format!("IAMAT {words}");
        said.push(Said {
            server,
            words,
            time,
            answer: None,
        });
        Iamat {
            text,
            client,
            index,
        }
    }

    /// Judges the answer to an IAMAT, a line without its LF. A right answer counts as an
    /// acknowledgement from now on.
    pub(crate) fn answered(&mut self, iamat: &Iamat, line: &[u8]) -> Reply {
        let said = self
            .said
            .get_mut(&iamat.client)
            .and_then(|said| said.get_mut(iamat.index));
        let Some(said) = said else {
            return Reply::wrong("an answer without a command");
        };
        let line = String::from_utf8_lossy(line);
        if *line == *format!("? {}", iamat.text) {
            return Reply::Refused(format!("? {}", iamat.text));
        }
        if !said.may_be(&line) {
            return wrong(&iamat.text, &line);
        }
        said.answer = Some(line.into_owned());
        Reply::Right
    }

    /// Judges the first line of an answer to a WHATSAT about this client, without its LF.
    pub(crate) fn recalled(&self, question: &str, client: Client, line: &[u8]) -> Reply {
        let line = String::from_utf8_lossy(line);
        let said = self.said.get(&client).map_or(&[][..], Vec::as_slice);
        let last = said.iter().rposition(|said| said.answer.is_some());
        if *line == *format!("? {question}") {
            return Reply::Refused(format!("? {question}"));
        }
        let found = said.iter().position(|said| said.may_be(&line));
        match (found, last) {
            (None, _) => wrong(question, &line),
            (Some(found), Some(last)) if found < last => Reply::Bad(Failure::new(
                Kind::Lost,
                format!(
                    "the answer to {question} has an older position than the last acknowledged one: {}",
                    shown(&line)
                ),
            )),
            (Some(found), _) => match &said[found].answer {
                Some(answer) if **answer != *line => wrong(question, &line),
                Some(_) | None => Reply::Right,
            },
        }
    }

    /// Whether this server has acknowledged a position of this client.
    pub(crate) fn has_acknowledged(&self, server: &str, client: Client) -> bool {
        self.said.get(&client).is_some_and(|said| {
            said.iter()
                .any(|said| said.server == server && said.answer.is_some())
        })
    }
}

impl Said {
    /// Whether the server can have made this line from the position by now.
    fn may_be(&self, line: &str) -> bool {
        let skew = line
            .strip_prefix("AT ")
            .and_then(|rest| rest.strip_prefix(self.server)?.strip_prefix(' '))
            .and_then(|rest| rest.strip_suffix(&self.words)?.strip_suffix(' '))
            .and_then(seconds);
        // Client and server share one clock, so the receipt is not in the future.
        skew.is_some_and(|skew| self.time + skew <= clock::since_1970())
    }
}

/// Parses a time such as `+0.263873386`: a plus sign, whole seconds, a point, nine digits.
fn seconds(skew: &str) -> Option<Duration> {
    let (whole, fraction) = skew.strip_prefix('+')?.split_once('.')?;
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if fraction.len() != 9 || !is_number(fraction) || !is_number(whole) {
        return None;
    }
    Some(Duration::new(whole.parse().ok()?, fraction.parse().ok()?))
}

/// Judges the JSON of an answer to a WHATSAT about this client, without the two LFs after it.
pub(crate) fn judge_places(question: &str, client: Client, bound: usize, json: &[u8]) -> Reply {
    let text = String::from_utf8_lossy(json);
    let Ok(value) = serde_json::from_slice::<Value>(json) else {
        return wrong(question, &text);
    };
    match value["status"].as_str() {
        Some("OK") => {}
        Some("UNKNOWN_ERROR") if value["results"].as_array().is_some_and(Vec::is_empty) => {
            return Reply::Refused(value["error_message"].to_string());
        }
        Some(_) | None => return wrong(question, &text),
    }
    let is_near = |place: &Value| {
        let location = &place["geometry"]["location"];
        let off = |key: &str, degrees: i32| {
            let there = location[key].as_f64().unwrap_or(f64::INFINITY);
            let here = f64::from(degrees) + 0.5_f64.copysign(f64::from(degrees));
            (there - here).abs()
        };
        off("lat", client.latitude) < NEAR_DEGREES && off("lng", client.longitude) < NEAR_DEGREES
    };
    match value["results"].as_array() {
        Some(places) if places.len() == bound && places.iter().all(is_near) => Reply::Right,
        Some(_) | None => wrong(question, &text),
    }
}

fn wrong(question: &str, answer: &str) -> Reply {
    Reply::wrong(format!("the answer to {question} is \"{}\"", shown(answer)))
}

fn shown(answer: &str) -> String {
    answer.escape_debug().take(SHOWN_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(iamat: &Iamat, skew: &str) -> String {
        iamat.text.replacen("IAMAT", &format!("AT Riley {skew}"), 1)
    }

    /// Two positions. Only the first was acknowledged.
    fn two() -> (Ledger, String, Iamat) {
        let mut ledger = Ledger::default();
        let first = ledger.iamat("Riley", KIWI);
        let line = at(&first, "+0.000000001");
        assert_eq!(ledger.answered(&first, line.as_bytes()), Reply::Right);
        let second = ledger.iamat("Riley", KIWI);
        (ledger, line, second)
    }

    #[test]
    fn iamat_commands_follow_the_protocol() {
        let mut ledger = Ledger::default();
        let iamat = ledger.iamat("Riley", KIWI);
        assert!(iamat.text.starts_with("IAMAT kiwi +34.000-118.5 "));
        let iamat = ledger.iamat("Riley", KIWI);
        assert!(iamat.text.starts_with("IAMAT kiwi +34.001-118.5 "));
        let iamat = ledger.iamat("Jaquez", PLUM);
        assert!(iamat.text.starts_with("IAMAT plum +51.000+0.5 "));
    }

    #[test]
    fn answers_to_iamat_are_judged() {
        let mut ledger = Ledger::default();
        let iamat = ledger.iamat("Riley", KIWI);
        let refusal = format!("? {}", iamat.text);
        assert!(matches!(
            ledger.answered(&iamat, refusal.as_bytes()),
            Reply::Refused(_)
        ));
        for wrong in [
            at(&iamat, "+0.00000001"),
            at(&iamat, "-0.000000001"),
            at(&iamat, "+9.000000001"),
            at(&iamat, "+0.000000001").replace("Riley", "Jaquez"),
            at(&iamat, "+0.000000001").replace("kiwi", "mango"),
            String::new(),
        ] {
            let reply = ledger.answered(&iamat, wrong.as_bytes());
            assert!(matches!(reply, Reply::Bad(_)), "{wrong}");
        }
        assert!(!ledger.has_acknowledged("Riley", KIWI));
        let right = at(&iamat, "+0.000000001");
        assert_eq!(ledger.answered(&iamat, right.as_bytes()), Reply::Right);
        assert!(ledger.has_acknowledged("Riley", KIWI));
        assert!(!ledger.has_acknowledged("Jaquez", KIWI));
    }

    #[test]
    fn an_acknowledged_position_must_be_recalled() {
        let question = "WHATSAT kiwi 10 2";
        let (mut ledger, first, second) = two();
        let recalled =
            |ledger: &Ledger, line: &str| ledger.recalled(question, KIWI, line.as_bytes());
        // The server may have taken the second position.
        assert_eq!(recalled(&ledger, &first), Reply::Right);
        let line = at(&second, "+0.000000002");
        assert_eq!(recalled(&ledger, &line), Reply::Right);
        // A line with another skew than the acknowledged one is wrong.
        let other = first.replace("+0.000000001", "+0.000000000");
        assert!(matches!(recalled(&ledger, &other), Reply::Bad(_)));
        assert!(matches!(recalled(&ledger, "AT Riley x"), Reply::Bad(_)));
        assert!(matches!(
            recalled(&ledger, &format!("? {question}")),
            Reply::Refused(_)
        ));

        assert_eq!(ledger.answered(&second, line.as_bytes()), Reply::Right);
        assert_eq!(recalled(&ledger, &line), Reply::Right);
        let Reply::Bad(failure) = recalled(&ledger, &first) else {
            panic!("an older position was taken");
        };
        assert_eq!(failure.kind, Kind::Lost);
    }

    #[test]
    fn places() {
        let place = |lat: f64, lng: f64| {
            format!("{{\"geometry\":{{\"location\":{{\"lat\":{lat},\"lng\":{lng}}}}}}}")
        };
        let near = place(-33.1, 151.4);
        let body = |places: &[&str], status: &str| {
            format!(
                "{{\"results\":[{}],\"status\":\"{status}\"}}",
                places.join(",")
            )
        };
        let judge = |json: &str| judge_places("WHATSAT mango 10 2", MANGO, 2, json.as_bytes());
        assert_eq!(judge(&body(&[&near, &near], "OK")), Reply::Right);
        assert!(matches!(
            judge(&body(&[], "UNKNOWN_ERROR")),
            Reply::Refused(_)
        ));
        let far = place(34.1, -118.4);
        for wrong in [
            body(&[&near], "OK"),
            body(&[&near, &far], "OK"),
            body(&[&near, &near], "REQUEST_DENIED"),
            body(&[&near, &near], "UNKNOWN_ERROR"),
            body(&[&near, "{}"], "OK"),
            "{".to_owned(),
        ] {
            assert!(matches!(judge(&wrong), Reply::Bad(_)), "{wrong}");
        }
    }
}
