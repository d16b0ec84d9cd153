//! Plays one fault between two servers: the test breaks the network, clients send positions to both
//! servers, and the test repairs the network. The two logs then show when each server noticed the
//! fault, and when both were linked again and had all records.

use std::panic::resume_unwind;
use std::thread;
use std::time::{Duration, Instant};

use herd_testkit::client::Client;

use crate::moment::Moment;
use crate::network::Network;
use crate::stage::Stage;

/// After the network fails, each server must notice within this time.
const NOTICED_WITHIN: Duration = Duration::from_secs(15);
/// After the network works again, both servers must be linked and hold the same records within this
/// time.
pub(crate) const HEALED_WITHIN: Duration = Duration::from_secs(10);
/// How many clients send a position to each server, each time.
const CLIENTS: usize = 20;

/// Longer than a kernel delays an acknowledgement.
const ACKNOWLEDGED: Duration = Duration::from_millis(300);

/// How long the network stays broken.
#[derive(Clone, Copy)]
pub(crate) enum Lasts {
    /// Until both servers log that they lost the link.
    UntilNoticed,
    /// This long. By then both servers must have logged that they lost the link.
    Long(Duration),
    /// This long, which is too short for either server to notice.
    Short(Duration),
}

/// A fault of the network between Alice, who dials, and Bob.
#[derive(Clone, Copy)]
pub(crate) struct Fault {
    pub(crate) title: &'static str,
    pub(crate) spoil: fn(&Network),
    /// Whether clients send new positions to both servers right after the network breaks. They
    /// always send some later.
    pub(crate) is_busy: bool,
    pub(crate) lasts: Lasts,
    pub(crate) mend: fn(&Network),
}

/// One of the two servers, with its client.
struct Side<'a> {
    stage: &'a Stage,
    title: &'static str,
    name: &'static str,
    other: &'static str,
    client: Client,
    /// The answers to all updates that the other server has to receive.
    answers: Vec<String>,
}

impl Side<'_> {
    /// Sends positions of new clients. The server answers them whatever the network does.
    fn tell(&mut self) {
        for _ in 0..CLIENTS {
            let command = format!("IAMAT {}{} +1+2 3", self.name, self.answers.len());
            self.answers.push(self.client.ask(&command));
        }
    }

    /// The log lines that say that the other server was linked, without the first one.
    fn linked_again(&self) -> Vec<String> {
        let other = format!("neighbour {} ", self.other);
        let is_linked = |line: &String| line.contains(&other) && line.contains(": linked, ");
        let lines = self.stage.server(self.name).log_lines();
        lines.into_iter().filter(is_linked).skip(1).collect()
    }

    /// Checks that a log line was written within this time after `since`, and prints it.
    fn check(&self, line: &str, since: Moment, within: Duration) {
        let after = Moment::of(line).since(since);
        let (title, name) = (self.title, self.name);
        match after.filter(|after| *after <= within) {
            Some(after) => eprintln!("{title}: {name}, after {after:.2?}: {line}"),
            None => panic!("{title}: {name}, after {after:?} and not within {within:?}: {line}"),
        }
    }

    /// Checks that this server noticed the broken network in time.
    fn check_noticed(&self, spoilt: Moment) {
        let other = format!("neighbour {} ", self.other);
        let server = self.stage.server(self.name);
        let line = server.wait_for_log(&other, ": lost: ");
        self.check(&line, spoilt, NOTICED_WITHIN);
    }

    /// Checks that this server soon had all updates of the other one, and was linked again if it
    /// had lost the link.
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
        // For this client each server holds a record that the other lacks. Bob's is the later one.
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

/// Plays several faults at the same time, each in its own network.
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
