//! `herd-client`: sends commands to a server of a herd, from a prompt or from a script.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    herd_client::program::main()
}
