//! Whether this machine allows network namespaces, and the message where it does not.

use std::io::Write as _;
use std::sync::OnceLock;

use crate::network::Network;

/// Whether `what` can be tested here. The first call finds out by building a small network. Where
/// it cannot be tested, a message says so; with `HERD_NETWORKS=required` the test fails.
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

/// Says that something is not tested. `eprintln` would not do: the test harness hides its output
/// when a test passes.
pub(crate) fn skipped(what: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {what}: {why}");
}
