//! The faults to try: the calls of the census with the errors of the catalogue, within bounds.
//!
//! For each target, the first calls of the start and of the conversation fail with every error.
//! Later calls fail only with the likeliest error. Then come lasting faults, from the first call on
//! and from the first call of the conversation on. If the error cannot last, a burst of failures
//! takes the place of a lasting fault.

use std::collections::{BTreeSet, HashSet};

use crate::case::{Case, DELAY, When};
use crate::catalogue::{Entry, burst, entry};
use crate::census::{Reach, Row};

/// So many calls of the start, and so many of the conversation, fail with every error.
const EACH: u32 = 3;
/// At most so many later calls, spread evenly, fail with the likeliest error.
const LATER: u32 = 16;

/// The number of faults to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// One call of each target, with its likeliest error.
    Quick,
    /// All faults that the module describes.
    Full,
}

/// All cases, in the order of the census.
pub(crate) fn plan(rows: &[Row], depth: Depth) -> Vec<Case> {
    let mut cases = Vec::new();
    for row in rows {
        let Entry::Fail(errors) = entry(&row.target) else {
            continue;
        };
        for (index, error) in errors.iter().enumerate() {
            let times = match depth {
                Depth::Quick if index > 0 => continue,
                Depth::Quick => vec![When::Nth(quick(row.reach))],
                Depth::Full => full(row.reach, index == 0, error),
            };
            cases.extend(times.into_iter().map(|when| Case {
                target: row.target.clone(),
                error: (*error).to_owned(),
                when,
            }));
        }
    }
    // No two rows share a target, and no two errors of a row share a case.
    debug_assert_eq!(cases.iter().collect::<HashSet<_>>().len(), cases.len());
    cases
}

/// The first call of the conversation, or of the start if the conversation has none.
fn quick(reach: Reach) -> u32 {
    if reach.end > reach.ready {
        reach.ready + 1
    } else {
        reach.loaded + 1
    }
}

fn full(reach: Reach, is_likeliest: bool, error: &str) -> Vec<When> {
    let Reach { loaded, ready, end } = reach;
    let mut single: BTreeSet<u32> = (loaded + 1..=ready).take(EACH as usize).collect();
    single.extend((ready + 1..=end).take(EACH as usize));
    if is_likeliest {
        let later = later(ready.min(loaded + EACH) + 1, ready).chain(later(ready + EACH + 1, end));
        single.extend(later);
    }
    let mut times: Vec<When> = single.into_iter().map(When::Nth).collect();
    if error == DELAY {
        return times; // --only can delay every call.
    }
    let mut firsts = vec![loaded + 1];
    if ready > loaded && end > ready {
        firsts.push(ready + 1);
    }
    // A call that only the start makes, and only once, needs no lasting fault: a single failure is
    // the same.
    firsts.retain(|_| end > ready || ready - loaded > 1);
    times.extend(firsts.into_iter().map(|first| match burst(error) {
        Some(length) => When::Burst(first, first + length - 1),
        None => When::From(first),
    }));
    times
}

/// At most `LATER` numbers of `first..=last`, with the last among them.
fn later(first: u32, last: u32) -> impl Iterator<Item = u32> {
    let count = (last + 1).saturating_sub(first);
    let chosen = count.min(LATER);
    (1..=chosen).map(move |part| first - 1 + count * part / chosen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Target;

    fn row(call: &str, loaded: u32, ready: u32, end: u32) -> Row {
        Row {
            target: Target {
                call: call.to_owned(),
                object: None,
            },
            starting: ready - loaded,
            serving: end - ready,
            reach: Reach { loaded, ready, end },
        }
    }

    fn written(cases: &[Case]) -> Vec<String> {
        cases.iter().map(Case::to_string).collect()
    }

    #[test]
    fn the_quick_plan_has_one_case_for_each_row() {
        let rows = [
            row("accept4", 0, 0, 9),
            row("listen", 0, 4, 4),
            row("openat", 3, 9, 12),
            row("mmap", 9, 20, 30),
            row("quotactl", 0, 0, 1),
        ];
        assert_eq!(
            written(&plan(&rows, Depth::Quick)),
            [
                "accept4:EMFILE:1",
                "listen:EADDRINUSE:1",
                "openat:EMFILE:10"
            ]
        );
    }

    #[test]
    fn the_full_plan_has_first_later_and_endless_faults() {
        let cases = plan(&[row("listen", 0, 2, 2)], Depth::Full);
        let expected = [
            "listen:EADDRINUSE:1",
            "listen:EADDRINUSE:2",
            "listen:EADDRINUSE:1+",
        ];
        assert_eq!(written(&cases), expected);

        let cases = plan(&[row("shutdown", 0, 0, 35)], Depth::Full);
        let times: Vec<String> = cases.iter().map(|case| case.when.to_string()).collect();
        let later = (5..=35).step_by(2).map(|n| n.to_string());
        let first = ["1", "2", "3"].map(str::to_owned);
        let expected: Vec<String> = first
            .into_iter()
            .chain(later)
            .chain(["1+".to_owned()])
            .collect();
        assert_eq!(times, expected);
    }

    #[test]
    fn a_call_made_once_at_the_start_fails_once() {
        let cases = plan(&[row("mkdir", 0, 1, 1)], Depth::Full);
        assert_eq!(written(&cases), ["mkdir:ENOSPC:1", "mkdir:EACCES:1"]);
    }

    #[test]
    fn loader_calls_are_skipped_and_eintr_is_not_endless() {
        let cases = plan(&[row("getrandom", 1, 6, 8)], Depth::Full);
        assert_eq!(
            written(&cases),
            [
                "getrandom:ENOSYS:2",
                "getrandom:ENOSYS:3",
                "getrandom:ENOSYS:4",
                "getrandom:ENOSYS:5",
                "getrandom:ENOSYS:6",
                "getrandom:ENOSYS:7",
                "getrandom:ENOSYS:8",
                "getrandom:ENOSYS:2+",
                "getrandom:ENOSYS:7+",
                "getrandom:EINTR:2",
                "getrandom:EINTR:3",
                "getrandom:EINTR:4",
                "getrandom:EINTR:7",
                "getrandom:EINTR:8",
                "getrandom:EINTR:2..6",
                "getrandom:EINTR:7..11",
            ]
        );
    }

    #[test]
    fn a_call_is_delayed_once() {
        let cases = plan(&[row("rename", 0, 0, 1)], Depth::Full);
        let late: Vec<String> = written(&cases)
            .into_iter()
            .filter(|case| case.contains(DELAY))
            .collect();
        assert_eq!(late, ["rename:DELAY:1"]);
    }

    #[test]
    fn later_calls_are_spread_evenly_up_to_the_last() {
        let later = |first, last| super::later(first, last).collect::<Vec<u32>>();
        assert!(later(4, 3).is_empty());
        assert_eq!(later(4, 4), [4]);
        assert_eq!(later(4, 6), [4, 5, 6]);
        let many = later(1, 160);
        assert_eq!((many.len(), many[0], many[15]), (16, 10, 160));
    }
}
