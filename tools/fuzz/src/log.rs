//! What the server logs, at every level: it has to be written, and to be fit for a terminal.

use log::{LevelFilter, Log, Metadata, Record};

/// Looks at each line, and keeps none.
struct Checker;

impl Log for Checker {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let line = record.args().to_string();
        let is_fit = |c: char| !c.is_control();
        assert!(line.chars().all(is_fit), "{line:?}");
        let key = std::str::from_utf8(crate::server::KEY).unwrap_or_default();
        assert!(!line.contains(key), "the key is in {line:?}");
    }

    fn flush(&self) {}
}

/// From now on, every line is looked at. Returns whether `input` can be used: one that tells the key, as libFuzzer found it in this
/// program's memory, is repeated in the log by a server that does not know better.
pub(crate) fn check(input: &[u8]) -> bool {
    // Fails if it was done before.
    if log::set_logger(&Checker).is_ok() {
        log::set_max_level(LevelFilter::Trace);
    }
    let key = crate::server::KEY;
    !input.windows(key.len()).any(|window| window == key)
}
