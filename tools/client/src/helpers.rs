//! Turns a typed line into the bytes that are sent. `iamat` and `whatsat` are helper commands, and
//! other lines are sent unchanged.
//!
//! The server's own parsers check the arguments of a helper, so the server will understand the
//! command.

use std::time::Duration;

use herd_mio::core::base::limits::LINE_BYTES;
use herd_mio::core::wire::coordinates::Coordinates;
use herd_mio::core::wire::lines::fields;
use herd_mio::core::wire::message::{Command, Radius};
use herd_mio::core::wire::posix_time::PosixTime;

use crate::answers::Expected;
use crate::printable;

/// The usage of `iamat`.
pub(crate) const IAMAT: &str = "iamat ID LAT LNG [TIME]";
/// The usage of `whatsat`.
pub(crate) const WHATSAT: &str = "whatsat ID [RADIUS] [BOUND]";

/// All commands for a server, in lines of at most 79 columns.
pub(crate) const COMMANDS: &str = "\
Commands:
  iamat ID LAT LNG [TIME]      set the position of ID, in degrees; TIME is in
                               POSIX seconds [default: now]
  whatsat ID [RADIUS] [BOUND]  list places near ID: at most BOUND (1 to 20)
                               [default: 5] within RADIUS kilometres (above 0,
                               at most 50) [default: 10]
  IAMAT ID +LAT-LNG TIME       the same commands in the protocol's own form;
  WHATSAT ID RADIUS BOUND      every other line is sent unchanged too
";

const RADIUS: &[u8] = b"10";
const BOUND: &[u8] = b"5";

/// The line that is sent, and the kind of its answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outgoing {
    /// The line without its LF.
    pub(crate) line: Vec<u8>,
    /// `None` if it gets no answer.
    pub(crate) expected: Option<Expected>,
}

/// Translates one line (without its LF).
///
/// # Errors
/// A helper command has wrong arguments. The text says in one line what is wrong.
pub(crate) fn outgoing(line: &[u8], now: impl Fn() -> Duration) -> Result<Outgoing, String> {
    let words: Vec<&[u8]> = fields(line).collect();
    let line = match words.split_first() {
        Some((&b"iamat", arguments)) => sendable(iamat(arguments, now)?)?,
        Some((&b"whatsat", arguments)) => sendable(whatsat(arguments)?)?,
        Some(_) | None => line.to_vec(),
    };
    let expected = Expected::for_line(&line);
    Ok(Outgoing { line, expected })
}

fn iamat(arguments: &[&[u8]], now: impl Fn() -> Duration) -> Result<Vec<u8>, String> {
    let (client, latitude, longitude, time) = match *arguments {
        [client, latitude, longitude] => (client, latitude, longitude, None),
        [client, latitude, longitude, time] => (client, latitude, longitude, Some(time)),
        _ => {
            return Err(format!(
                "usage: {IAMAT}, such as: iamat kiwi 34.0689 -118.4452"
            ));
        }
    };
    let latitude = degrees("latitude", latitude, 90, |text| [text, b"+0"].concat())?;
    let longitude = degrees("longitude", longitude, 180, |text| [b"+0", text].concat())?;
    let time = match time {
        Some(time) if PosixTime::parse(time).is_some() => time.to_vec(),
        Some(time) => {
            let shown = printable::line(time);
            return Err(format!(
                "the time {shown} is not POSIX seconds, such as 1621464827.959498503; leave it out for the current time"
            ));
        }
        None => {
            let now = now();
            format!("{}.{:09}", now.as_secs(), now.subsec_nanos()).into_bytes()
        }
    };
    let location = [latitude, longitude].concat();
    Ok([b"IAMAT", client, &location, &time].join(&b' '))
}

/// Writes `34.07` as `+34.07`. `located` makes a whole location of it, which the server's parser
/// checks.
fn degrees(
    what: &str,
    text: &[u8],
    limit: u32,
    located: fn(&[u8]) -> Vec<u8>,
) -> Result<Vec<u8>, String> {
    let signed = match text {
        [b'+' | b'-', ..] => text.to_vec(),
        _ => [b"+", text].concat(),
    };
    let number = std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse::<f64>().ok());
    // With two signs, the parser would take the second for the beginning of the longitude.
    let one_sign = !signed[1..].iter().any(|byte| b"+-".contains(byte));
    if one_sign && Coordinates::parse(&located(&signed)).is_some() {
        return Ok(signed);
    }
    let shown = printable::line(text);
    Err(match number {
        Some(number) if number.abs() > f64::from(limit) => {
            format!("the {what} {shown} is out of range: from -{limit} to {limit} degrees")
        }
        Some(_) | None => format!(
            "the {what} {shown} is not a plain decimal number of degrees, such as 34.0689 or -118.4452"
        ),
    })
}

fn whatsat(arguments: &[&[u8]]) -> Result<Vec<u8>, String> {
    let (client, radius, bound) = match *arguments {
        [client] => (client, RADIUS, BOUND),
        [client, radius] => (client, radius, BOUND),
        [client, radius, bound] => (client, radius, bound),
        _ => return Err(format!("usage: {WHATSAT}, such as: whatsat kiwi 10 5")),
    };
    if Radius::parse(radius).is_none() {
        let shown = printable::line(radius);
        return Err(format!(
            "the radius {shown} is not a plain number of kilometres above 0 and at most 50"
        ));
    }
    let line = [b"WHATSAT", client, radius, bound].join(&b' ');
    // The radius was already checked, so the bound is wrong.
    if Command::parse(&line) == Command::Invalid {
        let shown = printable::line(bound);
        return Err(format!(
            "the bound {shown} is not a whole number of places from 1 to 20"
        ));
    }
    Ok(line)
}

fn sendable(line: Vec<u8>) -> Result<Vec<u8>, String> {
    if line.len() > LINE_BYTES {
        return Err(format!(
            "the command has {} bytes, but a server accepts at most {LINE_BYTES}; use a shorter ID",
            line.len()
        ));
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(line: &str) -> Result<String, String> {
        let outgoing = outgoing(line.as_bytes(), || Duration::new(1_621_464_827, 7))?;
        Ok(String::from_utf8(outgoing.line).unwrap())
    }

    #[test]
    fn the_iamat_helper_adds_signs_and_the_time() {
        for (typed, expected) in [
            (
                "iamat kiwi 34.07 -118.44",
                "IAMAT kiwi +34.07-118.44 1621464827.000000007",
            ),
            (
                "  iamat\tkiwi  -0 +180.0 \r",
                "IAMAT kiwi -0+180.0 1621464827.000000007",
            ),
            ("iamat kiwi 90 180 12.5", "IAMAT kiwi +90+180 12.5"),
        ] {
            assert_eq!(sent(typed).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn the_whatsat_helper_adds_radius_and_bound() {
        assert_eq!(sent("whatsat kiwi").unwrap(), "WHATSAT kiwi 10 5");
        assert_eq!(sent("whatsat kiwi 0.5").unwrap(), "WHATSAT kiwi 0.5 5");
        assert_eq!(sent("whatsat kiwi 50 20").unwrap(), "WHATSAT kiwi 50 20");
    }

    #[test]
    fn other_lines_are_sent_unchanged() {
        for line in [
            "",
            " \t",
            "IAMAT kiwi +34-118 1\r",
            "  WHATSAT  kiwi 10  5 ",
            "Iamat kiwi 1 2",
            "iamatx",
            "AT x",
        ] {
            assert_eq!(sent(line).as_deref(), Ok(line));
        }
        let bytes = b"IAMAT \xff\xfe +1+1 1";
        assert_eq!(
            outgoing(bytes, || Duration::ZERO).unwrap().line,
            bytes,
            "not only UTF-8"
        );
        let helped = outgoing(b"iamat \xff 1 1 1", || Duration::ZERO).unwrap();
        assert_eq!(
            helped.line,
            bytes[..7]
                .iter()
                .chain(b" +1+1 1")
                .copied()
                .collect::<Vec<_>>()
        );
    }

    #[test]
    fn invalid_helper_arguments_are_reported_unsent() {
        for (typed, expected) in [
            (
                "iamat kiwi 91 0",
                "the latitude 91 is out of range: from -90 to 90 degrees",
            ),
            (
                "iamat kiwi 90.0000001 0",
                "the latitude 90.0000001 is out of range",
            ),
            (
                "iamat kiwi -3404.1 0",
                "the latitude -3404.1 is out of range",
            ),
            (
                "iamat kiwi 0 -180.5",
                "the longitude -180.5 is out of range: from -180 to 180 degrees",
            ),
            ("iamat kiwi 34,07 0", "the latitude 34,07 is not a plain"),
            ("iamat kiwi .5 0", "the latitude .5 is not a plain"),
            ("iamat kiwi 1e1 0", "the latitude 1e1 is not a plain"),
            ("iamat kiwi nan 0", "the latitude nan is not a plain"),
            ("iamat kiwi --1 0", "the latitude --1 is not a plain"),
            ("iamat kiwi +1-1 0", "the latitude +1-1 is not a plain"),
            ("iamat kiwi 0 +", "the longitude + is not a plain"),
            ("iamat kiwi 0 \x1b", "the longitude \\x1b is not a plain"),
            ("iamat kiwi 0 0 -1", "the time -1 is not POSIX seconds"),
            ("iamat kiwi 0", "usage: iamat ID LAT LNG [TIME]"),
            ("iamat kiwi 0 0 1 1", "usage: iamat"),
            ("whatsat", "usage: whatsat ID [RADIUS] [BOUND]"),
            ("whatsat kiwi 1 1 1", "usage: whatsat"),
            ("whatsat kiwi 0", "the radius 0 is not"),
            ("whatsat kiwi 50.1", "the radius 50.1 is not"),
            ("whatsat kiwi 10 21", "the bound 21 is not a whole number"),
            ("whatsat kiwi 10 1.5", "the bound 1.5 is not a whole number"),
        ] {
            let mistake = sent(typed).unwrap_err();
            assert!(mistake.starts_with(expected), "{typed}: {mistake}");
        }
        let long = format!("whatsat {}", "x".repeat(4096));
        assert!(sent(&long).unwrap_err().contains("accepts at most 4096"));
    }

    #[test]
    fn helper_commands_are_valid_for_the_server() {
        for typed in [
            "iamat kiwi 34.07 -118.44",
            "iamat k 00.0 -000 0",
            "whatsat k",
        ] {
            let line = sent(typed).unwrap();
            assert!(
                matches!(
                    Command::parse(line.as_bytes()),
                    Command::Iamat(_) | Command::Whatsat(_)
                ),
                "{line}"
            );
        }
    }
}
