//! The command line of `herd-places`.

use std::net::SocketAddr;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{ArgGroup, Parser};

/// The default API key, which is no secret.
pub const DEFAULT_KEY: &str = "test-key";

/// A small HTTPS server that stands in for Google Places, with invented places.
///
/// It answers both Nearby Searches, the legacy one and the New API, in Google's layouts. Options
/// make it answer with faults. When it is ready, it prints its URL to the standard output. Then it
/// prints one line for each request to the standard error, without the key. SIGTERM and SIGINT end
/// it.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = EXAMPLES)]
#[command(group = ArgGroup::new("fault"))]
pub struct Arguments {
    /// The address to listen on; port 0 takes any free port
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:10443")]
    pub listen: SocketAddr,

    /// The file for the CA certificate that clients must trust; each start makes a new one
    #[arg(long, value_name = "PATH", default_value = "places-ca.pem")]
    pub ca_file: PathBuf,

    /// The valid API key: any word, but never a real key
    #[arg(long, value_name = "KEY", default_value = DEFAULT_KEY,
          value_parser = NonEmptyStringValueParser::new())]
    pub key: String,

    /// Do not print a line for each request
    #[arg(long)]
    pub quiet: bool,

    /// Wait this many milliseconds before each answer
    #[arg(
        long,
        value_name = "MS",
        group = "fault",
        help_heading = "Faults (at most one)"
    )]
    pub slow: Option<u64>,

    /// Send bodies in chunks of this many bytes (this is valid, and Google does it too)
    #[arg(
        long,
        value_name = "BYTES",
        group = "fault",
        help_heading = "Faults (at most one)"
    )]
    pub chunk: Option<NonZeroUsize>,

    /// Send bodies without a length, so that they end with the connection
    #[arg(long, group = "fault", help_heading = "Faults (at most one)")]
    pub close_delimited: bool,

    /// Close the connection without an answer
    #[arg(long, group = "fault", help_heading = "Faults (at most one)")]
    pub drop: bool,

    /// Send half of each body, then close the connection
    #[arg(long, group = "fault", help_heading = "Faults (at most one)")]
    pub truncate: bool,

    /// Answer with this HTTP status, 400 to 599, and an error in Google's format
    #[arg(long, value_name = "STATUS", group = "fault", help_heading = "Faults (at most one)",
          value_parser = clap::value_parser!(u16).range(400..=599))]
    pub fail: Option<u16>,

    /// Accept TCP connections, but never answer the TLS handshake
    #[arg(long, group = "fault", help_heading = "Faults (at most one)")]
    pub silent: bool,

    /// Apply the fault only to every Nth request
    #[arg(
        long,
        value_name = "N",
        requires = "fault",
        conflicts_with = "silent",
        help_heading = "Faults (at most one)"
    )]
    pub every: Option<NonZeroU64>,
}

const EXAMPLES: &str = "\
Examples:
  herd-places
  curl --cacert places-ca.pem \\
    'https://localhost:10443/maps/api/place/nearbysearch/json?location=34.0689,-118.4452&radius=1000&key=test-key'
  curl --cacert places-ca.pem https://localhost:10443/v1/places:searchNearby \\
    -H 'X-Goog-Api-Key: test-key' -H 'X-Goog-FieldMask: places.displayName,places.location' \\
    -d '{\"maxResultCount\": 3, \"locationRestriction\": {\"circle\": {
          \"center\": {\"latitude\": 34.0689, \"longitude\": -118.4452}, \"radius\": 1000}}}'

  herd-places --fail 503 --every 3      every third request fails
  herd-places --slow 2000               each answer takes two seconds
  herd-places --listen 127.0.0.1:0      any free port; the printed URL contains it

  herd-mio Riley --places-url https://localhost:10443 --places-ca places-ca.pem
                                        with HERD_PLACES_KEY=test-key: a server that asks this program

Around any point there are 60 places; beyond 80 degrees of latitude 7, and beyond 85 none.

Exit status: 0 after a signal, 1 if it cannot listen or write the CA file, 2 for a mistake in usage.";
