//! What clients are answered: every row of the protocol's tables.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use herd_compare::workshop::Program;
use herd_mio::core::wire::lines::without_cr;
use herd_mio::core::wire::message::Command;
use herd_testkit::client::{Client, without_skew};

use crate::scene::{Dice, Scene};

/// Some worlds' clocks have no more than milliseconds, and read them before or after they compute.
const CLOCK_TOLERANCE_NS: i128 = 5_000_000;

/// The tables, over one server.
pub(crate) fn transcript(program: &Program) {
    let scene = Scene::new(program);
    iamat(&mut scene.client());
    skews(&mut scene.client());
    names_and_numbers(&mut scene.client());
    white_space(&mut scene.client());
    what_is_no_command(&mut scene.client());
    locations_and_times(&mut scene.client());
    radii_and_bounds(&mut scene.client());
    order(&mut scene.client());
    a_minute_ahead(&mut scene.client());
    framing(&scene);
    too_long(&scene);
    near_misses(&scene);
}

fn iamat(client: &mut Client) {
    client.send("IAMAT kiwi.cs.ucla.edu +34.068930-118.445127 1621464827.959498503\n");
    client.expect_at("AT Riley kiwi.cs.ucla.edu +34.068930-118.445127 1621464827.959498503");
    client.send("IAMAT kiwi.cs.ucla.edu +34.068930-118.445127 1621464827.959498503\n");
    client.expect_at("AT Riley kiwi.cs.ucla.edu +34.068930-118.445127 1621464827.959498503");
}

fn now_ns() -> i128 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i128::try_from(now.as_nanos()).unwrap()
}

/// The skew is receipt minus stamp, exact to the nanosecond, with a sign always.
fn skews(client: &mut Client) {
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

/// They come back as they were written, whatever bytes they are.
fn names_and_numbers(client: &mut Client) {
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
        // Two ids that differ in bytes that are no UTF-8 are two clients.
        client.send([b"WHATSAT ", id, b" 1 1\n"].concat());
        assert_eq!(client.until(b"\n"), answer);
        client.until(b"\n\n");
        client.refused([b"WHATSAT ", id, b"\xfd 1 1"].concat());
    }
}

fn white_space(client: &mut Client) {
    client.send("\t IAMAT\x0bspace \x0c +1+2\r\t3 \r\n");
    client.expect_at("AT Riley space +1+2 3");
    for no_space in ["\u{a0}", "\u{85}", "\x1c", "\u{2003}", "\x1f", "\0"] {
        client.refused(format!("IAMAT{no_space}x +1+2 3"));
    }
    for no_space in [&b"\xa0"[..], b"\x85"] {
        client.refused([b"IAMAT", no_space, b"x +1+2 3"].concat());
    }
    // Blank lines are not answered.
    client
        .send("\n \n\t\r\n\x0b\x0c\n\r\r\n \nx\n")
        .expect("? x\n");
}

fn what_is_no_command(client: &mut Client) {
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
        b"AT",
        b"HERD 1 Jaquez Riley 00000000000000000000000000000000",
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

fn locations_and_times(client: &mut Client) {
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
        client.refused(format!("IAMAT bad +1+2 {bad}"));
    }
    client.refused("WHATSAT bad 10 5");
}

fn radii_and_bounds(client: &mut Client) {
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
    client.refused("WHATSAT nobody 10 5");
}

/// The line that a `WHATSAT` about that client begins with.
pub(crate) fn record(client: &mut Client, id: &str) -> String {
    client.send(format!("WHATSAT {id} 1 1\n")).places().0
}

/// An older IAMAT is answered and changes nothing; a clock that is ahead freezes nothing.
fn order(client: &mut Client) {
    let newer = client.ask("IAMAT older +1+2 1000.000000000000000002");
    let older = client.ask("IAMAT older +3+4 1000.000000000000000001");
    assert_eq!(
        without_skew(&older),
        "AT Riley older +3+4 1000.000000000000000001"
    );
    assert_eq!(record(client, "older"), newer);

    let now = now_ns() / 1_000_000_000;
    let year_ahead = client.ask(&format!("IAMAT future +1+2 {}", now + 31_536_000));
    client.ask(&format!("IAMAT future +3+4 {}", now + 59));
    assert_eq!(
        record(client, "future"),
        year_ahead,
        "a stamp that is far ahead counts as a minute after its receipt"
    );
    let later = client.ask(&format!("IAMAT future +3+4 {}", now + 70));
    assert_eq!(record(client, "future"), later, "and no later");
    let again = client.ask(&format!("IAMAT future +5+6 {}", now + 31_536_000));
    assert_eq!(record(client, "future"), again);
}

/// A client whose clock is about a minute ahead: each of its moves counts, and those of a clock
/// that is far ahead do, too.
fn a_minute_ahead(client: &mut Client) {
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
            assert_eq!(record(client, id), line, "step {step}");
        }
    }
}

/// However bytes come, they are lines.
fn framing(scene: &Scene) {
    let mut client = scene.client();
    for byte in b"IAMAT bytes +1+2 3\nno\n" {
        client.send([*byte]);
    }
    client.expect_at("AT Riley bytes +1+2 3");
    client.expect("? no\n");

    let mut client = scene.client();
    client.send("a\nb\r\n\nIAMAT x +1+2 3\nc").finish();
    client.expect("? a\n? b\n").expect_at("AT Riley x +1+2 3");
    client.expect("? c\n").expect_end();

    // The last line's CR is followed by no LF, so it is part of it.
    let mut client = scene.client();
    client.send("a\r").finish().expect("? a\r\n").expect_end();

    let mut client = scene.client();
    client.send("IAMAT last +1+2 3").finish();
    client.expect_at("AT Riley last +1+2 3");
    client.expect_end();

    scene.client().finish().expect_end();
    scene.client().send(" \t").finish().expect_end();
}

fn too_long(scene: &Scene) {
    let line = "x".repeat(4096);
    let mut client = scene.client();
    client.send(format!("{line}\n{line}")).finish();
    client.expect(format!("? {line}\n? {line}\n")).expect_end();
    let longest_id = "y".repeat(4096 - "IAMAT  +1+2 3".len());
    let mut client = scene.client();
    client.send(format!("IAMAT {longest_id} +1+2 3\n"));
    client.expect_at(&format!("AT Riley {longest_id} +1+2 3"));

    // What came before it is answered, what comes behind it is not.
    let mut client = scene.client();
    client.send(format!("before\n{line}x\nafter\n"));
    client.expect(format!("? before\n? {line}\n")).expect_end();
    // Without an LF in sight.
    let mut client = scene.client();
    client.send(format!("{line}x"));
    client.expect(format!("? {line}\n")).expect_end();
    let mut client = scene.client();
    client.send(format!("{line}x")).finish();
    client.expect(format!("? {line}\n")).expect_end();
    // The LF counts as the end only if at most 4,096 bytes are before it, a CR among them.
    let mut client = scene.client();
    client.send(format!("{line}\r\n"));
    client.expect(format!("? {line}\n")).expect_end();
    // A mebibyte more is on its way when the server gives up: that must not destroy the answer.
    let mut client = scene.client();
    let _ = client.stream().write_all(&vec![b'x'; 1 << 20]);
    client.expect(format!("? {line}\n")).expect_end();
}

/// Thousands of lines that are nearly commands, judged by herd-mio's own parser.
fn near_misses(scene: &Scene) {
    let mut client = scene.client();
    let kiwi = client.ask("IAMAT kiwi +34.068930-118.445127 1");
    let mut dice = Dice::new(7);
    let lines: Vec<Vec<u8>> = (0..3000).map(|_| near_miss(&mut dice)).collect();
    let writer = client.send_meanwhile(lines.join(&b'\n'));
    let mut understood = 0;
    for line in &lines[..lines.len() - 1] {
        let shown = line.escape_ascii();
        match Command::parse(line) {
            Command::Blank => {}
            Command::Iamat(iamat) => {
                understood += 1;
                let answer = client.line_of_bytes();
                let rest = [b" ", iamat.client, b" ", iamat.location, b" ", iamat.time].concat();
                assert!(
                    answer.starts_with(b"AT Riley ") && answer.ends_with(&rest),
                    "{shown} was answered with {}",
                    answer.escape_ascii()
                );
            }
            Command::Whatsat(whatsat) if whatsat.client == b"kiwi" => {
                understood += 1;
                let answer = client.line_of_bytes();
                assert!(
                    answer == kiwi.as_bytes(),
                    "{shown} was answered with {}",
                    answer.escape_ascii()
                );
                client.until(b"\n\n");
            }
            Command::Whatsat(_) | Command::Invalid => {
                let answer = client.line_of_bytes();
                let expected = [b"? ", without_cr(line)].concat();
                assert!(
                    answer == expected,
                    "{shown} was answered with {}",
                    answer.escape_ascii()
                );
            }
        }
    }
    writer.join().unwrap();
    assert!(
        (500..2500).contains(&understood),
        "{understood} were commands"
    );
}

/// A line that is a command, or nearly one: each part of it is spoilt now and then.
fn near_miss(dice: &mut Dice) -> Vec<u8> {
    let mut line = Vec::new();
    let is_whatsat = dice.below(6) == 0;
    line.extend(either(
        dice,
        &[b"", b"", b"", b" ", b"\t\x0b"],
        &[b"\xa0", b"\0"],
    ));
    if is_whatsat {
        line.extend(either(dice, &[b"WHATSAT"], &[b"whatsat", b"WHATSAT:"]));
        line.extend(space(dice));
        line.extend(either(dice, &[b"kiwi"], &[b"nobody", b"kiwi\0", b"KIWI"]));
        line.extend(space(dice));
        line.extend(radius(dice));
        line.extend(space(dice));
        let good: &[&[u8]] = &[b"1", b"2", b"5", b"20", b"020", b"0001"];
        let bad: &[&[u8]] = &[
            b"21",
            b"0",
            b"00",
            b"-1",
            b"+1",
            b"1.0",
            b"1e0",
            b"2\xa0",
            b"257",
            b"9999999999",
        ];
        line.extend(either(dice, good, bad));
    } else {
        line.extend(either(dice, &[b"IAMAT"], &[b"iamat", b"IAMAT\0", b"AT"]));
        line.extend(space(dice));
        line.extend(name(dice));
        line.extend(space(dice));
        line.extend(degrees(dice, 90));
        line.extend(degrees(dice, 180));
        line.extend(either(dice, &[b""], &[b"/", b"+12.3", b"+", b"\xa0"]));
        line.extend(space(dice));
        line.extend(decimal(dice, 18));
    }
    let good: &[&[u8]] = &[b"", b"", b"", b"\r", b" \t\r", b"\x0c"];
    line.extend(either(dice, good, &[b" x", b"\xa0", b"\x1c"]));
    line
}

/// Mostly one of the good ones.
fn either<'a>(dice: &mut Dice, good: &[&'a [u8]], bad: &[&'a [u8]]) -> &'a [u8] {
    let is_bad = dice.below(20) == 0;
    dice.pick(if is_bad { bad } else { good })
}

fn space<'a>(dice: &mut Dice) -> &'a [u8] {
    let good: &[&[u8]] = &[
        b" ", b" ", b" ", b" ", b"  ", b"\t", b"\x0b", b"\x0c", b"\r",
    ];
    either(dice, good, &[b"", b"\x1c", b"\xc2\xa0", b"\x85"])
}

/// Any bytes but LF; now and then there is white space among them.
fn name(dice: &mut Dice) -> Vec<u8> {
    let length = 1 + dice.below(12);
    let byte = |dice: &mut Dice| match dice.below(8) {
        0 => u8::try_from(dice.below(256)).unwrap(),
        _ => b'a' + u8::try_from(dice.below(26)).unwrap(),
    };
    let bytes = (0..length).map(|_| byte(dice));
    bytes.filter(|byte| *byte != b'\n').collect()
}

fn digits(dice: &mut Dice, length: usize) -> Vec<u8> {
    let digit = |dice: &mut Dice| b'0' + u8::try_from(dice.below(10)).unwrap();
    (0..length).map(|_| digit(dice)).collect()
}

/// A number with at most so many digits on each side of its point; now and then with more, or with none.
fn decimal(dice: &mut Dice, most: usize) -> Vec<u8> {
    let length = |dice: &mut Dice| match dice.below(30) {
        0 => 0,
        1 => most + 1,
        _ => 1 + dice.below(most),
    };
    let whole = length(dice);
    let mut text = digits(dice, whole);
    if dice.below(2) == 0 {
        let fraction = length(dice);
        text.push(b'.');
        text.extend(digits(dice, fraction));
    }
    text.extend(either(
        dice,
        &[b""],
        &[b"e5", b".", b",5", b"_0", b".5.5", b"\xd9\xa1"],
    ));
    text
}

fn degrees(dice: &mut Dice, limit: usize) -> Vec<u8> {
    let mut text = either(dice, &[b"+", b"-"], &[b"", b"+-", b"--"]).to_vec();
    let whole = match dice.below(4) {
        0 => limit.to_string(),
        1 => format!("{:03}", dice.below(limit)),
        2 => format!("{:02}", dice.below(limit)),
        _ => either(dice, &[b"7"], &[b"", b"0007", b"91", b"181", b"200"])
            .escape_ascii()
            .to_string(),
    };
    text.extend(whole.into_bytes());
    let good: &[&[u8]] = &[
        b"",
        b".0",
        b".000000",
        b".068930",
        b".000000000000000000000",
    ];
    let bad: &[&[u8]] = &[b".", b"e0", b".000000000000000000001", b".5.5", b",0"];
    text.extend(either(dice, good, bad));
    text
}

fn radius(dice: &mut Dice) -> Vec<u8> {
    let good: &[&[u8]] = &[
        b"50",
        b"50.0",
        b"0.000000000000000000000000001",
        b"0050",
        b"7.25",
    ];
    let bad: &[&[u8]] = &[
        b"0",
        b"0.0",
        b"50.000000000000000000000000001",
        b"051",
        b"-1",
        b"+1",
        b"1e1",
        b".5",
        b"5.",
        b"306",
        b"",
    ];
    match dice.below(2) {
        0 => either(dice, good, bad).to_vec(),
        _ => dice.below(60).to_string().into_bytes(),
    }
}
