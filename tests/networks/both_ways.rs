//! A cut in both directions, of which neither side is told anything.

use std::time::Duration;

use crate::fault::{Fault, Lasts, happen};
use crate::machine;
use crate::network::Network;

#[test]
fn a_silent_cut_is_noticed_and_healed_however_long_it_lasts() {
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
        // The kernel would wait for its next retransmission longer than the link may take to heal: a new connection must not.
        Fault {
            title: "a long silent cut",
            lasts: Lasts::Long(Duration::from_secs(20)),
            ..cut
        },
        // And longer still, 12 to 16 s, for its next try to connect: nobody may leave that to it.
        Fault {
            title: "a filter, for long",
            spoil: |network| {
                network.filter("Alice", "Bob");
                network.filter("Bob", "Alice");
            },
            lasts: Lasts::Long(Duration::from_secs(30)),
            ..cut
        },
        // Nobody has noticed yet, but here too the kernel's next retransmission is seconds away.
        Fault {
            title: "a short silent cut",
            lasts: Lasts::Short(Duration::from_millis(6_500)),
            ..cut
        },
    ]);
}
