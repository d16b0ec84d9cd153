//! Tests of the server from outside: real sockets, real TLS, bytes sent and bytes expected.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may fail"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "a test of promptness needs a clock"
)]

mod behaviours;
mod client;
mod legacy;
mod lifecycle;
mod new_api;

use std::time::Duration;

use herd_places::{Behaviour, Options, Places};

/// Every wait of these tests is far shorter.
const PATIENCE: Duration = Duration::from_secs(10);

/// UCLA, in a request like those of the demo.
const HERE: &str =
    "/maps/api/place/nearbysearch/json?location=34.0689,-118.4452&radius=1000&key=test-key";

fn places() -> Places {
    Places::start(Options::default()).unwrap()
}

fn places_that(behaviour: Behaviour) -> Places {
    Places::start(Options {
        behaviour,
        ..Options::default()
    })
    .unwrap()
}
