//! Short digests that are the same in every release, for receipts and truncated names.

use std::fmt;

use serde_json::Value;
use siphasher::sip::SipHasher24;

/// A digest of eight hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest(u32);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl Digest {
    /// The number of digits.
    pub const LENGTH: usize = 8;

    /// Parses a displayed digest; none if the text is not one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let is_digest = text.len() == Self::LENGTH && text.bytes().all(is_digit);
        is_digest.then(|| u32::from_str_radix(text, 16).ok()).flatten().map(Self)
    }
}

/// Returns the digest of a text.
#[must_use]
pub fn of_text(text: &str) -> Digest {
    short(SipHasher24::new().hash(text.as_bytes()))
}

/// Returns the digest of a value, whatever the order of its fields.
#[must_use]
pub fn of_value(value: &Value) -> Digest {
    let mut bytes = Vec::with_capacity(32);
    feed(&mut bytes, value);
    short(SipHasher24::new().hash(&bytes))
}

/// Returns sixteen hexadecimal digits for a pod template, whatever the order of its fields. Empty fields are ignored: the API server
/// writes `resources: {}` and `creationTimestamp: null` if they are not set.
#[must_use]
pub fn of_template(template: &Value) -> String {
    let mut bytes = Vec::with_capacity(4096);
    feed(&mut bytes, template);
    format!("{:016x}", SipHasher24::new().hash(&bytes))
}

/// Returns the first eight of sixteen digits.
fn short(digest: u64) -> Digest {
    Digest((digest >> 32) as u32)
}

/// Writes a value without empty fields; each part has a tag and an end marker, so that the result is unambiguous.
fn feed(bytes: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => bytes.push(b'0'),
        Value::Bool(truth) => bytes.push(if *truth { b't' } else { b'f' }),
        Value::Number(number) => feed_text(bytes, b'n', &number.to_string()),
        Value::String(text) => feed_text(bytes, b's', text),
        Value::Array(items) => {
            bytes.push(b'[');
            for item in items {
                feed(bytes, item);
            }
            bytes.push(b']');
        }
        Value::Object(fields) => {
            bytes.push(b'{');
            // `serde_json` keeps the fields of an object sorted by name.
            for (name, value) in fields.iter().filter(|(name, value)| !is_ignored(name, value)) {
                feed_text(bytes, b'k', name);
                feed(bytes, value);
            }
            bytes.push(b'}');
        }
    }
}

fn feed_text(bytes: &mut Vec<u8>, tag: u8, text: &str) {
    bytes.push(tag);
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(0xff);
}

/// The fields of a pod template for which `{}` means the same as no field. Others differ: an empty `namespaceSelector`
/// selects every namespace, a missing one only the pod's own.
const IGNORED_WHEN_EMPTY: [&str; 9] = [
    "annotations",
    "labels",
    "limits",
    "livenessProbe",
    "metadata",
    "readinessProbe",
    "requests",
    "resources",
    "startupProbe",
];

/// Returns whether a field means the same as no field.
fn is_ignored(name: &str, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => {
            IGNORED_WHEN_EMPTY.contains(&name) && fields.iter().all(|(name, value)| is_ignored(name, value))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ignores_empty_fields() {
        let with_empty =
            json!({"metadata": {"creationTimestamp": null}, "spec": {"resources": {"limits": {}}, "a": 1}});
        assert_eq!(of_template(&with_empty), of_template(&json!({"spec": {"a": 1}})));
    }

    #[test]
    fn keeps_empty_fields_with_a_meaning() {
        let term = |selector: Value| json!({"spec": {"affinity": {"namespaceSelector": selector}}});
        assert_ne!(of_template(&term(json!({}))), of_template(&term(json!(null))));
        assert_ne!(of_template(&json!({"volumes": [{"emptyDir": {}}]})), of_template(&json!({"volumes": [{}]})));
    }

    #[test]
    fn adjacent_values_are_distinct() {
        assert_ne!(of_value(&json!(["ab", "c"])), of_value(&json!(["a", "bc"])));
        assert_ne!(of_value(&json!("1")), of_value(&json!(1)));
        assert_ne!(of_value(&json!([[], 1])), of_value(&json!([1])));
    }

    #[test]
    fn digests_are_the_same_in_every_release() {
        assert_eq!(of_text("ai-model-serving").to_string(), "8ecaa987");
        let template = json!({"spec": {"containers": [{"name": "a"}]}});
        assert_eq!(of_template(&template), "297d1e4fb8fbcca2");
    }
}
