//! How bytes become lines, beyond what the transcripts cover: memory, time, random bytes, and TCP
//! urgent data.

use std::io::Write;

use rustix::process::Signal;

use herd_testkit::herd::Herd;

#[test]
fn an_overlong_line_of_1_mib_is_answered() {
    let server = Herd::single().start("Riley");
    let mut client = server.client();
    let before = server.status("VmRSS");
    // After 4,096 bytes the server ignores the input. But it reads on for a while, because a reset
    // would destroy the answer.
    let _ = client.stream().write_all(&vec![b'z'; 1 << 20]);
    client.expect(format!("? {}\n", "z".repeat(4096)));
    client.expect_end();
    let grown = server.status("VmRSS").saturating_sub(before);
    assert!(grown < 1024, "grown by {grown} KiB");
}

#[test]
fn random_bytes_are_answered_line_by_line() {
    let server = Herd::single().start("Riley");
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::new();
    let mut expected = Vec::new();
    let is_space = |byte: &u8| b" \t\r\n\x0b\x0c".contains(byte);
    for _ in 0..300 {
        let length = (state >> 40) as usize % 400;
        let mut line = Vec::new();
        for _ in 0..length {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            line.push((state >> 56) as u8);
        }
        line.retain(|&byte| byte != b'\n');
        state = state.wrapping_add(1);
        bytes.extend_from_slice(&line);
        bytes.push(b'\n');
        if !line.iter().all(is_space) {
            let quoted = line.strip_suffix(b"\r").unwrap_or(&line);
            expected.extend_from_slice(b"? ");
            expected.extend_from_slice(quoted);
            expected.push(b'\n');
        }
    }
    let mut client = server.client();
    let writer = std::thread::spawn({
        let mut stream = client.stream().try_clone().unwrap();
        move || {
            stream.write_all(&bytes).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
        }
    });
    client.expect(expected).expect_end();
    writer.join().unwrap();
}

#[test]
fn an_unfinished_line_is_answered_after_line_ms() {
    let server = Herd::single()
        .with("[limits]\nline_ms = 300\nlinger_ms = 300\n")
        .start("Riley");
    let mut client = server.client();
    client.send("whole\nhalf");
    client.expect("? whole\n? half\n").expect_end();
    server.client().send("  ").expect_end(); // a blank line gets no reply, even unfinished
}

#[test]
fn line_ms_does_not_close_an_idle_client() {
    let server = Herd::single()
        .with("[limits]\nline_ms = 50\nlinger_ms = 50\noutput_stall_ms = 50\n")
        .start("Riley");
    let mut idle = server.client();
    idle.send("one\n").expect("? one\n");
    // Meanwhile another client exceeds the time for a line.
    server.client().send("half").expect("? half\n").expect_end();
    server.client().send("half").expect("? half\n").expect_end();
    idle.send("two\n").expect("? two\n");
}

#[test]
fn bytes_after_tcp_urgent_data_are_read() {
    let server = Herd::single().start("Riley");
    server.client().ask("begin");
    // All input has arrived when the server reads. The kernel ends a read before the urgent byte,
    // which is not part of the stream.
    server.signal(Signal::STOP);
    let mut client = server.client();
    client.send("one\ntw");
    socket2::SockRef::from(client.stream())
        .send_out_of_band(b"!")
        .unwrap();
    client.send("o\nthree\n");
    server.signal(Signal::CONT);
    client.expect("? one\n? two\n? three\n");
}
