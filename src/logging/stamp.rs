//! The start of each log line: the time and the level.

use std::time::{Duration, SystemTime};

use log::Level;
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

use crate::core::wire::swar;

/// The part of an RFC 3339 time up to the decimal point of the seconds. The stamp continues with
/// six digits of microseconds, and "Z" for UTC.
const SECOND: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].");

/// Writes the time and the level at the start of each line. Thousands of lines may be written in
/// one second, so the text for a second is formatted once and kept.
#[derive(Default)]
pub(super) struct Stamp {
    /// The second that was formatted last, in seconds since 1970, and its text.
    second: Option<(u64, String)>,
}

impl Stamp {
    /// Appends the start of a line that is written at `now`.
    pub(super) fn write(&mut self, now: SystemTime, level: Level, out: &mut Vec<u8>) {
        let since = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        if self.second.as_ref().map(|(second, _)| *second) != Some(since.as_secs()) {
            self.second = Some((since.as_secs(), second(since)));
        }
        if let Some((_, text)) = &self.second {
            out.extend_from_slice(text.as_bytes());
        }
        let [_, _, microseconds @ ..] = swar::digits_of(since.subsec_micros());
        out.extend_from_slice(&microseconds);
        out.extend_from_slice(match level {
            Level::Error => b"Z [ERROR] ",
            Level::Warn => b"Z [WARN ] ",
            Level::Info => b"Z [INFO ] ",
            Level::Debug => b"Z [DEBUG] ",
            Level::Trace => b"Z [TRACE] ",
        });
    }
}

fn second(since: Duration) -> String {
    let time = i64::try_from(since.as_secs())
        .ok()
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .unwrap_or(OffsetDateTime::UNIX_EPOCH);
    time.format(SECOND).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_an_rfc_3339_time_and_a_level() {
        let mut stamp = Stamp::default();
        let mut out = Vec::new();
        for (nanos, level) in [
            (0, Level::Error),
            (1_621_464_827_959_498_503, Level::Warn),
            (1_621_464_827_000_001_999, Level::Info),
            (1_621_464_828_000_000_000, Level::Debug),
            (951_782_399_999_999_999, Level::Trace),
        ] {
            stamp.write(
                SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos),
                level,
                &mut out,
            );
            out.push(b'\n');
        }
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "1970-01-01T00:00:00.000000Z [ERROR] \n\
             2021-05-19T22:53:47.959498Z [WARN ] \n\
             2021-05-19T22:53:47.000001Z [INFO ] \n\
             2021-05-19T22:53:48.000000Z [DEBUG] \n\
             2000-02-28T23:59:59.999999Z [TRACE] \n"
        );
    }
}
