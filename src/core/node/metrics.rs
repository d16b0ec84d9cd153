//! The metrics of a [`Node`], for Prometheus.
//!
//! The values of a label are fixed, or are the neighbours or certificate files of the
//! configuration. So the text does not grow with the number of clients. The time of a scrape does
//! not grow with the number of clients or records either, because no code here loops over them.
//!
//! A new counter needs no line here, because all
//! [`Counters`](crate::core::session::tally::Counters) become metrics.

use super::Node;
use super::session::Session;
use crate::core::base::clock::Now;
use crate::core::base::histogram::Histogram;
use crate::core::base::process_facts::ProcessFacts;
use crate::core::client::proxied::Refusal;
use crate::core::http::exposition::{Exposition, Format};
use crate::core::journal::durability::{CompactionPhase, Condition, Durability};
use crate::core::session::handshakes::FailureKind;
use crate::core::session::tally::ClientClocks;

/// The label for each [`Refusal::kind`].
const REFUSALS: [&str; Refusal::KINDS] = [
    "no_header",
    "invalid",
    "late",
    "cut_off",
    "displaced",
    "evicted",
];

impl Node {
    /// Returns the body of `/metrics`.
    pub(super) fn metrics(&mut self, format: Format, facts: &ProcessFacts, now: Now) -> String {
        let mut out = Exposition::new(format);
        out.info(
            "herd_build_info",
            "The server's name and version.",
            &[
                ("server", &self.settings.name),
                ("version", env!("CARGO_PKG_VERSION")),
            ],
        );
        self.process_metrics(facts, &mut out);
        let is_ready = u8::from(self.unready(now.time).is_empty());
        let ready = "1 if /healthz/ready answers 200, else 0.";
        out.gauge("herd_ready", ready, is_ready);
        self.counter_metrics(&mut out);
        self.connection_metrics(&mut out);
        self.table_metrics(&mut out);
        self.link_metrics(now, &mut out);
        self.journal_metrics(&mut out);
        self.places_metrics(now, &mut out);
        self.turn_metrics(&mut out);
        self.certificate_metrics(&mut out);
        out.finish()
    }

    fn process_metrics(&self, facts: &ProcessFacts, out: &mut Exposition) {
        out.gauge(
            "process_start_time_seconds",
            "When the process started, in seconds since 1970.",
            facts.started_s,
        );
        if let Some(bytes) = facts.resident_bytes {
            let help = "Memory of the process that is in RAM.";
            out.gauge("process_resident_memory_bytes", help, bytes);
        }
        if let Some(seconds) = facts.cpu_s {
            let help = "Time of processors that the process has used.";
            out.counter("process_cpu_seconds_total", help, seconds);
        }
        if let Some(open) = facts.open_fds {
            out.gauge("process_open_fds", "Open descriptors.", open);
        }
        if let Some(most) = facts.max_fds {
            let help = "Descriptors that may be open.";
            out.gauge("process_max_fds", help, most);
        }
        out.counter(
            "herd_log_lines_total",
            "Log lines, without those that were dropped.",
            facts.log_lines,
        );
        out.counter(
            "herd_log_lines_dropped_total",
            "Log lines that were dropped because the disk did not keep up or had no room.",
            facts.log_dropped,
        );
        out.counter(
            "herd_accept_failures_total",
            "Times that the system could not give the server a new connection, for lack of descriptors or memory.",
            facts.accept_failures,
        );
    }

    fn counter_metrics(&self, out: &mut Exposition) {
        let mut family = "";
        for metric in self.tally.counters.metrics() {
            if metric.name != family {
                family = metric.name;
                out.counters(metric.name, metric.help);
            }
            out.sample(metric.label.as_slice(), metric.value);
        }
        let (unfinished, headers) = self.tally.of_lines();
        out.counter(
            "herd_lines_unfinished_total",
            "Lines that clients did not finish within limits.line_ms.",
            unfinished,
        );
        out.counter(
            "herd_proxy_headers_ignored_total",
            "PROXY headers from addresses that are not in clients.proxies.",
            headers,
        );
        out.counter(
            "herd_clients_refused_total",
            "Clients that were refused because of max_clients, max_clients_per_address or memory.",
            self.admission.refused(),
        );
        out.counters(
            "herd_proxy_connections_refused_total",
            "Connections of listed proxies that were refused, by what was wrong with their PROXY header.",
        );
        for (reason, count) in REFUSALS.into_iter().zip(self.proxied_refused) {
            out.sample(&[("reason", reason)], count);
        }
        out.counters(
            "herd_tls_handshakes_failed_total",
            "TLS handshakes with clients that failed, by reason.",
        );
        for kind in FailureKind::ALL {
            let count = self.tally.handshakes.count(kind);
            out.sample(&[("reason", kind.name())], count);
        }
    }

    fn connection_metrics(&self, out: &mut Exposition) {
        let linked = self.herd.iter().filter(|it| it.link().is_some()).count();
        out.gauges("herd_connections", "Open connections, by kind.");
        for (kind, count) in [
            ("client", self.admission.clients()),
            ("link", linked),
            ("places", self.calls.connections()),
            ("http", self.http_connections()),
        ] {
            out.sample(&[("kind", kind)], count);
        }
        out.gauge(
            "herd_sockets",
            "Open connections of all kinds, with those that have proven no name or sent no header yet.",
            self.sessions.len(),
        );
        out.gauge(
            "herd_clients_max",
            "The greatest number of clients.",
            self.tally.max_clients,
        );
        for (name, help, counts) in [
            (
                "herd_received_bytes_total",
                "Bytes received, by kind of connection.",
                &self.traffic.received,
            ),
            (
                "herd_sent_bytes_total",
                "Bytes sent, by kind of connection.",
                &self.traffic.sent,
            ),
        ] {
            out.counters(name, help);
            for (kind, count) in Session::KINDS.into_iter().zip(counts) {
                out.sample(&[("kind", kind)], count);
            }
        }
        out.gauge(
            "herd_buffer_bytes",
            "Memory in the buffers of all connections, with answers of Places that wait.",
            self.tally.buffers.held_bytes(),
        );
        if let Some(most) = self.tally.buffers.maximum() {
            let help = "The greatest value of herd_buffer_bytes: limits.buffer_bytes.";
            out.gauge("herd_buffer_max_bytes", help, most);
        }
        out.gauges(
            "herd_client_clocks",
            "How the clocks of most clients compare with this server's: 1 for the present state.",
        );
        for clocks in [
            ClientClocks::Near,
            ClientClocks::Ahead,
            ClientClocks::Behind,
        ] {
            let is_so = u8::from(self.tally.client_clocks() == clocks);
            out.sample(&[("state", &clocks.to_string())], is_so);
        }
    }

    fn table_metrics(&self, out: &mut Exposition) {
        let records = &self.records;
        out.gauge(
            "herd_records",
            "Clients with a position.",
            records.positions(),
        );
        out.gauge(
            "herd_tombstones",
            "Forgotten clients whose tombstone has not expired.",
            records.tombstones(),
        );
        out.gauge(
            "herd_record_bytes",
            "Bytes of the lines of all records.",
            records.line_bytes(),
        );
        let full = "1 if new records are refused (max_records, max_record_bytes), else 0.";
        out.gauge("herd_table_full", full, u8::from(records.is_full()));
        out.counter(
            "herd_changes_total",
            "Changes of the table in its history: the position of the feed.",
            records.last_seq(),
        );
        out.counter(
            "herd_records_expired_total",
            "Records that were removed because of record_ttl_ms.",
            self.expired,
        );
        out.counter(
            "herd_records_refused_total",
            "Records that were refused because the table was full.",
            records.refused(),
        );
    }

    fn link_metrics(&mut self, now: Now, out: &mut Exposition) {
        let last_seq = self.records.last_seq();
        let lags: Vec<f64> = self
            .herd
            .iter_mut()
            .map(|neighbour| neighbour.lag(last_seq, now.time).as_secs_f64())
            .collect();
        let herd = &self.herd;
        let is_up = |id| herd.get(id).link().is_some();
        out.gauges("herd_link_up", "1 if the neighbour is linked, else 0.");
        for id in herd.ids() {
            let neighbour = [("neighbour", herd.get(id).name())];
            out.sample(&neighbour, u8::from(is_up(id)));
        }
        out.gauges(
            "herd_link_unconfirmed_changes",
            "Changes that the linked neighbour has not confirmed.",
        );
        for id in herd.ids().filter(|id| is_up(*id)) {
            let neighbour = herd.get(id);
            let unconfirmed = last_seq.saturating_sub(neighbour.confirmed());
            out.sample(&[("neighbour", neighbour.name())], unconfirmed);
        }
        out.gauges(
            "herd_link_lag_seconds",
            "How long the linked neighbour has not confirmed a change that it was sent.",
        );
        for (id, lag) in herd.ids().zip(lags).filter(|(id, _)| is_up(*id)) {
            out.sample(&[("neighbour", herd.get(id).name())], lag);
        }
        out.gauges(
            "herd_link_clock_difference_seconds",
            "How far the neighbour's clock is ahead of this server's.",
        );
        for neighbour in herd.iter() {
            if let Some(ms) = neighbour.clock_offset_ms() {
                out.sample(&[("neighbour", neighbour.name())], ms as f64 / 1e3);
            }
        }
        out.gauges(
            "herd_link_failed_attempts",
            "Failed attempts to link since the last link.",
        );
        for neighbour in herd.iter() {
            out.sample(&[("neighbour", neighbour.name())], neighbour.failures());
        }
        out.gauge(
            "herd_records_lacking",
            "Records of neighbours that this server refused because of a limit.",
            herd.refused_records(),
        );
    }

    fn journal_metrics(&self, out: &mut Exposition) {
        let Some(journal) = &self.journal else {
            return;
        };
        let durability = journal.durability_ref();
        let length = "The length of the journal.";
        out.gauge("herd_journal_bytes", length, durability.length());
        if let Some(bound) = self.journal_bound() {
            let help = "The greatest length of the journal for the present table.";
            out.gauge("herd_journal_max_bytes", help, bound);
        }
        let seconds = "Time of a sync of the journal.";
        histogram(
            "herd_journal_sync_seconds",
            seconds,
            durability.sync_times(),
            out,
        );
        out.counter(
            "herd_journal_compactions_total",
            "Compactions of the journal that were finished.",
            durability.compactions(),
        );
        out.gauges(
            "herd_journal_compaction",
            "The phase of the compaction: 1 for the present one.",
        );
        for phase in CompactionPhase::ALL {
            let is_it = u8::from(durability.phase() == phase);
            out.sample(&[("phase", phase.name())], is_it);
        }
        let present = match Durability::condition(durability) {
            Condition::Healthy => "ok",
            Condition::Busy { .. } => "busy",
            Condition::Refusing { .. } => "refusing",
        };
        out.gauges(
            "herd_disk",
            "The condition of the disk: 1 for the present one. While it is refusing, IAMATs are refused.",
        );
        for condition in ["ok", "busy", "refusing"] {
            let is_it = u8::from(condition == present);
            out.sample(&[("state", condition)], is_it);
        }
    }

    fn places_metrics(&self, now: Now, out: &mut Exposition) {
        histogram(
            "herd_places_seconds",
            "Time from a question to Google Places until its end.",
            &self.tally.places_times,
            out,
        );
        out.gauge(
            "herd_places_calls",
            "Questions to Google Places that have no answer yet.",
            self.calls.len(),
        );
        out.gauge(
            "herd_places_calls_waiting",
            "Questions that wait for a connection to Google Places.",
            self.calls.waiting(),
        );
        out.gauge(
            "herd_places_connections_idle",
            "Connections to Google Places that are kept without a question.",
            self.calls.idle_connections().len(),
        );
        let quota = &self.settings.places.quota;
        let asked = self.tally.places_budget.questions_in_a_day(quota, now.time);
        if let Some(asked) = asked {
            let help = "Questions in the last 24 hours.";
            out.gauge("herd_places_day_questions", help, asked);
            let help = "Questions that are allowed in 24 hours (places.max_per_day).";
            out.gauge("herd_places_day_questions_max", help, quota.per_day);
        }
    }

    fn turn_metrics(&self, out: &mut Exposition) {
        let turns = &self.tally.turns;
        histogram(
            "herd_turn_seconds",
            "Time of a turn of the loop, without the wait for events.",
            turns.times(),
            out,
        );
        out.counter(
            "herd_turns_slow_total",
            "Turns that took longer than limits.slow_turn_ms. /slow shows the last ones.",
            turns.slow_count(),
        );
        let (ready, most_ready) = turns.ready();
        out.counter(
            "herd_turn_connections_total",
            "Connections that were ready, added up over all turns.",
            ready,
        );
        out.gauge(
            "herd_turn_connections_max",
            "The greatest number of connections that were ready in one turn.",
            most_ready,
        );
    }

    fn certificate_metrics(&self, out: &mut Exposition) {
        if self.settings.tls.own.is_empty() {
            return;
        }
        out.gauges(
            "herd_certificate_expiry_timestamp_seconds",
            "When a certificate of this server expires, in seconds since 1970.",
        );
        let mut files: Vec<&str> = Vec::new();
        for own in &self.settings.tls.own {
            // The same certificate may be used for clients and for neighbours.
            if !files.contains(&&*own.file) {
                files.push(&own.file);
                out.sample(&[("file", &own.file)], own.not_after.as_secs());
            }
        }
    }
}

fn histogram(name: &'static str, help: &str, times: &Histogram, out: &mut Exposition) {
    let sum_seconds = times.sum().as_secs_f64();
    out.histogram(name, help, times.buckets(), times.count(), sum_seconds);
}
