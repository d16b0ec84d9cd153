//! The commands of a script: a stream of bytes, cut into batches of whole commands.
//!
//! The memory is bounded for any stream. A batch is at most what one read returns. Of a line that
//! is too long for the server, only the part is kept that the server reads.

use std::io::{self, Cursor, Read};

use herd_mio::core::base::limits::LINE_BYTES;
use herd_mio::core::wire::lines::{Split, split};
use herd_testkit::clock;

use crate::answers::Expected;
use crate::helpers;

/// The greatest number of bytes of one read.
const READ_BYTES: usize = 64 * 1024;

/// The next step for one line of the input. The steps have the order of the lines.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The line was sent, so wait for its answer.
    Answer(Expected),
    /// A helper command cannot be sent. The text says why.
    Mistake(String),
}

/// What follows a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Another batch.
    More,
    /// Nothing on this connection: the input has ended, or the server will close after the batch's
    /// last line.
    Nothing,
}

/// Some whole commands.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Batch {
    /// The bytes to send.
    pub(crate) bytes: Vec<u8>,
    /// The steps that follow.
    pub(crate) steps: Vec<Step>,
    pub(crate) next: Next,
}

/// The stream, and the bytes of it that are not in a batch yet.
pub(crate) struct Input {
    source: Box<dyn Read + Send>,
    pending: Vec<u8>,
    ended: bool,
    /// Whether `pending` begins with the rest of a line that was too long.
    skipping: bool,
    lines: u64,
}

impl Input {
    /// The standard input.
    pub(crate) fn stdin() -> Input {
        Input::new(Box::new(io::stdin()))
    }

    /// The one command that the arguments give.
    pub(crate) fn argument(mut line: Vec<u8>) -> Input {
        line.push(b'\n');
        Input::new(Box::new(Cursor::new(line)))
    }

    fn new(source: Box<dyn Read + Send>) -> Input {
        Input {
            source,
            pending: Vec::new(),
            ended: false,
            skipping: false,
            lines: 0,
        }
    }

    /// Waits for at least one whole command, or for the end. Takes all commands that are there.
    pub(crate) fn next_batch(&mut self) -> io::Result<Batch> {
        let mut batch = Batch {
            bytes: Vec::new(),
            steps: Vec::new(),
            next: Next::More,
        };
        let mut used = 0;
        loop {
            let rest = &self.pending[used..];
            let (line, length) = match split(rest, LINE_BYTES) {
                Split::Line(line, length) => (line, length),
                // The last line of the input needs no LF, and none is added.
                Split::Unfinished if self.ended && !rest.is_empty() => (rest, rest.len()),
                Split::Unfinished if self.ended => {
                    batch.next = Next::Nothing;
                    break;
                }
                Split::Unfinished if !batch.steps.is_empty() || !batch.bytes.is_empty() => break,
                Split::Unfinished => {
                    self.pending.drain(..used);
                    used = 0;
                    self.read()?;
                    continue;
                }
                Split::TooLong => {
                    // One byte above the limit makes the server quote the line and close the
                    // connection.
                    batch.bytes.extend_from_slice(&rest[..=LINE_BYTES]);
                    batch.steps.push(Step::Answer(Expected::Line));
                    batch.next = Next::Nothing;
                    self.skipping = true;
                    break;
                }
            };
            self.lines += 1;
            match helpers::outgoing(line, clock::since_1970) {
                Ok(outgoing) => {
                    batch.bytes.extend_from_slice(&outgoing.line);
                    batch.bytes.extend_from_slice(&rest[line.len()..length]);
                    batch.steps.extend(outgoing.expected.map(Step::Answer));
                }
                Err(what) => batch
                    .steps
                    .push(Step::Mistake(format!("line {}: {what}", self.lines))),
            }
            used += length;
        }
        self.pending.drain(..used);
        Ok(batch)
    }

    /// Whether there is more input after the last batch of a connection.
    pub(crate) fn goes_on(&mut self) -> io::Result<bool> {
        while self.skipping {
            let end = self.pending.iter().position(|&byte| byte == b'\n');
            self.pending
                .drain(..end.map_or(self.pending.len(), |end| end + 1));
            self.skipping = end.is_none() && !self.ended;
            if end.is_some() {
                self.lines += 1;
            } else if !self.ended {
                self.read()?;
            }
        }
        while self.pending.is_empty() && !self.ended {
            self.read()?;
        }
        Ok(!self.pending.is_empty())
    }

    fn read(&mut self) -> io::Result<()> {
        let before = self.pending.len();
        self.pending.resize(before + READ_BYTES, 0);
        let count = loop {
            match self.source.read(&mut self.pending[before..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.pending
            .truncate(before + count.as_ref().map_or(0, |&count| count));
        self.ended = count? == 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// A stream that returns one of these pieces for each read.
    struct Pieces(VecDeque<Vec<u8>>);

    impl Read for Pieces {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let piece = self.0.pop_front().unwrap_or_default();
            buffer[..piece.len()].copy_from_slice(&piece);
            Ok(piece.len())
        }
    }

    /// The bytes that each connection gets, and all steps.
    fn sent(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, Vec<Step>) {
        let pieces = pieces.iter().filter(|piece| !piece.is_empty());
        let mut input = Input::new(Box::new(Pieces(
            pieces.map(|piece| piece.to_vec()).collect(),
        )));
        let (mut connections, mut steps) = (vec![vec![]], vec![]);
        loop {
            let batch = input.next_batch().unwrap();
            connections.last_mut().unwrap().extend(batch.bytes);
            steps.extend(batch.steps);
            if batch.next == Next::Nothing {
                if !input.goes_on().unwrap() {
                    return (connections, steps);
                }
                connections.push(vec![]);
            }
        }
    }

    #[test]
    fn input_lines_are_split_alike_in_chunks_of_any_size() {
        let text = b"IAMAT \xff\r\n\n \nwhatsat kiwi\niamat kiwi 91 0\nWHATSAT kiwi 10 5";
        let wanted = (
            vec![b"IAMAT \xff\r\n\n \nWHATSAT kiwi 10 5\nWHATSAT kiwi 10 5".to_vec()],
            vec![
                Step::Answer(Expected::Line),
                Step::Answer(Expected::Places),
                Step::Mistake(
                    "line 5: the latitude 91 is out of range: from -90 to 90 degrees".into(),
                ),
                Step::Answer(Expected::Places),
            ],
        );
        for split in 0..=text.len() {
            assert_eq!(sent(&[&text[..split], &text[split..]]), wanted, "{split}");
        }
        assert_eq!(sent(&text.chunks(1).collect::<Vec<_>>()), wanted);
    }

    #[test]
    fn lines_after_an_overlong_one_use_a_new_connection() {
        let long = [b'x'; 10_000];
        let (connections, steps) =
            sent(&[b"a\nx", &long[..5_000], &long, b"x\nb\n", b"iamat\n", &long]);
        assert_eq!(
            connections.iter().map(Vec::len).collect::<Vec<_>>(),
            [2 + 4097, 2 + 4097]
        );
        assert_eq!(connections[1][..3], *b"b\nx");
        assert_eq!(steps.len(), 5);
        assert!(matches!(&steps[3], Step::Mistake(what) if what.starts_with("line 4: ")));

        let fits = [b'x'; 4096];
        assert_eq!(
            sent(&[&fits, b"\nb"]).0.len(),
            1,
            "4,096 bytes are not too many"
        );
        assert_eq!(sent(&[&long]).0.len(), 1, "nothing follows");
        assert_eq!(sent(&[&long, b"\n"]).0.len(), 1, "nothing follows");
    }
}
