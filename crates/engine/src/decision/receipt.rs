//! The receipt: an annotation on the workload that tells what Tidegate injected from what people wrote.

use std::collections::{BTreeSet, HashSet};
use std::fmt;

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, PatchOperation, RemoveOperation};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::Injection;
use crate::api::RECEIPT_ANNOTATION;
use crate::digest;
use crate::workload::{FieldPath, PriorBinding, Workload, child, put};

/// What was injected into a pod template, by whom, and for which template.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// The digest of the template that the receipt was written for, injected values included.
    template: String,
    /// By policy and generation (`serving@3`): the injected fields in the form of the pod spec, keyed lists as objects,
    /// with a digest in the place of each value.
    set: Map<String, Value>,
}

/// One injected value, as the receipt has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it is, from the pod spec.
    pub path: FieldPath,
    /// The policy and generation that set it, such as `serving@3`.
    pub policy: String,
    digest: String,
}

/// A field that gives way as one: name and key of a Secret mean nothing apart, and server-side apply manages them as one
/// (`x-kubernetes-map-type: atomic`).
const WHOLE: &str = "secretKeyRef";

impl Receipt {
    /// Writes down what is injected. The receipt is for no template yet.
    #[must_use]
    pub fn from_injections(injections: &[Injection]) -> Self {
        let mut set = Map::new();
        for same in injections.chunk_by(|one, next| one.policy == next.policy) {
            let fields = set.entry(same[0].policy.to_string()).or_insert_with(|| Value::Object(Map::new()));
            for injection in same {
                let place = injection.path.segments().iter().fold(&mut *fields, |place, segment| child(place, segment));
                put(place, digests(&injection.value));
            }
        }
        Self { template: String::new(), set }
    }

    /// Returns the receipt of a workload that is taken over as it is: nothing was injected.
    pub(super) fn empty(template: &Value) -> Self {
        let mut receipt = Self::default();
        receipt.sign(template);
        receipt
    }

    /// Makes this the receipt for a template, injected values included.
    pub fn sign(&mut self, template: &Value) {
        self.template = digest::of_template(template);
    }

    /// Reads the receipt of a workload; none where there is none or it is not one that Tidegate wrote.
    #[must_use]
    pub fn read(workload: &Workload) -> Option<Self> {
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
        for (policy, fields) in &self.set {
            collect(fields, &mut Vec::new(), &mut |path, digest| {
                entries.push(Entry { path: FieldPath::new(path), policy: policy.clone(), digest: digest.to_owned() });
            });
        }
        entries
    }

    /// Returns the variables that were injected and are still as they were, by container and name.
    fn variables(&self, pod_spec: &Value) -> BTreeSet<(String, String)> {
        let entries = self.entries();
        let of = |entry: &Entry| match entry.path.segments() {
            [_, container, list, name, _, ..] if list == "env" => Some((container.to_string(), name.to_string())),
            _ => None,
        };
        let changed: HashSet<_> = entries.iter().filter(|entry| !entry.is_in(pod_spec)).filter_map(of).collect();
        entries.iter().filter_map(of).filter(|variable| !changed.contains(variable)).collect()
    }

    /// Returns the change that takes a receipt off a workload; none where there is none.
    pub(super) fn forget(workload: &Workload) -> Option<PatchOperation> {
        workload.annotation(RECEIPT_ANNOTATION)?;
        let path = PointerBuf::from_tokens(["metadata", "annotations", RECEIPT_ANNOTATION]);
        Some(PatchOperation::Remove(RemoveOperation { path }))
    }

    /// Returns the change that puts the receipt on a workload; none where it is there already.
    pub(super) fn annotate(&self, workload: &Workload) -> Option<PatchOperation> {
        let text = self.to_string();
        if workload.annotation(RECEIPT_ANNOTATION) == Some(&text) {
            return None;
        }
        let (path, value) = match workload.metadata("annotations") {
            Value::Object(_) => (vec!["metadata", "annotations", RECEIPT_ANNOTATION], text.into()),
            _ => (vec!["metadata", "annotations"], json!({RECEIPT_ANNOTATION: text})),
        };
        Some(PatchOperation::Add(AddOperation { path: PointerBuf::from_tokens(path), value }))
    }
}

/// Returns how a workload is led to its database, by its receipt: no variable is injected for anything else.
pub(super) fn prior_binding(receipt: Option<&Receipt>, workload: &Workload) -> PriorBinding {
    let variables = receipt.map(|receipt| receipt.variables(workload.pod_spec())).unwrap_or_default();
    PriorBinding::by(variables, workload)
}

/// Returns a value with a digest in the place of each field's value.
fn digests(value: &Value) -> Value {
    let of_field = |name: &String, value: &Value| match name.as_str() {
        WHOLE => digest::of_value(value).into(),
        _ => digests(value),
    };
    match value {
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), of_field(name, value))).collect(),
        value => digest::of_value(value).into(),
    }
}

/// Finds the digests below a place. What is neither a digest nor on the way to one was never written by Tidegate.
fn collect<'r>(place: &'r Value, path: &mut Vec<&'r str>, found: &mut impl FnMut(Vec<String>, &str)) {
    match place {
        Value::String(digest) => found(path.iter().map(|&segment| segment.to_owned()).collect(), digest),
        Value::Object(fields) => {
            for (name, place) in fields {
                path.push(name);
                collect(place, path, found);
                path.pop();
            }
        }
        _ => {}
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
            path: FieldPath::new(["containers", "api", "resources", "limits", "cpu"]),
            value: json!(cpu),
            policy: PolicyRef { name: "serving".into(), generation: 3 },
        };
        {
            let mut receipt = Receipt::from_injections(&[injection]);
            receipt.sign(&template(cpu));
            receipt
        }
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
    fn fields_are_noted_one_by_one_but_a_reference_to_a_secret_as_a_whole() {
        let policy = PolicyRef { name: "serving".into(), generation: 1 };
        let injection = |path: &str, value: Value| Injection {
            path: FieldPath::new(path.split('/')),
            value,
            policy: policy.clone(),
        };
        let receipt = Receipt::from_injections(&[
            injection("a", json!({"b": {"c": 1, "d": [{"e": 2}]}, "f": {}})),
            injection("a/g", json!({"secretKeyRef": {"name": "db", "key": "username"}})),
        ]);
        let paths: Vec<String> = receipt.entries().iter().map(|entry| entry.path.to_string()).collect();
        assert_eq!(paths, ["a/b/c", "a/b/d", "a/g/secretKeyRef"]);
    }

    #[test]
    fn a_receipt_comes_back_from_its_annotation() {
        let object = json!({"metadata": {"annotations": {RECEIPT_ANNOTATION: receipt().to_string()}}});
        assert_eq!(Receipt::read(&Workload::view(&object).unwrap()), Some(receipt()));
    }

    #[test]
    fn what_is_no_receipt_is_ignored() {
        for text in ["", "{}", "null", r#"{"template":1}"#, r#"{"template":"a","set":{},"more":1}"#] {
            let object = json!({"metadata": {"annotations": {RECEIPT_ANNOTATION: text}}});
            assert_eq!(Receipt::read(&Workload::view(&object).unwrap()), None, "{text}");
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
