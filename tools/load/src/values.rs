//! The values of options. Each function parses one kind of value, and explains an invalid one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use herd_mio::core::wire::message::Radius;

fn number(text: &str, least: f64, most: f64) -> Option<f64> {
    let number = text.parse().ok();
    number.filter(|number| (least..=most).contains(number))
}

/// A file in an existing directory. This is checked before the measurement, not after it.
pub(crate) fn in_a_directory(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.parent() {
        Some(directory) if directory != Path::new("") && !directory.is_dir() => Err(format!(
            "the directory {} does not exist",
            directory.display()
        )),
        _ if path.is_dir() => Err("it is a directory".to_owned()),
        _ => Ok(path),
    }
}

pub(crate) fn seconds(text: &str) -> Result<Duration, &'static str> {
    number(text, 0.0, 86_400.0)
        .map(Duration::from_secs_f64)
        .ok_or("it must be a number of seconds from 0 to 86400")
}

pub(crate) fn some_seconds(text: &str) -> Result<Duration, &'static str> {
    number(text, 0.001, 86_400.0)
        .map(Duration::from_secs_f64)
        .ok_or("it must be a number of seconds from 0.001 to 86400")
}

pub(crate) fn milliseconds(text: &str) -> Result<Duration, &'static str> {
    number(text, 0.0, 86_400_000.0)
        .map(|ms| Duration::from_secs_f64(ms / 1000.0))
        .ok_or("it must be a number of milliseconds from 0 to 86400000")
}

pub(crate) fn rate(text: &str) -> Result<f64, &'static str> {
    number(text, 0.001, 100_000_000.0)
        .ok_or("it must be a number of commands a second from 0.001 to 100000000")
}

pub(crate) fn radius(text: &str) -> Result<String, &'static str> {
    match Radius::parse(text.as_bytes()) {
        Some(_) => Ok(text.to_owned()),
        None => Err("it must be a number of kilometres, above 0 and at most 50"),
    }
}

pub(crate) fn prefix(text: &str) -> Result<String, &'static str> {
    let fits = (1..=64).contains(&text.len());
    if fits && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err("it must be 1 to 64 printable ASCII characters without spaces")
    }
}
