//! A host that is off the network, and whose own kernel knows it: its interface is down, or its
//! address was removed.

use std::time::Duration;

use crate::fault::{Fault, Lasts, happen};
use crate::machine;

#[test]
fn a_lost_interface_or_address_is_detected_and_healed() {
    if !machine::allows("an interface that is off, an address that is gone") {
        return;
    }
    let dialler_off = Fault {
        title: "the dialler's interface is off",
        spoil: |network| network.set_interface("Alice", false),
        is_busy: true,
        lasts: Lasts::Long(Duration::from_secs(14)),
        mend: |network| network.set_interface("Alice", true),
    };
    happen(&[
        dialler_off,
        Fault {
            title: "the acceptor's interface is off",
            spoil: |network| network.set_interface("Bob", false),
            mend: |network| network.set_interface("Bob", true),
            ..dialler_off
        },
        Fault {
            title: "the dialler's address is gone",
            spoil: |network| network.set_address("Alice", false),
            mend: |network| network.set_address("Alice", true),
            ..dialler_off
        },
        Fault {
            title: "the acceptor's address is gone",
            spoil: |network| network.set_address("Bob", false),
            mend: |network| network.set_address("Bob", true),
            ..dialler_off
        },
    ]);
}
