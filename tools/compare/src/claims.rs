//! The claims of published reports on this project, and what was measured here about each.
//!
//! The reports are by students of UCLA's CS 131, which has set the project since 2016. Each is in a
//! public repository. The claims are paraphrased here. They are about asyncio and machines of their
//! time. So a verdict here is about this machine and these versions. It does not judge a report.

use crate::figures::{Figures, HEADLINE, Metric, PATIENT, Setting};

/// A claim and its test.
#[derive(Debug)]
pub struct Claim {
    /// The author.
    pub author: &'static str,
    /// The year.
    pub year: u16,
    /// The repository on GitHub, or another source.
    pub found: &'static str,
    /// The claim, paraphrased.
    pub says: &'static str,
    test: Test,
}

/// The test that confirms a claim.
#[derive(Debug)]
enum Test {
    /// The first world's figure is at least so many times the second's.
    AtLeast(f64, Metric, &'static str, &'static str),
    /// The first world's figure is at most so many times the second's.
    AtMost(f64, Metric, &'static str, &'static str),
    /// Neither figure is more than so many times the other.
    Alike(f64, Metric, &'static str, &'static str),
    /// Under the first load, compared with the second, the first world loses more of its throughput
    /// than the other.
    LosesMore(Setting, Setting, &'static str, &'static str),
    /// The claim is not measured here, for this reason.
    Not(&'static str),
}

/// The result of a claim's test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The claim holds here.
    Confirmed,
    /// The claim does not hold here.
    Refuted,
    /// The figures are too near to the border, compared with their spread.
    Undecided,
    /// There is no figure.
    NotMeasured,
}

/// A verdict and its evidence.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// The verdict.
    pub verdict: Verdict,
    /// The compared figures.
    pub evidence: Evidence,
}

/// The figures behind a verdict.
#[derive(Clone, Debug, PartialEq)]
pub enum Evidence {
    /// The figures of two worlds, and their ratio.
    Two {
        /// The metric of both.
        metric: Metric,
        /// The first world and its median.
        first: (&'static str, f64),
        /// The second world and its median.
        second: (&'static str, f64),
        /// The first median divided by the second.
        ratio: f64,
    },
    /// The part of its throughput that each of two worlds kept.
    Kept {
        /// The load under test.
        at: Setting,
        /// The load that it is compared with.
        before: Setting,
        /// The first world, and the part that it kept.
        first: (&'static str, f64),
        /// The second world, and the part that it kept.
        second: (&'static str, f64),
    },
    /// Why there is no figure.
    None(&'static str),
}

/// Figures within this factor count as alike.
const ALIKE: f64 = 1.25;
const RATE: Metric = Metric::Rate(HEADLINE);
/// Many small exchanges, with a wait for each answer. That is what the reports mean by much input
/// and output.
const SMALL: Metric = Metric::Rate(PATIENT);
const ONE_CORE: &str =
    "Not measured: every server has one core here, so the effect of a second core does not show.";
const NOT_A_FIGURE: &str = "Not measured: the claim is about how easy a program is to write, and this compares running programs.";

/// All claims, by subject.
pub const CLAIMS: &[Claim] = &[
    Claim {
        author: "Naim Ayat",
        year: 2018,
        found: "NaimAyat/UCLA_CS131",
        says: "On the same hardware, asyncio is certain to be faster than Node.js.",
        test: Test::AtLeast(1.0, RATE, "streams", "node"),
    },
    Claim {
        author: "Naim Ayat",
        year: 2018,
        found: "NaimAyat/UCLA_CS131",
        says: "With frequent input and output, Node.js is much slower than asyncio.",
        test: Test::AtLeast(1.5, SMALL, "streams", "node"),
    },
    Claim {
        author: "Mert Dusunceli",
        year: 2018,
        found: "mertdusunceli/application-server-herd",
        says: "Node.js has a name for being much faster than other languages, Python included.",
        test: Test::AtLeast(1.5, RATE, "node", "streams"),
    },
    Claim {
        author: "Yunze Long",
        year: 2020,
        found: "YunzeLong/Proxy-Herd-with-asyncio",
        says: "Node.js will probably perform better at run time than asyncio.",
        test: Test::AtLeast(1.0, RATE, "node", "streams"),
    },
    Claim {
        author: "Yunze Long",
        year: 2020,
        found: "YunzeLong/Proxy-Herd-with-asyncio",
        says: "Node.js will probably ask more of the processor than asyncio.",
        test: Test::AtLeast(1.0, Metric::Cpu(HEADLINE), "node", "streams"),
    },
    Claim {
        author: "Emmett Cocke",
        year: 2022,
        found: "Emmettlsc/proxy-herd",
        says: "For a server that has little to compute, Node.js is the better choice than asyncio.",
        test: Test::AtLeast(1.0, SMALL, "node", "streams"),
    },
    Claim {
        author: "Sophia Sharif",
        year: 2024,
        found: "sophiasharif/CS131",
        says: "For work that is mostly input and output, Node.js and asyncio perform alike.",
        test: Test::Alike(ALIKE, SMALL, "node", "streams"),
    },
    Claim {
        author: "Robert Geil",
        year: 2019,
        found: "Infirmarian/cs131",
        says: "Python's interpreter is slower than languages that compile while they run, such as Java.",
        test: Test::AtLeast(1.0, RATE, "java-nio", "streams"),
    },
    Claim {
        author: "Robert Geil",
        year: 2019,
        found: "Infirmarian/cs131",
        says: "It is much slower than a compiled language (C or C++ there; Rust and Go here).",
        test: Test::AtLeast(2.0, RATE, "tokio", "streams"),
    },
    Claim {
        author: "Derek Vance",
        year: 2021,
        found: "derekvance21/proxy-server-herd",
        says: "Checking types while it runs may make Python answer later than Java, though next to the network that is negligible.",
        test: Test::AtLeast(1.0, Metric::P50(PATIENT), "streams", "java-nio"),
    },
    Claim {
        author: "Scott Bauersfeld",
        year: 2019,
        found: "sbauersfeld/AsyncServerHerd",
        says: "Where servers mostly wait for input and output, Java's threads and Python come out similarly.",
        test: Test::Alike(ALIKE, SMALL, "java-threads", "streams"),
    },
    Claim {
        author: "Richard Khillah",
        year: 2023,
        found: "richardkhillah/server-herd",
        says: "Threads in Java would not make the herd any faster.",
        test: Test::AtMost(1.0, RATE, "java-threads", "java-nio"),
    },
    Claim {
        author: "Fang Yujie",
        year: 2018,
        found: "Michelle-Fyj/Proxy-herd-with-asyncio",
        says: "A single thread should be slower than many threads.",
        test: Test::AtMost(1.0, SMALL, "java-nio", "java-threads"),
    },
    Claim {
        author: "Sophia Sharif",
        year: 2024,
        found: "sophiasharif/CS131",
        says: "Coroutines have less overhead than Java's threads.",
        test: Test::AtMost(1.0, Metric::Cpu(PATIENT), "streams", "java-threads"),
    },
    Claim {
        author: "Andrew Duong",
        year: 2025,
        found: "aandrewduong/asyncio-proxy-herd",
        says: "Threads in Java take more memory than coroutines.",
        test: Test::AtLeast(1.0, Metric::Idle, "java-threads", "streams"),
    },
    Claim {
        author: "Aris Luk",
        year: 2021,
        found: "arisluk/AsyncioServerHerd",
        says: "Java's way of collecting garbage takes up a lot more memory than Python's.",
        test: Test::AtLeast(1.5, Metric::Memory, "java-nio", "streams"),
    },
    Claim {
        author: "Richard Khillah",
        year: 2023,
        found: "richardkhillah/server-herd",
        says: "Java's collector stops the program now and then; if that showed, its slowest answers would be later than Python's.",
        test: Test::AtLeast(1.0, Metric::P999(PATIENT), "java-nio", "streams"),
    },
    Claim {
        author: "Ken Gu",
        year: 2018,
        found: "codeKgu/Server-Proxy-Herd",
        says: "With more and more connections, a thread for each becomes heavier than an event loop.",
        test: Test::LosesMore(Setting::new(500, 1), PATIENT, "java-threads", "java-nio"),
    },
    Claim {
        author: "Yury Selivanov (uvloop's author, not a report)",
        year: 2016,
        found: "magic.io/blog/uvloop-blazing-fast-python-networking",
        says: "asyncio on uvloop comes close to Go.",
        test: Test::AtLeast(0.8, RATE, "uvloop", "go"),
    },
    Claim {
        author: "Yury Selivanov (uvloop's author, not a report)",
        year: 2016,
        found: "magic.io/blog/uvloop-blazing-fast-python-networking",
        says: "asyncio on uvloop is at least twice as fast as Node.js.",
        test: Test::AtLeast(2.0, RATE, "uvloop", "node"),
    },
    Claim {
        author: "Aris Luk",
        year: 2021,
        found: "arisluk/AsyncioServerHerd",
        says: "On one thread, asyncio will not scale as a language with threads does.",
        test: Test::Not(ONE_CORE),
    },
    Claim {
        author: "Sophia Sharif",
        year: 2024,
        found: "sophiasharif/CS131",
        says: "Because of Python's global lock, coroutines cannot use more than one core.",
        test: Test::Not(ONE_CORE),
    },
    Claim {
        author: "Sophia Sharif",
        year: 2024,
        found: "sophiasharif/CS131",
        says: "Types that are checked only at run time make a program less reliable.",
        test: Test::Not(
            "Not measured: all servers pass the same transcripts, and mistakes during their development were not counted.",
        ),
    },
    Claim {
        author: "Robert Geil",
        year: 2019,
        found: "Infirmarian/cs131",
        says: "A server more in the herd takes only small changes of the program.",
        test: Test::Not(NOT_A_FIGURE),
    },
];

impl Claim {
    /// The verdict with these figures.
    #[must_use]
    pub fn finding(&self, figures: &Figures) -> Finding {
        match self.test {
            Test::AtLeast(border, metric, first, second) => {
                two(figures, metric, first, second, |ratio, slack| {
                    side(ratio, border, slack)
                })
            }
            Test::AtMost(border, metric, first, second) => {
                two(figures, metric, first, second, |ratio, slack| {
                    opposite(side(ratio, border, slack))
                })
            }
            Test::Alike(border, metric, first, second) => {
                two(figures, metric, first, second, |ratio, slack| {
                    let apart = if ratio < 1.0 { 1.0 / ratio } else { ratio };
                    opposite(side(apart, border, slack))
                })
            }
            Test::LosesMore(at, before, first, second) => {
                loses_more(figures, at, before, first, second)
            }
            Test::Not(reason) => not_measured(reason),
        }
    }
}

fn not_measured(reason: &'static str) -> Finding {
    Finding {
        verdict: Verdict::NotMeasured,
        evidence: Evidence::None(reason),
    }
}

const MISSING: &str = "Not measured in this run: one of the two worlds has no figure.";

fn two(
    figures: &Figures,
    metric: Metric,
    first: &'static str,
    second: &'static str,
    judge: impl FnOnce(f64, f64) -> Verdict,
) -> Finding {
    let both = figures
        .median(first, metric)
        .zip(figures.median(second, metric));
    let Some((of_first, of_second)) = both.filter(|(_, second)| *second > 0.0) else {
        return not_measured(MISSING);
    };
    let ratio = of_first / of_second;
    let slack = spread(figures, first, metric) + spread(figures, second, metric);
    Finding {
        verdict: judge(ratio, slack),
        evidence: Evidence::Two {
            metric,
            first: (first, of_first),
            second: (second, of_second),
            ratio,
        },
    }
}

fn loses_more(
    figures: &Figures,
    at: Setting,
    before: Setting,
    first: &'static str,
    second: &'static str,
) -> Finding {
    let kept = |who| {
        let then = figures
            .median(who, Metric::Rate(before))
            .filter(|rate| *rate > 0.0)?;
        Some(figures.median(who, Metric::Rate(at))? / then)
    };
    let Some((of_first, of_second)) = kept(first).zip(kept(second)) else {
        return not_measured(MISSING);
    };
    let each =
        |who| spread(figures, who, Metric::Rate(at)) + spread(figures, who, Metric::Rate(before));
    Finding {
        verdict: side(of_second / of_first, 1.0, each(first) + each(second)),
        evidence: Evidence::Kept {
            at,
            before,
            first: (first, of_first),
            second: (second, of_second),
        },
    }
}

/// The spread of a figure. If it is unknown, 5 % are assumed.
fn spread(figures: &Figures, who: &str, metric: Metric) -> f64 {
    let sample = figures.sample(who, metric);
    sample.and_then(|sample| sample.spread()).unwrap_or(0.05)
}

/// The side of the border on which a ratio is. `slack` is its possible error, as a part of it.
fn side(ratio: f64, border: f64, slack: f64) -> Verdict {
    if (ratio / border - 1.0).abs() <= slack.min(0.5) {
        Verdict::Undecided
    } else if ratio > border {
        Verdict::Confirmed
    } else {
        Verdict::Refuted
    }
}

fn opposite(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::Confirmed => Verdict::Refuted,
        Verdict::Refuted => Verdict::Confirmed,
        Verdict::Undecided | Verdict::NotMeasured => verdict,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(of: &[(&'static str, Metric, f64)]) -> Figures {
        let mut figures = Figures::default();
        for (who, metric, value) in of {
            for part in [0.99, 1.0, 1.01] {
                figures.push(who, *metric, value * part);
            }
        }
        figures
    }

    fn verdict(test: Test, of: &[(&'static str, Metric, f64)]) -> Verdict {
        let claim = Claim {
            author: "",
            year: 2000,
            found: "",
            says: "",
            test,
        };
        claim.finding(&figures(of)).verdict
    }

    #[test]
    fn claims_are_confirmed_refuted_or_undecided() {
        let rates = |of_first, of_second| [("node", RATE, of_first), ("streams", RATE, of_second)];
        let faster = || Test::AtLeast(1.0, RATE, "node", "streams");
        assert_eq!(verdict(faster(), &rates(200.0, 100.0)), Verdict::Confirmed);
        assert_eq!(verdict(faster(), &rates(100.0, 200.0)), Verdict::Refuted);
        assert_eq!(verdict(faster(), &rates(101.0, 100.0)), Verdict::Undecided);
        assert_eq!(
            verdict(faster(), &[("node", RATE, 1.0)]),
            Verdict::NotMeasured
        );
        let slower = || Test::AtMost(1.0, RATE, "node", "streams");
        assert_eq!(verdict(slower(), &rates(100.0, 200.0)), Verdict::Confirmed);
        let alike = || Test::Alike(1.25, RATE, "node", "streams");
        assert_eq!(verdict(alike(), &rates(110.0, 100.0)), Verdict::Confirmed);
        assert_eq!(verdict(alike(), &rates(100.0, 110.0)), Verdict::Confirmed);
        assert_eq!(verdict(alike(), &rates(100.0, 200.0)), Verdict::Refuted);
        assert_eq!(verdict(Test::Not("x"), &[]), Verdict::NotMeasured);
    }

    #[test]
    fn loses_more_compares_the_remaining_throughput() {
        let (few, many) = (PATIENT, Setting::new(500, 1));
        let test = || Test::LosesMore(many, few, "java-threads", "java-nio");
        let of = |threads| {
            [
                ("java-threads", Metric::Rate(few), 100.0),
                ("java-threads", Metric::Rate(many), threads),
                ("java-nio", Metric::Rate(few), 50.0),
                ("java-nio", Metric::Rate(many), 50.0),
            ]
        };
        assert_eq!(verdict(test(), &of(50.0)), Verdict::Confirmed);
        assert_eq!(verdict(test(), &of(200.0)), Verdict::Refuted);
        assert_eq!(verdict(test(), &of(100.0)), Verdict::Undecided);
    }

    #[test]
    fn every_claim_names_existing_worlds() {
        for claim in CLAIMS {
            let (first, second) = match claim.test {
                Test::AtLeast(_, _, first, second)
                | Test::AtMost(_, _, first, second)
                | Test::Alike(_, _, first, second)
                | Test::LosesMore(_, _, first, second) => (first, second),
                Test::Not(_) => continue,
            };
            assert!(
                crate::worlds::by_name(first).is_some() && crate::worlds::by_name(second).is_some()
            );
            assert!(claim.says.ends_with('.') && (2016..=2026).contains(&claim.year));
        }
        let authors: std::collections::HashSet<_> =
            CLAIMS.iter().map(|claim| claim.author).collect();
        assert!(authors.len() >= 6);
    }
}
