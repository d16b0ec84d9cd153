//! `herd-journal`: looks at a server's journal while the server is down, and takes out what is
//! damaged.

use std::process::ExitCode;

fn main() -> ExitCode {
    herd_mio::shell::signals::unblock_ends();
    herd_mio::inspect::run(&std::env::args_os().collect::<Vec<_>>())
}
