//! Thousands of lines that are commands or nearly commands. herd-mio's own parser decides what the
//! right answer is.

use herd_mio::core::wire::lines::without_cr;
use herd_mio::core::wire::message::Command;

use super::Connect;
use crate::rng::Rng;

pub(super) fn near_misses(connect: &Connect<'_>) {
    let mut client = connect();
    let kiwi = client.ask("IAMAT kiwi +34.068930-118.445127 1");
    let mut rng = Rng::new(7, "near misses");
    let lines: Vec<Vec<u8>> = (0..3000).map(|_| near_miss(&mut rng)).collect();
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

/// A command. Now and then some parts of it are spoilt.
fn near_miss(rng: &mut Rng) -> Vec<u8> {
    let mut line = Vec::new();
    let is_whatsat = rng.below(6) == 0;
    line.extend(either(
        rng,
        &[b"", b"", b"", b" ", b"\t\x0b"],
        &[b"\xa0", b"\0"],
    ));
    if is_whatsat {
        line.extend(either(rng, &[b"WHATSAT"], &[b"whatsat", b"WHATSAT:"]));
        line.extend(space(rng));
        line.extend(either(rng, &[b"kiwi"], &[b"unknown", b"kiwi\0", b"KIWI"]));
        line.extend(space(rng));
        line.extend(radius(rng));
        line.extend(space(rng));
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
        line.extend(either(rng, good, bad));
    } else {
        line.extend(either(rng, &[b"IAMAT"], &[b"iamat", b"IAMAT\0", b"AT"]));
        line.extend(space(rng));
        line.extend(name(rng));
        line.extend(space(rng));
        line.extend(degrees(rng, 90));
        line.extend(degrees(rng, 180));
        line.extend(either(rng, &[b""], &[b"/", b"+12.3", b"+", b"\xa0"]));
        line.extend(space(rng));
        line.extend(decimal(rng, 18));
    }
    let good: &[&[u8]] = &[b"", b"", b"", b"\r", b" \t\r", b"\x0c"];
    line.extend(either(rng, good, &[b" x", b"\xa0", b"\x1c"]));
    line
}

/// Usually a good choice, sometimes a bad one.
fn either<'a>(rng: &mut Rng, good: &[&'a [u8]], bad: &[&'a [u8]]) -> &'a [u8] {
    let is_bad = rng.below(20) == 0;
    let picked: &&[u8] = rng.pick(if is_bad { bad } else { good });
    picked
}

fn space<'a>(rng: &mut Rng) -> &'a [u8] {
    let good: &[&[u8]] = &[
        b" ", b" ", b" ", b" ", b"  ", b"\t", b"\x0b", b"\x0c", b"\r",
    ];
    either(rng, good, &[b"", b"\x1c", b"\xc2\xa0", b"\x85"])
}

/// A name of any bytes but LF, now and then with white space.
fn name(rng: &mut Rng) -> Vec<u8> {
    let length = 1 + rng.below(12);
    let byte = |rng: &mut Rng| match rng.below(8) {
        0 => u8::try_from(rng.below(256)).unwrap(),
        _ => b'a' + u8::try_from(rng.below(26)).unwrap(),
    };
    let bytes = (0..length).map(|_| byte(rng));
    bytes.filter(|byte| *byte != b'\n').collect()
}

fn digits(rng: &mut Rng, length: usize) -> Vec<u8> {
    let digit = |rng: &mut Rng| b'0' + u8::try_from(rng.below(10)).unwrap();
    (0..length).map(|_| digit(rng)).collect()
}

/// A number with at most so many digits on each side of its point. Now and then it has more or
/// none.
fn decimal(rng: &mut Rng, most: usize) -> Vec<u8> {
    let length = |rng: &mut Rng| match rng.below(30) {
        0 => 0,
        1 => most + 1,
        _ => 1 + rng.below(most),
    };
    let whole = length(rng);
    let mut text = digits(rng, whole);
    if rng.below(2) == 0 {
        let fraction = length(rng);
        text.push(b'.');
        text.extend(digits(rng, fraction));
    }
    text.extend(either(
        rng,
        &[b""],
        &[b"e5", b".", b",5", b"_0", b".5.5", b"\xd9\xa1"],
    ));
    text
}

fn degrees(rng: &mut Rng, limit: usize) -> Vec<u8> {
    let mut text = either(rng, &[b"+", b"-"], &[b"", b"+-", b"--"]).to_vec();
    let whole = match rng.below(4) {
        0 => limit.to_string(),
        1 => format!("{:03}", rng.below(limit)),
        2 => format!("{:02}", rng.below(limit)),
        _ => either(rng, &[b"7"], &[b"", b"0007", b"91", b"181", b"200"])
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
    text.extend(either(rng, good, bad));
    text
}

fn radius(rng: &mut Rng) -> Vec<u8> {
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
    match rng.below(2) {
        0 => either(rng, good, bad).to_vec(),
        _ => rng.below(60).to_string().into_bytes(),
    }
}
