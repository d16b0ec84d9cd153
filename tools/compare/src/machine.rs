//! The measuring machine, and how busy it was with other work.

use std::fs;
use std::process::Command;

/// The facts about the machine that a reader needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The processor's own name.
    pub processor: String,
    /// The number of cores that this program may use.
    pub cores: usize,
    /// In bytes.
    pub memory_bytes: u64,
    /// The system and its version.
    pub kernel: String,
    /// Whether it is a virtual machine, if the processor reports that.
    pub is_virtual: bool,
}

impl Machine {
    /// This machine. Unknown facts are "unknown".
    #[must_use]
    pub fn this() -> Machine {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let uname = Command::new("uname").arg("-srm").output();
        let kernel = uname.map_or_else(
            |_| "unknown".to_owned(),
            |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        );
        Machine {
            processor: field(&cpuinfo, "model name")
                .unwrap_or("unknown")
                .to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: memory_bytes(&meminfo).unwrap_or_default(),
            kernel,
            is_virtual: field(&cpuinfo, "flags")
                .is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
        }
    }
}

/// The load average of the last minute.
#[must_use]
pub fn load_average() -> Option<f64> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    text.split(' ').next()?.parse().ok()
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim())
    })
}

fn memory_bytes(meminfo: &str) -> Option<u64> {
    let value = field(meminfo, "MemTotal")?;
    let kib: u64 = value.split(' ').next()?.parse().ok()?;
    Some(kib * 1024)
}

/// How exact the figures are.
#[derive(Clone, Debug, PartialEq)]
pub struct Noise {
    /// The load average of the minute before the run.
    pub load_before: Option<f64>,
    /// The median of the spreads of all rates.
    pub typical_spread: Option<f64>,
    /// The greatest spread, and its measurement.
    pub widest: Option<(f64, String)>,
    /// Whether generator and server had to share a core.
    pub one_core: bool,
}

/// Above this load before the run, as a part of the cores, other work has disturbed the machine.
const BUSY: f64 = 0.25;
/// A greater spread of the rates than this is worth a warning.
const SPREAD: f64 = 0.05;

impl Noise {
    /// The problems of this run, as text. Empty on a quiet machine.
    #[must_use]
    pub fn complaints(&self, cores: usize) -> Vec<String> {
        let mut all = Vec::new();
        if let Some(load) = self.load_before.filter(|load| *load > BUSY * cores as f64) {
            let processes = if cores == 1 { "core" } else { "cores" };
            all.push(format!(
                "the load average was {load:.1} on {cores} {processes} at the start: other programs were using the machine"
            ));
        }
        if let Some(spread) = self.typical_spread.filter(|spread| *spread > SPREAD) {
            all.push(format!(
                "the typical spread of a rate was {:.0} % (on a quiet machine it is below {:.0} %)",
                spread * 100.0,
                SPREAD * 100.0
            ));
        }
        if self.one_core {
            all.push("the server and the generator shared one core".to_owned());
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_description_is_read() {
        let machine = Machine::this();
        assert!(machine.cores > 0);
        assert!(!machine.kernel.is_empty());
        assert_eq!(
            memory_bytes("MemTotal:       24684612 kB\nMemFree: 1 kB\n"),
            Some(24_684_612 * 1024)
        );
        assert_eq!(
            field("model name\t: AMD EPYC\n", "model name"),
            Some("AMD EPYC")
        );
    }

    #[test]
    fn noise_is_reported() {
        let quiet = Noise {
            load_before: Some(0.1),
            typical_spread: Some(0.01),
            widest: None,
            one_core: false,
        };
        assert!(quiet.complaints(2).is_empty());
        let busy = Noise {
            load_before: Some(9.2),
            typical_spread: Some(0.2),
            one_core: true,
            ..quiet
        };
        let complaints = busy.complaints(2);
        assert_eq!(complaints.len(), 3);
        assert!(complaints[0].contains("9.2 on 2 cores"), "{complaints:?}");
        assert!(complaints[1].contains("20 %"), "{complaints:?}");
    }
}
