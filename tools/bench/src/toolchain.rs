//! What instruction counts depend on, apart from the program.

use std::fmt;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::workload::Failure;

/// Who compiled what was counted, and who counted it. Where they differ, so may the counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Toolchain {
    /// The compiler, as it names itself.
    pub rustc: String,
    /// The counter, as it names itself.
    pub valgrind: String,
    /// Architecture and system, and the instructions that libraries look for when they run: memory is copied and searched with the
    /// widest that there are.
    pub machine: String,
}

impl Toolchain {
    /// This one's.
    ///
    /// # Errors
    /// The compiler cannot be asked.
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
