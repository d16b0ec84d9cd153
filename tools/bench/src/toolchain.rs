//! What instruction counts depend on, apart from the program.

use std::fmt;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::workload::Failure;

/// The compiler and the counter. Counts of different toolchains may differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Toolchain {
    /// The compiler's own name and version.
    pub rustc: String,
    /// Valgrind's own name and version.
    pub valgrind: String,
    /// Architecture, system, and whether the processor has AVX2: libraries copy and search memory
    /// with the widest vectors that they find at run time.
    pub machine: String,
}

impl Toolchain {
    /// The toolchain of this machine.
    ///
    /// # Errors
    /// The compiler does not run.
    pub(crate) fn here(valgrind: String) -> Result<Toolchain, Failure> {
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let output = Command::new(&rustc)
            .arg("--version")
            .output()
            .map_err(|error| format!("cannot run {}: {error}", rustc.display()))?;
        Ok(Toolchain {
            rustc: String::from_utf8_lossy(&output.stdout).trim().to_owned(),
            valgrind,
            machine: format!(
                "{} {}{}",
                std::env::consts::ARCH,
                std::env::consts::OS,
                vectors()
            ),
        })
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}; {}", self.rustc, self.valgrind, self.machine)
    }
}

#[cfg(target_arch = "x86_64")]
fn vectors() -> &'static str {
    match std::arch::is_x86_feature_detected!("avx2") {
        true => ", AVX2",
        false => ", no AVX2",
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn vectors() -> &'static str {
    ""
}
