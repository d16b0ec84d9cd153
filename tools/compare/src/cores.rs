//! The core of the server and the core of the generator: the same two for every world.
//!
//! A process inherits the core of the thread that starts it, and so do its own threads and
//! children. So no `taskset` is needed, and a runtime that asks for its number of processors (Go,
//! Java) gets one.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The two cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cores {
    /// The core of the server, or of the whole herd.
    pub server: usize,
    /// The core of the generator. On a machine with one core it is the same.
    pub generator: usize,
}

impl Cores {
    /// The last and the first core that this process may use. The server gets the last, because the
    /// first usually handles the interrupts.
    ///
    /// # Errors
    /// The system does not list the cores.
    pub fn choose() -> Result<Cores, String> {
        let allowed = sched_getaffinity(None)
            .map_err(|error| format!("cannot read which cores this process may use: {error}"))?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        let generator = cores.next().ok_or("this process may use no core")?;
        Ok(Cores {
            server: cores.next_back().unwrap_or(generator),
            generator,
        })
    }

    /// Whether server and generator have different cores.
    #[must_use]
    pub fn are_two(self) -> bool {
        self.server != self.generator
    }
}

/// Calls `what` on this core. Processes that it starts stay on the core.
///
/// # Errors
/// The system does not allow it.
pub fn on<T>(core: usize, what: impl FnOnce() -> T) -> Result<T, String> {
    let told = |error| format!("cannot move to core {core}: {error}");
    let before = sched_getaffinity(None).map_err(told)?;
    let mut only = CpuSet::new();
    only.set(core);
    sched_setaffinity(None, &only).map_err(told)?;
    let result = what();
    sched_setaffinity(None, &before).map_err(told)?;
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn children_inherit_the_core() {
        let cores = Cores::choose().unwrap();
        let before = sched_getaffinity(None).unwrap();
        let said = on(cores.server, || {
            Command::new("cat").arg("/proc/self/status").output()
        });
        let said = String::from_utf8(said.unwrap().unwrap().stdout).unwrap();
        let allowed = format!("Cpus_allowed_list:\t{}\n", cores.server);
        assert!(said.contains(&allowed), "{said}");
        assert!(sched_getaffinity(None).unwrap() == before);
    }
}
