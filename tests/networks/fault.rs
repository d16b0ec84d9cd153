//! The course of a fault between two servers: the network is spoilt, clients go on telling both servers their positions, the network
//! is mended. What the two logs say then shows when each noticed, and when both were linked and knew everything again.

use std::panic::resume_unwind;
use std::thread;
use std::time::{Duration, Instant};

use herd_testkit::client::Client;

use crate::moment::Moment;
use crate::network::Network;
use crate::stage::Stage;

/// So soon after the network fails, each side knows it.
const NOTICED_WITHIN: Duration = Duration::from_secs(15);
/// So soon after the network works again, both sides are linked and hold the same.
pub(crate) const HEALED_WITHIN: Duration = Duration::from_secs(10);
/// So many clients tell each side their position, each time.
const CLIENTS: usize = 20;

/// Longer than a kernel waits before it says what it has received.
const ACKNOWLEDGED: Duration = Duration::from_millis(300);

/// How long the network stays spoilt.
#[derive(Clone, Copy)]
pub(crate) enum Lasts {
    /// Until both sides say that they lost one another.
    UntilNoticed,
    /// So long; by then both sides must have said so.
    Long(Duration),
    /// So long, which is too short for anybody to say so.
    Short(Duration),
}

/// Something that happens to the network between Alice, who dials, and Bob.
#[derive(Clone, Copy)]
pub(crate) struct Fault {
    pub(crate) title: &'static str,
    pub(crate) spoil: fn(&Network),
    /// Clients tell both sides new positions as soon as the network is spoilt; not only later.
    pub(crate) is_busy: bool,
    pub(crate) lasts: Lasts,
    pub(crate) mend: fn(&Network),
}

/// One of the two, and what its clients told it.
struct Side<'a> {
    stage: &'a Stage,
    title: &'static str,
    name: &'static str,
    other: &'static str,
    client: Client,
    /// The answers to all updates that the other has to be told of.
    answers: Vec<String>,
}

impl Side<'_> {
    /// New clients come, and are answered whatever the network does.
    fn tell(&mut self) {
        for _ in 0..CLIENTS {
            let command = format!("IAMAT {}{} +1+2 3", self.name, self.answers.len());
            self.answers.push(self.client.ask(&command));
        }
    }

    /// The lines that say that the other is linked, but for the first.
    fn linked_again(&self) -> Vec<String> {
        let other = format!("neighbour {} ", self.other);
        let is_linked = |line: &String| line.contains(&other) && line.contains(": linked, ");
        let lines = self.stage.server(self.name).log_lines();
        lines.into_iter().filter(is_linked).skip(1).collect()
    }

    /// Checks that a log line was written so soon after something, and shows it.
    fn check(&self, line: &str, since: Moment, within: Duration) {
        let after = Moment::of(line).since(since);
        let (title, name) = (self.title, self.name);
        match after.filter(|after| *after <= within) {
            Some(after) => eprintln!("{title}: {name}, after {after:.2?}: {line}"),
            None => panic!("{title}: {name}, after {after:?} and not within {within:?}: {line}"),
        }
    }

    /// It noticed in time that the network was spoilt.
    fn check_noticed(&self, spoilt: Moment) {
        let other = format!("neighbour {} ", self.other);
        let server = self.stage.server(self.name);
        let line = server.wait_for_log(&other, ": lost: ");
        self.check(&line, spoilt, NOTICED_WITHIN);
    }

    /// In time after the network was mended it was linked again, if it had to be, and told of all that the other knew.
    fn check_healed(&self, mended: Moment, others_answers: &[String]) {
        let heard = others_answers
            .iter()
            .map(|update| self.stage.heard(self.name, update));
        let last = heard.max_by_key(|line| Moment::of(line).since(mended));
        self.check(&last.unwrap(), mended, HEALED_WITHIN);
        for line in self.linked_again() {
            self.check(&line, mended, HEALED_WITHIN);
        }
    }
}

impl Fault {
    fn happen(self) {
        let stage = Stage::new(&["Alice", "Bob"], &[("Alice", "Bob")]);
        let side = |name, other| Side {
            stage: &stage,
            title: self.title,
            name,
            other,
            client: stage.client(name),
            answers: Vec::new(),
        };
        let (mut alice, mut bob) = (side("Alice", "Bob"), side("Bob", "Alice"));
        alice.tell();
        bob.tell();
        alice.client.ask("IAMAT wanderer +1+2 1000");
        stage.wait_until_agreed(2 * CLIENTS + 1, Instant::now() + HEALED_WITHIN);

        if !self.is_busy {
            thread::sleep(ACKNOWLEDGED);
        }
        let (spoilt, start) = (Moment::now(), Instant::now());
        (self.spoil)(&stage.network);
        if self.is_busy {
            alice.tell();
            bob.tell();
        }
        if let Lasts::Long(time) | Lasts::Short(time) = self.lasts {
            thread::sleep(time.saturating_sub(start.elapsed()));
        }
        if let Lasts::Long(_) | Lasts::UntilNoticed = self.lasts {
            alice.check_noticed(spoilt);
            bob.check_noticed(spoilt);
        }
        alice.tell();
        bob.tell();
        // Of one client both know something that the other does not, and one knows better.
        let best = bob.client.ask("IAMAT wanderer +3+4 1002");
        alice.client.ask("IAMAT wanderer +5+6 1001");

        let (mended, deadline) = (Moment::now(), Instant::now() + HEALED_WITHIN);
        (self.mend)(&stage.network);
        let records = alice.answers.len() + bob.answers.len() + 1;
        stage.wait_until_agreed(records, deadline);
        alice.check_healed(mended, &bob.answers);
        bob.check_healed(mended, &alice.answers);
        for side in [&mut alice, &mut bob] {
            side.client.wait_for_record("wanderer", |line| line == best);
        }
    }
}

/// Lets faults happen all at once, each to a network of its own.
pub(crate) fn happen(faults: &[Fault]) {
    thread::scope(|scope| {
        let running: Vec<_> = faults
            .iter()
            .map(|fault| scope.spawn(|| fault.happen()))
            .collect();
        for fault in running {
            fault.join().unwrap_or_else(|panic| resume_unwind(panic));
        }
    });
}
