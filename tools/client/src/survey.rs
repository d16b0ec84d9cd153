//! Asks all servers in parallel, with one time limit for all of them.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::standing::{Done, Standing, Wish, ask_for};
use herd_mio::config::Member;
use herd_mio::core::base::settings::{NeighbourTls, Secrets};
use herd_testkit::clock::{self, now};

/// The answer of a server.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) standing: Standing,
    /// The milliseconds by which the server's clock is certainly ahead of this machine's. The time
    /// of the question is not counted.
    pub(crate) ahead_ms: i128,
    /// Whether it refused the first of this program's secrets, and took the second.
    pub(crate) refused_primary: bool,
    /// The result of the `wish`, if the question has one.
    pub(crate) done: Option<Done>,
}

/// A server, and its answer or the reason why there is none.
pub(crate) struct Asked {
    pub(crate) name: String,
    pub(crate) answer: Result<Answer, String>,
}

/// The parts that all questions share.
pub(crate) struct Question {
    pub(crate) secrets: Secrets,
    pub(crate) tls: Option<NeighbourTls>,
    pub(crate) timeout: Duration,
    /// What the server has to do besides sending its status, if anything.
    pub(crate) wish: Option<Wish>,
}

/// This machine's wall clock, in milliseconds since 1970.
fn wall_ms() -> i128 {
    clock::since_1970().as_millis() as i128
}

/// Asks these servers. A slow name look-up does not delay the result.
pub(crate) fn ask_all(members: &[&Member], question: Question) -> Vec<Asked> {
    let until = now() + question.timeout;
    let question = Arc::new(question);
    let (report, answers) = channel();
    let mut is_found = HashMap::new();
    for member in members {
        let found = Arc::new(AtomicBool::new(false));
        is_found.insert(member.name.clone(), found.clone());
        ask_in_background(member, question.clone(), found, until, report.clone());
    }
    drop(report);
    let mut found = HashMap::new();
    // A little more than the limit of each thread, because its own message about a timeout is
    // better.
    let last = until + Duration::from_millis(200);
    while found.len() < members.len() {
        match answers.recv_timeout(last.saturating_duration_since(now())) {
            Ok((name, answer)) => found.insert(name, answer),
            Err(_) => break, // too late, or all threads have ended
        };
    }
    let seconds = question.timeout.as_secs_f64();
    let late = |name: &String| {
        let is_found = is_found
            .get(name)
            .is_some_and(|it| it.load(Ordering::Relaxed));
        Err(match is_found {
            true => format!("it sent nothing for {seconds} s"),
            false => format!("the look-up of its name took longer than {seconds} s"),
        })
    };
    members
        .iter()
        .map(|member| Asked {
            name: member.name.clone(),
            answer: found
                .remove(&member.name)
                .unwrap_or_else(|| late(&member.name)),
        })
        .collect()
}

fn ask_in_background(
    member: &Member,
    question: Arc<Question>,
    is_found: Arc<AtomicBool>,
    until: Instant,
    report: Sender<(String, Result<Answer, String>)>,
) {
    let member = member.clone();
    let failed = (member.name.clone(), report.clone());
    let ask = move || {
        let answer = ask(&member, &question, &is_found, until);
        let _ = report.send((member.name, answer)); // Fails if the survey is over.
    };
    if let Err(error) = thread::Builder::new().spawn(ask) {
        let (name, report) = failed;
        let _ = report.send((
            name,
            Err(format!("cannot start a thread to ask it: {error}")),
        ));
    }
}

/// Asks one server, at each address of its name.
fn ask(
    member: &Member,
    question: &Question,
    is_found: &AtomicBool,
    until: Instant,
) -> Result<Answer, String> {
    let address = member
        .peers
        .as_ref()
        .ok_or("it has no address for neighbours")?;
    let found: Vec<_> = (address.host.as_str(), address.port)
        .to_socket_addrs()
        .map_err(|error| error.to_string())?
        .collect();
    is_found.store(true, Ordering::Relaxed);
    // The time for each address. The operator's limit is divided evenly.
    let share = question.timeout / u32::try_from(found.len()).unwrap_or(u32::MAX).max(1);
    let mut failure = "the look-up of its name gave no address".to_owned();
    let mut left_to_try = u32::try_from(found.len()).unwrap_or(u32::MAX);
    for address in found {
        let left = until.saturating_duration_since(now()) / left_to_try.max(1);
        left_to_try = left_to_try.saturating_sub(1);
        if left.is_zero() {
            break;
        }
        let (secrets, tls) = (&question.secrets, question.tls.as_ref());
        for secret in secrets.accepted() {
            let before = wall_ms();
            let wish = question.wish.as_ref();
            match ask_for(address, &member.name, secret, tls, wish, left) {
                Ok((mut standing, done)) => {
                    // Without TLS in the herd's file, plain links are no problem.
                    standing.plain = standing.plain.filter(|_| tls.is_some());
                    let wall = standing.wall.map(|wall| i128::from(wall / 1_000_000));
                    let ahead_ms = wall.map_or(0, |wall| beside(wall, before, wall_ms()));
                    return Ok(Answer {
                        standing,
                        ahead_ms,
                        refused_primary: secret != secrets.primary(),
                        done,
                    });
                }
                Err(error) if error.kind() == ErrorKind::TimedOut => {
                    failure = format!("{address}: it sent nothing for {} s", share.as_secs_f64());
                    break;
                }
                Err(error) => {
                    failure = format!("{address}: {error}");
                    // A wrong proof is refused at once, so the second secret has enough time.
                    if !crate::standing::is_wrong_proof(&error) {
                        break;
                    }
                }
            }
        }
    }
    Err(failure)
}

/// How far a clock is certainly ahead, if it showed `wall` between `before` and `after`.
fn beside(wall: i128, before: i128, after: i128) -> i128 {
    if wall > after {
        wall - after
    } else if wall < before {
        wall - before
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_answer_is_not_taken_for_a_clock_offset() {
        assert_eq!(beside(1_500, 1_000, 4_000), 0);
        assert_eq!(beside(4_700, 1_000, 4_000), 700);
        assert_eq!(beside(100, 1_000, 4_000), -900);
    }
}
