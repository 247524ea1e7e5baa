//! The receipt: an annotation on the workload that tells what Tidegate injected from what people wrote.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Injection;
use crate::api::RECEIPT_ANNOTATION;
use crate::digest;
use crate::workload::{Path, Workload};

/// What was injected into a pod template, by whom, and for which template.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// The digest of the template that the receipt was written for, injected values included.
    template: String,
    /// By policy and generation (`serving@3`): the injected paths as a tree, with a digest of the value at each leaf.
    set: BTreeMap<String, Tree>,
}

/// Paths with common beginnings, each ending in the digest of a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Tree {
    Leaf(String),
    Branch(BTreeMap<String, Tree>),
}

/// One injected value, as the receipt has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it is, from the pod spec.
    pub path: Path,
    /// The policy and generation that set it, such as `serving@3`.
    pub policy: String,
    digest: String,
}

impl Receipt {
    /// Writes the receipt of what was injected into a template.
    #[must_use]
    pub fn write(template: &Value, injections: &[Injection]) -> Self {
        let mut set: BTreeMap<String, Tree> = BTreeMap::new();
        for same in injections.chunk_by(|one, next| one.policy == next.policy) {
            let tree = set.entry(same[0].policy.to_string()).or_insert_with(Tree::empty);
            for injection in same {
                tree.insert(injection.path.segments(), digest::of_value(&injection.value));
            }
        }
        Self { template: digest::of_template(template), set }
    }

    /// Reads the receipt of a workload; none where there is none or it is not one that Tidegate wrote.
    #[must_use]
    pub fn of(workload: &Workload) -> Option<Self> {
        serde_json::from_str(workload.annotation(RECEIPT_ANNOTATION)?).ok()
    }

    /// Tells whether the receipt was written for exactly this template, every injected value still in it.
    #[must_use]
    pub fn fits(&self, template: &Value) -> bool {
        self.template == digest::of_template(template)
            && self.entries().iter().all(|entry| entry.is_in(&template["spec"]))
    }

    /// Returns all that was injected.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        for (policy, tree) in &self.set {
            tree.collect(&mut Vec::new(), &mut |path, digest| {
                entries.push(Entry { path: Path::new(path), policy: policy.clone(), digest: digest.to_owned() });
            });
        }
        entries
    }
}

impl Entry {
    /// Tells whether the injected value is still there as it was injected.
    #[must_use]
    pub fn is_in(&self, pod_spec: &Value) -> bool {
        self.path.get(pod_spec).is_some_and(|value| digest::of_value(value) == self.digest)
    }
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl Tree {
    fn empty() -> Self {
        Self::Branch(BTreeMap::new())
    }

    fn insert(&mut self, path: &[String], digest: String) {
        let (Self::Branch(children), Some((segment, rest))) = (self, path.split_first()) else { return };
        if rest.is_empty() {
            children.insert(segment.clone(), Self::Leaf(digest));
        } else if let Some(child) = children.get_mut(segment) {
            child.insert(rest, digest);
        } else {
            children.entry(segment.clone()).or_insert_with(Self::empty).insert(rest, digest);
        }
    }

    fn collect<'t>(&'t self, path: &mut Vec<&'t str>, found: &mut impl FnMut(Vec<String>, &str)) {
        match self {
            Self::Leaf(digest) => found(path.iter().map(|&segment| segment.to_owned()).collect(), digest),
            Self::Branch(children) => {
                for (segment, child) in children {
                    path.push(segment);
                    child.collect(path, found);
                    path.pop();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::PolicyRef;

    fn template(cpu: &str) -> Value {
        json!({"spec": {"containers": [{"name": "api", "resources": {"limits": {"cpu": cpu}}}]}})
    }

    fn receipt() -> Receipt {
        receipt_of("1")
    }

    fn receipt_of(cpu: &str) -> Receipt {
        let injection = Injection {
            path: Path::new(["containers", "api", "resources", "limits", "cpu"]),
            value: json!(cpu),
            policy: PolicyRef { name: "serving".into(), generation: 3 },
        };
        Receipt::write(&template(cpu), &[injection])
    }

    #[test]
    fn a_receipt_fits_the_template_it_was_written_for_and_no_other() {
        assert!(receipt().fits(&template("1")));
        assert!(!receipt().fits(&template("2")));
    }

    #[test]
    fn a_receipt_that_names_what_is_not_there_does_not_fit() {
        let mut forged = receipt();
        forged.set = receipt_of("2").set;
        assert!(!forged.fits(&template("1")));
    }

    #[test]
    fn a_receipt_comes_back_from_its_annotation() {
        let object = json!({"metadata": {"annotations": {RECEIPT_ANNOTATION: receipt().to_string()}}});
        assert_eq!(Receipt::of(&Workload::view(&object).unwrap()), Some(receipt()));
    }

    #[test]
    fn what_is_no_receipt_is_ignored() {
        for text in ["", "{}", "null", r#"{"template":1}"#, r#"{"template":"a","set":{},"more":1}"#] {
            let object = json!({"metadata": {"annotations": {RECEIPT_ANNOTATION: text}}});
            assert_eq!(Receipt::of(&Workload::view(&object).unwrap()), None, "{text}");
        }
    }

    #[test]
    fn a_value_that_somebody_changed_is_no_longer_ours() {
        let receipt = receipt();
        let [entry] = &receipt.entries()[..] else { panic!("one value was injected") };
        assert_eq!(
            (entry.path.to_string().as_str(), entry.policy.as_str()),
            ("containers/api/resources/limits/cpu", "serving@3")
        );
        assert!(entry.is_in(&template("1")["spec"]));
        assert!(!entry.is_in(&template("2")["spec"]));
    }
}
