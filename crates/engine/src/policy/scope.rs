//! Which workloads are model servers, by their labels.

use std::collections::BTreeMap;

/// Labels, all of which a workload must have.
pub type Labels = BTreeMap<String, String>;

/// Writes labels as a label selector, such as `a=1,b=2`.
///
/// <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#api>
#[must_use]
pub fn selector_of(labels: &Labels) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// The label selectors of model servers: a workload is one if any of them selects it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope(Vec<Labels>);

impl Scope {
    /// Returns the selectors, in the order in which they were given.
    #[must_use]
    pub fn selectors(&self) -> &[Labels] {
        &self.0
    }

    /// Returns the first selector that selects labels, of which a function returns the value for a key.
    pub fn selecting<'l>(&self, label: impl Fn(&str) -> Option<&'l str>) -> Option<&Labels> {
        self.0.iter().find(|selector| selector.iter().all(|(key, value)| label(key) == Some(value.as_str())))
    }

    /// Returns a label selector, as in a request to the API server, for as few workloads as possible among which are all
    /// that no selector selects: it cannot express the lack of one of several labels.
    #[must_use]
    pub fn complement(&self) -> String {
        let single = self.0.iter().filter(|selector| selector.len() == 1).flatten();
        single.map(|(key, value)| format!("{key}!={value}")).collect::<Vec<_>>().join(",")
    }
}

impl FromIterator<Labels> for Scope {
    fn from_iter<I: IntoIterator<Item = Labels>>(selectors: I) -> Self {
        let mut all: Vec<Labels> = Vec::new();
        for selector in selectors {
            if !all.contains(&selector) {
                all.push(selector);
            }
        }
        Self(all)
    }
}

impl<const N: usize> From<[(String, String); N]> for Scope {
    fn from(labels: [(String, String); N]) -> Self {
        Self(vec![labels.into()])
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn labels(of: &[(&str, &str)]) -> Labels {
        of.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn selects_what_any_selector_selects() {
        let (one, both) = (labels(&[("a", "1")]), labels(&[("b", "2"), ("c", "3")]));
        let scope: Scope = [one.clone(), both.clone(), one.clone()].into_iter().collect();
        assert_eq!(scope.selectors(), [one.clone(), both.clone()], "each once");
        let selecting = |found: Value| scope.selecting(|key| found.get(key)?.as_str()).cloned();
        assert_eq!(selecting(json!({"a": "1", "x": "y"})), Some(one));
        assert_eq!(selecting(json!({"b": "2", "c": "3"})), Some(both));
        assert_eq!(selecting(json!({"a": "2", "b": "2", "c": "4"})), None);
        assert_eq!((selecting(json!(null)), Scope::default().selecting(|_| Some("1"))), (None, None));
    }

    #[test]
    fn the_complement_excludes_what_single_labels_select() {
        let scope: Scope =
            [labels(&[("a", "1")]), labels(&[("b", "2"), ("c", "3")]), labels(&[("d", "4")])].into_iter().collect();
        assert_eq!(scope.complement(), "a!=1,d!=4");
        assert_eq!(Scope::default().complement(), "");
    }
}
