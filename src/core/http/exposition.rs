//! Writes metrics in the text format of Prometheus 0.0.4 or of OpenMetrics 1.0.
//!
//! A *family* is a metric's name with its help and its type. A family has one sample, or one sample
//! for each combination of labels. All samples of a family are consecutive, and no family occurs
//! twice: otherwise a scraper may reject the whole text.

use std::fmt::{self, Write as _};

/// The two formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The text format of Prometheus, version 0.0.4.
    Prometheus,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// Chooses the format by the value of a request's `Accept`. The format is OpenMetrics if the
    /// request accepts OpenMetrics 1.0.0, or OpenMetrics without a version, and does not prefer
    /// `text/plain`.
    #[must_use]
    pub fn accepted(accept: &str) -> Format {
        let (mut open, mut text) = (0.0, 0.0);
        for choice in accept.split(',') {
            let mut parts = choice.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default();
            let parameters = parts.filter_map(|it| it.split_once('='));
            let (mut quality, mut version) = (1.0, "");
            for (name, value) in parameters {
                match name.trim() {
                    "q" => quality = value.trim().parse::<f32>().unwrap_or_default(),
                    "version" => version = value.trim(),
                    _ => {}
                }
            }
            match (kind, version) {
                ("application/openmetrics-text", "" | "1.0.0") => open = quality.max(open),
                ("text/plain", "" | "0.0.4") | ("text/*", _) => text = quality.max(text),
                (_, _) => {}
            }
        }
        match open > 0.0 && open >= text {
            true => Format::OpenMetrics,
            false => Format::Prometheus,
        }
    }
}

/// The text of all metrics.
pub struct Exposition {
    format: Format,
    text: String,
    /// The name of the last family.
    family: &'static str,
}

/// A label and its value.
pub type Label<'a> = (&'static str, &'a str);

impl Exposition {
    /// Begins a text.
    #[must_use]
    pub fn new(format: Format) -> Exposition {
        Exposition {
            format,
            text: String::with_capacity(16 << 10),
            family: "",
        }
    }

    /// Ends the text.
    #[must_use]
    pub fn finish(mut self) -> String {
        match self.format {
            Format::Prometheus => {}
            Format::OpenMetrics => self.text.push_str("# EOF\n"),
        }
        self.text
    }

    /// Begins a family whose values can go up and down. Its samples follow.
    pub fn gauges(&mut self, name: &'static str, help: &str) -> &mut Exposition {
        self.begin(name, name, "gauge", help)
    }

    /// Adds a gauge without labels.
    pub fn gauge(&mut self, name: &'static str, help: &str, value: impl fmt::Display) {
        self.gauges(name, help).sample(&[], value);
    }

    /// Begins a family whose values only grow. `name` ends with `_total`. Its samples follow.
    pub fn counters(&mut self, name: &'static str, help: &str) -> &mut Exposition {
        let described = match self.format {
            Format::Prometheus => name,
            Format::OpenMetrics => name.strip_suffix("_total").unwrap_or(name),
        };
        self.begin(name, described, "counter", help)
    }

    /// Adds a counter without labels.
    pub fn counter(&mut self, name: &'static str, help: &str, value: impl fmt::Display) {
        self.counters(name, help).sample(&[], value);
    }

    /// Adds a family whose information is in its labels. Its value is always 1. `name` ends with
    /// `_info`.
    pub fn info(&mut self, name: &'static str, help: &str, labels: &[Label<'_>]) {
        match self.format {
            Format::Prometheus => self.begin(name, name, "gauge", help),
            Format::OpenMetrics => {
                let described = name.strip_suffix("_info").unwrap_or(name);
                self.begin(name, described, "info", help)
            }
        };
        self.sample(labels, 1);
    }

    /// Adds a histogram of `count` values. `buckets` has each upper bound in seconds, with the
    /// number of values up to this bound. The last bucket, `+Inf`, is not in `buckets`.
    pub fn histogram(
        &mut self,
        name: &'static str,
        help: &str,
        buckets: impl Iterator<Item = (f64, u64)>,
        count: u64,
        sum_seconds: f64,
    ) {
        self.begin(name, name, "histogram", help);
        for (bound, count) in buckets {
            // OpenMetrics requires a decimal point in a bound.
            let point = if bound.fract() == 0.0 { ".0" } else { "" };
            let _ = writeln!(self.text, "{name}_bucket{{le=\"{bound}{point}\"}} {count}");
        }
        let _ = writeln!(self.text, "{name}_bucket{{le=\"+Inf\"}} {count}");
        let _ = writeln!(self.text, "{name}_sum {sum_seconds}\n{name}_count {count}");
    }

    /// Adds a sample to the last family.
    pub fn sample(&mut self, labels: &[Label<'_>], value: impl fmt::Display) -> &mut Exposition {
        self.text.push_str(self.family);
        for (place, (label, text)) in labels.iter().enumerate() {
            let begin = if place == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{begin}{label}=\"");
            escape(&mut self.text, text, true);
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}"); // writing to memory does not fail
        self
    }

    fn begin(
        &mut self,
        name: &'static str,
        described: &str,
        kind: &str,
        help: &str,
    ) -> &mut Exposition {
        self.family = name;
        let _ = write!(self.text, "# HELP {described} ");
        escape(&mut self.text, help, self.format == Format::OpenMetrics);
        let _ = write!(self.text, "\n# TYPE {described} {kind}\n");
        self
    }
}

fn escape(out: &mut String, text: &str, quotes: bool) {
    for letter in text.chars() {
        match letter {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            _ => out.push(letter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(format: Format) -> String {
        let mut out = Exposition::new(format);
        out.counter("a_total", "An \"a\".\\", 1);
        out.gauges("b", "B.")
            .sample(&[("x", "1\"\n\\"), ("y", "2")], 0.5)
            .sample(&[], -1);
        out.info("c_info", "C.", &[("version", "1")]);
        out.histogram(
            "d_seconds",
            "D.",
            [(0.001, 1), (1.0, 2)].into_iter(),
            3,
            1.5,
        );
        out.finish()
    }

    #[test]
    fn both_formats_are_written_as_their_specifications_say() {
        assert_eq!(
            text(Format::Prometheus),
            "# HELP a_total An \"a\".\\\\\n# TYPE a_total counter\na_total 1\n\
             # HELP b B.\n# TYPE b gauge\nb{x=\"1\\\"\\n\\\\\",y=\"2\"} 0.5\nb -1\n\
             # HELP c_info C.\n# TYPE c_info gauge\nc_info{version=\"1\"} 1\n\
             # HELP d_seconds D.\n# TYPE d_seconds histogram\n\
             d_seconds_bucket{le=\"0.001\"} 1\nd_seconds_bucket{le=\"1.0\"} 2\n\
             d_seconds_bucket{le=\"+Inf\"} 3\nd_seconds_sum 1.5\nd_seconds_count 3\n"
        );
        let open = text(Format::OpenMetrics);
        assert!(
            open.starts_with("# HELP a An \\\"a\\\".\\\\\n# TYPE a counter\na_total 1\n"),
            "{open}"
        );
        assert!(
            open.contains("# TYPE c info\nc_info{version=\"1\"} 1\n"),
            "{open}"
        );
        assert!(open.ends_with("\nd_seconds_count 3\n# EOF\n"), "{open}");
    }

    #[test]
    fn the_format_follows_accept() {
        let prometheus_2 = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, expected) in [
            (prometheus_2, Format::OpenMetrics),
            ("application/openmetrics-text", Format::OpenMetrics),
            (
                "application/openmetrics-text; version=0.0.1",
                Format::Prometheus,
            ),
            ("application/openmetrics-text;q=0", Format::Prometheus),
            (
                "application/openmetrics-text;q=0.1, text/plain",
                Format::Prometheus,
            ),
            ("text/plain;version=0.0.4", Format::Prometheus),
            ("*/*", Format::Prometheus),
            ("", Format::Prometheus),
        ] {
            assert_eq!(Format::accepted(accept), expected, "{accept}");
        }
    }
}
