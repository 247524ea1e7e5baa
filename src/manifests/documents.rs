//! The documents of a text, read as `kubectl` reads them: YAML 1.1, one at a time, the last of two equal keys.
//!
//! <https://github.com/kubernetes/apimachinery/blob/master/pkg/util/yaml/decoder.go> and
//! <https://yaml.org/spec/1.1/>

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use serde_saphyr::{DuplicateKeyPolicy, Spanned};

/// Marks the order of bytes in UTF-16, and UTF-8 on Windows.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// A document of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Document<'t> {
    text: &'t str,
    /// How many lines of the text precede it.
    lines_before: u64,
}

/// What a document contains.
#[derive(Debug, Default)]
pub(super) struct Content {
    /// Its values; none if it is empty.
    pub(super) values: Vec<Value>,
    /// The keys that are written twice in one object, each with its line.
    pub(super) repeated: Vec<(String, u64)>,
}

/// Decodes UTF-8, or UTF-16 with a byte order mark.
///
/// # Errors
/// Says what it is not.
pub fn decode(bytes: &[u8]) -> Result<Cow<'_, str>, &'static str> {
    let units = |of: fn([u8; 2]) -> u16, bytes: &[u8]| -> Vec<u16> {
        bytes.chunks_exact(2).map(|pair| of([pair[0], pair[1]])).collect()
    };
    let utf16 = match bytes {
        [0xff, 0xfe, rest @ ..] => Some((units(u16::from_le_bytes, rest), rest.len())),
        [0xfe, 0xff, rest @ ..] => Some((units(u16::from_be_bytes, rest), rest.len())),
        _ => None,
    };
    match utf16 {
        Some((units, length)) if length % 2 == 0 => {
            String::from_utf16(&units).map(Cow::Owned).map_err(|_| "the text is not valid UTF-16")
        }
        Some(_) => Err("the text is not valid UTF-16"),
        None => str::from_utf8(bytes).map(Cow::Borrowed).map_err(|_| "the text is not valid UTF-8"),
    }
}

/// Splits a text at its separators.
pub(super) fn split(text: &str) -> Vec<Document<'_>> {
    let (mut documents, mut start, mut at) = (Vec::new(), 0, 0);
    let (mut lines_before, mut lines) = (0, 0);
    for line in text.split_inclusive('\n') {
        if is_separator(line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line)) {
            documents.push(Document::new(&text[start..at], lines_before));
            (start, lines_before) = (at, lines);
        }
        at += line.len();
        lines += 1;
    }
    documents.push(Document::new(&text[start..], lines_before));
    documents
}

fn is_separator(line: &str) -> bool {
    line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace))
}

impl<'t> Document<'t> {
    fn new(text: &'t str, lines_before: u64) -> Self {
        let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
        Self { text, lines_before }
    }

    /// Reads the document.
    ///
    /// # Errors
    /// Says what is wrong with it, and in which line, but not what is written there: it may be a secret.
    pub(super) fn read(&self) -> Result<Content, String> {
        if self.has_only_directives() {
            return Ok(Content::default());
        }
        let options = serde_saphyr::options! {
            with_snippet: false,
            duplicate_keys: DuplicateKeyPolicy::PassThrough,
            legacy_octal_numbers: true,
        };
        let nodes: Vec<Node> =
            serde_saphyr::from_multiple_with_options(&self.without_inner_mark(), options).map_err(|problem| {
                problem.render_with_options(serde_saphyr::render_options! { line_offset: self.lines_before })
            })?;
        let mut content = Content::default();
        for node in nodes {
            content.values.push(node.value);
            content.repeated.extend(node.repeated.into_iter().map(|(key, line)| (key, line + self.lines_before)));
        }
        Ok(content)
    }

    /// Returns whether there is nothing but comments and directives, which precede the first separator.
    fn has_only_directives(&self) -> bool {
        let mut lines = self.text.lines().map(str::trim_end).filter(|line| !line.is_empty());
        lines.all(|line| line.starts_with(['%', '#']))
    }

    /// Returns the text without a byte order mark after its separator: it was at the start of a file that was appended
    /// to others.
    fn without_inner_mark(&self) -> Cow<'t, str> {
        match self.text.split_once('\n') {
            Some((separator, rest)) if is_separator(separator) && rest.starts_with(BYTE_ORDER_MARK) => {
                Cow::Owned(format!("{separator}\n{}", rest.trim_start_matches(BYTE_ORDER_MARK)))
            }
            _ => Cow::Borrowed(self.text),
        }
    }
}

/// A value, and the keys in it that are written twice, each with its line in the document.
struct Node {
    value: Value,
    repeated: Vec<(String, u64)>,
}

impl From<Value> for Node {
    fn from(value: Value) -> Self {
        Self { value, repeated: Vec::new() }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Value::Null.into())
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Value::from(value).into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Value::from(value).into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Value::from(value).into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Value::from(value).into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Value::from(value).into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let (mut list, mut repeated) = (Vec::new(), Vec::new());
        while let Some(node) = items.next_element::<Node>()? {
            list.push(node.value);
            repeated.extend(node.repeated);
        }
        Ok(Node { value: list.into(), repeated })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Node, A::Error> {
        let (mut map, mut repeated) = (Map::new(), Vec::new());
        while let Some((key, node)) = fields.next_entry::<Spanned<String>, Node>()? {
            repeated.extend(node.repeated);
            if map.insert(key.value.clone(), node.value).is_some() {
                repeated.push((key.value, key.referenced.line()));
            }
        }
        Ok(Node { value: map.into(), repeated })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Vec<Result<Vec<Value>, String>> {
        let contents = split(text).into_iter().map(|document| document.read());
        contents.map(|content| content.map(|content| content.values)).collect()
    }

    fn value(text: &str) -> Value {
        read(text).remove(0).unwrap().remove(0)
    }

    #[test]
    fn splits_at_separators_alone() {
        let text = "%YAML 1.1\n--- # first\na: 1\n---\n---\t\n{b: \"---\"}\n--- {c: |-}\n---not: one\n";
        let found = read("a: |\n  text\n  ---\n  more\n---\n");
        assert_eq!(found, [Ok(vec![json!({"a": "text\n---\nmore\n"})]), Ok(vec![])]);
        let found: Vec<Option<Vec<Value>>> = read(text).into_iter().map(Result::ok).collect();
        let expected = [Some(vec![]), Some(vec![json!({"a": 1})]), Some(vec![]), Some(vec![json!({"b": "---"})])];
        assert_eq!(found[..4], expected);
        assert_eq!((found.len(), &found[4]), (5, &None));
    }

    #[test]
    fn one_invalid_document_does_not_affect_others() {
        let found = read("a: 1\n---\nb: [\n---\nc: 3\n");
        assert_eq!((&found[0], &found[2]), (&Ok(vec![json!({"a": 1})]), &Ok(vec![json!({"c": 3})])));
        assert!(found[1].as_ref().unwrap_err().contains("line 3"), "{found:?}");
    }

    #[test]
    fn reads_yaml_1_1() {
        for (text, expected) in [
            ("[yes, Off, n, ON, True]", json!([true, false, false, true, true])),
            ("[010, 0644, 0b10, 0x1E, 1_800, 0o17]", json!([8, 420, 2, 30, 1800, 15])),
            (
                "[12:30:45, 2025-01-31, 8000:8001, 'yes', \"off\", !!str no]",
                json!(["12:30:45", "2025-01-31", "8000:8001", "yes", "off", "no"]),
            ),
            ("[~, null, '', 1e3, 0.5, -3]", json!([null, null, "", 1000.0, 0.5, -3])),
            ("{a: &x {b: 1, c: 2}, d: {<<: *x, c: 3}}", json!({"a": {"b": 1, "c": 2}, "d": {"b": 1, "c": 3}})),
            ("{\"a\": 1, 2: b}", json!({"a": 1, "2": "b"})),
        ] {
            assert_eq!(value(text), expected, "{text}");
        }
    }

    #[test]
    fn the_last_of_equal_keys_counts_and_each_is_reported_with_its_line() {
        let text = "x: 1\n---\na:\n  b: 1\n  c: {d: 1, d: 2}\n  b: 2\na: &a {e: 1}\nf: {<<: *a, e: 2}\n";
        let content = split(text)[1].read().unwrap();
        assert_eq!(content.values, [json!({"a": {"e": 1}, "f": {"e": 2}})]);
        assert_eq!(content.repeated, [("d".to_owned(), 5), ("b".to_owned(), 6), ("a".to_owned(), 7)]);
    }

    #[test]
    fn reads_windows_files() {
        let text = "\u{feff}a: |\r\n  one\r\n  two\r\n---\r\n\u{feff}# b\r\nb: 1\r\n\u{feff}---\r\nc: 1\r\n";
        let expected = [json!({"a": "one\ntwo\n"}), json!({"b": 1}), json!({"c": 1})];
        assert_eq!(read(text).into_iter().flat_map(Result::unwrap).collect::<Vec<_>>(), expected);
        for of in [u16::to_le_bytes, u16::to_be_bytes] {
            let bytes: Vec<u8> = "\u{feff}a: ä\n".encode_utf16().flat_map(of).collect();
            assert_eq!(decode(&bytes).as_deref(), Ok("a: ä\n"));
            assert!(decode(&bytes[..5]).is_err());
        }
        assert!(decode(b"a: \xff").is_err() && decode(b"\xff\xfe\x00\xd8").is_err());
    }
}
