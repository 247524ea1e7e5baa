//! The policies that come with Tidegate.

/// The name and text of each.
pub const SHIPPED: [(&str, &str); 4] = [
    ("serving", include_str!("../../../../policies/serving.yaml")),
    ("baseline", include_str!("../../../../policies/baseline.yaml")),
    ("llm", include_str!("../../../../policies/llm.yaml")),
    ("production", include_str!("../../../../policies/production.yaml")),
];

/// Returns the text of the shipped policy of this name.
#[must_use]
pub fn shipped(name: &str) -> Option<&'static str> {
    SHIPPED.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}
