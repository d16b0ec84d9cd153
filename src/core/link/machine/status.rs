//! The `STATUS` line, which shows an operator the status of this server.

use std::fmt::Write as _;

use super::{Cause, Link, State};
use crate::core::journal::durability::{Condition, Durability};
use crate::core::session::context::Context;
use crate::core::session::herd::{LinkError, Neighbour};

impl Link {
    /// Sends the status to an operator. `secret_number` is the number, from 1, of the secret that
    /// the operator's proof was made with.
    pub(super) fn send_status(
        &mut self,
        secret_number: usize,
        context: &mut Context<'_>,
    ) -> Result<(), LinkError> {
        let line = status(secret_number, context);
        self.send_line(format_args!("{line}"));
        self.since = context.now.time;
        self.enter(Cause::StatusSent, State::Serving);
        Ok(())
    }
}

/// Returns the `STATUS` line without its LF. [`crate::core::link`] explains the keys.
fn status(secret_number: usize, context: &mut Context<'_>) -> String {
    let now = context.now.time;
    let last_seq = context.records.last_seq();
    let Context {
        boot,
        records,
        clients,
        tally,
        settings,
        ..
    } = context;
    let is_up = |neighbour: &&Neighbour| neighbour.link().is_some();
    let linked = context.herd.iter().filter(is_up);
    let plain = linked.filter(|neighbour| !neighbour.is_over_tls()).count();
    let secrets = match settings.secrets.is_none() {
        true => "none".to_owned(),
        false => format!("{secret_number}/{}", settings.secrets.count()),
    };
    let counters: String = tally
        .counters
        .all()
        .map(|(name, value)| format!(" {name}={value}"))
        .collect();
    let mut line = format!(
        "STATUS boot={boot} wall={} records={} digest={:016x} clients={clients} refused={}{} version={} secret={secrets} plain={plain}",
        context.now.wall,
        records.positions(),
        records.digest(),
        records.refused(),
        counters,
        env!("CARGO_PKG_VERSION"),
    );
    let disk = context.durability.as_deref().map(Durability::condition);
    let mut add = |text: std::fmt::Arguments<'_>| {
        let _ = line.write_fmt(text); // writing to memory does not fail
    };
    let handshakes = tally.handshakes.to_string();
    if !handshakes.is_empty() {
        add(format_args!(" handshakes={handshakes}"));
    }
    match disk {
        None => add(format_args!(" disk=none")),
        Some(Condition::Healthy) => add(format_args!(" disk=ok")),
        Some(Condition::Busy { since }) => match now.since(since).as_millis() {
            0 => add(format_args!(" disk=ok")),
            ms => add(format_args!(" disk=busy:{ms}")),
        },
        Some(Condition::Refusing {
            since,
            wanted_bytes,
        }) => add(format_args!(
            " disk=refusing:{}:{wanted_bytes}",
            now.since(since).as_millis()
        )),
    }
    let table = if records.is_full() { "full" } else { "ok" };
    add(format_args!(
        " table={table} clocks={} max_clients={} forgotten={} followers={}",
        tally.client_clocks(),
        tally.max_clients,
        records.tombstones(),
        context.herd.followers().len()
    ));
    let phase = match tally.drain_ends {
        None => "running",
        Some(_) => "draining",
    };
    add(format_args!(" phase={phase}"));
    let quota = &settings.places.quota;
    if let Some(asked) = tally.places_budget.questions_in_a_day(quota, now) {
        add(format_args!(" places_day={asked}:{}", quota.per_day));
    }
    if let Some(maximum) = tally.buffers.maximum() {
        add(format_args!(
            " buffers={}:{maximum}",
            tally.buffers.held_bytes()
        ));
        if let Some(since) = tally.buffers.since_eviction(now) {
            add(format_args!(":{}", since.as_millis()));
        }
    }
    for neighbour in context.herd.iter().filter(|it| it.link().is_none()) {
        let ms = now.since(neighbour.unlinked_since()).as_millis();
        add(format_args!(" unlinked={ms}:{}", neighbour.name()));
    }
    let is_up = |neighbour: &&mut Neighbour| neighbour.link().is_some();
    for neighbour in context.herd.iter_mut().filter(is_up) {
        let lag = neighbour.lag(last_seq, now).as_millis();
        if lag > 0 {
            add(format_args!(" lag={lag}:{}", neighbour.name()));
        }
    }
    for neighbour in context.herd.iter_mut().filter(is_up) {
        let unconfirmed = last_seq - neighbour.confirmed();
        let offset = match neighbour.clock_offset_ms() {
            Some(offset) => offset.to_string(),
            None => "?".to_owned(),
        };
        let (lacks, name) = (neighbour.peer_refused_records(), neighbour.name());
        add(format_args!(" link={unconfirmed}:{offset}:{lacks}:{name}"));
    }
    line
}
