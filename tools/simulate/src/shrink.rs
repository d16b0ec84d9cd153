//! Makes a failing case smaller. It removes faults and clients, as long as the case still fails
//! (the simplest form of delta debugging, Zeller 1999).

use crate::plan::{Case, Plan};
use crate::world;

/// The greatest number of runs.
const MOST_RUNS: usize = 150;

/// The smallest case found that still fails in the same way.
pub(crate) fn shrink(case: &Case) -> Case {
    let mut best = case.clone();
    let Some(plan) = Plan::new(case) else {
        return best;
    };
    let Some(wanted) = failure(case) else {
        return best;
    };
    let mut runs = 0;
    let mut faults: Vec<usize> = plan.faults.iter().map(|fault| fault.number).collect();
    let mut sessions: Vec<usize> = plan.sessions.iter().map(|session| session.number).collect();
    sessions.extend(plan.forgets.iter().map(|forget| forget.number));
    reduce(&mut faults, &mut runs, |kept| {
        still_fails(&mut best, &wanted, |case| case.faults = Some(kept.to_vec()))
    });
    reduce(&mut sessions, &mut runs, |kept| {
        still_fails(&mut best, &wanted, |case| {
            case.sessions = Some(kept.to_vec())
        })
    });
    best
}

/// The failure of a case, without numbers and quoted text, which differ from case to case.
fn failure(case: &Case) -> Option<String> {
    let failure = world::run(Plan::new(case)?, false).failure?;
    let outside_quotes = failure.what.split('"').step_by(2);
    Some(
        outside_quotes
            .flat_map(str::chars)
            .filter(|c| c.is_alphabetic())
            .collect(),
    )
}

fn still_fails(best: &mut Case, wanted: &str, change: impl FnOnce(&mut Case)) -> bool {
    let mut tried = best.clone();
    change(&mut tried);
    let fails = failure(&tried).as_deref() == Some(wanted);
    if fails {
        *best = tried;
    }
    fails
}

/// Removes half of the elements, then a quarter, … then one, wherever `works` allows it.
fn reduce(kept: &mut Vec<usize>, runs: &mut usize, mut works: impl FnMut(&[usize]) -> bool) {
    let mut size = kept.len().div_ceil(2);
    while size > 0 {
        let mut start = 0;
        while start < kept.len() && *runs < MOST_RUNS {
            let end = (start + size).min(kept.len());
            let rest: Vec<usize> = [&kept[..start], &kept[end..]].concat();
            *runs += 1;
            if works(&rest) {
                *kept = rest;
            } else {
                start = end;
            }
        }
        size /= 2;
    }
}
