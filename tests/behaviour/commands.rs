//! Replies to clients, byte for byte. Most of them are transcripts that every implementation in
//! `tools/compare/worlds` must pass, too. The rest is special to this server.

use std::io::Write as _;
use std::net::TcpStream;

use herd_places::{Options, Places};
use herd_testkit::client::Client;
use herd_testkit::herd::Herd;
use herd_testkit::transcripts::TRANSCRIPTS;

#[test]
fn every_transcript_gets_the_expected_answers() {
    let places = Places::start(Options::default()).unwrap();
    let server = Herd::single().asking(&places).start("Riley");
    for transcript in TRANSCRIPTS {
        transcript.play(&|| server.client());
    }
}

#[test]
fn every_transcript_passes_after_a_proxy_header() {
    let places = Places::start(Options::default()).unwrap();
    let behind = "[clients]\nproxy_protocol = true\nproxies = [\"127.0.0.0/8\"]\n";
    let server = Herd::single().asking(&places).with(behind).start("Riley");
    let connect = || {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream
            .write_all(b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 10000\r\n")
            .unwrap();
        Client::of(stream)
    };
    for transcript in TRANSCRIPTS {
        transcript.play(&connect);
    }
}

#[test]
fn a_transcript_fails_against_another_server_s_name() {
    let server = Herd::new(&["Jaquez"], &[]).start("Jaquez");
    let first = TRANSCRIPTS[0];
    let play = std::panic::AssertUnwindSafe(|| first.play(&|| server.client()));
    assert!(std::panic::catch_unwind(play).is_err());
}

#[test]
fn an_error_of_the_server_has_google_s_json_shape() {
    let server = Herd::single().start("Riley");
    let mut client = server.client();
    let at = client.ask("IAMAT x +1+2 3");
    client.send("WHATSAT x 10 5\n");
    client.expect(format!(
        "{at}\n{{\"html_attributions\" : [], \"results\" : [], \"status\" : \"UNKNOWN_ERROR\", \"error_message\" : \"this server has no key for \
         Google Places; its operator can give it one (HERD_PLACES_KEY)\"}}\n\n"
    ));
}
