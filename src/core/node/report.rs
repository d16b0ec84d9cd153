//! The JSON pages of the HTTP port. The lists of connections and calls are made in steps. Each step
//! takes well under a millisecond, so that it does not delay clients.

use std::fmt::Write as _;

use super::session::Session;
use super::{ConnId, Node, Slot};
use crate::core::base::clock::{Now, Time};
use crate::core::base::process_facts::ProcessFacts;
use crate::core::http::json::Json;
use crate::core::http::query::Page;
use crate::core::http::reply::Status;
use crate::core::journal::durability::{Condition, Durability};
use crate::core::places::call::{Call, CallId};
use crate::core::session::protocol::Protocol;
use crate::core::session::turns::Part;
use crate::core::wire::json::write_record;
use crate::core::wire::message::At;

/// The largest number of entries that one step writes.
const STEP_ENTRIES: usize = 100;
/// The largest number of slots of a table that one step visits. After many connections have closed,
/// most slots of their table can be empty.
const STEP_PLACES: usize = 2_000;

/// Returns the time from `earlier` until `later` in milliseconds, or 0 if `later` is not later.
fn ms(later: Time, earlier: Time) -> u64 {
    later.since(earlier).as_millis() as u64
}

impl Node {
    /// Returns the status and the body of `/healthz/ready`.
    pub(super) fn ready_page(&self, now: Now) -> (Status, String) {
        let reasons = self.unready(now.time);
        let mut text = String::new();
        {
            let mut json = Json::object(&mut text);
            json.value("ready", reasons.is_empty());
            let mut list = json.list("reasons");
            reasons.iter().for_each(|reason| list.text_entry(reason));
        }
        text.push('\n');
        match reasons.is_empty() {
            true => (Status::Ok, text),
            false => (Status::Unavailable, text),
        }
    }

    /// Returns the body of `/status`.
    pub(super) fn status_page(&self, facts: &ProcessFacts, now: Now) -> String {
        let mut text = String::new();
        {
            let mut json = Json::object(&mut text);
            json.text("server", &self.settings.name);
            json.text("version", env!("CARGO_PKG_VERSION"));
            json.text("life", self.boot);
            json.value("wall_ns", now.wall);
            json.value("uptime_ms", ms(now.time, self.began.time));
            {
                let reasons = self.unready(now.time);
                json.value("ready", reasons.is_empty());
                let mut list = json.list("not_ready_because");
                reasons.iter().for_each(|reason| list.text_entry(reason));
            }
            json.value("records", self.records.positions());
            json.value("tombstones", self.records.tombstones());
            json.text("digest", format_args!("{:016x}", self.records.digest()));
            json.value("last_change", self.records.last_seq());
            json.value("table_is_full", self.records.is_full());
            json.text("client_clocks", self.tally.client_clocks());
            {
                let mut inner = json.inner("connections");
                inner.value("clients", self.admission.clients());
                inner.value("max_clients", self.tally.max_clients);
                let linked = self.herd.iter().filter(|it| it.link().is_some());
                inner.value("links", linked.count());
                inner.value("places", self.calls.connections());
                inner.value("http", self.http_connections());
                inner.value("all", self.sessions.len());
            }
            {
                let mut inner = json.inner("buffers");
                inner.value("bytes", self.tally.buffers.held_bytes());
                inner.option("most_bytes", self.tally.buffers.maximum());
            }
            self.describe_journal(&mut json, now);
            {
                let (ready, most_ready) = self.tally.turns.ready();
                let mut inner = json.inner("turns");
                inner.value("count", self.tally.turns.times().count());
                inner.value("slow", self.tally.turns.slow_count());
                inner.value("served", ready);
                inner.value("most_served", most_ready);
            }
            {
                let mut inner = json.inner("process");
                inner.option("resident_bytes", facts.resident_bytes);
                inner.option("open_fds", facts.open_fds);
                inner.option("max_fds", facts.max_fds);
                inner.value("log_lines", facts.log_lines);
                inner.value("log_lines_dropped", facts.log_dropped);
            }
            let mut inner = json.inner("counters");
            for (name, value) in self.tally.counters.all() {
                inner.value(name, value);
            }
        }
        text.push('\n');
        text
    }

    fn describe_journal(&self, json: &mut Json<'_>, now: Now) {
        let Some(journal) = &self.journal else {
            return json.value("journal", "null");
        };
        let durability = journal.durability_ref();
        let mut inner = json.inner("journal");
        inner.value("bytes", durability.length());
        inner.option("bound_bytes", self.journal_bound());
        inner.text("compaction", durability.phase().name());
        let (disk, since) = match Durability::condition(durability) {
            Condition::Healthy => ("ok", None),
            Condition::Busy { since } => ("busy", Some(since)),
            Condition::Refusing { since, .. } => ("refusing", Some(since)),
        };
        inner.text("disk", disk);
        inner.option("disk_since_ms", since.map(|since| ms(now.time, since)));
    }

    /// Returns the body of `/links`.
    pub(super) fn links_page(&mut self, now: Now) -> String {
        let last_seq = self.records.last_seq();
        let mut text = String::new();
        {
            let mut json = Json::object(&mut text);
            let mut list = json.list("links");
            for id in self.herd.ids() {
                let neighbour = self.herd.get_mut(id);
                let lag_ms = neighbour.lag(last_seq, now.time).as_millis() as u64;
                let slot = neighbour.link().and_then(|link| self.sessions.get(link));
                let link = slot.and_then(|slot| Some((slot, slot.session.link()?)));
                let mut json = list.entry();
                json.text("neighbour", neighbour.name());
                json.value("is_up", link.is_some());
                json.text(
                    "dialled_by",
                    match neighbour.we_dial() {
                        true => &self.settings.name,
                        false => neighbour.name(),
                    },
                );
                json.text("dialling", neighbour.dial().name());
                json.value("failed_attempts", neighbour.failures());
                let Some((slot, link)) = link else {
                    json.value("down_ms", ms(now.time, neighbour.unlinked_since()));
                    continue;
                };
                json.text("address", link.address());
                json.value("is_over_tls", neighbour.is_over_tls());
                json.value("up_ms", ms(now.time, slot.since));
                json.value("is_caught_up", link.is_caught_up(now.time));
                json.value(
                    "unconfirmed",
                    last_seq.saturating_sub(neighbour.confirmed()),
                );
                json.value("lag_ms", lag_ms);
                json.option("clock_ahead_ms", neighbour.clock_offset_ms());
                json.value("refused_by_it", neighbour.peer_refused_records());
                json.value("refused_by_us", neighbour.refused_records());
                json.value("held_bytes", slot.usage.bytes());
            }
        }
        text.push('\n');
        text
    }

    /// Returns the body of `/slow`.
    pub(super) fn slow_page(&self) -> String {
        let turns = &self.tally.turns;
        let mut text = String::new();
        {
            let mut json = Json::object(&mut text);
            json.value("slow_turn_ms", self.settings.limits.slow_turn_ms);
            json.value("count", turns.slow_count());
            let mut list = json.list("turns");
            for turn in turns.slow() {
                let mut json = list.entry();
                json.value("wall_ns", turn.wall);
                json.value("ms", turn.total_ns() as f64 / 1e6);
                json.text("slowest", turn.slowest());
                json.value("ready", turn.ready);
                let mut parts = json.inner("parts_ms");
                for (part, ns) in Part::ALL.into_iter().zip(turn.parts_ns) {
                    parts.value(&part.to_string(), ns as f64 / 1e6);
                }
            }
        }
        text.push('\n');
        text
    }

    /// Returns the status and the body of `/clients/<id>`. The record has the fields that
    /// `herd-journal` shows.
    pub(super) fn client_page(&self, name: &[u8]) -> (Status, String) {
        let mut text = String::new();
        let status = match self.write_client(name, &mut text) {
            Some(()) => Status::Ok,
            None => {
                text.clear();
                let words = "no record of this client is known";
                Json::object(&mut text).text("error", words);
                Status::NotFound
            }
        };
        text.push('\n');
        (status, text)
    }

    fn write_client(&self, name: &[u8], text: &mut String) -> Option<()> {
        let line = self.records.line(name)?;
        let line = line.trim_ascii_end();
        let (seq, epoch) = (self.records.seq(name)?, self.records.epoch(name)?);
        text.push('{');
        write_record(text, epoch, line, &At::parse(line)?)?;
        // A crash can lose a change that the journal has not stored yet.
        let is_safe = seq <= self.sendable_through();
        // Writing to memory does not fail.
        let _ = write!(text, ",\"change\":{seq},\"is_safe\":{is_safe}}}");
        Some(())
    }

    /// Returns the next step of `/connections`, and where the step after it begins (`None` after
    /// the last step).
    pub(super) fn connections_step(&self, page: Page, now: Now) -> (String, Option<Page>) {
        let entry = |place, text: &mut String| {
            let (id, slot) = self.sessions.at(place)?;
            self.describe_connection(id, slot, now, text);
            Some(())
        };
        step("connections", page, self.sessions.places(), entry)
    }

    fn describe_connection(&self, id: ConnId, slot: &Slot, now: Now, text: &mut String) {
        let session = &slot.session;
        let (limits, now) = (&self.settings.limits, now.time);
        let mut json = Json::object(text);
        json.value("number", id.serial());
        json.text("kind", Session::KINDS[session.kind()]);
        let (address, since) = match session {
            Session::Client(client) => (client.address(), client.waits_since()),
            Session::Proxied(proxied) => (proxied.proxy(), None),
            Session::Link(link) => (link.address(), Some(link.since())),
            Session::Exchange(exchange) => (exchange.address(), Some(exchange.since())),
            Session::Http(http) => (http.address(), Some(http.since())),
        };
        json.text("address", address);
        let neighbour = session.link().and_then(|link| link.neighbour());
        if let Some(neighbour) = neighbour {
            json.text("neighbour", self.herd.get(neighbour).name());
        }
        json.text("state", session.state_name());
        json.option("waits_ms", since.map(|since| ms(now, since)));
        json.value("age_ms", ms(now, slot.since));
        let due = session.deadline(limits);
        let due = match &slot.tls {
            Some(tls) => tls.deadline(due, limits),
            None => due,
        };
        json.option("due_in_ms", due.map(|due| ms(due, now)));
        json.value("held_bytes", slot.usage.bytes());
        json.value("is_read", session.wants_read());
        json.value("is_over_tls", slot.tls.is_some());
        let call = session.client().and_then(|client| client.awaited_call());
        let call = call.or_else(|| session.exchange()?.call());
        if let Some(call) = call {
            json.value("call", call.serial());
        }
    }

    /// Returns the next step of `/calls`, and where the step after it begins (`None` after the last
    /// step).
    pub(super) fn calls_step(&self, page: Page, now: Now) -> (String, Option<Page>) {
        let entry = |place, text: &mut String| {
            let (id, call) = self.calls.at(place)?;
            describe_call(id, call, now, text);
            Some(())
        };
        step("calls", page, self.calls.places(), entry)
    }
}

fn describe_call(id: CallId, call: &Call, now: Now, text: &mut String) {
    let mut json = Json::object(text);
    json.value("number", id.serial());
    let question = call.question();
    json.text("latitude", &question.latitude);
    json.text("longitude", &question.longitude);
    json.text("radius_m", question.radius.metres());
    json.text("state", call.state_name());
    json.value("clients", call.waiters().len());
    json.value("age_ms", ms(now.time, call.since()));
    let due = call.waiters().first().map(|waiter| waiter.deadline);
    json.option("due_in_ms", due.map(|due| ms(due, now.time)));
    json.value("was_retried", call.was_retried());
    let mut list = json.list("connections");
    for connection in call.connections() {
        list.value_entry(connection.serial());
    }
}

/// Returns the next step of the list `name`, and where the step after it begins (`None` after the
/// last step). The list has an entry for each used slot of a table with `places` slots. `entry`
/// appends the entry of a slot, or returns `None` if the slot is empty.
fn step(
    name: &str,
    page: Page,
    places: usize,
    entry: impl Fn(usize, &mut String) -> Option<()>,
) -> (String, Option<Page>) {
    let mut text = String::new();
    if !page.has_begun {
        let _ = write!(text, "{{\"{name}\":["); // writing to memory does not fail
    }
    let mut next = Page {
        has_begun: true,
        ..page
    };
    let until = places.min(page.from.saturating_add(STEP_PLACES));
    let mut written = 0;
    while next.from < until && next.left > 0 && written < STEP_ENTRIES {
        let length = text.len();
        text.push_str(if next.last.is_some() { ",\n" } else { "\n" });
        match entry(next.from, &mut text) {
            Some(()) => {
                written += 1;
                next.left -= 1;
                next.last = Some(next.from);
            }
            None => text.truncate(length),
        }
        next.from += 1;
    }
    if next.from < places && next.left > 0 {
        text.push('\n'); // a step must not be empty
        return (text, Some(next));
    }
    let _ = match next.last.filter(|_| next.from < places) {
        Some(last) => writeln!(text, "\n],\"next\":{last}}}"),
        None => writeln!(text, "\n],\"next\":null}}"),
    };
    (text, None)
}
