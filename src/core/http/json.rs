//! Writes JSON (RFC 8259). The members of an object are in the order in which they are added.

use std::fmt::{self, Write as _};

use crate::core::wire::json::string;

/// A JSON object or list that is being written. Dropping the value writes the closing bracket.
pub struct Json<'a> {
    out: &'a mut String,
    is_first: bool,
    end: char,
}

impl<'a> Json<'a> {
    /// Begins an object.
    pub fn object(out: &'a mut String) -> Json<'a> {
        Json::begin(out, '{', '}')
    }

    fn begin(out: &'a mut String, begin: char, end: char) -> Json<'a> {
        out.push(begin);
        Json {
            out,
            is_first: true,
            end,
        }
    }

    fn comma(&mut self) {
        if !std::mem::replace(&mut self.is_first, false) {
            self.out.push(',');
        }
    }

    fn name(&mut self, name: &str) {
        self.comma();
        self.out.push_str(&string(name.as_bytes()));
        self.out.push(':');
    }

    /// Adds a number or a Boolean.
    pub fn value(&mut self, name: &str, value: impl fmt::Display) {
        self.name(name);
        let _ = write!(self.out, "{value}"); // writing to memory does not fail
    }

    /// Adds a number, or `null`.
    pub fn option(&mut self, name: &str, value: Option<impl fmt::Display>) {
        match value {
            Some(value) => self.value(name, value),
            None => self.value(name, "null"),
        }
    }

    /// Adds a string.
    pub fn text(&mut self, name: &str, value: impl fmt::Display) {
        self.name(name);
        self.out.push_str(&string(value.to_string().as_bytes()));
    }

    /// Adds an object.
    pub fn inner(&mut self, name: &str) -> Json<'_> {
        self.name(name);
        Json::object(self.out)
    }

    /// Adds a list.
    pub fn list(&mut self, name: &str) -> Json<'_> {
        self.name(name);
        Json::begin(self.out, '[', ']')
    }

    /// Adds an object to a list.
    pub fn entry(&mut self) -> Json<'_> {
        self.comma();
        Json::object(self.out)
    }

    /// Adds a number to a list.
    pub fn value_entry(&mut self, value: impl fmt::Display) {
        self.comma();
        let _ = write!(self.out, "{value}");
    }

    /// Adds a string to a list.
    pub fn text_entry(&mut self, value: impl fmt::Display) {
        self.comma();
        self.out.push_str(&string(value.to_string().as_bytes()));
    }
}

impl Drop for Json<'_> {
    fn drop(&mut self) {
        self.out.push(self.end);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_read_back_by_another_parser() {
        let mut out = String::new();
        let odd = "\"\\\u{0}\u{1f}\u{7f}\u{2028}é\n";
        {
            let mut json = Json::object(&mut out);
            json.value("a", 1);
            json.option("none", None::<u64>);
            json.text(odd, odd);
            {
                let mut list = json.list("list");
                list.entry().value("x", true);
                list.entry();
            }
            json.inner("inner").list("texts").text_entry("t");
        }
        let read: serde_json::Value = serde_json::from_str(&out).unwrap();
        let expected = serde_json::json!({
            "a": 1, "none": null, odd: odd, "list": [{"x": true}, {}], "inner": {"texts": ["t"]}
        });
        assert_eq!(read, expected, "{out}");
        assert!(
            out.is_ascii() || !out.chars().any(char::is_control),
            "{out}"
        );
    }
}
