//! The flag `--selector`: the labels that make a workload a model server.

use std::str::FromStr;

use tidegate_engine::policy::{Labels, Scope};

/// The default label that makes a workload a model server.
pub(super) const DEFAULT_SELECTOR: &str = "app.kubernetes.io/component=model-server";

/// Labels, all of which a model server must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Selector(Labels);

impl FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pair = |pair: &str| match pair.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() && !value.trim().is_empty() => {
                Ok((key.trim().to_owned(), value.trim().to_owned()))
            }
            _ => Err(format!("`{pair}` must be KEY=VALUE; separate several with commas")),
        };
        text.split(',').map(pair).collect::<Result<_, _>>().map(Self)
    }
}

/// Returns the workloads that any of several selectors selects.
pub(super) fn scope(selectors: Vec<Selector>) -> Scope {
    selectors.into_iter().map(|Selector(labels)| labels).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_is_one_label_or_several() {
        let selector: Selector = "a=1, b/c=2".parse().unwrap();
        assert_eq!(selector.0, Labels::from([("a".into(), "1".into()), ("b/c".into(), "2".into())]));
        for invalid in ["", "a", "a=", " =1", "a=1,"] {
            assert!(invalid.parse::<Selector>().is_err(), "{invalid}");
        }
    }

    #[test]
    fn several_selectors_are_alternatives() {
        let selector = |text: &str| text.parse::<Selector>().unwrap();
        let scope = scope(vec![selector("a=1"), selector("b=2"), selector("a=1")]);
        assert_eq!(scope.selectors().len(), 2);
        assert!(scope.selecting(|key| (key == "b").then_some("2")).is_some());
    }
}
