//! The server that is fuzzed: Juzang of the preset 2021, to whom Riley and Bernard dial, and who dials Campbell.

use std::sync::OnceLock;

use herd_mio::config::{HerdConfig, Overrides, Source};
use herd_mio::core::base::clock::{Now, Time};
use herd_mio::core::base::settings::Settings;

/// Its name.
pub(crate) const NAME: &str = "Juzang";
/// Its key for Google Places, which nobody may see. What a log escapes ends in other letters (`\xca`), so the rest of the key behind
/// that is not the key.
pub(crate) const KEY: &[u8] = b"KEY-that-nobody-may-see";
/// What [`Now::wall`] shows when [`Now::time`] is 0: a moment in 2021.
const WALL: u64 = 1_621_464_827_000_000_000;
/// Everything unpredictable grows from it, so that each run of an input is the same.
pub(crate) const SEED: [u8; 32] = [7; 32];

/// What it is configured with.
pub(crate) fn settings() -> Settings {
    static SETTINGS: OnceLock<Settings> = OnceLock::new();
    let made = SETTINGS.get_or_init(|| {
        let herd = HerdConfig::load(&Source::Preset("2021".to_owned()), Some(NAME));
        let server = herd.and_then(|herd| herd.server(NAME, &Overrides::default()));
        match server {
            Ok(config) => config.settings,
            Err(error) => panic!("a preset is a good configuration: {error}"),
        }
    });
    made.clone()
}

/// The moment so many milliseconds after the start.
pub(crate) fn at(ms: u64) -> Now {
    let nanos = ms.saturating_mul(1_000_000);
    Now {
        time: Time::from_nanos(nanos),
        wall: WALL.saturating_add(nanos),
    }
}
