//! The HTTP port of a [`Node`]: accepts connections, and makes the answers to their requests.

use std::net::SocketAddr;

use log::warn;

use super::session::Session;
use super::{ConnId, Node, Request};
use crate::core::base::clock::Now;
use crate::core::base::limits::LimitValue;
use crate::core::base::process_facts::ProcessFacts;
use crate::core::http::exposition::Format;
use crate::core::http::query::Query;
use crate::core::http::reply::{ContentType, Reply, Status};
use crate::core::http::{Effect, HttpConnection};
use crate::core::session::context::Context;

impl Node {
    /// Accepts a connection to the HTTP port. If `limits.max_http_connections` are open, the
    /// connection that has been idle longest is closed, so that idle connections cannot keep an
    /// operator out. Returns `None` if the server is stopping, or if no connection is idle.
    pub(super) fn http_connected(&mut self, address: SocketAddr, now: Now) -> Option<ConnId> {
        if self.phase.is_stopping() {
            return None;
        }
        let sessions = &self.sessions;
        let session = |id: ConnId| sessions.get(id)?.session.http();
        self.http.retain(|id| session(*id).is_some());
        if self.http.len() >= self.settings.limits.max_http_connections.to_count() {
            let idle = self.http.iter().filter_map(|&id| {
                let since = session(id)?.idle_since()?;
                Some((since, id))
            });
            let Some((_, oldest)) = idle.min() else {
                self.tally.counters.http_crowded += 1;
                let refused = self.tally.counters.http_crowded;
                if refused.is_power_of_two() {
                    warn!(
                        "http {address}: refused: as many as limits.max_http_connections are busy; {refused} so far"
                    );
                }
                return None;
            };
            self.http.retain(|id| *id != oldest);
            if let Some(slot) = self.sessions.get_mut(oldest)
                && let Some(http) = slot.session.http_mut()
            {
                http.displace();
            }
            self.mark_dirty(oldest);
        }
        let id = self.admit(None, |id: ConnId| {
            let http = HttpConnection::new(id.serial(), address, now.time);
            Session::Http(Box::new(http))
        });
        self.http.push(id);
        Some(id)
    }

    /// Handles the effect of an HTTP connection.
    pub(super) fn apply_http_effect(&mut self, id: ConnId, effect: Effect, now: Now) {
        match effect {
            Effect::Lost => self.http.retain(|it| *it != id),
            Effect::Step(query) => {
                let (piece, next) = self.step(&query, now);
                self.on_http(id, now, |http, context| {
                    http.step(piece.as_bytes(), next, context);
                });
            }
            Effect::Asked(query @ (Query::Metrics(_) | Query::Status)) => {
                if let Some(Session::Http(http)) = self.session(id) {
                    http.measure(query);
                }
                self.requests.push_back(Request::Measure { id });
            }
            Effect::Asked(query @ (Query::Connections(_) | Query::Calls(_))) => {
                let (piece, next) = self.step(&query, now);
                self.on_http(id, now, |http, context| {
                    http.begin_stream(ContentType::Json, piece.as_bytes(), next, context);
                });
            }
            Effect::Asked(query) => {
                let reply = self.reply(&query, now);
                self.on_http(id, now, |http, context| http.answer(&reply, context));
            }
        }
    }

    /// Makes the answer that waits for `facts` about the process, which the shell has just
    /// measured.
    pub(super) fn measured(&mut self, id: ConnId, facts: &ProcessFacts, now: Now) {
        let Some(Session::Http(http)) = self.session(id) else {
            return;
        };
        let Some(query) = http.take_measured() else {
            return;
        };
        let (content, text) = match query {
            Query::Metrics(format) => {
                let content = match format {
                    Format::Prometheus => ContentType::Prometheus,
                    Format::OpenMetrics => ContentType::OpenMetrics,
                };
                (content, self.metrics(format, facts, now))
            }
            Query::Status
            | Query::Live
            | Query::Ready
            | Query::Links
            | Query::Connections(_)
            | Query::Calls(_)
            | Query::Slow
            | Query::Client(_) => (ContentType::Json, self.status_page(facts, now)),
        };
        let reply = Reply {
            status: Status::Ok,
            content,
            body: text.into_bytes(),
        };
        self.on_http(id, now, |http, context| http.answer(&reply, context));
    }

    /// Returns the answer to a query that needs no facts about the process and no steps.
    fn reply(&mut self, query: &Query, now: Now) -> Reply {
        let (status, text) = match query {
            Query::Live => (Status::Ok, "{\"live\":true}\n".to_owned()),
            Query::Ready => self.ready_page(now),
            Query::Links => (Status::Ok, self.links_page(now)),
            Query::Slow => (Status::Ok, self.slow_page()),
            Query::Client(name) => self.client_page(name),
            // `apply_http_effect` does not pass these queries to this method.
            Query::Metrics(_) | Query::Status | Query::Connections(_) | Query::Calls(_) => {
                debug_assert!(false, "{query:?} is answered in another way");
                (Status::NotFound, String::new())
            }
        };
        Reply {
            status,
            content: ContentType::Json,
            body: text.into_bytes(),
        }
    }

    /// Returns the next step of an answer that is made in steps, and where the step after it begins
    /// (`None` after the last step).
    fn step(&self, query: &Query, now: Now) -> (String, Option<Query>) {
        match query {
            Query::Connections(page) => {
                let (piece, next) = self.connections_step(*page, now);
                (piece, next.map(Query::Connections))
            }
            Query::Calls(page) => {
                let (piece, next) = self.calls_step(*page, now);
                (piece, next.map(Query::Calls))
            }
            Query::Live
            | Query::Ready
            | Query::Metrics(_)
            | Query::Status
            | Query::Links
            | Query::Slow
            | Query::Client(_) => {
                debug_assert!(false, "{query:?} is not answered in steps");
                (String::new(), None)
            }
        }
    }

    fn on_http(
        &mut self,
        id: ConnId,
        now: Now,
        event: impl FnOnce(&mut HttpConnection, &mut Context<'_>),
    ) {
        self.on_session(id, now, |session, context| {
            event(session.http_mut()?, context);
            None
        });
    }

    /// Returns the number of connections to the HTTP port, without displaced ones.
    pub(super) fn http_connections(&self) -> usize {
        let is_http = |id: &&ConnId| self.sessions.get(**id).is_some();
        self.http.iter().filter(is_http).count()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{at, node};
    use super::*;
    use crate::core::base::limits::Limits;
    use crate::core::base::settings::{HostPort, HttpSettings};

    fn scene(limits: Limits) -> (Node, ConnId) {
        let mut node = node(limits);
        node.settings.http = Some(HttpSettings {
            listen: HostPort {
                host: "127.0.0.1".into(),
                port: 9100,
            },
            is_exposed: false,
            hosts: Vec::new(),
        });
        let address = "127.0.0.1:5".parse().unwrap();
        let id = node.handle_http_connected(address, at(0)).unwrap();
        (node, id)
    }

    /// Acts like a socket that accepts at most `most` bytes. Returns the accepted bytes.
    fn take(node: &mut Node, id: ConnId, most: usize) -> String {
        let output = node.poll_output(id);
        let count = output.len().min(most);
        let taken = String::from_utf8(output[..count].to_vec()).unwrap();
        node.handle_output_sent(id, count, at(1));
        node.poll_disposition(id, at(1));
        node.check_invariants().unwrap();
        taken
    }

    fn connect_clients(node: &mut Node, count: u16) {
        for port in 1..=count {
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            node.handle_client_connected(address, at(0)).unwrap();
        }
    }

    const LIVE: &str = "GET /healthz/live HTTP/1.1\r\nHost: localhost\r\n\r\n";
    const CONNECTIONS: &str = "GET /connections HTTP/1.1\r\nHost: localhost\r\n\r\n";

    #[test]
    fn one_request_is_answered_for_each_write() {
        let (mut node, id) = scene(Limits::default());
        node.handle_data_received(id, LIVE.repeat(3).as_bytes(), at(0));
        for _ in 0..3 {
            assert!(!node.wants_read(id));
            let answer = take(&mut node, id, usize::MAX);
            assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 1, "{answer}");
        }
        assert_eq!(take(&mut node, id, usize::MAX), "");
        assert!(node.wants_read(id));
    }

    #[test]
    fn a_page_of_connections_is_made_in_steps() {
        let (mut node, id) = scene(Limits::default());
        connect_clients(&mut node, 250);
        node.handle_data_received(id, CONNECTIONS.as_bytes(), at(0));
        let steps: Vec<usize> = std::iter::from_fn(|| {
            let step = take(&mut node, id, usize::MAX);
            (!step.is_empty()).then(|| step.matches("\"kind\"").count())
        })
        .collect();
        assert_eq!(steps, [100, 100, 51]);
        assert_eq!(node.http_states().next(), Some((id, "idle")));
    }

    #[test]
    fn a_step_waits_until_the_output_has_room() {
        let (mut node, id) = scene(Limits {
            http_output_bytes: 100,
            ..Limits::default()
        });
        connect_clients(&mut node, 250);
        node.handle_data_received(id, CONNECTIONS.as_bytes(), at(0));
        let first = node.poll_output(id).len();
        take(&mut node, id, first - 101);
        assert_eq!(node.poll_output(id).len(), 101);
        take(&mut node, id, 1);
        assert!(node.poll_output(id).len() > 10_000);
    }

    #[test]
    fn places_without_connections_cost_steps_and_not_a_turn() {
        let (mut node, id) = scene(Limits::default());
        connect_clients(&mut node, 5_000);
        let clients: Vec<ConnId> = node.client_states().map(|(id, _)| id).collect();
        for client in clients {
            node.handle_connection_lost(client, None, at(0));
        }
        node.handle_data_received(id, CONNECTIONS.as_bytes(), at(0));
        let mut all = String::new();
        let mut steps = 0;
        loop {
            let step = take(&mut node, id, usize::MAX);
            if step.is_empty() {
                break;
            }
            steps += 1;
            all.push_str(&step);
        }
        assert_eq!(steps, 3, "{all}");
        assert!(all.ends_with("],\"next\":null}\n\r\n0\r\n\r\n"), "{all}");
    }

    #[test]
    fn an_answer_that_waits_for_a_measurement_comes_in_the_same_turn() {
        let (mut node, id) = scene(Limits::default());
        while node.poll_request().is_some() {}
        let request = LIVE.replace("/healthz/live", "/metrics");
        node.handle_data_received(id, request.as_bytes(), at(0));
        assert_eq!(node.poll_output(id), b"");
        assert_eq!(node.poll_request(), Some(Request::Measure { id }));
        let facts = ProcessFacts {
            log_lines: 12_345,
            ..ProcessFacts::default()
        };
        node.handle_measured(id, &facts, at(0));
        let answer = take(&mut node, id, usize::MAX);
        assert!(
            answer.contains("\nherd_log_lines_total 12345\n"),
            "{answer}"
        );
        // Facts for a lost connection are ignored.
        node.handle_data_received(id, request.as_bytes(), at(0));
        node.handle_connection_lost(id, None, at(0));
        node.handle_measured(id, &facts, at(0));
        node.check_invariants().unwrap();
    }
}
