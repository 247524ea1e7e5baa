//! Short digests that stay the same from release to release: for receipts and for names that must be cut.

use serde_json::Value;
use siphasher::sip::SipHasher24;

/// Returns eight hexadecimal digits for a text.
#[must_use]
pub fn of_text(text: &str) -> String {
    hexadecimal(text.as_bytes(), 8)
}

/// Returns eight hexadecimal digits for a value, whatever the order of its fields.
#[must_use]
pub fn of_value(value: &Value) -> String {
    let mut bytes = Vec::with_capacity(32);
    feed(&mut bytes, value);
    hexadecimal(&bytes, 8)
}

/// Returns sixteen hexadecimal digits for a pod template, whatever the order of its fields and whether what is empty in
/// it is left out: the API server writes `resources: {}` and `creationTimestamp: null` where nothing was said.
#[must_use]
pub fn of_template(template: &Value) -> String {
    let mut bytes = Vec::with_capacity(4096);
    feed(&mut bytes, template);
    hexadecimal(&bytes, 16)
}

/// Returns the first digits, of sixteen, of a digest of bytes.
fn hexadecimal(bytes: &[u8], digits: usize) -> String {
    let mut digest = SipHasher24::new().hash(bytes);
    let mut text = String::with_capacity(digits);
    for _ in 0..digits {
        digest = digest.rotate_left(4);
        text.push(char::from(b"0123456789abcdef"[(digest & 0xf) as usize]));
    }
    text
}

/// Writes a value without what is empty in it; each part is told from its neighbours by a tag and an end.
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
            for (name, value) in fields.iter().filter(|(name, value)| !is_hollow(name, value)) {
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

/// The fields of a pod template that say the same as `{}` as when they are left out. Others do not: an empty
/// `namespaceSelector` selects every namespace, an absent one none but the pod's own.
const HOLLOW_WHEN_EMPTY: [&str; 9] = [
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

/// Tells whether a field says nothing.
fn is_hollow(name: &str, value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => {
            HOLLOW_WHEN_EMPTY.contains(&name) && fields.iter().all(|(name, value)| is_hollow(name, value))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_empty_does_not_count() {
        let said = json!({"metadata": {"creationTimestamp": null}, "spec": {"resources": {"limits": {}}, "a": 1}});
        assert_eq!(of_template(&said), of_template(&json!({"spec": {"a": 1}})));
    }

    #[test]
    fn what_means_something_when_empty_counts() {
        let term = |selector: Value| json!({"spec": {"affinity": {"namespaceSelector": selector}}});
        assert_ne!(of_template(&term(json!({}))), of_template(&term(json!(null))));
        assert_ne!(of_template(&json!({"volumes": [{"emptyDir": {}}]})), of_template(&json!({"volumes": [{}]})));
    }

    #[test]
    fn neighbours_are_told_apart() {
        assert_ne!(of_value(&json!(["ab", "c"])), of_value(&json!(["a", "bc"])));
        assert_ne!(of_value(&json!("1")), of_value(&json!(1)));
        assert_ne!(of_value(&json!([[], 1])), of_value(&json!([1])));
    }

    #[test]
    fn digests_are_the_same_in_every_release() {
        assert_eq!(of_text("ai-model-serving"), "8ecaa987");
        assert_eq!(of_template(&json!({"spec": {"containers": [{"name": "a"}]}})), "297d1e4fb8fbcca2");
    }
}
