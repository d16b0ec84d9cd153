//! What a workload is, and how it is run.

use std::fmt;

/// Why a workload cannot be measured, or which wrong result it gave.
pub type Failure = String;

/// A task that a server does again and again. Only [`Workload::pass`] is measured.
///
/// ```text
///   prepare ─► pass ─► check ─┐
///      ▲                      │
///      └──────────────────────┘
/// ```
pub trait Workload {
    /// How many operations a pass consists of.
    fn operations(&self) -> u64;

    /// Makes the input of the next pass.
    ///
    /// # Errors
    /// The input could not be made.
    fn prepare(&mut self) -> Result<(), Failure>;

    /// The work.
    fn pass(&mut self);

    /// Checks the results of the pass.
    ///
    /// # Errors
    /// A result is wrong.
    fn check(&mut self) -> Result<(), Failure>;
}

/// A workload, by name: see [`WORKLOADS`](crate::WORKLOADS).
#[derive(Debug)]
pub struct Entry {
    /// The name on the command line and in tables.
    pub name: &'static str,
    /// What one operation is.
    pub operation: &'static str,
    pub(crate) make: fn() -> Result<Box<dyn Workload>, Failure>,
}

impl Entry {
    /// Sets up the server and the clients of the workload.
    ///
    /// # Errors
    /// The set-up failed. The text says why.
    pub fn rounds(&self) -> Result<Rounds, Failure> {
        let workload = (self.make)().map_err(|why| format!("{}: {why}", self.name))?;
        Ok(Rounds {
            name: self.name,
            workload,
            is_checked: true,
        })
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// A running workload. It makes sure that the results of each pass are checked.
pub struct Rounds {
    name: &'static str,
    workload: Box<dyn Workload>,
    is_checked: bool,
}

impl Rounds {
    /// How many operations a pass consists of.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.workload.operations()
    }

    /// Checks the last pass and prepares the next one.
    ///
    /// # Errors
    /// The last pass gave a wrong result, or the next input could not be made.
    pub fn prepare(&mut self) -> Result<(), Failure> {
        self.check()?;
        self.workload
            .prepare()
            .map_err(|why| format!("{}: {why}", self.name))
    }

    /// The pass itself.
    pub fn pass(&mut self) {
        self.is_checked = false;
        self.workload.pass();
    }

    /// Checks the last pass, unless that was done already.
    ///
    /// # Errors
    /// A result is wrong.
    pub fn check(&mut self) -> Result<(), Failure> {
        if !std::mem::replace(&mut self.is_checked, true) {
            self.workload
                .check()
                .map_err(|why| format!("{}: wrong: {why}", self.name))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a wrong result in its third pass.
    struct Forgetful(u64);

    impl Workload for Forgetful {
        fn operations(&self) -> u64 {
            1
        }

        fn prepare(&mut self) -> Result<(), Failure> {
            Ok(())
        }

        fn pass(&mut self) {
            self.0 += 1;
        }

        fn check(&mut self) -> Result<(), Failure> {
            (self.0 < 3).then_some(()).ok_or_else(|| "forgot".into())
        }
    }

    #[test]
    fn a_wrong_pass_is_reported_before_the_next_and_at_the_end() {
        let rounds = || Rounds {
            name: "forgetful",
            workload: Box::new(Forgetful(0)),
            is_checked: true,
        };
        let wrong = Err("forgetful: wrong: forgot".to_owned());
        let (mut next, mut last) = (rounds(), rounds());
        for rounds in [&mut next, &mut last] {
            for _ in 0..3 {
                assert_eq!(rounds.prepare(), Ok(()));
                rounds.pass();
            }
        }
        assert_eq!(next.prepare(), wrong);
        assert_eq!(last.check(), wrong);
    }
}
