//! Checks an answer byte for byte.
//!
//! The checks tolerate no deviation. They share no code with the server: they follow the
//! description of the protocol alone.

use std::time::Duration;

use serde_json::Value;

/// The fields of an IAMAT.
#[derive(Debug)]
pub(crate) struct Position {
    pub(crate) client: &'static str,
    pub(crate) location: &'static str,
    /// POSIX seconds with nine decimals.
    pub(crate) time: Duration,
}

impl Position {
    /// The part that IAMAT and AT have in common.
    fn words(&self) -> String {
        let Position {
            client, location, ..
        } = self;
        let time = self.time;
        format!("{client} {location} {}", seconds(time))
    }

    pub(crate) fn command(&self) -> String {
        format!("IAMAT {}", self.words())
    }

    /// A pattern of the answer to [`command`](Position::command), for a person to read.
    pub(crate) fn expected(&self, server: &str) -> String {
        format!(
            "AT {server} +<how long it took, 9 decimals> {}",
            self.words()
        )
    }

    /// Returns the AT line of this answer without its LF, or why the answer is wrong. `read` is the
    /// time when the answer had arrived.
    pub(crate) fn check(
        &self,
        server: &str,
        answer: &[u8],
        read: Duration,
    ) -> Result<String, String> {
        let text = std::str::from_utf8(answer).map_err(|_| "it is not text".to_owned())?;
        let line = text.strip_suffix('\n').ok_or("it does not end with LF")?;
        let rest = line
            .strip_prefix(&format!("AT {server} "))
            .ok_or_else(|| format!("it does not begin with `AT {server} `"))?;
        let skew = rest
            .strip_suffix(&format!(" {}", self.words()))
            .ok_or("it does not end with the client, location and time that were sent")?;
        let skew = elapsed(skew).ok_or_else(|| {
            format!("{skew:?} is not a time difference of the form +SECONDS.NANOSECONDS")
        })?;
        // Client and server share one clock. The server received the command after the stamp and
        // before the answer arrived, so the skew is at most this.
        let most = read.saturating_sub(self.time);
        if skew > most {
            return Err(format!(
                "the server reports a delay of {} s, but the whole exchange took {} s",
                seconds(skew),
                seconds(most)
            ));
        }
        Ok(line.to_owned())
    }
}

/// The places near a client: the part of an answer that follows the AT line.
#[derive(Debug, PartialEq)]
pub(crate) struct Nearby {
    /// Bytes of the JSON, without the two LFs after it.
    pub(crate) size: usize,
    pub(crate) names: Vec<String>,
}

impl Nearby {
    /// Reads the JSON and the two LFs after it, or says what is wrong with them.
    pub(crate) fn check(answer: &[u8], bound: usize) -> Result<Nearby, String> {
        let json = answer
            .strip_suffix(b"\n\n")
            .ok_or("it does not end with two LFs")?;
        if json.ends_with(b"\n") {
            return Err("it ends with more than two LFs".to_owned());
        }
        if json.windows(2).any(|pair| pair == b"\n\n") {
            return Err("there are two LFs in a row inside the JSON".to_owned());
        }
        let value: Value = serde_json::from_slice(json)
            .map_err(|error| format!("the JSON is invalid: {error}"))?;
        if value["status"] != "OK" {
            return Err(format!(
                "the JSON's status is {}, not \"OK\"",
                value["status"]
            ));
        }
        let results = value["results"]
            .as_array()
            .ok_or("the JSON has no results")?;
        if results.len() != bound {
            return Err(format!(
                "the JSON has {} results, not {bound}",
                results.len()
            ));
        }
        let names = results
            .iter()
            .map(|place| place["name"].as_str().map(str::to_owned));
        Ok(Nearby {
            size: json.len(),
            names: names.collect::<Option<_>>().ok_or("a place has no name")?,
        })
    }
}

/// The time as clients write it: whole seconds, a point, nine digits.
fn seconds(duration: Duration) -> String {
    format!("{}.{:09}", duration.as_secs(), duration.subsec_nanos())
}

/// Parses a time such as `+0.263873386`: a plus sign, whole seconds without leading zeros, a point,
/// nine digits.
fn elapsed(skew: &str) -> Option<Duration> {
    let (whole, fraction) = skew.strip_prefix('+')?.split_once('.')?;
    if fraction.len() != 9 {
        return None; // With nine digits Duration::new cannot overflow.
    }
    let duration = Duration::new(whole.parse().ok()?, fraction.parse().ok()?);
    // `parse` accepts more than digits, a `+` for example. So the text must be the same when
    // written again.
    (skew == format!("+{}", seconds(duration))).then_some(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIWI: Position = Position {
        client: "kiwi",
        location: "+34.0-118.0",
        time: Duration::new(1_621_464_827, 959_498_503),
    };

    fn check(answer: &str) -> Result<String, String> {
        KIWI.check(
            "Riley",
            answer.as_bytes(),
            KIWI.time + Duration::from_millis(1),
        )
    }

    #[test]
    fn a_right_at_line_is_accepted() {
        assert_eq!(
            KIWI.command(),
            "IAMAT kiwi +34.0-118.0 1621464827.959498503"
        );
        let line = "AT Riley +0.000263873 kiwi +34.0-118.0 1621464827.959498503";
        assert_eq!(check(&format!("{line}\n")).as_deref(), Ok(line));
    }

    #[test]
    fn wrong_at_lines_are_rejected() {
        let rest = "kiwi +34.0-118.0 1621464827.959498503";
        for wrong in [
            format!("AT Riley +0.000263873 {rest}"),
            format!("AT Riley +0.000263873 {rest}\n\n"),
            format!("AT Riley +0.000263873 {rest}\r\n"),
            format!("AT Bernard +0.000263873 {rest}\n"),
            format!("AT Riley  +0.000263873 {rest}\n"),
            format!("AT Riley -0.000263873 {rest}\n"),
            format!("AT Riley 0.000263873 {rest}\n"),
            format!("AT Riley +-0.000263873 {rest}\n"),
            format!("AT Riley +0.00026387 {rest}\n"),
            format!("AT Riley +0.0002638730 {rest}\n"),
            format!("AT Riley +00.000263873 {rest}\n"),
            format!("AT Riley +0.+00263873 {rest}\n"),
            format!("AT Riley +2.6e-4 {rest}\n"),
            format!("AT Riley +0.001000001 {rest}\n"), // longer than from the stamp to the answer
            "AT Riley +0.000263873 kiwi +34.0-118.0 1621464827.9594985\n".to_owned(),
            "AT Riley +0.000263873 kiwi +34.00-118.0 1621464827.959498503\n".to_owned(),
            format!("? IAMAT {rest}\n"),
            String::new(),
        ] {
            assert!(check(&wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn places() {
        let two = "{\n   \"results\" : [ {\"name\": \"a \\\"b\\\"\"}, {\"name\": \"c\"} ],\n   \"status\" : \"OK\"\n}";
        let nearby = Nearby::check(format!("{two}\n\n").as_bytes(), 2).unwrap();
        assert_eq!(nearby.names, ["a \"b\"", "c"]);
        assert_eq!(nearby.size, two.len());
        for (wrong, bound) in [
            (format!("{two}\n\n"), 3),
            (format!("{two}\n"), 2),
            (format!("{two}\n\n\n"), 2),
            (format!("{}\n\n", two.replace('\n', "\n\n")), 2),
            (format!("{}\n\n", two.replace("OK", "UNKNOWN_ERROR")), 2),
            (format!("{}\n\n", two.replace("name", "mane")), 2),
            (format!("{}\n\n", two.replace('}', "")), 2),
            ("\n\n".to_owned(), 1),
        ] {
            assert!(Nearby::check(wrong.as_bytes(), bound).is_err(), "{wrong:?}");
        }
    }
}
