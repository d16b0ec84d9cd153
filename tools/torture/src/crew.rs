//! Runs cases in parallel: a few threads take one case after the other, and report each result.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

use crate::case::Case;

/// Runs all cases, `jobs` at a time, and calls `on_report` for each report. After the first error,
/// or when `is_stopped` returns true, no new case begins.
///
/// # Errors
/// The first error of a run.
pub(crate) fn do_all<R: Send>(
    cases: &[Case],
    jobs: usize,
    is_stopped: impl Fn() -> bool + Sync,
    run: impl Fn(&Case) -> Result<R, String> + Sync,
    mut on_report: impl FnMut(R),
) -> Result<(), String> {
    let next = AtomicUsize::new(0);
    let (sender, reports) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            let (sender, next, run, is_stopped) = (sender.clone(), &next, &run, &is_stopped);
            scope.spawn(move || {
                while !is_stopped() {
                    let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) else {
                        return;
                    };
                    let report = run(case).map_err(|error| format!("{case}: {error}"));
                    if report.is_err() {
                        next.store(cases.len(), Ordering::Relaxed);
                    }
                    // Fails only if the receiver is gone.
                    let _ = sender.send(report);
                }
            });
        }
        drop(sender);
        let mut first_error = Ok(());
        for report in reports {
            match (report, &first_error) {
                (Ok(report), Ok(())) => on_report(report),
                (Err(error), Ok(())) => first_error = Err(error),
                (_, Err(_)) => {}
            }
        }
        first_error
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Only;
    use std::sync::atomic::AtomicBool;

    fn cases(count: u32) -> Vec<Case> {
        (1..=count)
            .map(|n| {
                format!("read:EIO:{n}")
                    .parse::<Only>()
                    .unwrap()
                    .case()
                    .unwrap()
            })
            .collect()
    }

    #[test]
    fn each_case_is_run_once() {
        let mut told = Vec::new();
        let run = |case: &Case| Ok(case.to_string());
        do_all(&cases(50), 3, || false, run, |case| told.push(case)).unwrap();
        told.sort();
        let mut expected: Vec<String> = cases(50).iter().map(Case::to_string).collect();
        expected.sort();
        assert_eq!(told, expected);
    }

    #[test]
    fn no_case_is_started_after_an_error_or_a_stop() {
        let run = |case: &Case| match case.to_string().as_str() {
            "read:EIO:3" => Err("no disk".to_owned()),
            other => Ok(other.to_owned()),
        };
        let mut told = Vec::new();
        let done = do_all(&cases(50), 1, || false, run, |case| told.push(case));
        assert_eq!(done, Err("read:EIO:3: no disk".to_owned()));
        assert_eq!(told, ["read:EIO:1", "read:EIO:2"]);

        let stopped = AtomicBool::new(false);
        let run = |_: &Case| {
            stopped.store(true, Ordering::Relaxed);
            Ok(())
        };
        let is_stopped = || stopped.load(Ordering::Relaxed);
        let mut count = 0;
        do_all(&cases(50), 1, is_stopped, run, |()| count += 1).unwrap();
        assert_eq!(count, 1);
    }
}
