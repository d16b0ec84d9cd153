//! The output of answers, for a user or a script.

use std::env;
use std::io::{self, Write};

use herd_mio::core::base::counted::Counted;
use herd_mio::core::base::limits::LINE_BYTES;
use herd_mio::core::wire::coordinates::Coordinates;
use herd_mio::core::wire::message::{At, Command};
use time::OffsetDateTime;

use crate::answers::Answer;
use crate::failure::Status;
use crate::places::{Found, Place, Spot};
use crate::printable;

/// The style of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// Byte for byte, for a script.
    Raw,
    /// With explanations, for a user.
    Readable,
}

/// Colours by their use.
#[derive(Clone, Copy)]
enum Ink {
    Server,
    Skew,
    Client,
    Location,
    Time,
    Aside,
    Bad,
}

impl Ink {
    /// Select Graphic Rendition (ECMA-48 §8.3.117). Terminal themes make these 16 colours readable.
    const fn code(self) -> &'static str {
        match self {
            Ink::Server => "32",
            Ink::Skew => "33",
            Ink::Client => "1",
            Ink::Location => "36",
            Ink::Time => "35",
            Ink::Aside => "2",
            Ink::Bad => "31",
        }
    }
}

/// The style and the target of the output.
pub(crate) struct Show {
    style: Style,
    terminal: bool,
    coloured: bool,
}

impl Show {
    /// Without `wish`, a terminal gets [`Style::Readable`] and everything else [`Style::Raw`].
    pub(crate) fn new(wish: Option<Style>, terminal: bool) -> Show {
        let usual = if terminal {
            Style::Readable
        } else {
            Style::Raw
        };
        // https://no-color.org: the variable is set and not empty.
        let unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let unable = env::var_os("TERM").is_some_and(|value| value == "dumb");
        Show {
            style: wish.unwrap_or(usual),
            terminal,
            coloured: terminal && !unwanted && !unable,
        }
    }

    /// Whether colours may be used.
    pub(crate) fn is_coloured(&self) -> bool {
        self.coloured
    }

    /// Prints one answer. Returns its status.
    pub(crate) fn answer(&self, out: &mut impl Write, answer: &Answer<'_>) -> io::Result<Status> {
        match *answer {
            Answer::At(line) => {
                self.at(out, line)?;
                Ok(Status::Fine)
            }
            Answer::Refused(line) => {
                self.refused(out, line)?;
                Ok(Status::Refused)
            }
            Answer::Places { at, json } => {
                let found = Found::read(json);
                self.at(out, at)?;
                match self.style {
                    Style::Raw => self.raw(out, &[json, b"\n\n"].concat())?,
                    Style::Readable => self.found(out, &found, at)?,
                }
                Ok(match found {
                    Found::Places(_) => Status::Fine,
                    Found::Error(_) => Status::Refused,
                })
            }
        }
    }

    /// Prints the exact bytes. On a terminal, control characters are escaped.
    fn raw(&self, out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
        if self.terminal {
            out.write_all(printable::text(bytes).as_bytes())
        } else {
            out.write_all(bytes)
        }
    }

    /// Prints the AT line, and an explanation below it.
    fn at(&self, out: &mut impl Write, line: &[u8]) -> io::Result<()> {
        if self.style == Style::Raw {
            self.raw(out, line)?;
            return out.write_all(b"\n");
        }
        let Some(said) = Said::read(line) else {
            // A herd-mio server does not write such a line.
            return writeln!(out, "{}", printable::line(line));
        };
        writeln!(
            out,
            "AT {} {} {} {} {}",
            self.ink(Ink::Server, said.at.server),
            self.ink(Ink::Skew, said.skew.as_bytes()),
            self.ink(Ink::Client, said.at.client),
            self.ink(Ink::Location, said.at.location),
            self.ink(Ink::Time, said.time.as_bytes()),
        )?;
        let explained = said.explained();
        writeln!(out, "   {}", self.ink(Ink::Aside, explained.as_bytes()))
    }

    fn refused(&self, out: &mut impl Write, line: &[u8]) -> io::Result<()> {
        if self.style == Style::Raw {
            self.raw(out, line)?;
            return out.write_all(b"\n");
        }
        let why = why_refused(line.strip_prefix(b"? ").unwrap_or(line));
        writeln!(out, "{}", self.ink(Ink::Bad, line))?;
        writeln!(out, "   {}", self.ink(Ink::Aside, why.as_bytes()))
    }

    fn found(&self, out: &mut impl Write, found: &Found, at: &[u8]) -> io::Result<()> {
        let places = match found {
            Found::Error(what) => return writeln!(out, "{}", self.ink(Ink::Bad, what.as_bytes())),
            Found::Places(places) if places.is_empty() => return writeln!(out, "no places there"),
            Found::Places(places) => places,
        };
        let here = Said::read(at).and_then(|said| Spot::of(&said.place));
        let rows: Vec<Row<'_>> = places.iter().map(|place| Row::new(place, here)).collect();
        // Both are ASCII, so their lengths in bytes are columns.
        let ways = rows.iter().map(|row| row.way.len()).max().unwrap_or(0);
        let ratings = rows.iter().map(|row| row.rating.len()).max().unwrap_or(0);
        for (number, row) in (1..).zip(&rows) {
            write!(out, "{number:>3}")?;
            // An empty column is left out: the server's field mask decides which fields come.
            for (text, width) in [(&row.way, ways), (&row.rating, ratings)] {
                if width > 0 {
                    write!(out, "  {text:>width$}")?;
                }
            }
            write!(
                out,
                "  {}",
                self.ink(Ink::Client, row.place.name.as_bytes())
            )?;
            for aside in [&row.place.address, &row.types] {
                if !aside.is_empty() {
                    let aside = format!("· {aside}");
                    write!(out, " {}", self.ink(Ink::Aside, aside.as_bytes()))?;
                }
            }
            writeln!(out)?;
        }
        Ok(())
    }

    /// Escapes the text, then colours it.
    fn ink(&self, ink: Ink, text: &[u8]) -> String {
        let text = printable::line(text);
        if self.coloured {
            format!("\x1b[{}m{text}\x1b[0m", ink.code())
        } else {
            text
        }
    }
}

/// One place, as a row of the listing.
struct Row<'a> {
    place: &'a Place,
    /// The distance and the direction.
    way: String,
    rating: String,
    types: String,
}

impl Row<'_> {
    fn new(place: &Place, here: Option<Spot>) -> Row<'_> {
        let way = match (here, place.spot) {
            (Some(here), Some(there)) => here.way_to(there),
            _ => String::new(),
        };
        let rating = match (place.rating, place.ratings) {
            (Some(rating), Some(count)) => {
                format!("{rating:.1} ({})", Counted(count, "rating"))
            }
            (Some(rating), None) => format!("{rating:.1}"),
            (None, _) => String::new(),
        };
        Row {
            place,
            way,
            rating,
            types: place.types.join(", "),
        }
    }
}

/// A parsed AT line of a herd-mio server.
struct Said<'a> {
    at: At<'a>,
    place: Coordinates<'a>,
    /// Skew and time as text, which [`At`] does not keep.
    skew: &'a str,
    time: &'a str,
}

impl<'a> Said<'a> {
    /// `None` if the line is no such AT line.
    fn read(line: &'a [u8]) -> Option<Said<'a>> {
        let at = At::parse(line)?;
        let mut fields = line.split(|&byte| byte == b' ');
        Some(Said {
            at,
            place: Coordinates::parse(at.location)?,
            skew: std::str::from_utf8(fields.nth(2)?).ok()?,
            time: std::str::from_utf8(fields.next_back()?).ok()?,
        })
    }

    fn explained(&self) -> String {
        let (size, how) = match self.skew.strip_prefix('-') {
            Some(size) => (size, "earlier, by its own clock"),
            None => (self.skew, "later"),
        };
        format!(
            "{}, {} on {}; {} got it {} {how}",
            hemisphere(&self.place.latitude(), ["N", "S"]),
            hemisphere(&self.place.longitude(), ["E", "W"]),
            date(self.time),
            printable::line(self.at.server),
            // A skew is a plain decimal, so this parses.
            span(size.parse().unwrap_or(f64::NAN)),
        )
    }
}

/// Writes `-118.44` as `118.44 W`.
fn hemisphere(degrees: &str, [positive, negative]: [&str; 2]) -> String {
    match degrees.strip_prefix('-') {
        Some(size) => format!("{size} {negative}"),
        None => format!("{degrees} {positive}"),
    }
}

/// Writes POSIX seconds as a UTC date, with all decimals.
fn date(time: &str) -> String {
    let (whole, fraction) = time.split_once('.').unwrap_or((time, ""));
    let date = whole.parse().ok();
    match date.and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok()) {
        Some(date) => {
            let (year, month, day) = (date.year(), u8::from(date.month()), date.day());
            let (hour, minute, second) = date.to_hms();
            let point = if fraction.is_empty() { "" } else { "." };
            format!(
                "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}{point}{fraction} UTC"
            )
        }
        None => format!("a day after the year 9999 ({time} s)"),
    }
}

/// A time span in words.
fn span(seconds: f64) -> String {
    const MINUTE: f64 = 60.0;
    const HOUR: f64 = 60.0 * MINUTE;
    const DAY: f64 = 24.0 * HOUR;
    match seconds {
        s if s < 0.1 => format!("{:.3} ms", s * 1000.0),
        s if s < 2.0 * MINUTE => format!("{s:.3} s"),
        s if s < 2.0 * HOUR => format!("{:.1} min", s / MINUTE),
        s if s < 2.0 * DAY => format!("{:.1} h", s / HOUR),
        s => format!("{:.0} days", s / DAY),
    }
}

/// A guess why the server refused a command.
fn why_refused(line: &[u8]) -> String {
    if line.len() >= LINE_BYTES {
        return format!(
            "refused: a line may have at most {LINE_BYTES} bytes; the server closes the connection after a longer one"
        );
    }
    match Command::parse(line) {
        Command::Whatsat(whatsat) => {
            let client = printable::line(whatsat.client);
            format!(
                "refused: the server does not know {client}; send an IAMAT of {client} first, to any server of the herd"
            )
        }
        Command::Iamat(_) => {
            "refused: the server has no room for it, because of too many clients or a full disk; its log says which".into()
        }
        Command::Blank | Command::Invalid => {
            let verb = line.trim_ascii_start();
            let usage = if verb.starts_with(b"IAMAT") {
                "IAMAT ID LOCATION TIME, such as: IAMAT kiwi +34.068930-118.445127 1621464827.959498503"
            } else if verb.starts_with(b"WHATSAT") {
                "WHATSAT ID RADIUS BOUND, with a RADIUS above 0 and at most 50 km, and a BOUND from 1 to 20"
            } else {
                "the server understands IAMAT and WHATSAT, in capitals; type help at the prompt for more"
            };
            format!("refused: {usage}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: &[u8] = b"AT Riley +0.263873386 kiwi +34.068930-118.445127 1621464827.959498503";

    fn shown(show: &Show, answer: Answer<'_>) -> (Status, String) {
        let mut out = Vec::new();
        let status = show.answer(&mut out, &answer).unwrap();
        (status, String::from_utf8(out).unwrap())
    }

    const RAW: Show = Show {
        style: Style::Raw,
        terminal: false,
        coloured: false,
    };
    const READABLE: Show = Show {
        style: Style::Readable,
        terminal: true,
        coloured: false,
    };

    #[test]
    fn an_at_line_is_explained() {
        assert_eq!(
            shown(&READABLE, Answer::At(AT)).1,
            "AT Riley +0.263873386 kiwi +34.068930-118.445127 1621464827.959498503\n   \
             34.068930 N, 118.445127 W on 2021-05-19 22:53:47.959498503 UTC; Riley got it 0.264 s later\n"
        );
        let early = b"AT Riley -7200.000000000 kiwi -1+001 999999999999999";
        assert_eq!(
            Said::read(early).unwrap().explained(),
            "1 S, 1 E on a day after the year 9999 (999999999999999 s); Riley got it 2.0 h earlier, by its own clock"
        );
        let strange = b"AT Riley 0.1 kiwi \x1b[31m";
        assert_eq!(
            shown(&READABLE, Answer::At(strange)).1,
            "AT Riley 0.1 kiwi \\x1b[31m\n"
        );
    }

    #[test]
    fn colours_do_not_change_the_text() {
        let coloured = Show {
            coloured: true,
            ..READABLE
        };
        let answer = Answer::Places {
            at: AT,
            json: br#"{"places": [{"displayName": {"text": "x"}}]}"#,
        };
        let with = shown(&coloured, answer).1;
        assert!(with.contains("\x1b[32mRiley\x1b[0m"), "{with:?}");
        let mut without = with;
        for code in ["32", "33", "1", "36", "35", "2", "31", "0"] {
            without = without.replace(&format!("\x1b[{code}m"), "");
        }
        assert_eq!(without, shown(&READABLE, answer).1);
    }

    #[test]
    fn raw_output_is_unchanged_but_escaped_on_a_terminal() {
        let at = b"AT \xff\x1b";
        let mut out = Vec::new();
        RAW.answer(
            &mut out,
            &Answer::Places {
                at,
                json: b"{\x1b\n}",
            },
        )
        .unwrap();
        assert_eq!(out, b"AT \xff\x1b\n{\x1b\n}\n\n");
        let on_terminal = Show {
            terminal: true,
            ..RAW
        };
        let seen = shown(
            &on_terminal,
            Answer::Places {
                at,
                json: b"{\x1b\n}",
            },
        )
        .1;
        assert_eq!(seen, "AT \\xff\\x1b\n{\\x1b\n}\n\n");
        let title = br#"{"status": "OK", "results": [{"name": "\u001b]0;x\u0007", "vicinity": "\u009b\n"}]}"#;
        let seen = shown(&READABLE, Answer::Places { at, json: title }).1;
        assert_eq!(seen, "AT \\xff\\x1b\n  1  \\x1b]0;x\\x07 · \\u{9b}\\x0a\n");
    }

    #[test]
    fn a_places_listing_is_aligned() {
        let json = br#"{"status": "OK", "results": [
            {"name": "Caf\u00e9", "vicinity": "1 Main St", "rating": 4, "user_ratings_total": 1200,
             "types": ["cafe", "food", "point_of_interest", "establishment"],
             "geometry": {"location": {"lat": 34.069930, "lng": -118.445127}}},
            {"name": "Far", "geometry": {"location": {"lat": 34.068930, "lng": -118.0}}}]}"#;
        let (status, seen) = shown(&READABLE, Answer::Places { at: AT, json });
        let listing: Vec<&str> = seen.lines().skip(2).collect();
        assert_eq!(
            listing,
            [
                "  1    111 m N   4.0 (1200 ratings)  Café · 1 Main St · cafe, food",
                "  2  41.0 km E                       Far"
            ]
        );
        assert_eq!(status, Status::Fine);
    }

    #[test]
    fn refusals_and_errors_set_the_status_and_show_a_reason() {
        for (line, why) in [
            ("? WHATSAT kiwi 10 5", "does not know kiwi"),
            ("? WHATSAT kiwi 10 50", "a BOUND from 1 to 20"),
            ("? IAMAT kiwi 34 1", "such as: IAMAT kiwi +34"),
            ("? IAMAT kiwi +34+1 1", "no room"),
            ("? hello", "in capitals"),
        ] {
            let (status, seen) = shown(&READABLE, Answer::Refused(line.as_bytes()));
            assert_eq!(status, Status::Refused);
            assert!(seen.starts_with(line) && seen.contains(why), "{seen}");
        }
        let json = br#"{"results": [], "status": "REQUEST_DENIED", "error_message": "No key."}"#;
        let (status, seen) = shown(&READABLE, Answer::Places { at: AT, json });
        assert_eq!(status, Status::Refused);
        assert!(seen.contains("No key."), "{seen}");
        assert_eq!(
            shown(&RAW, Answer::Places { at: AT, json }).0,
            Status::Refused
        );
    }
}
