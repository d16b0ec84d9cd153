//! One suite of transcripts with the answers that a client gets. It covers every row of the
//! protocol's tables.
//!
//! The suite is played against herd-mio, also behind a proxy's header. It is played against the
//! same server in other languages too. The server's name is Riley, and it asks a stand-in for
//! Google Places.

#![allow(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use std::io::Write;
use std::thread;

use crate::client::{Client, without_skew};
use crate::clock;

mod near_misses;

/// Makes connections to the server.
pub type Connect<'a> = dyn Fn() -> Client + 'a;

/// Some implementations have clocks of milliseconds, and read them before or after they compute.
const CLOCK_TOLERANCE_NS: i128 = 5_000_000;

/// A conversation with a name.
#[derive(Clone, Copy, Debug)]
pub struct Transcript {
    /// The name that a failure shows.
    pub name: &'static str,
    play: fn(&Connect<'_>),
}

/// All transcripts. Each uses its own clients, so they may be played in any order.
pub const TRANSCRIPTS: [Transcript; 13] = [
    of("IAMAT is answered with AT", iamat),
    of("the skew is receipt minus stamp", skews),
    of(
        "names and numbers come back as they were written",
        names_and_numbers,
    ),
    of("white space is C's and no other", white_space),
    of(
        "a line that is no command is quoted back",
        what_is_no_command,
    ),
    of("locations are ISO 6709 degrees", locations),
    of("times are plain decimals", times),
    of("radius and bound have their ranges", radii_and_bounds),
    of(
        "an older IAMAT changes nothing, and a far one freezes nothing",
        order,
    ),
    of("a clock that is a minute ahead", a_minute_ahead),
    of("bytes become lines, however they come", framing),
    of("a line has at most 4,096 bytes", too_long),
    of("lines that are nearly commands", near_misses::near_misses),
];

const fn of(name: &'static str, play: fn(&Connect<'_>)) -> Transcript {
    Transcript { name, play }
}

impl Transcript {
    /// Plays the transcript. An unexpected answer panics.
    pub fn play(&self, connect: &Connect<'_>) {
        let _name = OnFailure(self.name);
        (self.play)(connect);
    }
}

/// Names the transcript when a panic unwinds.
struct OnFailure(&'static str);

impl Drop for OnFailure {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("--- the transcript: {}", self.0);
        }
    }
}

fn iamat(connect: &Connect<'_>) {
    let mut client = connect();
    client.send("IAMAT kiwi.cs.ucla.edu +34.068930-118.445127 1621464827.959498503\n");
    client.expect_at("AT Riley kiwi.cs.ucla.edu +34.068930-118.445127 1621464827.959498503");
    client.send("IAMAT kiwi.cs.ucla.edu +34.068930-118.445127 1621464827.959498503\n");
    client.expect_at("AT Riley kiwi.cs.ucla.edu +34.068930-118.445127 1621464827.959498503");
}

fn now_ns() -> i128 {
    i128::try_from(clock::since_1970().as_nanos()).unwrap()
}

/// The skew is receipt minus stamp, exact to the nanosecond, and always has a sign.
fn skews(connect: &Connect<'_>) {
    let mut client = connect();
    for (stamp, nanos) in [
        ("1621464827.959498503", 1_621_464_827_959_498_503),
        ("99999999999", 99_999_999_999_000_000_000),
        ("99999999999.999999999999999999", 99_999_999_999_999_999_999),
        ("1.000000001", 1_000_000_001),
        ("0", 0),
    ] {
        let before = now_ns();
        let line = client.ask(&format!("IAMAT skew +1+2 {stamp}"));
        let after = now_ns();
        let skew = line.split(' ').nth(2).unwrap();
        let (sign, size) = skew.split_at(1);
        let (seconds, fraction) = size.split_once('.').unwrap();
        assert_eq!(fraction.len(), 9, "{skew}");
        assert!(seconds == "0" || !seconds.starts_with('0'), "{skew}");
        let size =
            seconds.parse::<i128>().unwrap() * 1_000_000_000 + fraction.parse::<i128>().unwrap();
        let receipt = match sign {
            "+" => nanos + size,
            "-" => nanos - size,
            _ => panic!("{skew}"),
        };
        let possible = before - CLOCK_TOLERANCE_NS..=after + CLOCK_TOLERANCE_NS;
        assert!(
            possible.contains(&receipt),
            "{skew}: received at {receipt}, not within {before} to {after}"
        );
    }
}

/// Names and numbers come back as they were written, with any bytes.
fn names_and_numbers(connect: &Connect<'_>) {
    let mut client = connect();
    for (id, place, time) in [
        (&b"\xff\xfe\x00\x1b[31m"[..], "+0-0", "0"),
        (
            "näher\u{a0}dran\u{85}".as_bytes(),
            "-90.000+180",
            "000000000000000001.500000000000000000",
        ),
        (b"?", "+001.5-007", "999999999999999999.999999999999999999"),
        (
            b"IAMAT",
            "+89.99999999999999999999999-179.99999999999999999",
            "7",
        ),
    ] {
        let rest = [
            b" ",
            id,
            b" ",
            place.as_bytes(),
            b" ",
            time.as_bytes(),
            b"\n",
        ]
        .concat();
        client.send([b"IAMAT", &rest[..]].concat());
        let answer = client.until(b"\n");
        assert!(
            answer.starts_with(b"AT Riley ") && answer.ends_with(&rest),
            "{}",
            answer.escape_ascii()
        );
        // Two ids that differ in invalid UTF-8 are two clients.
        client.send([b"WHATSAT ", id, b" 1 1\n"].concat());
        assert_eq!(client.until(b"\n"), answer);
        client.until(b"\n\n");
        client.refused([b"WHATSAT ", id, b"\xfd 1 1"].concat());
    }
}

fn white_space(connect: &Connect<'_>) {
    let mut client = connect();
    client.send("\t IAMAT\x0bspace \x0c +1+2\r\t3 \r\n");
    client.expect_at("AT Riley space +1+2 3");
    for no_space in ["\u{a0}", "\u{85}", "\x1c", "\u{2003}", "\x1f", "\0"] {
        client.refused(format!("IAMAT{no_space}x +1+2 3"));
    }
    for no_space in [&b"\xa0"[..], b"\x85"] {
        client.refused([b"IAMAT", no_space, b"x +1+2 3"].concat());
    }
    // Blank lines get no answer.
    client
        .send("\n \n\t\r\n\x0b\x0c\n\r\r\n \nx\n")
        .expect("? x\n");
}

fn what_is_no_command(connect: &Connect<'_>) {
    let mut client = connect();
    for line in [
        &b"hello"[..],
        b"iamat x +1+2 3",
        b"IAMAT",
        b"IAMAT x +1+2",
        b"IAMAT x +1+2 3 4",
        b"WHATSAT",
        b"WHATSAT x 1",
        b"  spaces  kept\t ",
        b"AT Riley +0.000000000 x +1+2 3",
        b"AT Riley +0.000000000 x - 3",
        b"IAMAT x - 3",
        b"FORGET x",
        b"AT",
        b"HERD 1 Jaquez Riley 00000000000000000000000000000000",
        b"HERD 2 Jaquez Riley 00000000000000000000000000000000",
        b"\xff\xfe\x00",
        b"inner\rcr",
        b"IAMAT x +1+2 3\x00",
        b"%s %d {} \\ \" '",
    ] {
        client.refused(line);
    }
    client.send("crlf\r\n").expect("? crlf\n");
    client.send("two crs\r\r\n").expect("? two crs\r\n");
}

fn locations(connect: &Connect<'_>) {
    let mut client = connect();
    for good in [
        "+34.068930-118.445127",
        "-90-180",
        "+90.0+180.000",
        "+0+0",
        "+007.1-000.2",
    ] {
        let line = client.ask(&format!("IAMAT good {good} 1"));
        assert_eq!(without_skew(&line), format!("AT Riley good {good} 1"));
    }
    for bad in [
        "34.0-118.4",
        "+34.0",
        "+34.0-118.4/",
        "+34.0-118.4+12.3",
        "+3404.1-11826.7",
        "+90.00001+0",
        "+0-180.1",
        "+1e1+0",
        "+nan+0",
        "+inf+0",
        "+1,5+2,5",
        "++1+2",
        "+1+-2",
        "+.5+1",
        "+1.+1",
        "+0001+1",
        "+\u{661}+1",
        "+1_0+2",
        "+0x1+2",
    ] {
        client.refused(format!("IAMAT bad {bad} 1"));
    }
    client.refused("WHATSAT bad 10 5");
}

fn times(connect: &Connect<'_>) {
    let mut client = connect();
    for good in ["0", "1.5", "999999999999999999", "0.000000000000000001"] {
        let line = client.ask(&format!("IAMAT good +1+2 {good}"));
        assert_eq!(without_skew(&line), format!("AT Riley good +1+2 {good}"));
    }
    for bad in [
        "+1",
        "-1",
        "1e9",
        "nan",
        "inf",
        "0x10",
        "1_000",
        ".",
        "1.",
        ".5",
        "1.2.3",
        "1000000000000000000",
        "1.0000000000000000000",
        "\u{661}",
    ] {
        client.refused(format!("IAMAT late +1+2 {bad}"));
    }
    client.refused("WHATSAT late 10 5");
}

fn radii_and_bounds(connect: &Connect<'_>) {
    let mut client = connect();
    let at = client.ask("IAMAT bounds +34.068930-118.445127 3");
    for (radius, bound) in [
        ("50", "20"),
        ("0.001", "1"),
        ("50.0", "7"),
        ("007", "05"),
        ("0.0000000000000000000000001", "1"),
    ] {
        client.send(format!("WHATSAT bounds {radius} {bound}\n"));
        let (line, json) = client.places();
        assert_eq!(line, at);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let wanted: usize = bound.parse().unwrap();
        assert_eq!(json["results"].as_array().unwrap().len(), wanted, "{json}");
    }
    for (radius, bound) in [
        ("0", "5"),
        ("0.0", "5"),
        ("-1", "5"),
        ("50.000000000000000000001", "5"),
        ("51", "5"),
        ("nan", "5"),
        ("1e1", "5"),
        ("ten", "5"),
        ("inf", "5"),
        (".5", "5"),
        ("5.", "5"),
        ("+5", "5"),
        ("10", "0"),
        ("10", "1.0"),
        ("10", "1.5"),
        ("10", "-1"),
        ("10", "21"),
        ("10", "many"),
        ("10", "+5"),
        ("10", "4294967297"),
        ("10", "256"),
    ] {
        client.refused(format!("WHATSAT bounds {radius} {bound}"));
    }
    client.refused("WHATSAT unknown 10 5");
}

/// An older IAMAT gets an answer and changes nothing. A stamp far in the future does not stop later
/// updates.
fn order(connect: &Connect<'_>) {
    let mut client = connect();
    let newer = client.ask("IAMAT older +1+2 1000.000000000000000002");
    let older = client.ask("IAMAT older +3+4 1000.000000000000000001");
    assert_eq!(
        without_skew(&older),
        "AT Riley older +3+4 1000.000000000000000001"
    );
    assert_eq!(client.record("older"), newer);

    let now = now_ns() / 1_000_000_000;
    let year_ahead = client.ask(&format!("IAMAT future +1+2 {}", now + 31_536_000));
    client.ask(&format!("IAMAT future +3+4 {}", now + 59));
    assert_eq!(
        client.record("future"),
        year_ahead,
        "a stamp that is far ahead counts as a minute after its receipt"
    );
    let later = client.ask(&format!("IAMAT future +3+4 {}", now + 70));
    assert_eq!(client.record("future"), later, "and no later");
    let again = client.ask(&format!("IAMAT future +5+6 {}", now + 31_536_000));
    assert_eq!(client.record("future"), again);
}

/// A client whose clock is about a minute ahead: each of its moves replaces the one before. The
/// same holds for a clock that is further ahead.
fn a_minute_ahead(connect: &Connect<'_>) {
    let mut client = connect();
    let start = now_ns();
    for (id, lead_ms, step_ms) in [
        ("minute", 59_900, 7),
        ("far", 90_000, 1),
        ("near", 59_000, 70),
    ] {
        for step in 0..30 {
            let stamp = start + 1_000_000 * (lead_ms + step * step_ms);
            let (seconds, nanos) = (stamp / 1_000_000_000, stamp % 1_000_000_000);
            let line = client.ask(&format!("IAMAT {id} +1+2 {seconds}.{nanos:09}"));
            assert_eq!(client.record(id), line, "step {step}");
        }
    }
}

/// Bytes become lines, however they are split into reads.
fn framing(connect: &Connect<'_>) {
    let mut client = connect();
    for _ in 0..3 {
        client.send("x\n").expect("? x\n");
    }
    client.finish().expect_end();

    let mut client = connect();
    for byte in b"IAMAT bytes +1+2 3\nno\n" {
        client.send([*byte]);
    }
    client.expect_at("AT Riley bytes +1+2 3");
    client.expect("? no\n");

    let mut client = connect();
    client.send("a\nb\r\n\nIAMAT x +1+2 3\nc").finish();
    client.expect("? a\n? b\n").expect_at("AT Riley x +1+2 3");
    client.expect("? c\n").expect_end();

    // No LF follows the last CR, so the CR is part of the line.
    let mut client = connect();
    client.send("a\r").finish().expect("? a\r\n").expect_end();

    let mut client = connect();
    client.send("IAMAT last +1+2 3").finish();
    client.expect_at("AT Riley last +1+2 3");
    client.expect_end();

    connect().finish().expect_end();
    connect().send(" \t").finish().expect_end();
}

fn too_long(connect: &Connect<'_>) {
    let line = "x".repeat(4096);
    let mut client = connect();
    client.send(format!("{line}\n{line}")).finish();
    client.expect(format!("? {line}\n? {line}\n")).expect_end();
    let longest_id = "y".repeat(4096 - "IAMAT  +1+2 3".len());
    let mut client = connect();
    client.send(format!("IAMAT {longest_id} +1+2 3\n"));
    client.expect_at(&format!("AT Riley {longest_id} +1+2 3"));

    // Lines before the long one are answered, lines after it are not.
    let mut client = connect();
    client.send(format!("before\n{line}x\nafter\n"));
    client.expect(format!("? before\n? {line}\n")).expect_end();
    // The same without an LF.
    let mut client = connect();
    client.send(format!("{line}x"));
    client.expect(format!("? {line}\n")).expect_end();
    let mut client = connect();
    client.send(format!("{line}x")).finish();
    client.expect(format!("? {line}\n")).expect_end();
    // At most 4,096 bytes may stand before an LF, and a CR counts as one of them.
    let mut client = connect();
    client.send(format!("{line}\r\n"));
    client.expect(format!("? {line}\n")).expect_end();
    // A mebibyte is still arriving when the server closes. A reset because of it must not destroy
    // the answer.
    let mut client = connect();
    let _ = client.stream().write_all(&vec![b'x'; 1 << 20]);
    client.expect(format!("? {line}\n")).expect_end();
}
