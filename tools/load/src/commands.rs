//! Makes the commands. A command is a template line whose digits are overwritten, so each one costs
//! a copy and no allocation.

use crate::clock::SECOND_NS;

/// The number of digits of a client's number in its id.
const CLIENT_DIGITS: usize = 7;
/// The greatest number of clients with that many digits.
pub(crate) const MAX_CLIENTS: u32 = 9_999_999;

/// Writes commands.
///
/// An `IAMAT` has the wall clock with nine decimals. Each one has a later time than the one before,
/// so each command changes its client's record. The place changes too, because it has the decimals
/// of the time.
pub(crate) struct Commands {
    iamat: Vec<u8>,
    whatsat: Vec<u8>,
    client_at: Places,
    latitude_at: usize,
    longitude_at: usize,
    time_at: usize,
    /// The seconds that the template has now.
    seconds: u64,
    last_stamp_ns: u64,
}

/// The offset of the client's number in each of the two commands.
struct Places {
    iamat: usize,
    whatsat: usize,
}

/// The range of latitudes, in degrees. Beyond 80, Places finds little.
const LATITUDES: u32 = 80;
const LONGITUDES: u32 = 180;

impl Commands {
    /// Clients are called `prefix-0000000` and so on. Each `WHATSAT` has this radius and bound.
    pub(crate) fn new(prefix: &str, radius: &str, bound: u8) -> Commands {
        let digits = "0".repeat(CLIENT_DIGITS);
        let iamat = format!("IAMAT {prefix}-{digits} +00.000000+000.000000 0000000000.000000000\n");
        let whatsat = format!("WHATSAT {prefix}-{digits} {radius} {bound}\n");
        let client_at = Places {
            iamat: "IAMAT ".len() + prefix.len() + 1,
            whatsat: "WHATSAT ".len() + prefix.len() + 1,
        };
        let latitude_at = client_at.iamat + CLIENT_DIGITS + 1;
        let longitude_at = latitude_at + "+00.000000".len();
        Commands {
            iamat: iamat.into_bytes(),
            whatsat: whatsat.into_bytes(),
            latitude_at,
            longitude_at,
            time_at: longitude_at + "+000.000000".len() + 1,
            client_at,
            seconds: 0,
            last_stamp_ns: 0,
        }
    }

    /// Appends an `IAMAT` of this client with this wall time, or with the first unused nanosecond
    /// after it. Returns the time.
    pub(crate) fn iamat(&mut self, out: &mut Vec<u8>, client: u32, wall_ns: u64) -> u64 {
        let stamp_ns = wall_ns.max(self.last_stamp_ns + 1);
        self.last_stamp_ns = stamp_ns;
        let (seconds, nanos) = (stamp_ns / SECOND_NS, stamp_ns % SECOND_NS);
        let line = &mut self.iamat;
        if seconds != self.seconds {
            self.seconds = seconds;
            write_digits(&mut line[self.time_at..][..10], seconds);
        }
        write_digits(&mut line[self.time_at + 11..][..9], nanos);
        write_digits(
            &mut line[self.client_at.iamat..][..CLIENT_DIGITS],
            client.into(),
        );

        let degrees = client.wrapping_mul(37); // neighbours in number are not neighbours in place
        let decimals = self.time_at + 14;
        let latitude = &mut line[self.latitude_at..];
        latitude[0] = sign(client & 1 == 0);
        write_digits(&mut latitude[1..3], (degrees % LATITUDES).into());
        let longitude = &mut line[self.longitude_at..];
        longitude[0] = sign(client & 2 == 0);
        write_digits(&mut longitude[1..4], (degrees % LONGITUDES).into());
        line.copy_within(decimals..decimals + 6, self.latitude_at + 4);
        line.copy_within(decimals..decimals + 6, self.longitude_at + 5);

        out.extend_from_slice(line);
        stamp_ns
    }

    /// Appends a `WHATSAT` about this client.
    pub(crate) fn whatsat(&mut self, out: &mut Vec<u8>, client: u32) {
        write_digits(
            &mut self.whatsat[self.client_at.whatsat..][..CLIENT_DIGITS],
            client.into(),
        );
        out.extend_from_slice(&self.whatsat);
    }

    /// The length of an `IAMAT` in bytes, which is the same for all.
    pub(crate) fn iamat_bytes(&self) -> usize {
        self.iamat.len()
    }
}

const fn sign(positive: bool) -> u8 {
    if positive { b'+' } else { b'-' }
}

/// Fills `field` with the last digits of `value`.
fn write_digits(field: &mut [u8], mut value: u64) {
    for digit in field.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8; // below ten
        value /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use herd_mio::core::wire::message::Command;

    #[test]
    fn commands_have_the_expected_bytes() {
        let mut commands = Commands::new("load", "10", 5);
        let mut out = Vec::new();
        let stamp = commands.iamat(&mut out, 42, 1_795_225_348_045_138_895);
        assert_eq!(stamp, 1_795_225_348_045_138_895);
        commands.whatsat(&mut out, 1_234_567);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "IAMAT load-0000042 +34.138895-114.138895 1795225348.045138895\n\
             WHATSAT load-1234567 10 5\n"
        );
    }

    #[test]
    fn stamps_increase_even_if_the_clock_does_not() {
        let mut commands = Commands::new("load", "10", 5);
        let mut out = Vec::new();
        let now = 1_795_225_348_999_999_999;
        assert_eq!(commands.iamat(&mut out, 1, now), now);
        assert_eq!(commands.iamat(&mut out, 2, now), now + 1);
        assert_eq!(commands.iamat(&mut out, 1, now - 5), now + 2);
        let lines: Vec<&[u8]> = out.split_inclusive(|&byte| byte == b'\n').collect();
        assert!(lines[0].ends_with(b" 1795225348.999999999\n"));
        assert!(lines[1].ends_with(b" 1795225349.000000000\n"));
        assert!(lines[2].ends_with(b" 1795225349.000000001\n"));
    }

    #[test]
    fn every_client_s_commands_are_valid_for_the_server() {
        let mut commands = Commands::new("a", "0.5", 20);
        for client in (0..MAX_CLIENTS).step_by(9973).chain([MAX_CLIENTS]) {
            let mut out = Vec::new();
            commands.iamat(&mut out, client, 1_795_225_348_999_999_999);
            assert_eq!(out.len(), commands.iamat_bytes());
            out.pop();
            assert!(matches!(Command::parse(&out), Command::Iamat(_)));
            out.clear();
            commands.whatsat(&mut out, client);
            out.pop();
            assert!(matches!(Command::parse(&out), Command::Whatsat(_)));
        }
    }
}
