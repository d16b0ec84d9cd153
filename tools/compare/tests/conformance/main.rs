//! One transcript for all worlds. A world is an implementation of the server, such as asyncio or
//! Go. In each of them, clients, neighbours and operators get the same answers.
//!
//! A world that this machine cannot run is skipped, and the standard error says why.

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

mod epochs;
mod floods;
mod mixed;
mod model;
mod neighbours;
mod patience;
mod places;
mod processes;
mod scene;

/// Runs each test once for each world, so that a failure names its world.
macro_rules! in_every_world {
    ($($world:ident = $name:literal),+ $(,)?) => {
        $(mod $world {
            use crate::scene::prepared;

            #[test]
            fn client_answers_follow_the_protocol() {
                prepared($name).iter().for_each(crate::scene::clients);
            }

            #[test]
            fn whatsat_answers_the_record_and_google_s_json() {
                prepared($name).iter().for_each(crate::places::transcript);
            }

            #[test]
            fn answers_are_ordered_and_output_is_bounded() {
                prepared($name).iter().for_each(crate::floods::transcript);
            }

            #[test]
            fn neighbours_that_dial_exchange_records() {
                prepared($name).iter().for_each(crate::neighbours::dialled);
            }

            #[test]
            fn a_wrong_clock_does_not_freeze_a_record() {
                prepared($name).iter().for_each(crate::epochs::transcript);
            }

            #[test]
            fn dialled_neighbours_must_prove_the_secret() {
                prepared($name).iter().for_each(crate::neighbours::dialling);
            }

            #[test]
            fn a_server_process_starts_logs_and_stops() {
                prepared($name).iter().for_each(crate::processes::transcript);
            }
        })+
    };
}

in_every_world! {
    mio = "mio",
    streams = "streams",
    protocols = "protocols",
    uvloop = "uvloop",
    node = "node",
    java_threads = "java-threads",
    java_nio = "java-nio",
    go = "go",
    tokio = "tokio",
}
