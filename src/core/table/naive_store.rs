//! A simple store: each line is in a box of its own. Read this store first. The tests of
//! [`PackedStore`] compare it with this store.
//!
//! [`PackedStore`]: crate::core::table::packed_store::PackedStore

use crate::core::table::line_store::{LineRef, LineStore, Origin, hash_of};
use crate::core::wire::message::At;

/// All lines, unchanged, and their origins.
#[derive(Default)]
pub struct NaiveStore {
    lines: Vec<Box<[u8]>>,
    origins: Vec<Origin>,
    /// The numbers of removed lines. A new line gets one of these numbers.
    free: Vec<u32>,
}

impl LineStore for NaiveStore {
    fn add_server_name(&mut self, _name: &[u8]) {}

    fn add(&mut self, line: &[u8], _at: &At<'_>, origin: Origin) -> Option<u32> {
        if let Some(number) = self.free.pop() {
            self.lines[number as usize] = line.into();
            self.origins[number as usize] = origin;
            return Some(number);
        }
        let number = u32::try_from(self.lines.len()).ok()?;
        self.lines.push(line.into());
        self.origins.push(origin);
        Some(number)
    }

    fn remove(&mut self, number: u32) {
        self.lines[number as usize] = Box::default();
        self.free.push(number);
    }

    fn replace(
        &mut self,
        number: u32,
        (line, _hash): (&[u8], u64),
        _at: &At<'_>,
        origin: Origin,
    ) -> Option<()> {
        self.lines[number as usize] = line.into();
        self.origins[number as usize] = origin;
        Some(())
    }

    fn client(&self, number: u32) -> &[u8] {
        // Only lines that could be parsed are stored, so parsing cannot fail here.
        At::parse(&self.lines[number as usize]).map_or(&[], |at| at.client)
    }

    fn origin(&self, number: u32) -> Origin {
        self.origins[number as usize]
    }

    fn write(&self, number: u32, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.lines[number as usize]);
    }

    fn certainly_equals(&self, number: u32, line: &[u8]) -> bool {
        *self.lines[number as usize] == *line
    }

    fn unpack(&mut self, number: u32) -> LineRef<'_> {
        let line = &self.lines[number as usize];
        LineRef {
            line,
            hash: hash_of(line),
            rank: At::parse(line).map(|at| (at.effective, at.stamp)),
        }
    }
}
