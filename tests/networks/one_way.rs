//! A cut in one direction: neither data nor TCP acknowledgements arrive from one side.

use std::time::Duration;

use crate::fault::{Fault, Lasts, happen};
use crate::machine;
use crate::network::Network;

#[test]
fn a_one_way_cut_is_detected_on_both_sides_and_healed() {
    if !machine::allows("one-way cuts") {
        return;
    }
    let to_acceptor = Fault {
        title: "a cut from the dialler to the acceptor",
        spoil: |network| network.cut("Alice", "Bob"),
        is_busy: true,
        lasts: Lasts::Long(Duration::from_secs(14)),
        mend: Network::mend,
    };
    let to_dialler = Fault {
        title: "a cut from the acceptor to the dialler",
        spoil: |network| network.cut("Bob", "Alice"),
        ..to_acceptor
    };
    // No data is in flight when the cut begins, so one more heartbeat arrives in the working
    // direction. No acknowledgement of it comes back, so the sending kernel sends nothing new after
    // it. The server that received this heartbeat notices the cut last.
    let quiet = |title, fault| Fault {
        title,
        is_busy: false,
        lasts: Lasts::UntilNoticed,
        ..fault
    };
    happen(&[
        to_acceptor,
        to_dialler,
        quiet("a cut from a quiet dialler to the acceptor", to_acceptor),
        quiet("a cut from a quiet acceptor to the dialler", to_dialler),
    ]);
}
