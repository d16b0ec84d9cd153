//! Records as JSON, for programs that read journals or follow changes.

use std::fmt::Write as _;

use crate::core::wire::coordinates::Coordinates;
use crate::core::wire::message::At;

/// Appends the fields of a record, without braces. `epoch` is the record's
/// [epoch](crate::core::table::records), `line` is the `AT` line without its LF, and `at` is the
/// parsed line. Returns `None` if the location is invalid.
///
/// The coordinates are numbers, with all digits that the client wrote. The time is text, because a
/// JSON parser can lose the last digits of a number. If a client's name is not UTF-8, `client_hex`
/// contains its bytes. A [tombstone](crate::core::table::records) has `forgotten` instead of
/// coordinates. The time in a tombstone is the time of the position that the tombstone replaced.
///
/// ```
/// use herd_mio::core::wire::json::write_record;
/// use herd_mio::core::wire::message::At;
///
/// let line = b"AT Riley +0.500000000 kiwi +34.0-118.4 1621464827";
/// let mut text = String::new();
/// write_record(&mut text, 0, line, &At::parse(line).unwrap()).unwrap();
/// assert_eq!(
///     text,
///     r#""client":"kiwi","latitude":34.0,"longitude":-118.4,"time":"1621464827","server":"Riley","skew":"+0.500000000","epoch":0"#
/// );
/// ```
pub fn write_record(out: &mut String, epoch: u32, line: &[u8], at: &At<'_>) -> Option<()> {
    let place = match at.is_tombstone() {
        true => None,
        false => Some(Coordinates::parse(at.location)?),
    };
    let field = |number| line.split(|byte| *byte == b' ').nth(number);
    // Writing to memory cannot fail.
    let _ = write!(out, "\"client\":{}", string(at.client));
    if std::str::from_utf8(at.client).is_err() {
        out.push_str(",\"client_hex\":\"");
        for byte in at.client {
            let _ = write!(out, "{byte:02x}");
        }
        out.push('"');
    }
    let _ = match place {
        None => write!(out, ",\"forgotten\":true"),
        Some(place) => write!(
            out,
            ",\"latitude\":{},\"longitude\":{}",
            place.latitude(),
            place.longitude()
        ),
    };
    let _ = write!(
        out,
        ",\"time\":{},\"server\":{},\"skew\":{},\"epoch\":{epoch}",
        string(field(5).unwrap_or_default()),
        string(at.server),
        string(field(2).unwrap_or_default()),
    );
    Some(())
}

/// Formats bytes as a JSON string. DEL and the control characters from U+0080 to U+009F are escaped
/// too, because some terminals interpret them.
#[must_use]
pub fn string(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let quoted = serde_json::to_string(&*text).unwrap_or_default();
    let mut out = String::with_capacity(quoted.len());
    for character in quoted.chars() {
        match character {
            '\u{7f}'..='\u{9f}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(character));
            }
            plain => out.push(plain),
        }
    }
    out
}
