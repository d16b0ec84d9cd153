//! `herd-journal`: inspects and repairs the journal of a server.

use std::process::ExitCode;

fn main() -> ExitCode {
    herd_mio::shell::signals::unblock_termination_signals();
    herd_mio::inspect::run(&std::env::args_os().collect::<Vec<_>>())
}
