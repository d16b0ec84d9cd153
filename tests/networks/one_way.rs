//! A cut in one direction: what one side says does not arrive, nor does its kernel's word for having heard the other.

use std::time::Duration;

use crate::fault::{Fault, Lasts, happen};
use crate::machine;
use crate::network::Network;

#[test]
fn a_one_way_cut_is_noticed_on_both_sides_and_healed() {
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
    // Nothing is on its way when the cut comes, so one more heartbeat arrives in the direction that works. Then the kernel there,
    // which is told of nothing that arrives, sends no more; and who heard that heartbeat notices last.
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
