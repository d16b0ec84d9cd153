//! Each row of the protocol's tables: what a command is answered with, byte for byte.

use herd_testkit::client::{Client, without_skew};
use herd_testkit::herd::{Herd, Server};

fn server() -> Server {
    Herd::single().start("Riley")
}

/// The line, quoted back.
fn refused(client: &mut Client, line: &[u8]) {
    client.send([line, b"\n"].concat());
    client.expect([b"? ", line, b"\n"].concat());
}

#[test]
fn iamat_is_answered_with_at() {
    let server = server();
    let mut client = server.client();
    let line = client.ask("IAMAT kiwi.cs.ucla.edu +34.068930-118.445127 1621464827.959498503");
    assert_eq!(
        without_skew(&line),
        "AT Riley kiwi.cs.ucla.edu +34.068930-118.445127 1621464827.959498503"
    );
    let skew = line.split(' ').nth(2).unwrap();
    assert!(
        skew.starts_with('+') && skew.split_once('.').unwrap().1.len() == 9,
        "{skew}"
    );
}

#[test]
fn the_skew_is_exact_to_the_nanosecond_and_signed() {
    let server = server();
    let mut client = server.client();
    let now = || {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_nanos() as i128
    };
    for (stamp, nanos) in [
        ("1621464827.959498503", 1_621_464_827_959_498_503),
        ("99999999999", 99_999_999_999_000_000_000),
        ("1.000000001", 1_000_000_001),
    ] {
        let before = now();
        let line = client.ask(&format!("IAMAT x +1+2 {stamp}"));
        let after = now();
        let skew = line.split(' ').nth(2).unwrap().to_owned();
        let (sign, size) = skew.split_at(1);
        let (seconds, fraction) = size.split_once('.').unwrap();
        assert_eq!(fraction.len(), 9, "{skew}");
        let size =
            seconds.parse::<i128>().unwrap() * 1_000_000_000 + fraction.parse::<i128>().unwrap();
        let receipt = nanos + if sign == "-" { -size } else { size };
        assert!(
            (before..=after).contains(&receipt),
            "{skew}: received at {receipt}, not within {before} to {after}"
        );
    }
}

#[test]
fn names_and_numbers_come_back_as_they_were_written() {
    let server = server();
    let mut client = server.client();
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
        let command = [
            b"IAMAT ",
            id,
            b" ",
            place.as_bytes(),
            b" ",
            time.as_bytes(),
            b"\n",
        ]
        .concat();
        let answer = client.send(command).until(b"\n");
        let expected = [
            b" ",
            id,
            b" ",
            place.as_bytes(),
            b" ",
            time.as_bytes(),
            b"\n",
        ]
        .concat();
        assert!(
            answer.starts_with(b"AT Riley ") && answer.ends_with(&expected),
            "{}",
            answer.escape_ascii()
        );
    }
}

#[test]
fn white_space_is_c_s_and_no_other() {
    let server = server();
    let mut client = server.client();
    client.send("\t IAMAT\x0bx \x0c +1+2\r\t3 \r\n");
    assert_eq!(without_skew(&client.line()), "AT Riley x +1+2 3");
    for not_space in ["\u{a0}", "\u{85}", "\x1c", "\u{2003}", "\x1f", "\0"] {
        refused(&mut client, format!("IAMAT{not_space}x +1+2 3").as_bytes());
    }
}

#[test]
fn blank_lines_are_not_answered() {
    let server = server();
    server
        .client()
        .send("\n \n\t\r\n\x0b\x0c\n\r\r\n \n")
        .send("x\n")
        .finish()
        .expect("? x\n")
        .expect_end();
}

#[test]
fn everything_else_is_quoted_back() {
    let server = server();
    let mut client = server.client();
    for line in [
        &b"hello"[..],
        b"iamat x +1+2 3",
        b"IAMAT",
        b"IAMAT x +1+2",
        b"IAMAT x +1+2 3 4",
        b"WHATSAT",
        b"  spaces  kept\t ",
        b"AT Riley +0.000000000 x +1+2 3",
        b"AT",
        b"HERD 2 Jaquez Riley 00000000000000000000000000000000",
        b"\xff\xfe\x00",
        b"inner\rcr",
        b"IAMAT x +1+2 3\x00",
    ] {
        refused(&mut client, line);
    }
    client.send("crlf\r\n").expect("? crlf\n");
    client.send("two crs\r\r\n").expect("? two crs\r\n");
}

#[test]
fn locations_are_iso_6709_degrees() {
    let server = server();
    let mut client = server.client();
    for good in [
        "+34.068930-118.445127",
        "-90-180",
        "+90.0+180.000",
        "+0+0",
        "+007.1-000.2",
    ] {
        assert!(
            client
                .ask(&format!("IAMAT good {good} 1"))
                .starts_with("AT "),
            "{good}"
        );
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
        refused(&mut client, format!("IAMAT bad {bad} 1").as_bytes());
    }
    refused(&mut client, b"WHATSAT bad 10 5");
}

#[test]
fn times_are_plain_decimals() {
    let server = server();
    let mut client = server.client();
    for good in ["0", "1.5", "999999999999999999", "0.000000000000000001"] {
        assert!(
            client
                .ask(&format!("IAMAT good +1+2 {good}"))
                .starts_with("AT "),
            "{good}"
        );
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
        refused(&mut client, format!("IAMAT bad +1+2 {bad}").as_bytes());
    }
}

#[test]
fn radius_and_bound_have_their_ranges() {
    let server = server();
    let mut client = server.client();
    let at = client.ask("IAMAT x +1+2 3");
    for (radius, bound) in [
        ("50", "20"),
        ("0.001", "1"),
        ("50.0", "7"),
        ("007", "05"),
        ("0.0000000000000000000000001", "1"),
    ] {
        client.send(format!("WHATSAT x {radius} {bound}\n"));
        let (line, json) = client.places();
        assert_eq!(line, at);
        assert!(json.contains("\"status\" : \"UNKNOWN_ERROR\""), "{json}"); // this server has no key
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
        refused(
            &mut client,
            format!("WHATSAT x {radius} {bound}").as_bytes(),
        );
    }
    refused(&mut client, b"WHATSAT nobody 10 5");
}

#[test]
fn an_older_iamat_is_answered_but_changes_nothing() {
    let server = server();
    let mut client = server.client();
    let newer = client.ask("IAMAT x +1+2 1000.000000000000000002");
    let older = client.ask("IAMAT x +3+4 1000.000000000000000001");
    assert_eq!(
        without_skew(&older),
        "AT Riley x +3+4 1000.000000000000000001"
    );
    assert_eq!(
        client.wait_for_record("x", |line| line.starts_with("AT ")),
        newer
    );
}

#[test]
fn a_client_from_the_future_does_not_freeze_its_record() {
    let server = server();
    let mut client = server.client();
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    client.ask(&format!("IAMAT x +1+2 {}", now + 31_536_000));
    // Both count as 60 s after their receipt.
    let corrected = client.ask(&format!("IAMAT x +3+4 {}", now + 3_600));
    assert_eq!(
        client.wait_for_record("x", |line| line.starts_with("AT ")),
        corrected
    );
}

#[test]
fn an_error_of_our_own_has_google_s_shape() {
    let server = server();
    let mut client = server.client();
    let at = client.ask("IAMAT x +1+2 3");
    client.send("WHATSAT x 10 5\n");
    client.expect(format!(
        "{at}\n{{\"html_attributions\" : [], \"results\" : [], \"status\" : \"UNKNOWN_ERROR\", \"error_message\" : \"this server has no key for \
         Google Places; its operator can give it one (HERD_PLACES_KEY)\"}}\n\n"
    ));
}
