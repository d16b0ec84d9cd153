//! The messages of the protocol: a client's commands `IAMAT` and `WHATSAT`, and the `AT` line. A
//! server answers a client with an `AT` line. Servers also send `AT` lines to each other, to pass
//! on positions.
//!
//! All parsed values borrow from the line.

use std::ops::Range;

use crate::core::base::limits::LINE_BYTES;
use crate::core::wire::coordinates::Coordinates;
use crate::core::wire::lines::{end_of_field, fields};
use crate::core::wire::posix_time::{PosixTime, Skew, effective_time, receipt_time};

/// The maximum number of bytes in the name of a client. With a longer name, even the shortest
/// `IAMAT` would be longer than a line can be.
pub const MAX_CLIENT_BYTES: usize = LINE_BYTES - b"IAMAT  +0+0 0".len();

/// The location field of a tombstone, the record of a forgotten client (see [`At`]). A client
/// cannot send it, because it is not valid text for [`Coordinates`].
pub const NO_LOCATION: &[u8] = b"-";

/// A client's command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// The line has only white space. It gets no answer.
    Blank,
    /// "I am at": the client reports its position.
    Iamat(Iamat<'a>),
    /// "What is at": the client asks for places near a client.
    Whatsat(Whatsat<'a>),
    /// Any other line. This includes `AT` lines: only neighbours send them, not clients.
    Invalid,
}

/// `IAMAT <client> <location> <time>`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Iamat<'a> {
    /// The name that the client gives itself: any bytes that are not white space.
    pub client: &'a [u8],
    /// The client's position. It is valid text for [`Coordinates`].
    pub location: &'a [u8],
    /// The time of the client's clock, as the client wrote it.
    pub time: &'a [u8],
    /// The same time, parsed.
    pub stamp: PosixTime,
    /// The three fields as one slice of the line. `None` unless single spaces separate the fields
    /// and nothing follows them. The `AT` line in the answer ends with the same bytes. So the
    /// server copies the slice at once, and not each field.
    as_written: Option<&'a [u8]>,
}

/// `WHATSAT <client> <radius km> <bound>`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whatsat<'a> {
    /// The name of the client at whose position the search has its centre.
    pub client: &'a [u8],
    /// The radius of the search.
    pub radius: Radius,
    /// The maximum number of places in the answer: 1–20.
    pub bound: u8,
}

impl<'a> Command<'a> {
    /// Parses one line (without its LF).
    ///
    /// ```
    /// use herd_mio::core::wire::message::Command;
    ///
    /// let Command::Iamat(iamat) = Command::parse(b"IAMAT kiwi +34.068930-118.445127 1621464827.959") else { panic!() };
    /// assert_eq!(iamat.client, b"kiwi");
    /// assert_eq!(Command::parse(b"WHATSAT kiwi 10 21"), Command::Invalid);
    /// ```
    #[must_use]
    pub fn parse(line: &'a [u8]) -> Command<'a> {
        if let Some(iamat) = Iamat::read(line) {
            return Command::Iamat(iamat);
        }
        let mut fields = fields(line);
        let Some(verb) = fields.next() else {
            return Command::Blank;
        };
        let arguments = (fields.next(), fields.next(), fields.next(), fields.next());
        let (Some(first), Some(second), Some(third), None) = arguments else {
            return Command::Invalid;
        };
        let command = match verb {
            b"IAMAT" => Iamat::new(first, second, third).map(Command::Iamat),
            b"WHATSAT" => Whatsat::new(first, second, third).map(Command::Whatsat),
            _ => None,
        };
        command.unwrap_or(Command::Invalid)
    }
}

impl<'a> Iamat<'a> {
    /// Parses the line in one pass. This fast path accepts only the usual form: single spaces, and
    /// no white space at the start or the end.
    #[inline]
    fn read(line: &'a [u8]) -> Option<Iamat<'a>> {
        let as_written = line.strip_prefix(b"IAMAT ")?;
        let space = end_of_field(as_written, 0);
        let (_, other_space) = Coordinates::read(as_written, space + 1)?;
        let (stamp, end) = PosixTime::read(as_written, other_space + 1)?;
        let spaces = [space, other_space].map(|at| as_written.get(at));
        if space == 0 || spaces != [Some(&b' '); 2] || end < as_written.len() {
            return None;
        }
        Some(Iamat {
            client: &as_written[..space],
            location: &as_written[space + 1..other_space],
            time: &as_written[other_space + 1..],
            stamp,
            as_written: Some(as_written),
        })
    }

    fn new(client: &'a [u8], location: &'a [u8], time: &'a [u8]) -> Option<Iamat<'a>> {
        Coordinates::parse(location)?;
        let stamp = PosixTime::parse(time)?;
        Some(Iamat {
            client,
            location,
            time,
            stamp,
            as_written: None,
        })
    }
}

impl<'a> Whatsat<'a> {
    fn new(client: &'a [u8], radius: &'a [u8], bound: &'a [u8]) -> Option<Whatsat<'a>> {
        let radius = Radius::parse(radius)?;
        let bound = whole_number(bound).filter(|bound| (1..=20).contains(bound))?;
        Some(Whatsat {
            client,
            radius,
            bound,
        })
    }
}

/// Whether these bytes can be the name of a client.
#[must_use]
pub fn is_client_name(name: &[u8]) -> bool {
    !name.is_empty() && name.len() <= MAX_CLIENT_BYTES && end_of_field(name, 0) == name.len()
}

/// Parses a whole number without a sign. Returns `None` if the text has another form, or if the
/// number is above 255.
fn whole_number(text: &[u8]) -> Option<u8> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0u8, |value, byte| {
        let digit = byte.is_ascii_digit().then(|| byte - b'0')?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

/// A search radius r, with 0 < r ≤ 50 km, stored in nanometres. A fraction of a nanometre is
/// rounded up, so that no radius becomes zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Radius(u64);

impl Radius {
    const MAX_NM: u64 = 50 * Self::KM_NM;
    const KM_NM: u64 = 1_000_000_000_000;
    const METRE_NM: u64 = 1_000_000_000;

    /// Parses kilometres: digits, and optionally a point and more digits. A sign or an exponent is
    /// not allowed.
    #[must_use]
    pub fn parse(kilometres: &[u8]) -> Option<Radius> {
        let (whole, fraction) = match memchr::memchr(b'.', kilometres) {
            Some(point) => (&kilometres[..point], &kilometres[point + 1..]),
            None => (kilometres, &b"0"[..]),
        };
        if fraction.is_empty() || !fraction.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let mut nanometres = u64::from(whole_number(whole)?) * Self::KM_NM;
        let mut unit = Self::KM_NM;
        for digit in fraction {
            if unit == 1 {
                nanometres += u64::from(fraction[12..].iter().any(|&digit| digit != b'0'));
                break;
            }
            unit /= 10;
            nanometres += u64::from(digit - b'0') * unit;
        }
        (0 < nanometres && nanometres <= Self::MAX_NM).then_some(Radius(nanometres))
    }

    /// Returns the radius in metres, as a plain decimal number.
    ///
    /// ```
    /// use herd_mio::core::wire::message::Radius;
    ///
    /// assert_eq!(Radius::parse(b"10").unwrap().metres(), "10000");
    /// assert_eq!(Radius::parse(b"0.00125").unwrap().metres(), "1.25");
    /// ```
    #[must_use]
    pub fn metres(self) -> String {
        let (whole, fraction) = (self.0 / Self::METRE_NM, self.0 % Self::METRE_NM);
        if fraction == 0 {
            return whole.to_string();
        }
        format!("{whole}.{fraction:09}")
            .trim_end_matches('0')
            .to_owned()
    }
}

/// A parsed `AT` line: `AT <server> <skew> <client> <location> <time>`.
///
/// Servers store and send the line itself, byte for byte. This struct is only a view of the line.
///
/// If the location is `-`, the line is a *tombstone*: `server` has forgotten the client. The time
/// is then the stamp of the position that was forgotten. The skew is the time at which the client
/// was forgotten, minus that stamp. Only servers write such lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At<'a> {
    /// The name of the server that received the `IAMAT`, or that forgot the client.
    pub server: &'a [u8],
    /// The offset of the client's name in the line, in bytes.
    pub client_offset: usize,
    /// The name of the client that the line is about.
    pub client: &'a [u8],
    /// The client's position, or [`NO_LOCATION`].
    pub location: &'a [u8],
    /// The time in the `IAMAT`, from the client's clock. In a tombstone, this is the time of the
    /// forgotten position.
    pub stamp: PosixTime,
    /// The time that orders the records of one client; see [`effective_time`]. In a tombstone, this
    /// is the time at which the client was forgotten.
    pub effective: PosixTime,
}

/// The first fields of an `AT` line, up to the client's name. Servers flood each update through the
/// herd, so most lines arrive more than once. If the table already contains the line, the server
/// does not parse the other fields.
#[derive(Clone, Copy, Debug)]
pub struct AtHead<'a> {
    line: &'a [u8],
    server: &'a [u8],
    skew: &'a [u8],
    client_offset: usize,
    /// The name of the client that the line is about.
    pub client: &'a [u8],
    location_offset: usize,
}

impl<'a> AtHead<'a> {
    /// Parses the first fields of a line (without its LF).
    // Always inlined, like [`AtHead::parse_rest`], `Skew::parse` and `effective_time`. Without
    // inlining, the result is returned through memory: the function writes it in small pieces, and
    // the caller reads it in larger pieces. A processor must then wait until the small writes have
    // reached the cache. This wait took a seventh of the time that a flood of updates took.
    #[inline(always)]
    #[must_use]
    pub fn parse(line: &'a [u8]) -> Option<AtHead<'a>> {
        if !line.starts_with(b"AT ") {
            return None;
        }
        let (server, skew_offset) = field(line, b"AT ".len())?;
        let (skew, client_offset) = field(line, skew_offset)?;
        let (client, location_offset) = field(line, client_offset)?;
        Some(AtHead {
            line,
            server,
            skew,
            client_offset,
            client,
            location_offset,
        })
    }

    /// Parses the rest of the line.
    #[inline(always)] // see `parse`
    #[must_use]
    pub fn parse_rest(self) -> Option<At<'a>> {
        let line = self.line;
        let (location, stamp, effective) = match Coordinates::read(line, self.location_offset) {
            Some((_, space)) => {
                let (stamp, end) = PosixTime::read(line, space + 1)?;
                if line.get(space) != Some(&b' ') || end < line.len() {
                    return None;
                }
                let location = &line[self.location_offset..space];
                (
                    location,
                    stamp,
                    effective_time(stamp, Skew::parse(self.skew)?)?,
                )
            }
            None => {
                let rest = &line[self.location_offset..];
                let (stamp, effective) = tombstone_times(rest, self.skew)?;
                (NO_LOCATION, stamp, effective)
            }
        };
        Some(At {
            server: self.server,
            client_offset: self.client_offset,
            client: self.client,
            location,
            stamp,
            effective,
        })
    }
}

/// Parses a tombstone's location and time. Returns the stamp and the effective time.
#[cold]
fn tombstone_times(rest: &[u8], skew: &[u8]) -> Option<(PosixTime, PosixTime)> {
    let time = rest.strip_prefix(NO_LOCATION)?.strip_prefix(b" ")?;
    let stamp = PosixTime::parse(time)?;
    Some((stamp, receipt_time(stamp, Skew::parse(skew)?)?))
}

impl<'a> At<'a> {
    /// Whether the line is a tombstone: its client was forgotten.
    #[must_use]
    pub fn is_tombstone(&self) -> bool {
        self.location == NO_LOCATION
    }

    /// Appends the tombstone of `client`, without an LF. `time` is the time of the forgotten
    /// position as text, and `stamp` is the same time, parsed. `forgotten` is the time at which the
    /// client was forgotten.
    pub fn write_tombstone(
        out: &mut Vec<u8>,
        server: &str,
        client: &[u8],
        (time, stamp): (&[u8], PosixTime),
        forgotten: PosixTime,
    ) {
        out.extend_from_slice(b"AT ");
        out.extend_from_slice(server.as_bytes());
        out.push(b' ');
        Skew::between(forgotten, stamp).write(out);
        for field in [client, NO_LOCATION, time] {
            out.push(b' ');
            out.extend_from_slice(field);
        }
    }

    /// Parses a line in exactly the form that [`At::write`] writes (without its LF): single spaces,
    /// and nothing before or after.
    #[must_use]
    pub fn parse(line: &'a [u8]) -> Option<At<'a>> {
        AtHead::parse(line)?.parse_rest()
    }

    /// The range of the client's name in the line, in bytes.
    #[must_use]
    pub fn client_range(&self) -> Range<usize> {
        self.client_offset..self.client_offset + self.client.len()
    }

    /// Appends the `AT` line with which `server` answers `iamat`, LF included. Returns the same as
    /// [`At::parse`] returns for this line.
    ///
    /// Returns `None` if `skew` puts the receipt before the POSIX epoch. The line is then appended,
    /// but no server can parse it.
    pub fn write(
        out: &mut Vec<u8>,
        server: &'a str,
        skew: Skew,
        iamat: &Iamat<'a>,
    ) -> Option<At<'a>> {
        let start = out.len();
        out.extend_from_slice(b"AT ");
        out.extend_from_slice(server.as_bytes());
        out.push(b' ');
        skew.write(out);
        out.push(b' ');
        let client_offset = out.len() - start;
        if let Some(text) = iamat.as_written {
            out.extend_from_slice(text);
        } else {
            for field in [iamat.client, b" ", iamat.location, b" ", iamat.time] {
                out.extend_from_slice(field);
            }
        }
        out.push(b'\n');
        let Iamat {
            client,
            location,
            stamp,
            ..
        } = *iamat;
        let effective = effective_time(stamp, skew)?;
        Some(At {
            server: server.as_bytes(),
            client_offset,
            client,
            location,
            stamp,
            effective,
        })
    }
}

/// Returns the field of `line` that begins at `start`, and the offset of the next field. Returns
/// `None` if the field is empty, or if no space follows it.
#[inline]
fn field(line: &[u8], start: usize) -> Option<(&[u8], usize)> {
    let end = end_of_field(line, start);
    let field = line.get(start..end).filter(|field| !field.is_empty())?;
    (line.get(end) == Some(&b' ')).then_some((field, end + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn client_commands_are_parsed() {
        assert_eq!(Command::parse(b" \t\x0b\x0c\r"), Command::Blank);
        assert!(matches!(
            Command::parse(b"\tIAMAT  x\x0b+1+2\x0c3 \r"),
            Command::Iamat(_)
        ));
        for invalid in [
            "IAMAT",
            "IAMAT x +1+2",
            "IAMAT x +1+2 3 4",
            "iamat x +1+2 3",
            "IAMATx +1+2 3 4",
            "IAMAT x 1+2 3",
            "IAMAT x +1+2 -3",
            "AT Riley +0.000000000 x +1+2 3",
            "WHATSAT x 0 5",
            "WHATSAT x 50.000000000000000001 5",
            "WHATSAT x -1 5",
            "WHATSAT x nan 5",
            "WHATSAT x 1e1 5",
            "WHATSAT x 10 0",
            "WHATSAT x 10 5.0",
            "WHATSAT x 10 -5",
            "WHATSAT x 10 21",
            "WHATSAT x 10 five",
            "WHATSAT x 10",
            "WHATSAT x 10 5 5",
            "WHATSAT x 1. 5",
            "WHATSAT x .5 5",
            "WHATSAT x +5 5",
            "WHATSAT x 10 +5",
            "WHATSAT x 256 5",
            "WHATSAT x 10 261",
            "HELLO",
        ] {
            assert_eq!(
                Command::parse(invalid.as_bytes()),
                Command::Invalid,
                "{invalid}"
            );
        }
    }

    #[test]
    fn a_radius_keeps_its_significant_digits() {
        let metres = |km: &str| Radius::parse(km.as_bytes()).map(Radius::metres);
        assert_eq!(metres("50"), Some("50000".into()));
        assert_eq!(metres("50.000"), Some("50000".into()));
        assert_eq!(metres("0050"), Some("50000".into()));
        assert_eq!(metres("0.000000000001"), Some("0.000000001".into()));
        assert_eq!(
            metres("0.0000000000000001"),
            Some("0.000000001".into()),
            "rounded up, never to zero"
        );
        assert_eq!(metres("0.000"), None);
        assert_eq!(
            metres(&format!("0.{}1", "0".repeat(4000))),
            Some("0.000000001".into())
        );
    }

    #[test]
    fn a_tombstone_has_no_location_and_orders_by_its_receipt() {
        let time = |text: &[u8]| PosixTime::parse(text).unwrap();
        let mut line = Vec::new();
        let stamp = (&b"100.5"[..], time(b"100.5"));
        At::write_tombstone(&mut line, "Riley", b"kiwi", stamp, time(b"160.75"));
        assert_eq!(line, b"AT Riley +60.250000000 kiwi - 100.5");
        let at = At::parse(&line).unwrap();
        assert!(at.is_tombstone());
        assert_eq!((at.client, at.server), (&b"kiwi"[..], &b"Riley"[..]));
        assert_eq!((at.stamp, at.effective), (time(b"100.5"), time(b"160.75")));
        let early = At::parse(b"AT Riley -60.250000000 kiwi - 100").unwrap();
        assert_eq!(early.effective, time(b"39.75"));
        for bad in [
            "AT Riley +60.250000000 kiwi -  100.5",
            "AT Riley +60.250000000 kiwi -",
            "AT Riley +60.250000000 kiwi - ",
            "AT Riley +60.250000000 kiwi - 100.5 ",
            "AT Riley +60.250000000 kiwi -- 100.5",
            "AT Riley +60.250000000 kiwi + 100.5",
            "AT Riley -101.000000000 kiwi - 100.5",
        ] {
            assert_eq!(At::parse(bad.as_bytes()), None, "{bad}");
        }
        for command in ["IAMAT kiwi - 100.5", "IAMAT  kiwi  -  100.5"] {
            assert_eq!(Command::parse(command.as_bytes()), Command::Invalid);
        }
    }

    #[test]
    fn a_longest_client_fits_into_the_shortest_iamat() {
        let name = vec![b'x'; MAX_CLIENT_BYTES];
        assert!(is_client_name(&name) && !is_client_name(&[&name[..], b"x"].concat()));
        assert_eq!(
            [b"IAMAT ", &name[..], b" +0+0 0"].concat().len(),
            LINE_BYTES
        );
        for bad in ["", " ", "a b", "a\tb", "a\r"] {
            assert!(!is_client_name(bad.as_bytes()), "{bad:?}");
        }
    }

    #[test]
    fn an_at_line_has_one_valid_spelling() {
        let at = At::parse(b"AT Riley +0.250000000 kiwi +1-2 3").unwrap();
        assert_eq!(
            (at.server, at.client, at.location),
            (&b"Riley"[..], &b"kiwi"[..], &b"+1-2"[..])
        );
        assert_eq!(at.client_offset, 22);
        for bad in [
            "AT  Riley +0.250000000 kiwi +1-2 3",
            "AT Riley 0.250000000 kiwi +1-2 3",
            "AT Riley +0.25 kiwi +1-2 3",
            "AT Riley +0.250000000 kiwi +1-2 3 ",
            "AT Riley +0.250000000 kiwi +1-2 3\r",
            "AT Riley +0.250000000 ki\twi +1-2 3",
            "AT Riley +0.250000000 kiwi +91-2 3",
            "AT Riley -4.000000000 kiwi +1-2 3",
            "IAMAT kiwi +1-2 3",
            "",
        ] {
            assert_eq!(At::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn parsing_any_line_does_not_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Command::parse(&line);
            let _ = At::parse(&line);
        }

        /// The fast path and the general path of the parser give the same result. The white space
        /// decides which path parses a line.
        #[test]
        fn white_space_does_not_change_the_parsed_command(client in "[!-~]{1,20}", location in "[+-][0-9]{1,3}(\\.[0-9]{0,9})?[+-][0-9]{1,3}(\\.[0-9]{0,9})?", time in "[0-9]{1,19}(\\.[0-9]{0,19})?", space in "[ \t\x0b\x0c\r]{1,3}", suffix in "[ \r]{0,2}") {
            let plain = format!("IAMAT {client} {location} {time}");
            let spaced = format!("IAMAT {client}{space}{location} {time}{suffix}");
            let parts = |line: &'_ str| match Command::parse(line.as_bytes()) {
                Command::Iamat(iamat) => Some((iamat.client.to_vec(), iamat.location.to_vec(), iamat.time.to_vec(), iamat.stamp)),
                _ => None,
            };
            let expected = Coordinates::parse(location.as_bytes()).and(PosixTime::parse(time.as_bytes()))
                .map(|stamp| (client.clone().into_bytes(), location.clone().into_bytes(), time.clone().into_bytes(), stamp));
            prop_assert_eq!(&parts(&plain), &expected);
            prop_assert_eq!(&parts(&spaced), &expected);
        }

        #[test]
        fn a_written_at_line_is_parsed_back(client in "[^ \t\r\n\x0b\x0c]{1,20}", latitude in -90i32..=90, longitude in -180i32..=180, stamp in 0u64..1_000_000_000_000_000_000, receipt in any::<u64>()) {
            let command = format!("IAMAT {client} {latitude:+}{longitude:+} {stamp}");
            let Command::Iamat(iamat) = Command::parse(command.as_bytes()) else { return Err(TestCaseError::fail("not an IAMAT")) };
            let mut line = Vec::new();
            let written = At::write(&mut line, "Riley", Skew::between(PosixTime::from_nanos(receipt), iamat.stamp), &iamat);
            prop_assert_eq!(line.pop(), Some(b'\n'));
            prop_assert_eq!(written, At::parse(&line));
            let at = written.unwrap();
            prop_assert!(line[at.client_offset..].starts_with(at.client));
        }
    }
}
