//! Positions as ISO 6709 decimal degrees: `+34.068930-118.445127`.
//!
//! A position is never converted to a number: the digits stay text, also in the query to Google. So
//! nothing is rounded.

use crate::core::wire::swar;

/// A latitude and a longitude, each in its range. Both borrow from the parsed text.
///
/// ```
/// use herd_mio::core::wire::coordinates::Coordinates;
///
/// let coordinates = Coordinates::parse(b"+34.068930-118.445127").unwrap();
/// assert_eq!(coordinates.latitude(), "34.068930");
/// assert_eq!(coordinates.longitude(), "-118.445127");
/// assert!(Coordinates::parse(b"+3404.1-11826.7/").is_none()); // degrees and minutes: out of range
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coordinates<'a> {
    latitude: &'a [u8],
    longitude: &'a [u8],
}

impl<'a> Coordinates<'a> {
    /// Parses a latitude and a longitude. Each is a sign and 1–3 digits, and optionally a point and
    /// more digits. The latitude is within ±90, the longitude within ±180.
    #[must_use]
    pub fn parse(text: &'a [u8]) -> Option<Coordinates<'a>> {
        let (coordinates, end) = Coordinates::read(text, 0)?;
        (end == text.len()).then_some(coordinates)
    }

    /// Parses the coordinates that begin at `start`. Also returns the offset after them.
    #[inline]
    #[must_use]
    pub fn read(text: &'a [u8], start: usize) -> Option<(Coordinates<'a>, usize)> {
        let middle = degrees(text, start, 90)?;
        let end = degrees(text, middle, 180)?;
        let latitude = text.get(start..middle)?;
        let longitude = text.get(middle..end)?;
        Some((
            Coordinates {
                latitude,
                longitude,
            },
            end,
        ))
    }

    /// Returns the latitude as a plain decimal number for URLs and JSON: without `+` and leading
    /// zeros.
    #[must_use]
    pub fn latitude(&self) -> String {
        plain(self.latitude)
    }

    /// Returns the longitude as a plain decimal number for URLs and JSON: without `+` and leading
    /// zeros.
    #[must_use]
    pub fn longitude(&self) -> String {
        plain(self.longitude)
    }
}

/// Checks the signed decimal that begins at `start`, and returns the offset after it. The decimal
/// has 1–3 digits before the point, and optionally a point and more digits. Its absolute value is
/// at most `limit`. This function runs for every `IAMAT`, so it must be fast.
#[inline]
fn degrees(text: &[u8], start: usize, limit: u64) -> Option<usize> {
    let (b'+' | b'-') = text.get(start)? else {
        return None;
    };
    let (mut whole, mut point) = (0, start + 1);
    while let Some(digit) = swar::digit_at(text, point) {
        whole = whole * 10 + digit;
        point += 1;
        if point > start + 4 {
            return None;
        }
    }
    if point == start + 1 || whole > limit {
        return None;
    }
    if text.get(point) != Some(&b'.') {
        return Some(point);
    }
    let end = end_of_digits(text, point + 1);
    let fraction = &text[point + 1..end];
    let is_more = whole == limit && fraction.iter().any(|&digit| digit != b'0');
    (!fraction.is_empty() && !is_more).then_some(end)
}

/// Returns the offset after the digits that begin at `start`.
#[inline]
fn end_of_digits(text: &[u8], start: usize) -> usize {
    let mut end = start;
    loop {
        let digits = swar::leading_digits(swar::word_at(text, end));
        end += digits;
        if digits < 8 {
            return end;
        }
    }
}

/// Turns `+034.50` into `34.50`. JSON allows neither a plus sign nor leading zeros, and in a query
/// string `+` means a space.
fn plain(text: &[u8]) -> String {
    let (sign, magnitude) = text.split_at(1);
    let leading_zeros = magnitude.iter().take_while(|&&b| b == b'0').count();
    let whole_digits = magnitude.iter().take_while(|b| b.is_ascii_digit()).count();
    let magnitude = &magnitude[leading_zeros.min(whole_digits - 1)..];
    let sign = if sign == b"-" { "-" } else { "" };
    // The text is a sign, digits and a point, so it is always ASCII.
    format!("{sign}{}", String::from_utf8_lossy(magnitude))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn coordinates_are_parsed_as_the_protocol_defines() {
        for good in [
            "+34.068930-118.445127",
            "-90+180",
            "+90.000-180.0",
            "+0-0",
            "+000.1+001.5",
            "+07+007",
        ] {
            assert!(Coordinates::parse(good.as_bytes()).is_some(), "{good}");
        }
        for bad in [
            "",
            "+",
            "+-",
            "+1",
            "1+1",
            "+1-",
            "+34.068930-118.445127/",
            "+34.068930-118.445127+12",
            "+3404.1-11826.7",
            "+90.0001+0",
            "-91+0",
            "+0+180.0000001",
            "+0-181",
            "+1e1+0",
            "+nan+0",
            "+1,5+2",
            "++1+2",
            "+1+-2",
            "+.5+1",
            "+1.+1",
            "+1.5.5+1",
            "+0001+1",
            "+١+1",
            "+1 +1",
            "34-118",
            "+34.0°-118.0",
        ] {
            assert_eq!(Coordinates::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn coordinates_are_written_for_urls_and_json() {
        let plain = |text: &str| {
            let coordinates = Coordinates::parse(text.as_bytes()).unwrap();
            (coordinates.latitude(), coordinates.longitude())
        };
        assert_eq!(plain("+007.50-000.25"), ("7.50".into(), "-0.25".into()));
        assert_eq!(plain("+0-00"), ("0".into(), "-0".into()));
        assert_eq!(plain("-90+180"), ("-90".into(), "180".into()));
    }

    proptest! {
        #[test]
        fn every_valid_position_is_parsed(latitude in -90.0f64..=90.0, longitude in -180.0f64..=180.0, digits in 0usize..12) {
            let text = format!("{latitude:+.digits$}{longitude:+.digits$}");
            let coordinates = Coordinates::parse(text.as_bytes());
            prop_assert!(coordinates.is_some(), "{}", text);
            let coordinates = coordinates.unwrap();
            prop_assert!(serde_json::from_str::<f64>(&coordinates.latitude()).is_ok(), "{}", coordinates.latitude());
            prop_assert!(serde_json::from_str::<f64>(&coordinates.longitude()).is_ok(), "{}", coordinates.longitude());
        }

        #[test]
        fn any_bytes_are_parsed_within_range_or_rejected(text in proptest::collection::vec(any::<u8>(), 0..40)) {
            if let Some(coordinates) = Coordinates::parse(&text) {
                let (latitude, longitude): (f64, f64) = (coordinates.latitude().parse().unwrap(), coordinates.longitude().parse().unwrap());
                prop_assert!(latitude.abs() <= 90.0 && longitude.abs() <= 180.0);
            }
        }

        #[test]
        fn almost_valid_coordinates_are_accepted_by_value(text in "[+-][0-9]{1,4}(\\.[0-9]{0,3})?[+-][0-9]{1,4}(\\.[0-9]{0,3})?") {
            let split = 1 + text[1..].find(['+', '-']).unwrap();
            let is_valid = |part: &str, limit: f64| {
                let whole = part[1..].split('.').next().unwrap();
                whole.len() <= 3 && !part.ends_with('.') && part.parse::<f64>().unwrap().abs() <= limit
            };
            let good = is_valid(&text[..split], 90.0) && is_valid(&text[split..], 180.0);
            prop_assert_eq!(Coordinates::parse(text.as_bytes()).is_some(), good);
        }
    }
}
