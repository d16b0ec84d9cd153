//! Figures in a suitable unit.

/// Microseconds in a suitable unit, with three digits.
pub(crate) fn time(us: f64) -> String {
    let (value, unit) = match us {
        us if us < 999.5 => (us, "µs"),
        us if us < 999_500.0 => (us / 1000.0, "ms"),
        us => (us / 1_000_000.0, "s"),
    };
    let decimals = match value {
        value if value < 9.995 => 2,
        value if value < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits() {
        for (us, text) in [
            (0.0, "0.00 µs"),
            (9.994, "9.99 µs"),
            (9.996, "10.0 µs"),
            (123.4, "123 µs"),
            (999.6, "1.00 ms"),
            (12_345.0, "12.3 ms"),
            (2_500_000.0, "2.50 s"),
        ] {
            assert_eq!(time(us), text);
        }
    }
}
