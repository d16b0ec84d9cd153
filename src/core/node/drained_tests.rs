//! Tests of a drain, under virtual time.

use super::tests::{at, node};
use super::{ConnId, Node};
use crate::core::base::limits::Limits;
use crate::core::session::disposition::Disposition;

fn connect(node: &mut Node, count: u16) -> Vec<ConnId> {
    (1..=count)
        .map(|port| {
            let address = ([192, 0, 2, 1], port).into();
            node.handle_client_connected(address, at(0)).unwrap()
        })
        .collect()
}

/// Handles the deadlines that are due at `ms`, and flushes the dirty connections. Returns the
/// connections whose writing side the server has shut down. These connections, and those that the
/// server closes, are lost at once.
fn turn(node: &mut Node, ms: u64) -> Vec<ConnId> {
    node.handle_deadlines(at(ms));
    let mut finished = Vec::new();
    while let Some(id) = node.poll_dirty() {
        let sent = node.poll_output(id).len();
        node.handle_output_sent(id, sent, at(ms));
        match node.poll_disposition(id, at(ms)) {
            Disposition::Open => continue,
            Disposition::Finish => finished.push(id),
            Disposition::Close => {}
        }
        node.handle_connection_lost(id, None, at(ms));
    }
    node.check_invariants().unwrap();
    finished
}

/// Runs turns until the server has stopped. Returns the clients that were closed, each with the
/// time in milliseconds.
fn drain(node: &mut Node, from_ms: u64) -> Vec<(u64, ConnId)> {
    let mut closed = Vec::new();
    for ms in from_ms..100_000 {
        let due = node.next_deadline().is_some_and(|due| due <= at(ms).time);
        if due {
            closed.extend(turn(node, ms).into_iter().map(|id| (ms, id)));
        }
        if node.is_stopped() {
            return closed;
        }
    }
    panic!("the drain does not end");
}

fn limits(drain_ms: u64) -> Limits {
    Limits {
        drain_ms,
        max_clients_per_address: 10_000,
        ..Limits::default()
    }
}

#[test]
fn clients_are_closed_evenly_and_the_server_stops_with_the_last() {
    let mut node = node(limits(1_000));
    let clients = connect(&mut node, 10);
    turn(&mut node, 0);
    node.handle_drain(at(0));
    assert!(node.is_draining() && !node.is_stopping());
    let closed = drain(&mut node, 0);
    let times: Vec<u64> = closed.iter().map(|(ms, _)| *ms).collect();
    assert_eq!(times, [10, 109, 208, 307, 406, 505, 604, 703, 802, 901]);
    assert_eq!(closed.len(), clients.len());
    assert!(node.is_stopping() && !node.is_draining());
}

#[test]
fn many_clients_are_closed_in_steps_of_ten_milliseconds() {
    let mut node = node(limits(1_000));
    connect(&mut node, 5_000);
    turn(&mut node, 0);
    node.handle_drain(at(0));
    let closed = drain(&mut node, 0);
    assert_eq!(closed.len(), 5_000);
    for step in 1..100 {
        let range = step * 10..(step + 1) * 10;
        let in_step = closed.iter().filter(|(ms, _)| range.contains(ms)).count();
        assert!((50..=52).contains(&in_step), "{in_step} in step {step}");
    }
}

#[test]
fn silent_clients_are_closed_first_and_unfinished_ones_last() {
    let mut node = node(limits(1_000));
    let clients = connect(&mut node, 4);
    turn(&mut node, 0);
    node.handle_data_received(clients[0], b"IAMAT half", at(0));
    node.handle_drain(at(0));
    node.handle_data_received(clients[1], b"x\n", at(0));
    turn(&mut node, 10);
    assert_eq!(node.clients(), 3, "a silent one is closed first");
    node.handle_data_received(clients[1], b"y\n", at(260));
    let mut closed = drain(&mut node, 260);
    closed.retain(|(_, id)| *id != clients[0]);
    let order: Vec<ConnId> = closed.iter().map(|(_, id)| *id).collect();
    assert_eq!(order, [clients[3], clients[1]]);
}

#[test]
fn a_client_in_the_middle_of_a_command_gets_its_answer_and_is_closed_then() {
    let mut node = node(limits(1_000));
    let clients = connect(&mut node, 1);
    turn(&mut node, 0);
    node.handle_data_received(clients[0], b"IAMAT x +1+2 ", at(0));
    node.handle_drain(at(0));
    assert_eq!(turn(&mut node, 10), []);
    assert!(
        node.wants_read(clients[0]),
        "the rest of the command is read"
    );
    node.handle_data_received(clients[0], b"3\nagain\n", at(500));
    let answer = String::from_utf8(node.poll_output(clients[0]).to_vec()).unwrap();
    assert!(
        answer.starts_with("AT Riley ") && answer.ends_with(" x +1+2 3\n? again\n"),
        "{answer}"
    );
    node.handle_output_sent(clients[0], 5, at(500));
    let more = node.poll_disposition(clients[0], at(500));
    assert_eq!(more, Disposition::Open, "the answer is not sent yet");
    node.handle_output_sent(clients[0], answer.len() - 5, at(501));
    let all = node.poll_disposition(clients[0], at(501));
    assert_eq!(all, Disposition::Finish);
}

#[test]
fn the_drain_ends_after_drain_ms_as_a_stop_does() {
    let mut node = node(limits(1_000));
    let clients = connect(&mut node, 2);
    turn(&mut node, 0);
    for client in &clients {
        node.handle_data_received(*client, b"never finished", at(0));
    }
    node.handle_drain(at(0));
    for ms in 0..1_000 {
        assert_eq!(turn(&mut node, ms), []);
    }
    assert!(node.is_draining());
    turn(&mut node, 1_000);
    assert!(node.is_stopping());
    drain(&mut node, 1_000);
}

#[test]
fn clients_that_the_system_had_accepted_are_served_and_drained() {
    let mut node = node(limits(1_000));
    node.handle_drain(at(0));
    let late = connect(&mut node, 1)[0];
    node.handle_data_received(late, b"x\n", at(0));
    assert_eq!(node.poll_output(late), b"? x\n");
    assert_eq!(drain(&mut node, 0).len(), 1);
}

#[test]
fn a_second_drain_changes_nothing_and_a_stop_ends_it() {
    let mut node = node(limits(1_000));
    connect(&mut node, 2);
    turn(&mut node, 0);
    node.handle_drain(at(0));
    turn(&mut node, 10);
    node.handle_drain(at(400));
    assert_eq!(turn(&mut node, 400), []);
    node.handle_stop(at(400));
    assert!(node.is_stopping() && !node.is_draining());
    node.handle_drain(at(401));
    assert!(!node.is_draining(), "a stop goes on");
    drain(&mut node, 401);
}

#[test]
fn drain_ms_of_0_is_a_stop() {
    let mut node = node(limits(0));
    connect(&mut node, 3);
    node.handle_drain(at(0));
    node.handle_deadlines(at(0));
    assert!(node.is_stopping());
}
