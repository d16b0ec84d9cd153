//! The memory that the limits allow in the worst case, for `--check`.

use std::fmt;

use super::Config;
use crate::core::base::limits::Limits;
use crate::core::node;
use crate::core::table::records::Records;
use crate::shell::memory::{Budget, MemoryLimits};
use crate::shell::sockets::SOCKET_BYTES;

/// One part of the memory in the worst case, for example the table.
struct Part {
    name: &'static str,
    bytes: u64,
    /// How the number is computed, for the operator.
    explanation: String,
    /// The names of the limits that an operator can lower to make this part smaller.
    limits: &'static str,
}

/// The memory that a server needs if every limit is reached.
pub struct WorstCase {
    parts: Vec<Part>,
    memory_limits: MemoryLimits,
}

impl WorstCase {
    /// Computes the worst case from the limits.
    #[must_use]
    pub fn of(config: &Config, budget: &Budget, memory_limits: MemoryLimits) -> WorstCase {
        let limits = &config.settings.limits;
        let connections = config.connections();
        let connection_bytes = (node::CONNECTION_BYTES + SOCKET_BYTES) as u64;
        let mut parts = vec![
            Part {
                name: "table",
                bytes: Records::max_memory_bytes(limits),
                explanation: "max_record_bytes, and what is kept beside each of max_records".into(),
                limits: "limits.max_record_bytes and limits.max_records",
            },
            Part {
                name: "buffers",
                bytes: budget.bytes,
                explanation: budget.to_string(),
                limits: "limits.buffer_bytes",
            },
            Part {
                name: "log",
                bytes: limits.log_buffer_bytes.saturating_mul(2),
                explanation: "log_buffer_bytes, twice: what waits, and what is being written"
                    .into(),
                limits: "limits.log_buffer_bytes",
            },
            Part {
                name: "connections",
                bytes: connections.saturating_mul(connection_bytes),
                explanation: format!(
                    "{connection_bytes} bytes for each of {connections}, without buffers"
                ),
                limits: "limits.max_clients",
            },
        ];
        if config.journal.is_some() {
            parts.push(Part {
                name: "journal",
                bytes: limits.journal_ahead_bytes.saturating_mul(4),
                explanation: "journal_ahead_bytes, four times: two files, what waits, and what is being written".into(),
                limits: "limits.journal_ahead_bytes",
            });
        }
        WorstCase {
            parts,
            memory_limits,
        }
    }

    fn sum(&self) -> u64 {
        let bytes = self.parts.iter().map(|part| part.bytes);
        bytes.fold(0, u64::saturating_add)
    }

    /// Returns notes for the operator. There is a note if the sum of all parts is more than the
    /// process may have. There is another note for each reason why the server cannot find out how
    /// much the process may have.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let unknown = self.memory_limits.unknown.iter();
        let mut notes: Vec<String> = unknown
            .map(|what| format!("cannot tell how much memory the process may have: {what}"))
            .collect();
        let sum = self.sum();
        if let Some((bytes, limit)) = &self.memory_limits.smallest
            && sum > *bytes
            && let Some(greatest) = self.parts.iter().max_by_key(|part| part.bytes)
        {
            notes.push(format!(
                "the limits allow {sum} bytes of memory, and the process may have {bytes} ({limit}): lower {}, or give it more",
                greatest.limits
            ));
        }
        notes
    }
}

impl fmt::Display for WorstCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sum = self.sum();
        write!(f, "memory      {sum} bytes at most, by the limits")?;
        match &self.memory_limits.smallest {
            Some((bytes, limit)) => writeln!(f, "; the process may have {bytes} ({limit})")?,
            None => writeln!(f, "; it is unknown how much the process may have")?,
        }
        for Part {
            name,
            bytes,
            explanation,
            ..
        } in &self.parts
        {
            writeln!(f, "  {name:<24}{bytes:>12}  {explanation}")?;
        }
        Ok(())
    }
}

impl Config {
    /// Returns the number of connections that the limits allow.
    fn connections(&self) -> u64 {
        let Limits {
            max_clients,
            max_unproven,
            max_places_connections,
            ..
        } = &self.settings.limits;
        let unidentified = match self.settings.proxies.is_empty() {
            true => 0,
            false => self.settings.limits.max_unidentified,
        };
        let neighbours = self.settings.neighbours.len() as u64;
        let http = match self.settings.http {
            None => 0,
            Some(_) => self.settings.limits.max_http_connections,
        };
        max_clients + max_unproven + max_places_connections + unidentified + neighbours + http
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{HerdConfig, Overrides, Source};
    use crate::shell::memory::LimitKind;

    fn worst_case(memory_bytes: u64) -> WorstCase {
        let herd = HerdConfig::load(&Source::Name, Some("Riley")).unwrap();
        let config = herd.server("Riley", &Overrides::default()).unwrap();
        let memory_limits = MemoryLimits {
            smallest: Some((memory_bytes, LimitKind::Physical)),
            unknown: Vec::new(),
        };
        let budget = Budget::of(&config.settings.limits, &memory_limits);
        WorstCase::of(&config, &budget, memory_limits)
    }

    #[test]
    fn a_machine_that_is_too_small_for_the_limits_is_noted_with_what_to_lower() {
        let small = worst_case(1 << 30);
        assert!(small.sum() > 2 << 30, "{small}");
        let notes = small.notes().join("\n");
        assert!(
            notes.ends_with(
                "and the process may have 1073741824 (the machine's memory): lower limits.max_record_bytes and limits.max_records, or give it more"
            ),
            "{notes}"
        );
        assert_eq!(worst_case(16 << 30).notes(), [""; 0]);
    }

    #[test]
    fn the_table_shows_each_part_and_the_sum() {
        let worst = worst_case(16 << 30);
        let text = worst.to_string();
        let numbers: u64 = text
            .lines()
            .skip(1)
            .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
            .sum();
        assert_eq!(numbers, worst.sum(), "{text}");
        assert!(
            text.contains("  buffers                   4294967296  4294967296 bytes, a quarter"),
            "{text}"
        );
    }
}
