//! JSON in Google's two layouts, which no serialiser writes.
//!
//! The layout matters: herd-mio passes Google's text on byte for byte. So the text of tests must
//! have Google's colons, spaces and escapes.

/// A JSON value. An object keeps the order of its fields.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    Text(String),
    Number(f64),
    List(Vec<Json>),
    Object(Vec<(&'static str, Json)>),
}

impl Json {
    pub(crate) fn text(text: impl Into<String>) -> Json {
        Json::Text(text.into())
    }

    pub(crate) fn texts(texts: &[&str]) -> Json {
        Json::List(texts.iter().map(|text| Json::text(*text)).collect())
    }

    /// The legacy API's layout: three spaces, `"key" : value`, lists of strings on one line. `&`,
    /// `'`, `<`, `=` and `>` are escaped, because the text may stand in HTML pages.
    pub(crate) fn legacy(&self) -> String {
        self.written(&Layout {
            indent: "   ",
            colon: " : ",
            words_on_one_line: true,
            escaped: "&'<=>",
        })
    }

    /// The New API's layout: two spaces, `"key": value`, each element on its own line.
    pub(crate) fn modern(&self) -> String {
        self.written(&Layout {
            indent: "  ",
            colon: ": ",
            words_on_one_line: false,
            escaped: "<>",
        })
    }

    fn written(&self, layout: &Layout) -> String {
        let mut out = String::new();
        layout.value(&mut out, self, 0);
        out.push('\n');
        out
    }
}

struct Layout {
    indent: &'static str,
    colon: &'static str,
    words_on_one_line: bool,
    escaped: &'static str,
}

impl Layout {
    fn value(&self, out: &mut String, value: &Json, depth: usize) {
        match value {
            Json::Text(text) => self.text(out, text),
            // `Display` of an f64 is the shortest decimal that reads back the same. It has no
            // exponent, and a whole number has no point. Google writes numbers in the same way.
            Json::Number(number) => out.push_str(&number.to_string()),
            Json::List(items) if items.is_empty() => out.push_str("[]"),
            Json::List(items)
                if self.words_on_one_line
                    && items.iter().all(|item| matches!(item, Json::Text(_))) =>
            {
                out.push_str("[ ");
                for (index, item) in items.iter().enumerate() {
                    out.push_str(if index == 0 { "" } else { ", " });
                    self.value(out, item, depth);
                }
                out.push_str(" ]");
            }
            Json::List(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    self.line(out, index, depth + 1);
                    self.value(out, item, depth + 1);
                }
                self.line(out, 0, depth);
                out.push(']');
            }
            Json::Object(fields) if fields.is_empty() => out.push_str("{}"),
            Json::Object(fields) => {
                out.push('{');
                for (index, (name, value)) in fields.iter().enumerate() {
                    self.line(out, index, depth + 1);
                    self.text(out, name);
                    out.push_str(self.colon);
                    self.value(out, value, depth + 1);
                }
                self.line(out, 0, depth);
                out.push('}');
            }
        }
    }

    fn line(&self, out: &mut String, index: usize, depth: usize) {
        out.push_str(if index == 0 { "\n" } else { ",\n" });
        for _ in 0..depth {
            out.push_str(self.indent);
        }
    }

    fn text(&self, out: &mut String, text: &str) {
        out.push('"');
        for letter in text.chars() {
            match letter {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                // All characters to escape here are below U+0080, so four digits are enough.
                _ if letter.is_ascii_control() || self.escaped.contains(letter) => {
                    out.push_str(&format!("\\u{:04x}", u32::from(letter)));
                }
                _ => out.push(letter),
            }
        }
        out.push('"');
    }
}

#[cfg(test)]
mod tests {
    use super::Json;

    fn sample() -> Json {
        Json::Object(vec![
            ("empty", Json::List(vec![])),
            ("name", Json::text("\"Café\" & O'Neill <a\\b>\n")),
            ("types", Json::texts(&["cafe", "food"])),
            (
                "spot",
                Json::Object(vec![
                    ("lat", Json::Number(-33.8587323)),
                    ("lng", Json::Number(4.0)),
                ]),
            ),
        ])
    }

    #[test]
    fn json_is_written_in_the_legacy_layout() {
        let expected = r#"{
   "empty" : [],
   "name" : "\"Café\" \u0026 O\u0027Neill \u003ca\\b\u003e\n",
   "types" : [ "cafe", "food" ],
   "spot" : {
      "lat" : -33.8587323,
      "lng" : 4
   }
}
"#;
        assert_eq!(sample().legacy(), expected);
    }

    #[test]
    fn json_is_written_in_the_modern_layout() {
        let expected = r#"{
  "empty": [],
  "name": "\"Café\" & O'Neill \u003ca\\b\u003e\n",
  "types": [
    "cafe",
    "food"
  ],
  "spot": {
    "lat": -33.8587323,
    "lng": 4
  }
}
"#;
        assert_eq!(sample().modern(), expected);
    }

    #[test]
    fn an_empty_object_is_two_brackets() {
        assert_eq!(Json::Object(vec![]).modern(), "{}\n");
    }
}
