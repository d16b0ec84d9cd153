//! Tests of an operator's commands while the disk hangs.

use std::net::SocketAddr;

use super::tests::at;
use super::{ConnId, Node};
use crate::config::{HerdConfig, Overrides, Source};
use crate::core::base::hex::{Hex, unhex};
use crate::core::base::settings::Secret;
use crate::core::journal::durability::{Fsync, Opened};
use crate::core::link::OPERATOR;
use crate::core::link::proof::{Nonce, Parties, Side};
use crate::core::session::disposition::Disposition;

const NONCE: Nonce = [9; 16];

/// Returns a server whose journal gets no disk space, because its disk does not answer.
fn node_with_a_hung_disk() -> Node {
    let config = HerdConfig::load(&Source::Name, Some("Riley")).unwrap();
    let server = config.server("Riley", &Overrides::default()).unwrap();
    let mut settings = server.settings;
    settings.neighbours.clear();
    settings.secrets = Secret::new(b"secret".to_vec()).into();
    let mut node = Node::new(settings, &[7; 32], at(0));
    node.keep_journal(Fsync::Interval);
    node.journal_opened(Opened {
        length: 0,
        format: None,
        machine: 1,
    });
    while node.poll_disk_work(at(0)).is_some() {}
    node
}

/// Takes the output of a connection, and returns the output and the connection's disposition.
fn flush(node: &mut Node, id: ConnId, ms: u64) -> (String, Disposition) {
    node.handle_deadlines(at(ms));
    while node.poll_disk_work(at(ms)).is_some() {}
    while node.poll_dirty().is_some() {}
    let output = String::from_utf8(node.poll_output(id).to_vec()).unwrap();
    node.handle_output_sent(id, output.len(), at(ms));
    let disposition = node.poll_disposition(id, at(ms));
    node.check_invariants().unwrap();
    (output, disposition)
}

/// Connects an operator. The server sends the status to the operator.
fn operator(node: &mut Node) -> ConnId {
    let address: SocketAddr = "192.0.2.1:4000".parse().unwrap();
    let id = node.handle_neighbour_connected(address, at(0)).unwrap();
    let herd = format!("HERD 2 {OPERATOR} Riley {}\n", Hex(&NONCE));
    node.handle_data_received(id, herd.as_bytes(), at(0));
    let (output, _) = flush(node, id, 0);
    let theirs = output.trim_ascii_end().rsplit(' ').next().unwrap();
    let parties = Parties {
        dialler: (OPERATOR, &NONCE),
        acceptor: ("Riley", &unhex::<16>(theirs.as_bytes()).unwrap()),
    };
    let proof = parties.prove(Side::Dialler, &Secret::new(b"secret".to_vec()));
    node.handle_data_received(id, format!("PROOF {proof}\n").as_bytes(), at(0));
    let (output, _) = flush(node, id, 0);
    assert!(output.contains("STATUS boot="), "{output}");
    id
}

#[test]
fn an_operator_that_asks_for_nothing_more_does_not_wait_for_a_hung_disk() {
    let mut node = node_with_a_hung_disk();
    let [closing, idle] = [operator(&mut node), operator(&mut node)];
    assert!(node.wants_read(closing));
    node.handle_eof_received(closing, at(1));
    assert_eq!(flush(&mut node, closing, 1).1, Disposition::Close);
    let linger_ms = node.settings.limits.linger_ms;
    assert_eq!(flush(&mut node, idle, linger_ms - 1).1, Disposition::Open);
    assert_eq!(flush(&mut node, idle, linger_ms).1, Disposition::Finish);
}

#[test]
fn a_drain_does_not_wait_for_a_hung_disk() {
    let mut node = node_with_a_hung_disk();
    let id = operator(&mut node);
    node.handle_data_received(id, b"DRAIN\n", at(1));
    assert_eq!(
        flush(&mut node, id, 1),
        ("DRAINING 0 10000\n".to_owned(), Disposition::Finish)
    );
    assert!(node.is_draining() || node.is_stopping());
}

#[test]
fn a_forget_does_not_wait_for_a_hung_disk_for_ever() {
    let mut node = node_with_a_hung_disk();
    let id = operator(&mut node);
    node.handle_data_received(id, b"FORGET kiwi\n", at(1));
    let wait_ms = node.settings.limits.link_silence_ms;
    let waiting = (String::new(), Disposition::Open);
    assert_eq!(flush(&mut node, id, wait_ms - 1), waiting);
    let last = "BYE nothing is forgotten: its disk has made no room for the journal for 10000 ms\n";
    let (output, disposition) = flush(&mut node, id, wait_ms);
    assert_eq!((&*output, disposition), (last, Disposition::Finish));
    assert!(node.records().is_empty());
}

#[test]
fn a_follower_does_not_wait_for_a_hung_disk_to_be_answered() {
    let mut node = node_with_a_hung_disk();
    let id = operator(&mut node);
    node.handle_data_received(id, b"FOLLOW all\n", at(1));
    let (said, disposition) = flush(&mut node, id, 1);
    assert!(said.starts_with("FOLLOWING "), "{said}");
    assert_eq!(disposition, Disposition::Open);
}
