//! How one server queries Google Places: the key, the API, and the certificate authorities to
//! trust.

use std::path::PathBuf;

use super::address::origin;
use super::redact::redact;
use super::secrets::read_secret;
use super::{ConfigError, HerdConfig, Overrides, invalid, tls};
use crate::core::base::settings::{HostPort, PlacesApi, PlacesQuota, PlacesSettings};

/// The fields that are requested from the New API by default.
const DEFAULT_FIELD_MASK: &str =
    "places.displayName,places.formattedAddress,places.location,places.types";

/// The default of `places.max_per_second`, the maximum number of questions to Google in a second. A
/// busy server sends fewer questions than this, and a flood of clients cannot make the server send
/// more.
const DEFAULT_PER_SECOND: u64 = 100;

/// The maximum value of `places.max_per_second`.
const MAX_PER_SECOND: u64 = 1_000_000;

/// The maximum value of `places.max_per_day` and of `places.max_per_day_per_address`.
const MAX_PER_DAY: u64 = 1_000_000_000;

impl HerdConfig {
    /// Returns the settings for Places, the source of the key, and the source of the authorities
    /// (for `--check`).
    pub(super) fn places(
        &self,
        overrides: &Overrides,
    ) -> Result<(PlacesSettings, String, String), ConfigError> {
        let file = &self.file.places;
        let api = match (overrides.places_api, file.api.as_deref()) {
            (Some(api), _) => api,
            (None, None) => PlacesApi::Legacy,
            (None, Some(word)) if word.eq_ignore_ascii_case("legacy") => PlacesApi::Legacy,
            (None, Some(word)) if word.eq_ignore_ascii_case("new") => PlacesApi::New,
            (None, Some(other)) => {
                return invalid(format!(
                    "{}: places.api is {:?}; it may be \"legacy\" or \"new\"",
                    self.title,
                    redact(other)
                ));
            }
        };
        let origin = match overrides.places_url.as_ref().or(file.url.as_ref()) {
            Some(url) => origin(url)?,
            None => HostPort {
                host: match api {
                    PlacesApi::Legacy => "maps.googleapis.com".into(),
                    PlacesApi::New => "places.googleapis.com".into(),
                },
                port: 443,
            },
        };
        let (key, key_source) = match (self.places_key_file(overrides), &overrides.places_key) {
            (Some(path), _) => (
                Some(read_secret(
                    &path,
                    "the Places key",
                    "--places-key-file or HERD_PLACES_KEY_FILE",
                )?),
                path.display().to_string(),
            ),
            (None, Some(key)) => (Some(key.clone()), "HERD_PLACES_KEY".into()),
            (None, None) => (None, "none".into()),
        };
        if key.as_ref().is_some_and(|key| {
            key.expose().is_empty() || !key.expose().iter().all(u8::is_ascii_graphic)
        }) {
            return invalid(format!(
                "the Places key from {key_source} is empty or has characters that no key has (spaces, controls, non-ASCII)"
            ));
        }
        let field_mask = overrides
            .places_field_mask
            .clone()
            .or(file.field_mask.clone())
            .unwrap_or_else(|| DEFAULT_FIELD_MASK.into());
        if field_mask.is_empty() || !field_mask.bytes().all(|byte| byte.is_ascii_graphic()) {
            return invalid(format!(
                "the field mask {:?} (--places-field-mask, HERD_PLACES_FIELD_MASK) must be names joined by commas, without spaces",
                redact(&field_mask)
            ));
        }
        let quota = self.quota(&origin)?;
        let ca_file = overrides
            .places_ca
            .clone()
            .or(file.ca_file.as_ref().map(|path| self.path(path)));
        let (roots, ca_source) = match ca_file {
            Some(path) => (
                tls::read_roots(&path, "--places-ca or HERD_PLACES_CA")?,
                path.display().to_string(),
            ),
            None => (
                tls::browser_roots(),
                "the Mozilla list that is built in".into(),
            ),
        };
        Ok((
            PlacesSettings {
                api,
                origin,
                key,
                field_mask,
                quota,
                tls: tls::client_config(roots, &[b"http/1.1"])?,
            },
            key_source,
            ca_source,
        ))
    }

    /// Returns how many questions may be sent to the server at `origin`. If the config file sets no
    /// limits, only questions to Google are limited, and only for each second. Any other server is
    /// taken for a test server, which sends no bill.
    fn quota(&self, origin: &HostPort) -> Result<PlacesQuota, ConfigError> {
        let file = &self.file.places;
        for (key, value, max) in [
            ("max_per_second", file.max_per_second, MAX_PER_SECOND),
            ("max_per_day", file.max_per_day, MAX_PER_DAY),
            (
                "max_per_day_per_address",
                file.max_per_day_per_address,
                MAX_PER_DAY,
            ),
        ] {
            if let Some(value) = value.filter(|value| *value > max) {
                return invalid(format!(
                    "{}: places.{key} is {value}, must be 0 to {max}",
                    self.title
                ));
            }
        }
        let is_google = origin.host.ends_with(".googleapis.com");
        let default = if is_google { DEFAULT_PER_SECOND } else { 0 };
        Ok(PlacesQuota {
            per_second: file.max_per_second.unwrap_or(default),
            per_day: file.max_per_day.unwrap_or(0),
            per_day_per_address: file.max_per_day_per_address,
        })
    }

    /// Returns the file with the key for Places. `None` if the key comes from an environment
    /// variable, or if there is no key.
    pub(super) fn places_key_file(&self, overrides: &Overrides) -> Option<PathBuf> {
        match (&overrides.places_key_file, &overrides.places_key) {
            (Some(path), _) => Some(path.clone()),
            (None, Some(_)) => None,
            (None, None) => self
                .file
                .places
                .key_file
                .as_ref()
                .map(|path| self.path(path)),
        }
    }
}
