//! How many instructions each workload takes: see [`herd_bench::instructions`].

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    herd_bench::instructions::main()
}
