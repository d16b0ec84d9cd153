//! The list of bugs. Each is a mistake that is easy to make at its place.

use std::fmt;

/// A bug to be planted.
pub(crate) struct Mutant {
    /// What goes wrong.
    pub(crate) name: &'static str,
    /// Its file, as a path from the root of the checkout.
    pub(crate) file: &'static str,
    /// The original text, which the file has exactly once.
    pub(crate) from: &'static str,
    /// The text that replaces it.
    pub(crate) to: &'static str,
    /// The check that should notice the bug.
    pub(crate) caught_by: CaughtBy,
    /// If the bug is known to stay unnoticed: why.
    pub(crate) missed: Option<&'static str>,
}

/// The check that should notice a bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CaughtBy {
    /// The simulator.
    Simulation {
        /// The number of seeds to run. One of them has to fail.
        seeds: u64,
        /// The simulated herd. With `None` the small herds take turns.
        herd: Option<&'static str>,
    },
    /// Tests.
    Test {
        /// The package of the tests.
        package: &'static str,
        /// The test program that contains them.
        target: Target,
        /// A part of their names.
        name: &'static str,
    },
}

/// The kinds of test programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Unit tests of the library.
    Library,
    /// The integration test of this name.
    Integration(&'static str),
}

impl fmt::Display for CaughtBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CaughtBy::Simulation { seeds, herd: None } => write!(f, "{seeds} simulations"),
            CaughtBy::Simulation {
                seeds,
                herd: Some(herd),
            } => write!(f, "{seeds} simulations of {herd}"),
            CaughtBy::Test {
                package,
                target: Target::Library,
                name,
            } => write!(f, "the unit tests {name} of {package}"),
            CaughtBy::Test {
                package,
                target: Target::Integration(target),
                name,
            } => write!(f, "the tests {target} {name} of {package}"),
        }
    }
}

/// A run of the simulator, which takes about 15 seconds.
const SIMULATED: CaughtBy = CaughtBy::Simulation {
    seeds: 4000,
    herd: None,
};

/// Tests of the journal over a simulated disk that fails.
const fn over_disk(name: &'static str) -> CaughtBy {
    CaughtBy::Test {
        package: "herd-mio",
        target: Target::Integration("durability"),
        name,
    }
}

/// Unit tests.
const fn unit(name: &'static str) -> CaughtBy {
    CaughtBy::Test {
        package: "herd-mio",
        target: Target::Library,
        name,
    }
}

/// Tests with real servers.
const fn behaviour(name: &'static str) -> CaughtBy {
    CaughtBy::Test {
        package: "herd-mio",
        target: Target::Integration("behaviour"),
        name,
    }
}

/// Tests of the program that attacks a server.
const fn abuse(name: &'static str) -> CaughtBy {
    CaughtBy::Test {
        package: "herd-load",
        target: Target::Integration("abuse"),
        name,
    }
}

/// The bugs.
///
/// One bug was tried and left out: it counted a link's position one too far after each `AT`. The
/// `SYNC` that follows corrects the position before anything reads it, so no error can be seen.
pub(crate) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "equal record is taken again (< for <= in the order)",
        file: "src/core/table/line_store.rs",
        from: "(effective, stamp, self.line) < (at.effective, at.stamp, line)",
        to: "(effective, stamp, self.line) <= (at.effective, at.stamp, line)",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "tie of effective time broken by arrival",
        file: "src/core/table/line_store.rs",
        from: "(effective, stamp, self.line) < (at.effective, at.stamp, line)",
        to: "effective < at.effective || (effective == at.effective && self.line != line)",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "stamp left out of the tie",
        file: "src/core/table/line_store.rs",
        from: "(effective, stamp, self.line) < (at.effective, at.stamp, line)",
        to: "(effective, self.line) < (at.effective, line)",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "effective time ignored",
        file: "src/core/table/line_store.rs",
        from: "(effective, stamp, self.line) < (at.effective, at.stamp, line)",
        to: "(stamp, self.line) < (at.stamp, line)",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "a client that moves is ordered by where it was first",
        file: "src/core/table/packed_store.rs",
        from: "Some(before) => *before = unpacked,",
        to: "Some(before) => before.client_length = unpacked.client_length,",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "a line that made room for another counts as unpacked",
        file: "src/core/table/packed_store.rs",
        from: "        line.place = PACKED;\n",
        to: "",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "who taught the first line is remembered for ever",
        file: "src/core/table/packed_store.rs",
        from: "        own.origin = origin;\n",
        to: "",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "60 s border is 61 s",
        file: "src/core/wire/posix_time.rs",
        from: "const MAX_LEAD_S: u64 = 60;",
        to: "const MAX_LEAD_S: u64 = 61;",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "a stamp that leads too far counts for nothing: the order jumps",
        file: "src/core/wire/posix_time.rs",
        from: "Some(stamp.min(latest))",
        to: "Some(if stamp > latest { PosixTime { seconds, attos } } else { stamp })",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "a later stamp at a server whose clock is slow is stale",
        file: "src/core/table/line_store.rs",
        from: "stamp < at.stamp || effective > latest",
        to: "effective > latest",
        caught_by: CaughtBy::Test {
            package: "herd-mio",
            target: Target::Library,
            name: "roams_between_servers",
        },
        missed: None,
    },
    Mutant {
        name: "a server whose clock is ahead freezes a record",
        file: "src/core/table/line_store.rs",
        from: "stamp < at.stamp || effective > latest",
        to: "stamp < at.stamp",
        caught_by: CaughtBy::Test {
            package: "herd-mio",
            target: Target::Library,
            name: "a_server_a_year_ahead",
        },
        missed: None,
    },
    Mutant {
        name: "an epoch is not told to neighbours",
        file: "src/core/table/records.rs",
        from: "let _ = write!(out, \"EPOCH {epoch} \");",
        to: "",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "a neighbour's record is written down without its epoch",
        file: "src/core/link/machine/feed.rs",
        from: "durability.record(seq, epoch, line);",
        to: "durability.record(seq, 0, line);",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "the epoch does not decide first",
        file: "src/core/table/records.rs",
        from: "Ordering::Less => false,",
        to: "Ordering::Less => own.is_older(line, at),",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "a journal is restored with limits",
        file: "src/core/table/records.rs",
        from: "Claim::Journal { epoch } => (epoch, Origin::NONE, false),",
        to: "Claim::Journal { epoch } => (epoch, Origin::NONE, true),",
        caught_by: CaughtBy::Test {
            package: "herd-mio",
            target: Target::Library,
            name: "restored_whatever_the_limits",
        },
        missed: None,
    },
    Mutant {
        name: "a refused record counts as heard",
        file: "src/core/link/machine/feed.rs",
        from: "if self.refused == 0 {",
        to: "if self.refused < u64::MAX {",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "KEPT before it is safe",
        file: "src/core/link/machine/acknowledgement.rs",
        from: "            && seq <= kept_through\n",
        to: "            && seq < u64::MAX\n",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "a rollback of the present life is not noticed",
        file: "src/core/link/machine/greeting.rs",
        from: "false => Resume::RolledBack,",
        to: "false => Resume::All,",
        caught_by: CaughtBy::Test {
            package: "herd-mio",
            target: Target::Integration("behaviour"),
            name: "history_was_rolled_back",
        },
        missed: None,
    },
    Mutant {
        name: "no split horizon",
        file: "src/core/table/records.rs",
        from: "if self.lines.origin(reader.next) != except && ",
        to: "if (self.lines.origin(reader.next) != except || true) && ",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "split horizon too wide: nothing learned is passed on",
        file: "src/core/table/records.rs",
        from: "if self.lines.origin(reader.next) != except && ",
        to: "if self.lines.origin(reader.next) == Origin::NONE && ",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "cursor one too far at open",
        file: "src/core/table/records.rs",
        from: ".seq > after {",
        to: ".seq > after + 1 {",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "cursor one too early at open",
        file: "src/core/table/records.rs",
        from: ".seq > after {",
        to: ".seq >= after {",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "reader not advanced when its record moves",
        file: "src/core/table/records.rs",
        from: "                reader.next = newer;\n            }\n        }\n        match older",
        to: "                reader.next = index;\n            }\n        }\n        match older",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "caught-up readers are not given the new record",
        file: "src/core/table/records.rs",
        from: "            if reader.next == NONE {\n                reader.next = index;",
        to: "            if reader.next == NONE && false {\n                reader.next = index;",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "SYNC says the feed's end, not what was sent",
        file: "src/core/link/machine/feed.rs",
        from: "            let position = records.position(reader);\n            let mut has_caught_up",
        to: "            let position = records.last_seq().max(records.position(reader));\n            let mut has_caught_up",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "SYNC of the heartbeat one ahead",
        file: "src/core/link/machine/mod.rs",
        from: "self.say_sync(context.herd);",
        to: "self.confirmed += 1;\n                    self.say_sync(context.herd);",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "position of another life is accepted",
        file: "src/core/link/machine/greeting.rs",
        from: "if boot == context.boot {",
        to: "if boot.0 != 0 {",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "heard of another life counts on",
        file: "src/core/session/herd/neighbour.rs",
        from: "let heard = Some(Heard { boot, position });",
        to: "let boot = self.heard.map_or(boot, |heard| heard.boot);\n        let heard = Some(Heard { boot, position });",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "a new origin with every link",
        file: "src/core/session/herd/neighbour.rs",
        from: "Some((known, origin)) if known == boot => origin,",
        to: "Some((known, origin)) if known == boot && origin == Origin::NONE => origin,",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "the same origin for a new life",
        file: "src/core/session/herd/mod.rs",
        from: "*last_origin = last_origin.next();",
        to: "if *last_origin == Origin::NONE { *last_origin = last_origin.next(); }",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "output_sent of a link takes one byte too many",
        file: "src/core/link/machine/feed.rs",
        from: "        self.output.consume(count);\n        self.last_sent = now.time;",
        to: "        self.output.consume(count + usize::from(count > 1000));\n        self.last_sent = now.time;",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "output_sent of a link forgets a short write",
        file: "src/core/link/machine/feed.rs",
        from: "        self.output.consume(count);\n        self.last_sent = now.time;",
        to: "        let _ = count; self.output.clear();\n        self.last_sent = now.time;",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "a feed that moves marks no link dirty",
        file: "src/core/node/poll.rs",
        from: "if self.announced != announced {",
        to: "if self.announced != announced && announced.0 % 7 != 3 {",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "links after clients",
        file: "src/core/node/poll.rs",
        from: "        self.round.append(&mut self.links);\n        self.round.append(&mut self.others);",
        to: "        self.round.append(&mut self.others);\n        self.round.append(&mut self.links);",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "no redial after a refusal",
        file: "src/core/link/machine/mod.rs",
        from: "let neighbour = self.dialled().filter(|_| !context.is_stopping)?;",
        to: "let neighbour = self.dialled().filter(|_| why != Some(\"refused\") && !context.is_stopping)?;",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "no redial after a connect that timed out",
        file: "src/core/link/machine/mod.rs",
        from: "let neighbour = self.dialled().filter(|_| !context.is_stopping)?;",
        to: "let neighbour = self.dialled().filter(|_| (why.is_some() || self.identity != Identity::Unknown) && !context.is_stopping)?;",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "the second address of a name is not tried",
        file: "src/core/node/neighbours.rs",
        from: "(Some(addresses), None) if !addresses.is_empty() => {\n                self.try_next(neighbour, addresses, now)",
        to: "(Some(addresses), None) if !addresses.is_empty() => {\n                self.dial_later(neighbour, now)",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "silence is never noticed",
        file: "src/core/link/machine/mod.rs",
        from: "(!self.wants_room).then(|| self.last_heard.plus_ms(limits.link_silence_ms))",
        to: "(!self.wants_room).then(|| self.last_heard + ms(1_000_000 * limits.link_silence_ms))",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "the connect deadline is never armed",
        file: "src/core/link/machine/mod.rs",
        from: "State::Connecting => self.since + limits.link_connect_ms.to_duration(),",
        to: "State::Connecting => self.since + std::time::Duration::from_secs(1_000_000),",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "the proof deadline is never armed",
        file: "src/core/link/machine/mod.rs",
        from: "                self.since + limits.link_proof_ms.to_duration()\n",
        to: "                self.since + std::time::Duration::from_secs(1_000_000)\n",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "a deadline that comes earlier is not armed",
        file: "src/core/node/poll.rs",
        from: "slot.armed.is_none_or(|armed| deadline < armed)",
        to: "slot.armed.is_none()",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "the replaced link stays, the new one is closed",
        file: "src/core/node/connection.rs",
        from: "Effect::Link(link::Effect::Replaces(old)) => self.replace_link(old, now),",
        to: "Effect::Link(link::Effect::Replaces(_)) => self.replace_link(id, now),",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "a link that was replaced clears the new one's place",
        file: "src/core/session/herd/neighbour.rs",
        from: "let was_linked = self.link == Some(link);",
        to: "let was_linked = self.link.is_some();",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "the replaced link is left alone",
        file: "src/core/node/neighbours.rs",
        from: "link.end(LinkError::Replaced, now.time);",
        to: "let _ = (link, now);",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "a SYNC behind every pull, records or not",
        file: "src/core/link/machine/feed.rs",
        from: "if self.owes_sync && self.confirmed > self.told {",
        to: "if self.owes_sync && self.confirmed > self.told || self.last_heard == self.last_sent {",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "no heartbeats",
        file: "src/core/link/machine/mod.rs",
        from: ".map_or(heartbeat, |due| due.min(heartbeat));",
        to: ".map_or(heartbeat + limits.link_silence_ms.to_duration(), |due| due);",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "position follows each AT, not SYNC (too early)",
        file: "src/core/link/machine/mod.rs",
        from: "            return self.at(epoch, line, origin, context).map(|()| None);",
        to: "            if let Some(n) = self.neighbour && let Some(h) = context.herd.get(n).heard() { context.herd.get_mut(n).heard_up_to(h.boot, h.position + 1); }\n            return self.at(epoch, line, origin, context).map(|()| None);",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "a client's half-close loses the last line",
        file: "src/core/client/machine.rs",
        from: "Split::Unfinished if self.end == Input::Ended => {",
        to: "Split::Unfinished if self.end == Input::Ended && rest.len() > 4000 => {",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "stop does not wait for the feed",
        file: "src/core/link/machine/mod.rs",
        from: "records.is_caught_up(reader) && self.output.is_empty()",
        to: "self.output.is_empty() || records.is_caught_up(reader)",
        caught_by: behaviour(
            "neighbours::a_neighbour_that_lacks_much_is_sent_all_of_it_before_a_stop",
        ),
        missed: None,
    },
    Mutant {
        name: "closing waits as long as anything comes in",
        file: "src/core/link/machine/mod.rs",
        from: "State::Closing { .. } => self.since + limits.linger_ms.to_duration(),",
        to: "State::Closing { .. } => self.last_heard.max(self.last_sent) + limits.linger_ms.to_duration(),",
        caught_by: behaviour("neighbours::a_stranger_that_was_told_to_go_goes_whatever_it_says"),
        missed: None,
    },
    Mutant {
        name: "a neighbour that broke the protocol is let in at once",
        file: "src/core/link/machine/greeting.rs",
        from: "if context.herd.get(neighbour).is_kept_out(context.now.time)",
        to: "if false && context.herd.get(neighbour).is_kept_out(context.now.time)",
        caught_by: behaviour(
            "hostile_neighbours::a_proven_neighbour_that_talks_nonsense_is_let_in_ever_more_rarely",
        ),
        missed: None,
    },
    Mutant {
        name: "reading stops after half a line that was kept",
        file: "src/core/link/machine/mod.rs",
        from: "        input.consume(used);\n        self.input = input;\n",
        to: "        input.consume(used);\n        if input.as_slice().len() < 3000 { self.input = input; }\n",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "an answer leaves before it is synced",
        file: "src/core/journal/durability/mod.rs",
        from: "Fsync::Always => self.synced_seq,",
        to: "Fsync::Always => self.appended_seq,",
        caught_by: over_disk(""),
        missed: None,
    },
    Mutant {
        name: "an answer leaves before it is written",
        file: "src/core/journal/durability/mod.rs",
        from: "Fsync::Interval | Fsync::Never => self.appended_seq,",
        to: "Fsync::Interval | Fsync::Never => self.pending_seq,",
        caught_by: over_disk(""),
        missed: None,
    },
    Mutant {
        name: "a sync covers what was written while it was on its way",
        file: "src/core/journal/durability/mod.rs",
        from: "self.synced_seq = self.synced_seq.max(syncing.seq);",
        to: "self.synced_seq = self.appended_seq.max(syncing.seq);",
        caught_by: over_disk("with_always"),
        missed: None,
    },
    Mutant {
        name: "the second file is not synced while entries go to both",
        file: "src/core/journal/durability/mod.rs",
        from: "current.into_iter().chain(next.map(|next| next.id));",
        to: "current.into_iter().chain(next.map(|next| next.id).filter(|_| false));",
        caught_by: over_disk(""),
        missed: None,
    },
    Mutant {
        name: "entries go to the old file alone",
        file: "src/core/journal/durability/mod.rs",
        from: "for_next.extend_from_slice(&self.pending[self.single_until..]);",
        to: "for_next.extend_from_slice(&[]);",
        caught_by: over_disk(""),
        missed: None,
    },
    Mutant {
        name: "the new file takes the name before it is synced",
        file: "src/core/journal/durability/compaction.rs",
        from: "self.enter(Cause::TableCopied, Compaction::Doubling);",
        to: "self.compaction = Compaction::SwitchDue;",
        caught_by: over_disk(""),
        missed: None,
    },
    Mutant {
        name: "what one file refused is answered because the other took it",
        file: "src/core/journal/durability/mod.rs",
        from: "if !self.batch.is_on_its_way && self.batch.chunks.is_empty() {",
        to: "if !self.batch.is_on_its_way {",
        caught_by: over_disk("a_next_file_that_refuses"),
        missed: None,
    },
    Mutant {
        name: "a full disk ends the server",
        file: "src/core/journal/durability/mod.rs",
        from: "                self.batch.refused_since = Some(now);\n                self.full_reason = Some(error);",
        to: "                self.batch.refused_since = Some(now);\n                self.fail(JournalFailure::Append(error));",
        caught_by: over_disk(""),
        missed: None,
    },
    Mutant {
        name: "a switch makes the journal forget what it lacks",
        file: "src/core/journal/durability/mod.rs",
        from: "self.backlog = (after < records.last_seq()).then_some(Backlog {",
        to: "self.backlog = (after > records.last_seq()).then_some(Backlog {",
        caught_by: over_disk("records_without_room_during"),
        missed: None,
    },
    Mutant {
        name: "a checksum does not tell which file and where",
        file: "src/core/journal/format/mod.rs",
        from: "XxHash3_64::oneshot_with_seed(salt.0.wrapping_add(offset), summed)",
        to: "XxHash3_64::oneshot_with_seed(salt.0.wrapping_mul(0).wrapping_add(offset * 0), summed)",
        caught_by: unit("journal"),
        missed: None,
    },
    Mutant {
        name: "a journal grows without a bound",
        file: "src/core/journal/durability/mod.rs",
        from: "self.current.reserve((end + chunk).min(bound), now)",
        to: "self.current.reserve((end + chunk).max(bound), now)",
        caught_by: over_disk("a_flood_does_not_starve"),
        missed: None,
    },
    Mutant {
        name: "a compaction copies only what is new",
        file: "src/core/journal/durability/compaction.rs",
        from: "let reader = records.open_reader(0);",
        to: "let reader = records.open_reader(records.last_seq());",
        caught_by: over_disk(""),
        missed: None,
    },
    Mutant {
        name: "a compaction forgets the lives",
        file: "src/core/journal/durability/compaction.rs",
        from: "life.write(&mut self.for_next);",
        to: "let _ = life;",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "a position counts beyond what its life had",
        file: "src/core/journal/durability/lives.rs",
        from: "position.min(next.after)",
        to: "position.min(next.after.max(position))",
        caught_by: unit("durability"),
        missed: None,
    },
    Mutant {
        name: "a life does not know where it began",
        file: "src/core/journal/durability/mod.rs",
        from: "self.lives.push(life);",
        to: "self.lives.push(Life { after: 0, ..life });",
        caught_by: unit("durability"),
        missed: None,
    },
    Mutant {
        name: "a life is written down without where it began",
        file: "src/core/journal/durability/mod.rs",
        from: "life.write(&mut self.pending);",
        to: "Life { after: 0, ..life }.write(&mut self.pending);",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "room is promised that is not reserved",
        file: "src/core/journal/durability/mod.rs",
        from: "!self.is_old_format && self.current_end() + bytes <= self.current.reserved;",
        to: "!self.is_old_format;",
        caught_by: behaviour(
            "journal::a_full_disk_refuses_updates_and_nothing_else_and_recovers_by_itself",
        ),
        missed: None,
    },
    Mutant {
        name: "what was heard is noted though records with it were not",
        file: "src/core/journal/durability/mod.rs",
        from: "let may_note = self.room_for(table, bytes) == Room::Enough;",
        to: "let may_note = self.room_for(table, bytes) != Room::Wait;",
        caught_by: over_disk("records_without_room"),
        missed: None,
    },
    Mutant {
        name: "a disk that cannot sync is trusted",
        file: "src/core/journal/durability/mod.rs",
        from: "DiskErrorKind::Broken => self.fail(JournalFailure::Sync(error)),",
        to: "DiskErrorKind::Broken => {}",
        caught_by: over_disk(""),
        missed: None,
    },
    Mutant {
        name: "the checksum is not looked at",
        file: "src/core/journal/format/mod.rs",
        from: "    if !is_good {\n",
        to: "    if !is_good && size == 0 {\n",
        caught_by: unit("journal"),
        missed: None,
    },
    Mutant {
        name: "damage in the middle is taken for a torn tail",
        file: "src/core/journal/format/judge.rs",
        from: "Some(offset) if self.is_damaged => Err",
        to: "Some(offset) if self.is_damaged && offset == 0 => Err",
        caught_by: unit("journal"),
        missed: None,
    },
    Mutant {
        name: "a hole in what was synced is taken for a loss of power",
        file: "src/core/journal/format/judge.rs",
        from: "same_machine || *offset > broken_at,",
        to: "same_machine,",
        caught_by: unit("journal"),
        missed: None,
    },
    Mutant {
        name: "a hole before what was synced is damage",
        file: "src/core/journal/format/judge.rs",
        from: "same_machine || *offset > broken_at,",
        to: "same_machine || *offset >= broken_at,",
        caught_by: unit("journal"),
        missed: None,
    },
    Mutant {
        name: "any server's journal will do",
        file: "src/core/journal/format/mod.rs",
        from: "Header::Foreign => return Err(JournalError::Foreign),",
        to: "Header::Foreign => {}",
        caught_by: unit("journal"),
        missed: None,
    },
    Mutant {
        name: "reserved room is a torn tail",
        file: "src/core/journal/format/scan.rs",
        from: "if rest[0] != 0 {",
        to: "if rest[0] != 0 || offset > 0 {",
        caught_by: unit("journal"),
        missed: None,
    },
    Mutant {
        name: "what is written goes behind the torn tail",
        file: "src/shell/disk.rs",
        from: "            length: end.offset,\n",
        to: "            length: end.offset + end.torn,\n",
        caught_by: behaviour("journal::a_torn_tail_is_cut_off_with_a_warning"),
        missed: None,
    },
    Mutant {
        name: "the torn tail stays",
        file: "src/shell/disk.rs",
        from: "file.set_len(end.offset)\n",
        to: "file.set_len(end.offset + end.torn)\n",
        caught_by: behaviour("journal::a_torn_tail_is_cut_off_with_a_warning"),
        missed: None,
    },
    Mutant {
        name: "the new journal does not take the name",
        file: "src/shell/disk.rs",
        from: "retry_on_intr(|| renameat(directory, NEXT, directory, JOURNAL))",
        to: "retry_on_intr(|| Ok::<(), Errno>(()))",
        caught_by: behaviour("journal::a_long_journal_is_compacted_while_it_is_used"),
        missed: None,
    },
    Mutant {
        name: "after a compaction what was written since its sync is written over",
        file: "src/core/journal/durability/compaction.rs",
        from: "        self.current = next;\n",
        to: "        self.current = JournalFile::new(next.id, next.salt, next.synced);\n",
        caught_by: over_disk(""),
        missed: None,
    },
    Mutant {
        name: "a proof with the old secret is answered with the new one",
        file: "src/core/link/machine/greeting.rs",
        from: "let own_proof = parties.prove(self.side, secret);",
        to: "let own_proof = parties.prove(self.side, { let _ = secret; context.settings.secrets.primary() });",
        caught_by: behaviour(
            "secret_change::a_proof_is_answered_with_the_secret_that_it_was_made_with",
        ),
        missed: None,
    },
    Mutant {
        name: "a hello is not looked for where TLS is offered",
        file: "src/core/node/neighbours.rs",
        from: "if !link.awaits_first_byte() {",
        to: "if link.awaits_first_byte() {",
        caught_by: behaviour("tls_offered::every_pair_of_settings_links_as_the_table_has_it"),
        missed: None,
    },
    Mutant {
        name: "TLS that is refused is offered for ever",
        file: "src/core/link/machine/mod.rs",
        from: "Some(tls) if tls.has_spoken() => Ending::TlsRefused,",
        to: "Some(tls) if tls.has_spoken() => Ending::Other,",
        caught_by: behaviour("tls_offered::every_pair_of_settings_links_as_the_table_has_it"),
        missed: None,
    },
    Mutant {
        name: "what a neighbour was told after a copy was made is believed",
        file: "src/core/link/machine/greeting.rs",
        from: "let told = context.herd.get(neighbour).told_noted();",
        to: "let told = u64::MAX;",
        caught_by: behaviour("neighbours::an_older_copy_sends_again_what_moved_after_it_was_made"),
        missed: None,
    },
    Mutant {
        name: "a position is confirmed before the journal has what was accepted then",
        file: "src/core/link/machine/feed.rs",
        from: "if appended >= last_seq {",
        to: "if appended >= position.min(last_seq) {",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "room that may not be reserved is no room",
        file: "src/shell/disk.rs",
        from: "Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM | Errno::INVAL | Errno::NODEV) => Ok(()),",
        to: "Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),",
        caught_by: behaviour("disk::a_file_system_that_cannot_reserve_room_does_without"),
        missed: None,
    },
    Mutant {
        name: "a signal is heard only when the journal is read",
        file: "src/shell/disk.rs",
        from: "if is_stopped() {",
        to: "if bytes == u64::MAX && is_stopped() {",
        caught_by: behaviour("disk::a_signal_ends_a_start_that_is_still_reading_its_journal"),
        missed: None,
    },
    Mutant {
        name: "the loop writes the journal itself",
        file: "src/shell/disk.rs",
        from: "self.writer.submit(files)",
        to: "append(Vec::clone(&files));\n        self.writer.submit(files)",
        caught_by: behaviour("disk::a_write_that_takes_long_holds_up_only_those_who_wait_for_it"),
        missed: None,
    },
    Mutant {
        name: "caught up means sent",
        file: "src/core/link/machine/feed.rs",
        from: "catch_up.is_said |= has_caught_up;",
        to: "catch_up.is_said |= has_caught_up;\n                if has_caught_up {\n                    info!(\"caught up\");\n                }",
        caught_by: behaviour(
            "neighbours::what_is_kept_is_confirmed_once_and_what_was_not_told_is_not_believed",
        ),
        missed: None,
    },
    Mutant {
        name: "a link is sent what is not written yet",
        file: "src/core/table/records.rs",
        from: "if record.seq > up_to {",
        to: "if record.seq > up_to.max(record.seq) {",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "a client waits for ever for a journal that the disk refuses",
        file: "src/core/node/journaling.rs",
        from: "            self.let_held_go();\n",
        to: "",
        caught_by: behaviour("limits_outward::nobody_waits_for_a_journal_that_the_disk_refuses"),
        missed: None,
    },
    Mutant {
        name: "a client is answered before it is written",
        file: "src/core/client/machine.rs",
        from: "if self.held_until > released {",
        to: "if self.held_until > released.max(self.held_until) {",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "a new life makes what was heard of the old one worthless",
        file: "src/core/session/herd/neighbour.rs",
        from: "self.life = Some((boot, origin));",
        to: "self.life = Some((boot, origin));\n                self.heard = None;",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "a link that waits for room is read on, without end",
        file: "src/core/link/machine/mod.rs",
        from: "    fn wants_read(&self) -> bool {\n        !self.wants_room\n",
        to: "    fn wants_read(&self) -> bool {\n        true\n",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "an older IAMAT is answered before the newer one is safe",
        file: "src/core/client/machine.rs",
        from: "seq.unwrap_or_default()",
        to: "0",
        caught_by: unit("an_older_update_is_as_safe_as_the_newer_one"),
        missed: None,
    },
    Mutant {
        name: "a disk that is busy with a retry is asked about without a pause",
        file: "src/core/journal/durability/mod.rs",
        from: ".filter(|_| !self.batch.is_on_its_way);",
        to: ".filter(|_| true);",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "a sync that is under way is asked for without a pause",
        file: "src/core/journal/durability/mod.rs",
        from: "self.sync_due.filter(|_| self.syncing.is_none())",
        to: "self.sync_due",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "a disk that refused once is full for ever",
        file: "src/core/journal/durability/mod.rs",
        from: "            self.batch.refused_since = None;\n",
        to: "",
        caught_by: over_disk("with_"),
        missed: None,
    },
    Mutant {
        name: "a journal is compacted again as soon as it was",
        file: "src/core/journal/durability/compaction.rs",
        from: "self.compact_bytes.max(needed + needed / 2)",
        to: "self.compact_bytes.min(needed / 2)",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "a header that was not written whole is another server's",
        file: "src/core/journal/format/mod.rs",
        from: "Header::Unwritten => pending.truncate(header_bytes(&self.server)),",
        to: "Header::Unwritten => return Err(JournalError::Foreign),",
        caught_by: unit("journal"),
        missed: None,
    },
    Mutant {
        name: "a life is known over a loss of power",
        file: "src/core/journal/durability/lives.rs",
        from: "if machine == 0 || since.iter().any(|life| life.machine != machine) {",
        to: "if machine == 0 && since.is_empty() {",
        caught_by: unit("durability"),
        missed: None,
    },
    Mutant {
        name: "a client behind a proxy is counted by the proxy's address",
        file: "src/core/node/clients.rs",
        from: "let ip = from.client.ip();",
        to: "let ip = from.proxy.unwrap_or(from.client).ip();",
        caught_by: behaviour("proxy::clients_are_counted_by_their_own_address"),
        missed: None,
    },
    Mutant {
        name: "a PROXY header is believed from any address",
        file: "src/core/node/clients.rs",
        from: "if self.settings.proxies.contains(address.ip()) {",
        to: "if !self.settings.proxies.is_empty() {",
        caught_by: behaviour("proxy::a_header_from_an_address_that_is_not_listed"),
        missed: None,
    },
    Mutant {
        name: "what follows a PROXY header in its segment is lost",
        file: "src/core/node/connection.rs",
        from: "if !rest.is_empty() {",
        to: "if rest.len() > data.len() {",
        caught_by: behaviour("proxy::the_log_shows_the_client"),
        missed: None,
    },
    Mutant {
        name: "a proxy's connection too many is refused, not the oldest",
        file: "src/core/node/proxied.rs",
        from: "self.unidentified.pop_front()",
        to: "self.unidentified.pop_back()",
        caught_by: behaviour("proxy::connections_without_a_header_are_few"),
        missed: None,
    },
    Mutant {
        name: "a client's mistakes are logged however many there are",
        file: "src/core/session/log_budget.rs",
        from: "let fits = self.bucket.has(bytes, own, now)",
        to: "let fits = true",
        caught_by: behaviour("a_client_s_invalid_commands_take_its_share"),
        missed: None,
    },
    Mutant {
        name: "the mistakes of all clients have no bound in the log",
        file: "src/core/session/log_budget.rs",
        from: "            && budget.clients.take(bytes, size_for_all(limits), now);",
        to: "            && (budget.clients.take(bytes, size_for_all(limits), now) || true);",
        caught_by: behaviour("however_many_clients_there_are"),
        missed: None,
    },
    Mutant {
        name: "lines that were left out of the log are not told of",
        file: "src/core/session/log_budget.rs",
        from: "            return budget.leave_out(left_out, limits, now);",
        to: "            return;",
        caught_by: behaviour("however_many_clients_there_are"),
        missed: None,
    },
    Mutant {
        name: "a long line that is refused is logged whole",
        file: "src/core/client/machine.rs",
        from: "    Shortened::new(line, limits.log_quote_bytes.to_count())",
        to: "    Shortened::new(line, line.len().max(limits.log_quote_bytes.to_count()))",
        caught_by: behaviour("the_log_shows_the_beginning_of_a_long_line"),
        missed: None,
    },
    Mutant {
        name: "the log takes the journal's room",
        file: "src/logging/output.rs",
        from: "        !self.is_out_of_room\n",
        to: "        true\n",
        caught_by: behaviour("the_log_leaves_the_journal_its_room"),
        missed: None,
    },
    Mutant {
        name: "a log is rotated that has no line yet",
        file: "src/logging/output.rs",
        from: "        if self.length > 0\n",
        to: "        if true\n",
        caught_by: unit("a_line_that_is_longer_than_a_file_may_be"),
        missed: None,
    },
    Mutant {
        name: "a file that has the log's name by now is rotated in its place",
        file: "src/logging/output.rs",
        from: "(there.dev(), there.ino()) == (file.dev(), file.ino())",
        to: "there.is_file()",
        caught_by: unit("a_file_that_was_moved_away"),
        missed: None,
    },
    Mutant {
        name: "older logs are renamed in the wrong order",
        file: "src/logging/output.rs",
        from: "for older in (1..keep).rev() {",
        to: "for older in 1..keep {",
        caught_by: behaviour("a_log_is_rotated_by_the_server"),
        missed: None,
    },
    Mutant {
        name: "a neighbour that dials resumes a session without a certificate",
        file: "src/config/tls.rs",
        from: "    accepting.send_tls13_tickets = 0;\n",
        to: "",
        caught_by: unit("no_session_is_resumed_between_neighbours"),
        missed: None,
    },
    Mutant {
        name: "a server resumes its sessions with neighbours",
        file: "src/config/tls.rs",
        from: "    dialling.resumption = Resumption::disabled();\n",
        to: "",
        caught_by: unit("no_session_is_resumed_between_neighbours"),
        missed: None,
    },
    Mutant {
        name: "a server starts with a certificate that has ended",
        file: "src/config/tls.rs",
        from: "        if ends < now {",
        to: "        if false {",
        caught_by: behaviour("the_certificate_for_clients_may_not_have_ended"),
        missed: None,
    },
    Mutant {
        name: "a server starts with a certificate for another name",
        file: "src/config/tls.rs",
        from: "            own: self.check_own(UnixTime::now())?,",
        to: "            own: Vec::new(),",
        caught_by: behaviour("a_server_whose_own_certificate_neighbours_refuse"),
        missed: None,
    },
    Mutant {
        name: "a certificate that ends is told of once an hour",
        file: "src/core/node/certificates.rs",
        from: "const DAY: Duration = Duration::from_secs(24 * 60 * 60);",
        to: "const DAY: Duration = Duration::from_secs(60 * 60);",
        caught_by: unit("a_server_warns_of_its_own_certificates_once_a_day"),
        missed: None,
    },
    Mutant {
        name: "a link that outlives a certificate is not told of",
        file: "src/core/node/connection.rs",
        from: "            self.watch_link_certificate(id, now);\n",
        to: "",
        caught_by: unit("a_link_that_outlives_its_neighbour_s_certificate"),
        missed: None,
    },
    Mutant {
        name: "a journal that others may read is not told of",
        file: "src/config/secrets.rs",
        from: "    open.into_iter().chain(read).collect()",
        to: "    open.into_iter().chain(read.filter(|_| false)).collect()",
        caught_by: behaviour("modes_that_let_others_change_or_read"),
        missed: None,
    },
    Mutant {
        name: "a crowded turn serves connections in the order of arrival",
        file: "src/shell/event_loop.rs",
        from: "true => self.node.order_fairly(&mut self.running),",
        to: "true => 0,",
        caught_by: behaviour(
            "turns::a_crowd_of_one_address_does_not_delay_a_client_of_another_in_a_turn",
        ),
        missed: None,
    },
    Mutant {
        name: "deadlines do not wait for input that had arrived before them",
        file: "src/shell/event_loop.rs",
        from: "if is_caught_up {",
        to: "if is_caught_up || true {",
        caught_by: behaviour(
            "bad_night::a_server_that_was_not_run_for_longer_than_any_deadline_blames_nobody_for_it",
        ),
        missed: None,
    },
    Mutant {
        name: "a record that has expired is found until it is swept",
        file: "src/core/table/records.rs",
        from: "if self.horizon > NEVER && At::parse(&line)?.effective < self.horizon {",
        to: "if false {",
        caught_by: unit("a_record_expires_when_its_effective_time_is_too_old"),
        missed: None,
    },
    Mutant {
        name: "herd-load abuse attacks any address",
        file: "tools/load/src/abuse/consent.rs",
        from: "if !is_owned && !is_near(address.ip()) {",
        to: "if !is_owned && !is_near(address.ip()) && false {",
        caught_by: abuse("only_a_server_of_one_s_own_is_attacked"),
        missed: None,
    },
    Mutant {
        name: "herd-load abuse checks the clients' address only",
        file: "tools/load/src/abuse/mod.rs",
        from: "let address = resolve(&place)?;",
        to: "let address = consent::resolve(&place, true)?;",
        caught_by: abuse("only_a_server_of_one_s_own_is_attacked"),
        missed: None,
    },
    Mutant {
        name: "a polite client that waits for an answer asks nothing more",
        file: "tools/load/src/abuse/polite.rs",
        from: "while self.clients[index].next_due_ns <= now_ns {",
        to: "if self.clients[index].sent > 0 { self.clients[index].next_due_ns = now_ns + 1; }\n            while self.clients[index].next_due_ns <= now_ns {",
        caught_by: abuse("a_server_that_stalls_is_slow_for_all_that_was_due_meanwhile"),
        missed: None,
    },
    Mutant {
        name: "a link that came back was not lost",
        file: "tools/load/src/abuse/links.rs",
        from: "let is_lost = |name: &&String| !now.linked.contains(name);",
        to: "self.lost.clear();\n        let is_lost = |name: &&String| !now.linked.contains(name);",
        caught_by: abuse("a_link_that_is_lost_fails_it"),
        missed: None,
    },
    Mutant {
        name: "a refused polite command is an answer",
        file: "tools/load/src/abuse/polite.rs",
        from: "        if outcome == Outcome::Refused {\n",
        to: "        if outcome == Outcome::Refused && false {\n",
        caught_by: abuse("new_names_reach_the_table_s_limit"),
        missed: None,
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn every_pattern_is_in_the_source_once() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for mutant in MUTANTS {
            let source = std::fs::read_to_string(root.join(mutant.file)).expect(mutant.file);
            assert_eq!(
                source.matches(mutant.from).count(),
                1,
                "{}: {:?} in {}",
                mutant.name,
                mutant.from,
                mutant.file
            );
        }
    }

    #[test]
    fn every_bug_has_a_name_of_its_own_and_changes_something() {
        for (number, mutant) in MUTANTS.iter().enumerate() {
            assert_ne!(mutant.from, mutant.to, "{}", mutant.name);
            let same = MUTANTS[..number]
                .iter()
                .any(|other| other.name == mutant.name);
            assert!(!same, "{}", mutant.name);
        }
    }
}
