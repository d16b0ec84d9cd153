//! Tests of the server from outside: real processes, real sockets, one file for each behaviour.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends at what it did not expect"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "deadlines of tests are real time"
)]

mod bad_night;
mod buffers;
mod certificates;
mod checks;
mod command_line;
mod commands;
mod crowds;
mod descriptors;
mod disk;
mod draining;
mod expiry;
mod fleet;
mod flood;
mod following;
mod forgetting;
mod framing;
mod health;
mod hostile_clients_tls;
mod hostile_links;
mod hostile_neighbours;
mod http;
mod http_hostile;
mod http_limits;
mod http_ready;
mod impostors;
mod inspect;
mod journal;
mod kills;
mod limits;
mod limits_clients;
mod limits_outward;
mod listening;
mod log_limits;
mod logs;
mod memory;
mod mixed_up;
mod name_servers;
mod names;
mod neighbours;
mod order;
mod os_limits;
mod output;
mod outside;
mod places;
mod places_answers;
mod places_connections;
mod places_errors;
mod places_fair;
mod places_quota;
mod places_tricks;
mod proxy;
mod rolling_change;
mod rooms;
mod secret_change;
mod secrets;
mod signals;
mod small_disk;
mod stopping;
mod supervision;
mod tls;
mod tls_endings;
mod tls_failures;
mod tls_offered;
mod tls_records;
mod trying_on;
mod turns;
mod tutorial;
mod variables;
