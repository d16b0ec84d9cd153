//! Formats a configuration as text for `--check`.

use std::fmt::Write as _;

use super::Config;
use crate::core::base::counted::Counted;
use crate::core::base::settings::{PlacesApi, PlacesQuota, Settings};
use crate::core::journal::durability::Fsync;
use crate::logging::Rotation;
use crate::shell::start::JournalConfig;

impl Config {
    /// Returns the configuration as text with one setting on each line, for `--check`.
    #[must_use]
    pub fn describe(&self) -> String {
        let Settings {
            name,
            neighbours,
            secrets,
            places,
            proxies,
            limits,
            ..
        } = &self.settings;
        let (for_clients, for_neighbours) = self.tls_files.describe();
        let mut text = format!(
            "server      {name} of {}\nclients     {}\n",
            self.herd, self.ports.clients
        );
        // Writing to a String cannot fail.
        if let Some(address) = &self.ports.neighbours {
            let _ = writeln!(text, "neighbours  {address}");
        }
        let _ = match &self.settings.http {
            None => writeln!(text, "http        none: nothing listens for HTTP"),
            Some(http) => {
                let names = ["localhost".to_owned()]
                    .into_iter()
                    .chain(http.hosts.clone());
                let names: Vec<String> = names.collect();
                writeln!(
                    text,
                    "http        {}, for requests to this address and to {}",
                    http.listen,
                    names.join(", ")
                )
            }
        };
        for neighbour in neighbours {
            let how = if neighbour.we_dial {
                "dialled at"
            } else {
                "dials us from"
            };
            let host = if neighbour.we_dial {
                neighbour.address.to_string()
            } else {
                neighbour.address.host.clone()
            };
            let _ = writeln!(text, "link        {}, {how} {host}", neighbour.name);
        }
        let api = match places.api {
            PlacesApi::Legacy => "legacy",
            PlacesApi::New => "new",
        };
        let pair_note = match secrets.count() {
            1 => "",
            _ => ": two, the first is proven, both are taken",
        };
        let _ = writeln!(text, "secret      {}{pair_note}", self.secret_source);
        let _ = writeln!(text, "for clients {for_clients}");
        let _ = match proxies.is_empty() {
            true => writeln!(text, "proxies     none: a PROXY header is not believed"),
            false => writeln!(
                text,
                "proxies     {proxies}, which have to send a PROXY header"
            ),
        };
        let _ = writeln!(text, "for peers   {for_neighbours}");
        let _ = writeln!(text, "places      https://{}, {api} API", places.origin);
        if places.api == PlacesApi::New {
            let _ = writeln!(text, "field mask  {}", places.field_mask);
        }
        let _ = writeln!(text, "questions   {}", quota_text(&places.quota));
        let _ = writeln!(text, "places key  {}", self.key_source);
        let _ = writeln!(text, "places CA   {}", self.ca_source);
        let _ = match &self.journal {
            Some(JournalConfig { directory, fsync }) => {
                let when = match fsync {
                    Fsync::Always => "before each answer",
                    Fsync::Interval => "at intervals (limits.fsync_ms)",
                    Fsync::Never => "when the system likes",
                };
                writeln!(
                    text,
                    "journal     in {}, synced {when}",
                    directory.display()
                )
            }
            None => writeln!(text, "journal     none: positions live in memory"),
        };
        let _ = writeln!(
            text,
            "log         {}, level {}{}",
            self.log.file.display(),
            self.log.level.as_str().to_lowercase(),
            match &self.log.rotation {
                None => String::new(),
                Some(Rotation { max_bytes, keep }) => format!(
                    ", rotated at {max_bytes} bytes, {} kept",
                    Counted(*keep, "older file")
                ),
            }
        );
        for note in &self.notes {
            let _ = writeln!(text, "note        {note}");
        }
        text.push_str("limits\n");
        for limit in limits.all() {
            let _ = writeln!(
                text,
                "  {:<24}{:>12}  {}",
                limit.name, limit.value, limit.about
            );
        }
        text
    }
}

/// Returns how many questions Google Places may be asked, in words.
fn quota_text(quota: &PlacesQuota) -> String {
    let max = |key: &str, max: u64, period: &str| match max {
        0 => format!("any number {period} (places.{key})"),
        _ => format!("at most {max} {period} (places.{key})"),
    };
    let second = max("max_per_second", quota.per_second, "a second");
    let day = max("max_per_day", quota.per_day, "in 24 hours");
    if quota.per_day == 0 {
        return format!("{second}, {day}");
    }
    let share = match quota.per_day_per_address {
        Some(0) => "as many for one address".to_owned(),
        Some(max) => {
            format!("at most {max} for one address after half (places.max_per_day_per_address)")
        }
        None => format!(
            "at most {} for one address after half, loopback excepted (places.max_per_day_per_address)",
            quota.default_share()
        ),
    };
    format!("{second}, {day}, {share}")
}
