//! The built-in herds (*presets*): those from the assignments of a university course, one for each
//! year. They need no config file.

/// A herd that the command line selects by its year.
#[derive(Debug, PartialEq, Eq)]
pub struct Preset {
    /// The year, which is the herd's name on the command line.
    pub year: &'static str,
    /// The names of the servers, in the order of their ports.
    pub servers: [&'static str; 5],
    /// Pairs of linked servers. The first server of a pair dials the second.
    pub links: &'static [(&'static str, &'static str)],
}

/// The port for clients of the first server. Each following server has the next higher port.
pub const CLIENT_PORT: u16 = 10_000;
/// The port for neighbours of the first server. Each following server has the next higher port.
pub const PEER_PORT: u16 = 11_000;
/// The year of the preset that [`by_server`] searches first, if the command line gives no year.
pub const DEFAULT_YEAR: &str = "2021";

/// All presets, oldest first.
pub const PRESETS: [Preset; 6] = [
    Preset {
        year: "2016",
        servers: ["Alford", "Ball", "Hamilton", "Holiday", "Welsh"],
        links: &[
            ("Alford", "Hamilton"),
            ("Alford", "Welsh"),
            ("Ball", "Holiday"),
            ("Ball", "Welsh"),
            ("Hamilton", "Holiday"),
        ],
    },
    Preset {
        year: "2018",
        servers: ["Goloman", "Hands", "Holiday", "Welsh", "Wilkes"],
        links: &[
            ("Goloman", "Hands"),
            ("Goloman", "Holiday"),
            ("Goloman", "Wilkes"),
            ("Hands", "Wilkes"),
            ("Holiday", "Welsh"),
            ("Holiday", "Wilkes"),
        ],
    },
    Preset {
        year: "2020",
        servers: ["Hill", "Jaquez", "Smith", "Campbell", "Singleton"],
        links: &[
            ("Hill", "Jaquez"),
            ("Hill", "Smith"),
            ("Singleton", "Jaquez"),
            ("Singleton", "Smith"),
            ("Singleton", "Campbell"),
            ("Smith", "Campbell"),
        ],
    },
    Preset {
        year: "2021",
        servers: ["Riley", "Jaquez", "Juzang", "Campbell", "Bernard"],
        links: &[
            ("Riley", "Jaquez"),
            ("Riley", "Juzang"),
            ("Bernard", "Jaquez"),
            ("Bernard", "Juzang"),
            ("Bernard", "Campbell"),
            ("Juzang", "Campbell"),
        ],
    },
    Preset {
        year: "2022",
        servers: ["Clark", "Jaquez", "Juzang", "Bernard", "Johnson"],
        links: &[
            ("Clark", "Jaquez"),
            ("Clark", "Juzang"),
            ("Bernard", "Juzang"),
            ("Bernard", "Jaquez"),
            ("Bernard", "Johnson"),
            ("Juzang", "Johnson"),
        ],
    },
    Preset {
        year: "2023",
        servers: ["Bailey", "Bona", "Campbell", "Clark", "Jaquez"],
        links: &[
            ("Clark", "Jaquez"),
            ("Clark", "Bona"),
            ("Campbell", "Bailey"),
            ("Campbell", "Bona"),
            ("Campbell", "Jaquez"),
            ("Bona", "Bailey"),
        ],
    },
];

/// Returns the preset of a year.
#[must_use]
pub fn by_year(year: &str) -> Option<&'static Preset> {
    PRESETS.iter().find(|preset| preset.year == year)
}

/// Returns the preset for a server's name: the preset [`DEFAULT_YEAR`] if it has the server, else
/// the newest preset that has the server.
///
/// ```
/// use herd_mio::presets;
///
/// assert_eq!(presets::by_server("Jaquez").unwrap().year, "2021");
/// assert_eq!(presets::by_server("Clark").unwrap().year, "2023");
/// assert_eq!(presets::by_server("Wilkes").unwrap().year, "2018");
/// ```
#[must_use]
pub fn by_server(name: &str) -> Option<&'static Preset> {
    let default = by_year(DEFAULT_YEAR).into_iter();
    default
        .chain(PRESETS.iter().rev())
        .find(|preset| preset.servers.contains(&name))
}

/// Returns all presets in one line, for an error about an unknown preset.
#[must_use]
pub fn list() -> String {
    let herds = PRESETS
        .iter()
        .map(|preset| format!("{} ({})", preset.year, preset.servers.join(" ")));
    herds.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_preset_is_a_connected_graph() {
        for preset in &PRESETS {
            let mut reached = HashSet::from([preset.servers[0]]);
            for _ in 0..preset.servers.len() {
                for (a, b) in preset.links {
                    assert!(
                        preset.servers.contains(a) && preset.servers.contains(b) && a != b,
                        "{a}-{b}"
                    );
                    if reached.contains(a) || reached.contains(b) {
                        reached.extend([*a, *b]);
                    }
                }
            }
            assert_eq!(reached.len(), 5, "{}", preset.year);
        }
    }
}
