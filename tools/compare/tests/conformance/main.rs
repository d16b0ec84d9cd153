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
            fn clients_are_answered_as_the_protocol_has_it() {
                prepared($name).iter().for_each(crate::scene::clients);
            }

            #[test]
            fn whatsat_is_the_record_and_what_google_says() {
                prepared($name).iter().for_each(crate::places::transcript);
            }

            #[test]
            fn answers_come_in_order_and_output_has_an_end() {
                prepared($name).iter().for_each(crate::floods::transcript);
            }

            #[test]
            fn neighbours_that_dial_it_are_told_and_believed() {
                prepared($name).iter().for_each(crate::neighbours::dialled);
            }

            #[test]
            fn a_wrong_clock_freezes_no_record() {
                prepared($name).iter().for_each(crate::epochs::transcript);
            }

            #[test]
            fn neighbours_that_it_dials_have_to_prove_themselves() {
                prepared($name).iter().for_each(crate::neighbours::dialling);
            }

            #[test]
            fn a_process_starts_logs_and_ends_as_it_should() {
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
