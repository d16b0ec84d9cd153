//! The cursor of a follower in the feed. A follower is a program outside the herd that receives all
//! changes of a server's table, such as an operator's tool or a bridge to another system.
//! [`crate::core::table::records`] explains the feed, and [`crate::core::link`] explains the lives
//! of a server.
//!
//! A follower is not a neighbour: a follower needs no table, and another program may resume where a
//! follower stopped. So the server sends each change with its position. To resume, a program needs
//! only the last of these positions. For each follower, the server stores a cursor of a few bytes
//! and a bounded buffer, even if many changes are still unread.
//!
//! # Which changes are sent
//!
//! Changes are sent in the order of the feed. If a client changes twice before the cursor comes to
//! its record, only the newest record is sent. Expired records are not sent. The expiry of a record
//! is not a change, so it is not sent either.
//!
//! A change is sent when it is stored as durably as the answer to an `IAMAT` promises: see
//! [`Context::sendable_through`]. This is not enough to resume after the change. Suppose that a
//! later change has replaced the record of an earlier change, and is not in the journal yet. The
//! earlier change is not in the feed any more, so the cursor skips it. If a crash then loses the
//! later change, the earlier record is back in the table, and the follower would never get it. So
//! changes that are read while the journal lacks any change are held back. The server sends them
//! when the journal contains all changes that the table contained at the time of reading.
//!
//! # Where a follower resumes
//!
//! | the follower's position | the server sends |
//! |---|---|
//! | in this life | all later changes |
//! | in an earlier life for which [`Durability::resume_position`] returns a position | all later changes |
//! | in any other life | the records of all clients, after [`Restart::UnknownLife`] |
//! | after the last change of its life, or in an earlier life if the server was rolled back | the records of all clients, after [`Restart::Ahead`] |
//!
//! After a [`Restart`], the follower may have clients that the server's table does not contain any
//! more. If an older copy of a data directory was put back, the server notices this only if the
//! copy ends before the follower's position.

use std::fmt;

use crate::core::base::boot_id::BootId;
use crate::core::journal::durability::Durability;
use crate::core::session::context::Context;
use crate::core::table::records::{Change, ReaderId, Records, Unread};
use crate::core::wire::json;
use crate::core::wire::message::At;

/// The approximate number of bytes of one batch of changes. Many followers may catch up in one turn
/// of the event loop, so this batch is smaller than the batch of a link to a neighbour.
const BATCH_BYTES: usize = 16 * 1024;
/// The maximum number of records that one call of [`Records::seek`] or [`Records::changes`] looks
/// at.
const STEP_RECORDS: usize = 4_096;

/// A position in the feed of one life of a server. Its text is `<life>-<number of the change>`.
///
/// ```
/// use herd_mio::core::session::follower::Position;
///
/// let position = Position::parse(b"00000000000000aa-7").unwrap();
/// assert_eq!((position.life.0, position.seq), (0xaa, 7));
/// assert_eq!(position.to_string(), "00000000000000aa-7");
/// assert_eq!(Position::parse(b"00000000000000aa-07"), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The life of the server.
    pub life: BootId,
    /// The sequence number of the change. 0 is the position before the first change.
    pub seq: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.life, self.seq)
    }
}

impl Position {
    /// Parses a position. Returns `None` for any other text. Each position has exactly one valid
    /// text.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Position> {
        let (life, seq) = text.split_at_checked(16)?;
        let digits = seq.strip_prefix(b"-")?;
        let is_plain =
            digits.iter().all(u8::is_ascii_digit) && !life.iter().any(u8::is_ascii_uppercase);
        let has_spare_zero = digits.len() > 1 && digits.starts_with(b"0");
        let seq = std::str::from_utf8(digits).ok()?.parse().ok();
        Some(Position {
            life: BootId::parse(life)?,
            seq: seq.filter(|_| is_plain && !has_spare_zero)?,
        })
    }
}

/// The point in the feed at which a follower asks to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// After this position.
    After(Position),
    /// After the latest change that may be sent now.
    Now,
    /// With the records of all clients.
    All,
}

impl Start {
    /// Parses `now`, `all` or a position. Returns `None` for any other text.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Start> {
        match text {
            b"now" => Some(Start::Now),
            b"all" => Some(Start::All),
            position => Position::parse(position).map(Start::After),
        }
    }
}

/// The reason why the server sends the records of all clients to a follower that asked to begin
/// after a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// The server has no information about the life of the position: see
    /// [`Durability::resume_position`].
    UnknownLife,
    /// The follower's position is after the server's last change. An older copy of the server's
    /// data was restored, or the position is wrong.
    Ahead,
}

impl fmt::Display for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Restart::UnknownLife => "the server does not know the changes of that life",
            Restart::Ahead => "the server has fewer changes than that position, so its data was rolled back, or the position is wrong",
        })
    }
}

/// The format in which changes are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `CHANGE <position> AT …`, or `CHANGE <position> EPOCH <n> AT …`.
    Line,
    /// One JSON object per line: see [`in_json`].
    Json,
}

impl Format {
    /// Appends one change and an LF.
    pub fn write(self, position: Position, change: Change<'_>, out: &mut Vec<u8>) {
        let Change { epoch, line, .. } = change;
        match self {
            Format::Line => {
                let epoch = match epoch {
                    0 => String::new(),
                    epoch => format!("EPOCH {epoch} "),
                };
                out.extend_from_slice(format!("CHANGE {position} {epoch}").as_bytes());
                out.extend_from_slice(line);
            }
            Format::Json => {
                if let Some(text) = in_json(position, epoch, line) {
                    out.extend_from_slice(text.as_bytes());
                }
            }
        }
        out.push(b'\n');
    }
}

/// Formats a change as a JSON object. The object contains the position, the fields of
/// [`json::write_record`], and the effective time of the record. Of two records of one client with
/// the same epoch, the record with the later effective time is newer. Returns `None` if `line` is
/// not a valid `AT` line.
///
/// ```
/// use herd_mio::core::session::follower::{Position, in_json};
///
/// let position = Position::parse(b"00000000000000aa-7").unwrap();
/// assert_eq!(
///     in_json(position, 0, b"AT Riley +0.500000000 kiwi - 1621464827").unwrap(),
///     r#"{"position":"00000000000000aa-7","client":"kiwi","forgotten":true,"time":"1621464827","server":"Riley","skew":"+0.500000000","epoch":0,"effective":"1621464827.500000000"}"#
/// );
/// ```
#[must_use]
pub fn in_json(position: Position, epoch: u32, line: &[u8]) -> Option<String> {
    let at = At::parse(line)?;
    let mut text = format!("{{\"position\":\"{position}\",");
    json::write_record(&mut text, epoch, line, &at)?;
    let mut effective = Vec::new();
    at.effective.write(&mut effective);
    text.push_str(",\"effective\":");
    text.push_str(&json::string(&effective));
    text.push('}');
    Some(text)
}

/// A follower's cursor in the feed, and the changes that are held back.
pub struct Cursor {
    reader: ReaderId,
    /// The life of all positions of this cursor.
    life: BootId,
    /// All changes up to this sequence number were appended to the output, or the follower did not
    /// ask for them.
    told: u64,
    /// The sequence number of the latest change at the time when the cursor was opened.
    head: u64,
    /// `false` if the last pull read all changes that may be sent.
    has_more: bool,
    /// Whether the last [`Cursor::pull`] found no change, although the feed may contain more.
    wants_turn: bool,
    /// The changes that are held back, as text. They were read while the journal lacked changes.
    held: Vec<u8>,
    /// The position up to which `held` contains all changes, and the latest change at the time when
    /// `held` was filled. `held` is sent when the journal contains that latest change.
    held_until: (u64, u64),
}

impl Cursor {
    /// Opens a cursor for a follower that asks to begin at `start`. Then [`Cursor::position`] is
    /// the position after which the follower begins. If `start` is a position and the server cannot
    /// resume there, also returns the reason. Then the cursor begins with the records of all
    /// clients.
    pub fn open(start: Start, context: &mut Context<'_>) -> (Cursor, Option<Restart>) {
        let head = context.records.last_seq();
        let safe = context.sendable_through().min(head);
        let resumed = match start {
            Start::All => Ok(0),
            Start::Now => Ok(safe),
            Start::After(position) => resume(position, safe, context),
        };
        let (told, restart) = match resumed {
            Ok(told) => (told, None),
            Err(restart) => (0, Some(restart)),
        };
        let cursor = Cursor {
            reader: context.records.open_seeking_reader(told),
            life: context.boot,
            told,
            head,
            has_more: true,
            wants_turn: false,
            held: Vec::new(),
            held_until: (0, 0),
        };
        (cursor, restart)
    }

    /// Returns the id of this cursor's reader in the feed.
    #[must_use]
    pub fn reader(&self) -> ReaderId {
        self.reader
    }

    /// Returns the position up to which [`Cursor::pull`] has appended all changes.
    #[must_use]
    pub fn position(&self) -> Position {
        Position {
            life: self.life,
            seq: self.told,
        }
    }

    /// Returns the number of changes between [`Cursor::position`] and the latest change at the time
    /// when the cursor was opened.
    #[must_use]
    pub fn behind(&self) -> u64 {
        self.head.saturating_sub(self.told)
    }

    /// Whether [`Cursor::pull`] has appended all changes up to the latest change at the time when
    /// the cursor was opened.
    #[must_use]
    pub fn has_caught_up(&self) -> bool {
        self.told >= self.head
    }

    /// Whether [`Cursor::pull`] has to be called in the next turn of the event loop, even without
    /// an event. The work of one call is bounded, so a call may append nothing although the feed
    /// contains more changes.
    #[must_use]
    pub fn wants_turn(&self) -> bool {
        self.wants_turn
    }

    /// Sets [`Cursor::wants_turn`] back to `false`. Called at the beginning of the turn in which
    /// [`Cursor::pull`] is called again.
    pub fn turn_begins(&mut self) {
        self.wants_turn = false;
    }

    /// Whether all changes that may be sent now were appended to the output.
    #[must_use]
    pub fn is_done(&self) -> bool {
        !self.has_more && self.held.is_empty()
    }

    /// Returns the number of bytes of memory for changes that are held back.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.held.capacity()
    }

    /// Appends to `out` the next batch of changes that may be sent, at most about 16 KiB. Appends
    /// nothing if the next changes are held back. The caller calls this method when the output of
    /// the follower is empty.
    pub fn pull(&mut self, format: Format, context: &mut Context<'_>, out: &mut Vec<u8>) {
        let appended = context.appended_through();
        if !self.held.is_empty() {
            let (last, latest) = self.held_until;
            if appended < latest {
                return;
            }
            out.extend_from_slice(&std::mem::take(&mut self.held));
            self.told = last;
            return;
        }
        let (sendable, records) = (context.sendable_through(), &mut *context.records);
        if !records.seek(self.reader, STEP_RECORDS) {
            self.wants_turn = true;
            return;
        }
        let last_seq = records.last_seq();
        let is_safe = appended >= last_seq;
        let batch = match is_safe {
            true => &mut *out,
            false => &mut self.held,
        };
        let (before, full_at) = (batch.len(), batch.len() + BATCH_BYTES);
        let life = self.life;
        let unread = records.changes(self.reader, sendable, STEP_RECORDS, |change| {
            let position = Position {
                life,
                seq: change.seq,
            };
            format.write(position, change, batch);
            batch.len() < full_at
        });
        self.has_more = unread == Unread::More;
        self.wants_turn = self.has_more && batch.len() == before;
        let position = records.position(self.reader);
        match is_safe {
            true => self.told = position,
            // `told` does not change before these changes are sent. If this batch is empty, `told`
            // changes only with a later batch.
            false => self.held_until = (position, last_seq),
        }
    }

    /// Closes the cursor.
    pub fn close(self, records: &mut Records) {
        records.close_reader(self.reader);
    }
}

/// Returns the sequence number after which a follower resumes. `safe` is the last change that may
/// be sent.
fn resume(position: Position, safe: u64, context: &Context<'_>) -> Result<u64, Restart> {
    let Position { life, seq } = position;
    if life == context.boot {
        return match seq <= safe {
            true => Ok(seq),
            false => Err(Restart::Ahead),
        };
    }
    if context.herd.was_rolled_back() {
        return Err(Restart::Ahead);
    }
    let known = |durability: &Durability| durability.resume_position(life, seq);
    match context.durability.as_deref().and_then(known) {
        None => Err(Restart::UnknownLife),
        Some(after) if after < seq => Err(Restart::Ahead),
        // `after` may be greater than `safe`: the last records may have expired, and a compaction
        // may have left them out of the journal.
        Some(after) => Ok(after.min(safe)),
    }
}
