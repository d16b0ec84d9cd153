//! The bugs that are planted. Each stands for a mistake that could be made, at a place where it would be easy to make.

use std::fmt;

/// A bug to be planted.
pub(crate) struct Mutant {
    /// What goes wrong.
    pub(crate) name: &'static str,
    /// In which file, from the root of the checkout.
    pub(crate) file: &'static str,
    /// What stands there, once.
    pub(crate) from: &'static str,
    /// What is to stand there instead.
    pub(crate) to: &'static str,
    /// What is to notice it.
    pub(crate) caught_by: CaughtBy,
    /// Why it is known that nothing does, if it is.
    pub(crate) missed: Option<&'static str>,
}

/// What is to notice a bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CaughtBy {
    /// The simulator.
    Simulation {
        /// At the latest in so many seeds.
        seeds: u64,
        /// In this herd; without it, the small ones take turns.
        herd: Option<&'static str>,
    },
    /// Tests.
    Test {
        /// Of which package.
        package: &'static str,
        /// In which of its programs.
        target: Target,
        /// What their names contain.
        name: &'static str,
    },
}

/// Where tests are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Beside the code.
    Library,
    /// In a program of their own, of that name.
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

/// The simulator, for a quarter of a minute.
const SIMULATED: CaughtBy = CaughtBy::Simulation {
    seeds: 4000,
    herd: None,
};

/// Tests beside the code.
const fn unit(name: &'static str) -> CaughtBy {
    CaughtBy::Test {
        package: "herd-mio",
        target: Target::Library,
        name,
    }
}

/// Tests of real servers.
const fn behaviour(name: &'static str) -> CaughtBy {
    CaughtBy::Test {
        package: "herd-mio",
        target: Target::Integration("behaviour"),
        name,
    }
}

/// All of them.
///
/// One is left out that was tried: a link's position that is one further after each `AT`. The `SYNC` that follows sets it right
/// before anything looks at it, so nothing goes wrong.
pub(crate) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "equal record is taken again (< for <= in the order)",
        file: "src/core/lines_kept.rs",
        from: "(effective, stamp, self.line) < (at.effective, at.stamp, line)",
        to: "(effective, stamp, self.line) <= (at.effective, at.stamp, line)",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "tie of effective time broken by arrival",
        file: "src/core/lines_kept.rs",
        from: "(effective, stamp, self.line) < (at.effective, at.stamp, line)",
        to: "effective < at.effective || (effective == at.effective && self.line != line)",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "stamp left out of the tie",
        file: "src/core/lines_kept.rs",
        from: "(effective, stamp, self.line) < (at.effective, at.stamp, line)",
        to: "(effective, self.line) < (at.effective, line)",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "effective time ignored",
        file: "src/core/lines_kept.rs",
        from: "(effective, stamp, self.line) < (at.effective, at.stamp, line)",
        to: "(stamp, self.line) < (at.stamp, line)",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "a client that moves is ordered by where it was first",
        file: "src/core/lines_kept.rs",
        from: "Some(before) => *before = unpacked,",
        to: "Some(before) => before.client_length = unpacked.client_length,",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "a line that made room for another counts as unpacked",
        file: "src/core/lines_kept.rs",
        from: "        line.place = PACKED;\n",
        to: "",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "who taught the first line is remembered for ever",
        file: "src/core/lines_kept.rs",
        from: "        own.teacher = teacher;\n",
        to: "",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "60 s border is 61 s",
        file: "src/core/posix_time.rs",
        from: "const MAX_LEAD_S: u64 = 60;",
        to: "const MAX_LEAD_S: u64 = 61;",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "a stamp that leads too far counts for nothing: the order jumps",
        file: "src/core/posix_time.rs",
        from: "Some(stamp.min(latest))",
        to: "Some(if stamp > latest { PosixTime { seconds, attos } } else { stamp })",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "a later stamp at a server whose clock is slow is stale",
        file: "src/core/lines_kept.rs",
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
        file: "src/core/lines_kept.rs",
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
        file: "src/core/records.rs",
        from: "let _ = write!(out, \"EPOCH {epoch} \");",
        to: "",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "a neighbour's record is written down without its epoch",
        file: "src/core/link/feed.rs",
        from: "Some(durability) if has_room => durability.record(seq, epoch, line),",
        to: "Some(durability) if has_room => durability.record(seq, 0, line),",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "the epoch does not decide first",
        file: "src/core/records.rs",
        from: "Ordering::Less => false,",
        to: "Ordering::Less => own.is_older(line, at),",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "a journal is restored with limits",
        file: "src/core/records.rs",
        from: "Claim::Journal { epoch } => (epoch, Teacher::NOBODY, false),",
        to: "Claim::Journal { epoch } => (epoch, Teacher::NOBODY, true),",
        caught_by: CaughtBy::Test {
            package: "herd-mio",
            target: Target::Library,
            name: "restored_whatever_the_limits",
        },
        missed: None,
    },
    Mutant {
        name: "a refused record counts as heard",
        file: "src/core/link/feed.rs",
        from: "if self.refused == 0 {",
        to: "if self.refused < u64::MAX {",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "KEPT before it is safe",
        file: "src/core/link/acknowledgement.rs",
        from: "            && seq <= kept_through\n",
        to: "            && seq < u64::MAX\n",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "a rollback of the present life is not noticed",
        file: "src/core/link/greeting.rs",
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
        file: "src/core/records.rs",
        from: "if self.lines.teacher(reader.next) != except {",
        to: "if self.lines.teacher(reader.next) != except || true {",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "split horizon too wide: nothing learned is passed on",
        file: "src/core/records.rs",
        from: "if self.lines.teacher(reader.next) != except {",
        to: "if self.lines.teacher(reader.next) == Teacher::NOBODY {",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "cursor one too far at open",
        file: "src/core/records.rs",
        from: ".seq > after {",
        to: ".seq > after + 1 {",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "cursor one too early at open",
        file: "src/core/records.rs",
        from: ".seq > after {",
        to: ".seq >= after {",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "reader not advanced when its record moves",
        file: "src/core/records.rs",
        from: "                reader.next = newer;\n            }\n        }\n        match older",
        to: "                reader.next = index;\n            }\n        }\n        match older",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "caught-up readers are not given the new record",
        file: "src/core/records.rs",
        from: "            if reader.next == NONE {\n                reader.next = index;",
        to: "            if reader.next == NONE && false {\n                reader.next = index;",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "SYNC says the feed's end, not what was sent",
        file: "src/core/link/feed.rs",
        from: "            let position = records.position(reader);\n            let mut has_caught_up",
        to: "            let position = records.last_seq().max(records.position(reader));\n            let mut has_caught_up",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "SYNC of the heartbeat one ahead",
        file: "src/core/link/mod.rs",
        from: "self.confirmed = supply.records.position(reader);",
        to: "self.confirmed = supply.records.position(reader) + 1;",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "position of another life is accepted",
        file: "src/core/link/greeting.rs",
        from: "if boot == self.boot {",
        to: "if boot.0 != 0 {",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "heard of another life counts on",
        file: "src/core/herd.rs",
        from: "self.heard = Some(before.unwrap_or(Heard {\n            boot,",
        to: "self.heard = Some(before.unwrap_or(Heard {\n            boot: self.heard.map_or(boot, |heard| heard.boot),",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "a new teacher with every link",
        file: "src/core/herd.rs",
        from: "Some((known, teacher)) if known == boot => teacher,",
        to: "Some((known, teacher)) if known == boot && teacher == Teacher::NOBODY => teacher,",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "the same teacher for a new life",
        file: "src/core/herd.rs",
        from: "self.last_teacher = self.last_teacher.next();",
        to: "if self.last_teacher == Teacher::NOBODY { self.last_teacher = self.last_teacher.next(); }",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "output_sent of a link takes one byte too many",
        file: "src/core/link/feed.rs",
        from: "        self.output.consume(count);\n        self.last_sent = now.time;",
        to: "        self.output.consume(count + usize::from(count > 1000));\n        self.last_sent = now.time;",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "output_sent of a link forgets a short write",
        file: "src/core/link/feed.rs",
        from: "        self.output.consume(count);\n        self.last_sent = now.time;",
        to: "        let _ = count; self.output.clear();\n        self.last_sent = now.time;",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "a feed that moves touches no link",
        file: "src/core/node/mod.rs",
        from: "if self.announced != released {",
        to: "if self.announced != released && released % 7 != 3 {",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "links after clients",
        file: "src/core/node/mod.rs",
        from: "for list in [&mut self.touched_links, &mut self.touched] {",
        to: "for list in [&mut self.touched, &mut self.touched_links] {",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "no redial after a refusal",
        file: "src/core/node/neighbours.rs",
        from: "            Dial::Trying(_) | Dial::Nothing | Dial::LookingUp | Dial::Waiting { .. } => {\n                self.dial_later(neighbour, now)\n            }",
        to: "            Dial::Trying(_) if why == Some(\"refused\") => {}\n            Dial::Trying(_) | Dial::Nothing | Dial::LookingUp | Dial::Waiting { .. } => {\n                self.dial_later(neighbour, now)\n            }",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "no redial after a connect that timed out",
        file: "src/core/node/neighbours.rs",
        from: "            Dial::Trying(_) | Dial::Nothing | Dial::LookingUp | Dial::Waiting { .. } => {\n                self.dial_later(neighbour, now)\n            }",
        to: "            Dial::Trying(_) if why.is_none() => {}\n            Dial::Trying(_) | Dial::Nothing | Dial::LookingUp | Dial::Waiting { .. } => {\n                self.dial_later(neighbour, now)\n            }",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "the second address of a name is not tried",
        file: "src/core/node/neighbours.rs",
        from: "self.try_next(neighbour, addresses, now)\n            }\n            Dial::Trying(_)",
        to: "{ let _ = addresses; self.dial_later(neighbour, now) }\n            }\n            Dial::Trying(_)",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "silence is never noticed",
        file: "src/core/link/mod.rs",
        from: "(!self.wants_room).then(|| self.last_heard + ms(limits.link_silence_ms))",
        to: "(!self.wants_room).then(|| self.last_heard + ms(1_000_000 * limits.link_silence_ms))",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "the connect deadline is never armed",
        file: "src/core/link/mod.rs",
        from: "State::Connecting => self.since + ms(limits.link_connect_ms),",
        to: "State::Connecting => self.since + std::time::Duration::from_secs(1_000_000),",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "the proof deadline is never armed",
        file: "src/core/link/mod.rs",
        from: "                self.since + ms(limits.link_proof_ms)\n",
        to: "                self.since + std::time::Duration::from_secs(1_000_000)\n",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "a deadline that comes earlier is not armed",
        file: "src/core/node/mod.rs",
        from: "slot.armed.is_none_or(|armed| deadline < armed)",
        to: "slot.armed.is_none()",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "the replaced link stays, the new one is closed",
        file: "src/core/node/neighbours.rs",
        from: "let Some(Session::Link(old)) = self.session(replaced)",
        to: "let Some(Session::Link(old)) = self.session(if replaced == id { replaced } else { id })",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "a link that was replaced clears the new one's place",
        file: "src/core/link/mod.rs",
        from: "if neighbour.link == Some(self.id) {\n            neighbour.link = None;",
        to: "if neighbour.link.is_some() {\n            neighbour.link = None;",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "the replaced link is left alone",
        file: "src/core/node/neighbours.rs",
        from: r#"old.end("a newer connection took its place".to_owned(), now.time);"#,
        to: "let _ = old;",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "a SYNC behind every pull, records or not",
        file: "src/core/link/feed.rs",
        from: "if confirms && (count > 0 || has_caught_up) {",
        to: "if confirms && (count > 0 || has_caught_up || self.last_heard == self.last_sent) {",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "no heartbeats",
        file: "src/core/link/mod.rs",
        from: ".map_or(heartbeat, |due| due.min(heartbeat));",
        to: ".map_or(heartbeat + ms(limits.link_silence_ms), |due| due);",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "position follows each AT, not SYNC (too early)",
        file: "src/core/link/mod.rs",
        from: "            return self.at(epoch, line, teacher, world);",
        to: "            if let Some(n) = self.neighbour && let Some(h) = &mut world.herd.neighbours[n].heard { h.position += 1; }\n            return self.at(epoch, line, teacher, world);",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "a client's half-close loses the last line",
        file: "src/core/client.rs",
        from: "Split::Unfinished if self.eof && !rest.is_empty() => {",
        to: "Split::Unfinished if self.eof && !rest.is_empty() && rest.len() > 4000 => {",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "stop does not wait for the feed",
        file: "src/core/link/mod.rs",
        from: "records.is_caught_up(reader) && self.output.is_empty()",
        to: "self.output.is_empty() || records.is_caught_up(reader)",
        caught_by: behaviour(
            "neighbours::a_neighbour_that_lacks_much_is_sent_all_of_it_before_a_stop",
        ),
        missed: None,
    },
    Mutant {
        name: "closing waits as long as anything comes in",
        file: "src/core/link/mod.rs",
        from: "State::Closing => self.since + ms(limits.linger_ms),",
        to: "State::Closing => self.last_heard.max(self.last_sent) + ms(limits.linger_ms),",
        caught_by: behaviour("neighbours::a_stranger_that_was_told_to_go_goes_whatever_it_says"),
        missed: None,
    },
    Mutant {
        name: "a neighbour that broke the protocol is let in at once",
        file: "src/core/link/greeting.rs",
        from: "if world.now.time < world.herd.neighbours[neighbour].kept_out_until",
        to: "if false && world.now.time < world.herd.neighbours[neighbour].kept_out_until",
        caught_by: behaviour(
            "hostile_neighbours::a_proven_neighbour_that_talks_nonsense_is_let_in_ever_more_rarely",
        ),
        missed: None,
    },
    Mutant {
        name: "reading stops after half a line that was kept",
        file: "src/core/link/mod.rs",
        from: "        input.consume(used);\n        self.input = input;\n",
        to: "        input.consume(used);\n        if input.as_slice().len() < 3000 { self.input = input; }\n",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "an answer leaves before it is synced",
        file: "src/core/durability/mod.rs",
        from: "Fsync::Always => self.synced_seq,",
        to: "Fsync::Always => self.appended_seq,",
        caught_by: unit("durability"),
        missed: None,
    },
    Mutant {
        name: "an answer leaves before it is written",
        file: "src/core/durability/mod.rs",
        from: "Fsync::Interval | Fsync::Never => self.appended_seq,",
        to: "Fsync::Interval | Fsync::Never => self.pending_seq,",
        caught_by: unit("durability"),
        missed: None,
    },
    Mutant {
        name: "a sync covers what was written while it was on its way",
        file: "src/core/durability/mod.rs",
        from: "self.synced_seq = self.synced_seq.max(seq);",
        to: "self.synced_seq = self.appended_seq.max(seq);",
        caught_by: unit("durability"),
        missed: None,
    },
    Mutant {
        name: "the second file is not synced while entries go to both",
        file: "src/core/durability/mod.rs",
        from: "Some(DiskWork::Sync { both })",
        to: "Some(DiskWork::Sync { both: false })",
        caught_by: unit("durability"),
        missed: None,
    },
    Mutant {
        name: "entries go to the old file alone",
        file: "src/core/durability/mod.rs",
        from: "self.for_next.extend_from_slice(&self.appending);",
        to: "self.for_next.extend_from_slice(&[]);",
        caught_by: unit("durability"),
        missed: None,
    },
    Mutant {
        name: "the new file takes the name before it is synced",
        file: "src/core/durability/compaction.rs",
        from: "self.compaction = Compaction::Doubling,",
        to: "self.compaction = Compaction::SwitchDue,",
        caught_by: unit("durability"),
        missed: None,
    },
    Mutant {
        name: "a compaction copies only what is new",
        file: "src/core/durability/compaction.rs",
        from: "Compaction::Copying(records.open_reader(0))",
        to: "Compaction::Copying(records.open_reader(records.last_seq()))",
        caught_by: unit("durability"),
        missed: None,
    },
    Mutant {
        name: "a compaction forgets the lives",
        file: "src/core/durability/compaction.rs",
        from: "life.write(&mut self.for_next);",
        to: "let _ = life;",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "a position counts beyond what its life had",
        file: "src/core/durability/lives.rs",
        from: "position.min(next.after)",
        to: "position.min(next.after.max(position))",
        caught_by: unit("durability"),
        missed: None,
    },
    Mutant {
        name: "a life does not know where it began",
        file: "src/core/durability/mod.rs",
        from: "self.lives.push(life);",
        to: "self.lives.push(Life { after: 0, ..life });",
        caught_by: unit("durability"),
        missed: None,
    },
    Mutant {
        name: "a life is written down without where it began",
        file: "src/core/durability/mod.rs",
        from: "life.write(&mut self.pending);",
        to: "Life { after: 0, ..life }.write(&mut self.pending);",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "room is promised that is not reserved",
        file: "src/core/durability/mod.rs",
        from: "let has_room = end <= self.current.reserved && self.appending.is_empty();",
        to: "let has_room = self.appending.is_empty();",
        caught_by: behaviour(
            "journal::a_full_disk_refuses_updates_and_nothing_else_and_recovers_by_itself",
        ),
        missed: None,
    },
    Mutant {
        name: "what was heard is noted though records with it were not",
        file: "src/core/durability/mod.rs",
        from: "let may_note = !self.is_incomplete && ",
        to: "let may_note = ",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "a disk that can not sync is trusted",
        file: "src/core/durability/mod.rs",
        from: r#"DiskDone::Synced(Err(error)) => self.fail("the journal can not be synced", &error),"#,
        to: "DiskDone::Synced(Err(_)) => self.synced(),",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "the checksum is not looked at",
        file: "src/core/journal.rs",
        from: "if checksum(*length, payload) != *sum {",
        to: "if checksum(*length, payload) != *sum && size == 0 {",
        caught_by: unit("journal"),
        missed: None,
    },
    Mutant {
        name: "damage in the middle is taken for a torn tail",
        file: "src/core/journal.rs",
        from: "if !self.in_header && places.any(is_damage) {",
        to: "if self.in_header && places.any(is_damage) {",
        caught_by: unit("journal"),
        missed: None,
    },
    Mutant {
        name: "a hole in what was synced is taken for a loss of power",
        file: "src/core/journal.rs",
        from: "same_machine || offset > self.offset,",
        to: "same_machine,",
        caught_by: unit("journal"),
        missed: None,
    },
    Mutant {
        name: "a hole before what was synced is damage",
        file: "src/core/journal.rs",
        from: "same_machine || offset > self.offset,",
        to: "same_machine || offset >= self.offset,",
        caught_by: unit("journal"),
        missed: None,
    },
    Mutant {
        name: "any server's journal will do",
        file: "src/core/journal.rs",
        from: "if self.pending.starts_with(&self.header) {",
        to: "if !self.pending.is_empty() {",
        caught_by: unit("journal"),
        missed: None,
    },
    Mutant {
        name: "reserved room is a torn tail",
        file: "src/core/journal.rs",
        from: ".rposition(|&byte| byte != 0)",
        to: ".rposition(|_| true)",
        caught_by: unit("journal"),
        missed: None,
    },
    Mutant {
        name: "what is written goes behind the torn tail",
        file: "src/shell/disk.rs",
        from: "    Ok(end.offset)\n",
        to: "    Ok(end.offset + end.torn)\n",
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
        from: "    fs::rename(directory.join(\"journal.new\"), directory.join(\"journal\"))?;\n",
        to: "",
        caught_by: behaviour("journal::a_long_journal_is_compacted_while_it_is_used"),
        missed: None,
    },
    Mutant {
        name: "after a compaction the old file is written on",
        file: "src/shell/disk.rs",
        from: "            self.current = next;",
        to: "            drop(next);",
        caught_by: behaviour("journal::a_long_journal_is_compacted_while_it_is_used"),
        missed: None,
    },
    Mutant {
        name: "a link is sent what is not written yet",
        file: "src/core/records.rs",
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
        file: "src/core/client.rs",
        from: "if self.held_until > released {",
        to: "if self.held_until > released.max(self.held_until) {",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "a new life makes what was heard of the old one worthless",
        file: "src/core/herd.rs",
        from: "*life = Some((boot, self.last_teacher));",
        to: "*life = Some((boot, self.last_teacher));\n                self.neighbours[neighbour].heard = None;",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "a link that waits for room is read on, without end",
        file: "src/core/node/mod.rs",
        from: "Session::Link(link) => !link.wants_room(),",
        to: "Session::Link(_) => true,",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "an older IAMAT is answered before the newer one is safe",
        file: "src/core/client.rs",
        from: "world.records.seq(iamat.client).unwrap_or_default()",
        to: "0",
        caught_by: unit("an_older_update_is_as_safe_as_the_newer_one"),
        missed: None,
    },
    Mutant {
        name: "a disk that is being asked for room is asked without a pause",
        file: "src/core/durability/mod.rs",
        from: ".filter(|_| !is_asked || !self.appending.is_empty())",
        to: ".filter(|_| !is_asked || self.full_since.is_some())",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "a sync that is under way is asked for without a pause",
        file: "src/core/durability/mod.rs",
        from: "self.sync_due.filter(|_| self.syncing.is_none())",
        to: "self.sync_due",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "a disk that refused once is full for ever",
        file: "src/core/durability/mod.rs",
        from: "                if self.is_retry {\n",
        to: "                if self.is_retry && self.full_since.is_none() {\n",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "a journal is compacted again as soon as it was",
        file: "src/core/durability/compaction.rs",
        from: "records.journal_bytes() + self.fixed_bytes",
        to: "records.journal_bytes()",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "a compaction that was given up goes on when there is room for it",
        file: "src/core/durability/compaction.rs",
        from: "Ok(()) if is_wanted =>",
        to: "Ok(()) =>",
        caught_by: unit("durability"),
        missed: None,
    },
    Mutant {
        name: "a header that was not written whole is another server's",
        file: "src/core/journal.rs",
        from: "} else if is_unwritten(&self.pending, &self.header) {",
        to: "} else if self.pending.is_empty() {",
        caught_by: SIMULATED,
        missed: None,
    },
    Mutant {
        name: "a life is known over a loss of power",
        file: "src/core/durability/lives.rs",
        from: "if machine == 0 || since.iter().any(|life| life.machine != machine) {",
        to: "if machine == 0 && since.is_empty() {",
        caught_by: unit("durability"),
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
