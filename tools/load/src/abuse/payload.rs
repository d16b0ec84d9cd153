//! The data that an attack sends.

use crate::abuse::cli::Kind;
use crate::clock::SECOND_NS;

/// The length of a chunk of repeated commands.
const CHUNK_BYTES: usize = 64 * 1024;
/// The greatest length of a line that a server accepts.
const LONG_LINE_BYTES: usize = 4096;
/// The number of commands that are made at once, if all commands differ.
const NAMES_AT_ONCE: u64 = 64;
const QUESTIONS_AT_ONCE: u64 = 4;
/// The number of radii of a `WHATSAT`: from 1 m on, in steps of 1 m.
const RADII: u64 = 50_000;
const LOCATION: &str = "+34.068930-118.445127";

/// Makes the data for the connections of one attack.
pub(crate) struct Payload {
    kind: Kind,
    prefix: String,
    /// A part of the names, which differs between runs.
    run: String,
    /// Repeated commands. Empty if all commands differ.
    chunk: Vec<u8>,
    /// The length of each command in the chunk, in bytes.
    command_bytes: usize,
    /// The number of commands so far.
    made: u64,
}

impl Payload {
    /// The data of an attack that starts at this wall time.
    pub(crate) fn new(kind: Kind, prefix: &str, run: &str, wall_ns: u64) -> Payload {
        let command = match kind {
            Kind::Lines => [vec![1; LONG_LINE_BYTES], b"\n".to_vec()].concat(),
            Kind::Unread => iamat(&format!("{prefix}-unread"), wall_ns).into_bytes(),
            Kind::Faults => b"x\n".to_vec(),
            Kind::Names | Kind::Places | Kind::Links => Vec::new(),
        };
        let times = CHUNK_BYTES.checked_div(command.len()).unwrap_or_default();
        Payload {
            kind,
            prefix: prefix.to_owned(),
            run: run.to_owned(),
            chunk: command.repeat(times.max(1)),
            command_bytes: command.len(),
            made: 0,
        }
    }

    /// Repeated commands, and the length of each. `None` if all commands differ.
    pub(crate) fn repeated(&self) -> Option<(&[u8], usize)> {
        (!self.chunk.is_empty()).then_some((self.chunk.as_slice(), self.command_bytes))
    }

    /// Appends the first data of a connection.
    pub(crate) fn begin(&self, out: &mut Vec<u8>, wall_ns: u64) {
        if self.kind == Kind::Places {
            let known = iamat(&format!("{}-asked", self.prefix), wall_ns);
            out.extend_from_slice(known.as_bytes());
        }
    }

    /// Appends the next commands, if all commands differ.
    pub(crate) fn make(&mut self, out: &mut Vec<u8>, wall_ns: u64) {
        let commands = match self.kind {
            Kind::Names => NAMES_AT_ONCE,
            Kind::Places => QUESTIONS_AT_ONCE,
            Kind::Lines | Kind::Unread | Kind::Faults | Kind::Links => return,
        };
        for number in self.made..self.made + commands {
            let command = if self.kind == Kind::Names {
                iamat(&format!("{}-{}-{number:x}", self.prefix, self.run), wall_ns)
            } else {
                let metres = number % RADII + 1;
                let (km, rest) = (metres / 1000, metres % 1000);
                format!("WHATSAT {}-asked {km}.{rest:03} 5\n", self.prefix)
            };
            out.extend_from_slice(command.as_bytes());
        }
        self.made += commands;
    }

    /// Whether a refusal repeats one of these commands. Other refusals are the reason of a rejected
    /// connection.
    pub(crate) fn is_repeated_in(&self, refusal: &[u8]) -> bool {
        match self.chunk.get(..self.command_bytes.min(8)) {
            Some(beginning) if !beginning.is_empty() => {
                refusal.starts_with(beginning.trim_ascii_end())
            }
            Some(_) | None => refusal.starts_with(b"IAMAT ") || refusal.starts_with(b"WHATSAT "),
        }
    }
}

/// An `IAMAT` of this client at this wall time.
pub(crate) fn iamat(client: &str, wall_ns: u64) -> String {
    let (seconds, nanos) = (wall_ns / SECOND_NS, wall_ns % SECOND_NS);
    format!("IAMAT {client} {LOCATION} {seconds}.{nanos:09}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const WALL: u64 = 1_795_225_348_000_000_007;

    fn made(kind: Kind, times: usize) -> Vec<String> {
        let mut payload = Payload::new(kind, "abuse", "1f", WALL);
        let mut out = Vec::new();
        payload.begin(&mut out, WALL);
        for _ in 0..times {
            payload.make(&mut out, WALL);
        }
        let text = String::from_utf8(out).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn repeated_chunks_contain_whole_commands() {
        for (kind, bytes) in [(Kind::Lines, 4097), (Kind::Faults, 2), (Kind::Unread, 62)] {
            let payload = Payload::new(kind, "abuse", "1f", WALL);
            let (chunk, command_bytes) = payload.repeated().unwrap();
            assert_eq!(command_bytes, bytes, "{kind:?}");
            assert!(chunk.len() > 60_000 && chunk.len().is_multiple_of(bytes));
            assert!(chunk.chunks(bytes).all(|command| command.ends_with(b"\n")));
        }
        for kind in [Kind::Names, Kind::Places, Kind::Links] {
            assert!(Payload::new(kind, "abuse", "1f", WALL).repeated().is_none());
        }
        assert!(made(Kind::Links, 2).is_empty());
    }

    #[test]
    fn every_attack_name_and_question_is_unique() {
        let names = made(Kind::Names, 3);
        assert_eq!(
            names[1],
            "IAMAT abuse-1f-1 +34.068930-118.445127 1795225348.000000007"
        );
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), 192);
        let questions = made(Kind::Places, 1000);
        assert!(questions[0].starts_with("IAMAT abuse-asked "));
        assert_eq!(questions[1], "WHATSAT abuse-asked 0.001 5");
        assert_eq!(questions[4000], "WHATSAT abuse-asked 4.000 5");
        assert_eq!(questions.iter().collect::<HashSet<_>>().len(), 4001);
    }

    #[test]
    fn a_rejection_is_distinguished_from_an_echo() {
        for (kind, echo) in [
            (Kind::Lines, &b"\x01\x01\x01\x01\x01\x01\x01\x01\x01"[..]),
            (Kind::Faults, b"x"),
            (Kind::Unread, b"IAMAT abuse-unread +34"),
            (Kind::Names, b"IAMAT abuse-1f-0"),
            (Kind::Places, b"WHATSAT abuse-asked 0.001 5"),
        ] {
            let payload = Payload::new(kind, "abuse", "1f", WALL);
            assert!(payload.is_repeated_in(echo), "{kind:?}");
            assert!(!payload.is_repeated_in(b"there are 3 clients"), "{kind:?}");
        }
    }
}
