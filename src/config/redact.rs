//! Replaces possible secrets in the text that an error message quotes.
//!
//! It is an easy mistake to write the key in place of a file's name: `key_file = "AIza…"`. Errors
//! go to the standard error, and many people can read the logs with this output. So an error says
//! where the mistake is, and quotes only text that does not look like a secret.

use std::borrow::Cow;

/// The minimum length of a word that might be a secret. Google's keys have 39 characters, and a
/// secret made by `openssl rand -hex 32` has 64.
const MIN_SECRET_BYTES: usize = 20;
/// The text that replaces a possible secret.
const REDACTED: &str = "(not shown: it might be a secret)";

/// Whether a word looks like a secret: it has at least [`MIN_SECRET_BYTES`] bytes, and has letters
/// and digits.
fn looks_like_secret(word: &str) -> bool {
    word.len() >= MIN_SECRET_BYTES
        && word.bytes().any(|byte| byte.is_ascii_digit())
        && word.bytes().any(|byte| byte.is_ascii_alphabetic())
}

fn is_secret_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "+/=_-".contains(c)
}

/// Returns the text with each possible secret replaced.
///
/// ```
/// use herd_mio::config::redact::redact;
///
/// assert_eq!(redact("unknown field `max_cleints`"), "unknown field `max_cleints`");
/// assert_eq!(
///     redact("unknown field `AIzaSyD-9tSrke72PouQMnMX-a7eZSW0jkFMBWY`"),
///     "unknown field `(not shown: it might be a secret)`"
/// );
/// ```
#[must_use]
pub fn redact(text: &str) -> Cow<'_, str> {
    let is_word = |word: &&str| looks_like_secret(word);
    if text.split(|c| !is_secret_char(c)).find(is_word).is_none() {
        return Cow::Borrowed(text);
    }
    let mut redacted = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let word = rest.find(|c| !is_secret_char(c)).unwrap_or(rest.len());
        redacted.push_str(if looks_like_secret(&rest[..word]) {
            REDACTED
        } else {
            &rest[..word]
        });
        let next = rest[word..]
            .find(is_secret_char)
            .map_or(rest.len(), |at| word + at);
        redacted.push_str(&rest[word..next]);
        rest = &rest[next..];
    }
    Cow::Owned(redacted)
}

/// Returns the TOML parser's message about a file, in one line. If the file has a string where
/// another type is expected, the message does not quote the string. Even a short string could be a
/// secret.
#[must_use]
pub fn redact_parser_message(message: &str) -> String {
    let message = message.replace('\n', " ");
    let without_value = ["invalid type: string \"", "invalid value: string \""]
        .into_iter()
        .find_map(|start| {
            let (_, expected) = message.strip_prefix(start)?.rsplit_once("\", expected ")?;
            let kind = start.strip_suffix(" \"")?;
            Some(format!("{kind}, expected {expected}"))
        });
    redact(&without_value.unwrap_or(message)).into_owned()
}

/// Returns a URL up to the end of its path, without user name and password. The query and the
/// fragment after the path are left out, because they may contain a key.
#[must_use]
pub fn redact_url(url: &str) -> String {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let (shown, rest) = url.split_at(end);
    let shown = match shown.rsplit_once('@') {
        Some((_, host)) => format!("…@{host}"),
        None => shown.to_owned(),
    };
    let more = if rest.is_empty() { "" } else { "…" };
    format!("{}{more}", redact(&shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_looks_like_a_secret_is_redacted() {
        for secret in [
            "AIzaSyD-9tSrke72PouQMnMX-a7eZSW0jkFMBWY",
            "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "n4bQgYhMfWWaL+qgxVrQFaO/TxsrC4Is0V1sFbDwCgg=",
        ] {
            for around in ["{}", "a {} b", "'{}'", "x: \"{}\", expected y", "<{}>{}"] {
                let text = around.replace("{}", secret);
                let redacted = redact(&text);
                assert!(!redacted.contains(&secret[8..16]), "{redacted}");
                assert!(redacted.contains(REDACTED), "{redacted}");
            }
        }
        for harmless in [
            "",
            "--places-field-mask",
            "127.0.0.1:10000",
            "output_high_bytes, output_low_bytes, places_handshake_ms",
            "Ümläute and – dashes, 2026",
        ] {
            assert_eq!(redact(harmless), harmless);
        }
    }

    #[test]
    fn a_string_in_place_of_a_table_is_redacted() {
        assert_eq!(
            redact_parser_message(
                "invalid type: string \"correct horse\", expected \", expected struct X"
            ),
            "invalid type: string, expected struct X"
        );
        assert_eq!(
            redact_parser_message("unknown field `a`,\nexpected `b`"),
            "unknown field `a`, expected `b`"
        );
    }

    #[test]
    fn a_url_is_shown_without_query_and_user() {
        for (url, shown) in [
            ("http://a.test/b", "http://a.test/b"),
            ("https://a.test/json?key=k&x", "https://a.test/json…"),
            ("https://me:pass@a.test:1", "…@a.test:1"),
            ("https://a.test#k", "https://a.test…"),
        ] {
            assert_eq!(redact_url(url), shown);
        }
    }
}
