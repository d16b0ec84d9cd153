//! Whether this machine lets the tests have networks of their own, and what is said where it does not.

use std::io::Write as _;
use std::sync::OnceLock;

use crate::network::Network;

/// Whether `what` can be tested here, which is found out once, by building a small network. Where it cannot, that is said; or it is
/// a failure, if `HERD_NETWORKS` says so.
pub(crate) fn allows(what: &str) -> bool {
    let is_required = match std::env::var("HERD_NETWORKS").as_deref() {
        Err(_) | Ok("") => false,
        Ok("required") => true,
        Ok(other) => panic!("HERD_NETWORKS is {other:?}; it may be \"required\", or not be set"),
    };
    static MISSING: OnceLock<Option<String>> = OnceLock::new();
    let missing = MISSING.get_or_init(|| Network::new(&["Alice", "Bob"]).err());
    if let Some(missing) = missing {
        let why = format!("{missing} (it takes root, ip and nft)");
        assert!(
            !is_required,
            "HERD_NETWORKS=required, but not {what}: {why}"
        );
        skipped(what, &why);
    }
    missing.is_none()
}

/// Tells of something that is not tested. Not with `eprintln`, which the test harness keeps to itself when a test passes.
pub(crate) fn skipped(what: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {what}: {why}");
}
