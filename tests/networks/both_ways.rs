//! A cut in both directions. No FIN, reset or ICMP error reports it to either side.

use std::time::Duration;

use crate::fault::{Fault, Lasts, happen};
use crate::machine;
use crate::network::Network;

#[test]
fn a_silent_cut_of_any_length_is_detected_and_healed() {
    if !machine::allows("silent cuts") {
        return;
    }
    let cut = Fault {
        title: "a silent cut",
        spoil: |network| {
            network.cut("Alice", "Bob");
            network.cut("Bob", "Alice");
        },
        is_busy: true,
        lasts: Lasts::UntilNoticed,
        mend: Network::mend,
    };
    happen(&[
        cut,
        Fault {
            title: "a silent cut on a quiet link",
            is_busy: false,
            ..cut
        },
        // The kernel's next retransmission would come later than `HEALED_WITHIN` allows. So the
        // servers have to make a new connection.
        Fault {
            title: "a long silent cut",
            lasts: Lasts::Long(Duration::from_secs(20)),
            ..cut
        },
        // The kernel's next SYN would come even later, after 12 to 16 s. So the servers must not
        // wait for it.
        Fault {
            title: "a filter, for long",
            spoil: |network| {
                network.filter("Alice", "Bob");
                network.filter("Bob", "Alice");
            },
            lasts: Lasts::Long(Duration::from_secs(30)),
            ..cut
        },
        // Neither server has noticed the cut yet, but the kernel's next retransmission is seconds
        // away here, too.
        Fault {
            title: "a short silent cut",
            lasts: Lasts::Short(Duration::from_millis(6_500)),
            ..cut
        },
    ]);
}
