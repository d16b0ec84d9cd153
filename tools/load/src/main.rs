//! `herd-load`: loads a server, checks every answer, and says how fast they came.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    herd_load::main()
}
