//! The receipt: an annotation on the workload that tells what Tidegate injected from what people wrote.

use std::collections::{BTreeSet, HashSet};
use std::{fmt, mem};

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, PatchOperation, RemoveOperation};
use serde::ser::{SerializeMap as _, SerializeStruct as _};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value, json};
use smol_str::{SmolStr, format_smolstr};

use super::Injection;
use crate::api::RECEIPT_ANNOTATION;
use crate::digest::{self, Digest, LongDigest};
use crate::workload::{FieldPath, PriorBinding, Workload};

/// What was injected into a pod template, by whom, and for which template.
///
/// It is written as an object for each policy and generation (`serving@3`), which has the injected fields in the form
/// of the pod spec, keyed lists as objects, with a digest in the place of each value.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Written")]
pub struct Receipt {
    /// The digest of the template that the receipt was written for, injected values included.
    template: LongDigest,
    /// Sorted by policy and path.
    entries: Vec<Entry>,
}

/// One injected value, as the receipt has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The policy and generation that set it, such as `serving@3`.
    pub policy: SmolStr,
    /// Where it is, from the pod spec.
    pub path: FieldPath,
    /// None for an object without fields.
    digest: Option<Digest>,
}

/// A receipt in the form of its JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    template: String,
    set: Map<String, Value>,
}

/// A field that gives way as one: name and key of a Secret mean nothing apart, and server-side apply manages them as
/// one (`x-kubernetes-map-type: atomic`).
const WHOLE: &str = "secretKeyRef";

impl Receipt {
    /// Writes down what is injected. The receipt is for no template yet.
    #[must_use]
    pub fn from_injections(injections: &[Injection]) -> Self {
        let mut entries = Vec::with_capacity(injections.len() * 4);
        for of_policy in injections.chunk_by(|one, next| one.policy == next.policy) {
            let policy = format_smolstr!("{}", of_policy[0].policy);
            let mut sorted: Vec<&Injection> = of_policy.iter().collect();
            sorted.sort_by(|one, other| one.path.cmp(&other.path));
            for Injection { path, value, .. } in sorted {
                note(&policy, &mut path.segments().to_vec(), value, &mut entries);
            }
        }
        entries.sort_by(|one, other| (&one.policy, &one.path).cmp(&(&other.policy, &other.path)));
        // What was injected below a place counts, not what stood there before.
        entries.dedup_by(|next, entry| {
            let is_replaced = next.policy == entry.policy && next.path.segments().starts_with(entry.path.segments());
            is_replaced.then(|| mem::swap(next, entry)).is_some()
        });
        Self { template: LongDigest::default(), entries }
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
        self.template == digest::of_template(template) && self.entries().all(|entry| entry.is_in(&template["spec"]))
    }

    /// Returns all that was injected.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> + Clone {
        self.entries.iter().filter(|entry| entry.digest.is_some())
    }

    /// Returns the variables that were injected and are still as they were, by container and name.
    fn variables(&self, pod_spec: &Value) -> BTreeSet<(String, String)> {
        let of = |entry: &Entry| match entry.path.segments() {
            [_, container, list, name, _, ..] if list == "env" => Some((container.to_string(), name.to_string())),
            _ => None,
        };
        let changed: HashSet<_> = self.entries().filter(|entry| !entry.is_in(pod_spec)).filter_map(of).collect();
        self.entries().filter_map(of).filter(|variable| !changed.contains(variable)).collect()
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

/// Notes each field of a value that is injected, or the value itself where it has none.
fn note(policy: &SmolStr, path: &mut Vec<SmolStr>, value: &Value, entries: &mut Vec<Entry>) {
    let fields = value.as_object().filter(|_| path.last().is_none_or(|field| field != WHOLE));
    for (name, value) in fields.into_iter().flatten() {
        path.push(name.into());
        note(policy, path, value, entries);
        path.pop();
    }
    let digest = fields.is_none().then(|| digest::of_value(value));
    if digest.is_some() || fields.is_some_and(Map::is_empty) {
        entries.push(Entry { policy: policy.clone(), path: FieldPath::new(path.iter().cloned()), digest });
    }
}

impl TryFrom<Written> for Receipt {
    type Error = &'static str;

    fn try_from(Written { template, set }: Written) -> Result<Self, Self::Error> {
        let template = LongDigest::parse(&template).ok_or("the digest of the template is not one")?;
        let mut entries = Vec::new();
        for (policy, fields) in &set {
            read(&policy.into(), fields, &mut Vec::new(), &mut entries);
        }
        Ok(Self { template, entries })
    }
}

/// Reads the digests below a place. What is neither a digest nor on the way to one was never written by Tidegate.
fn read(policy: &SmolStr, place: &Value, path: &mut Vec<SmolStr>, entries: &mut Vec<Entry>) {
    let mut note = |digest| {
        entries.push(Entry { policy: policy.clone(), path: FieldPath::new(path.iter().cloned()), digest });
    };
    match place {
        Value::String(text) => Digest::parse(text).into_iter().for_each(|digest| note(Some(digest))),
        Value::Object(fields) if fields.is_empty() => note(None),
        Value::Object(fields) => {
            for (name, place) in fields {
                path.push(name.into());
                read(policy, place, path, entries);
                path.pop();
            }
        }
        _ => {}
    }
}

impl Serialize for Receipt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut receipt = serializer.serialize_struct("Receipt", 2)?;
        receipt.serialize_field("template", &format_args!("{}", self.template))?;
        receipt.serialize_field("set", &Policies(&self.entries))?;
        receipt.end()
    }
}

/// The entries of a receipt by their policies.
struct Policies<'r>(&'r [Entry]);

impl Serialize for Policies<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let policies = self.0.chunk_by(|one, next| one.policy == next.policy);
        serializer.collect_map(policies.map(|entries| (&entries[0].policy, Fields { entries, depth: 0 })))
    }
}

/// Entries whose paths are the same down to a depth.
struct Fields<'r> {
    entries: &'r [Entry],
    depth: usize,
}

impl<'r> Serialize for Fields<'r> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { entries, depth } = *self;
        let is_at_its_end = |entry: &Entry| entry.path.segments().len() == depth;
        match entries {
            [Entry { digest: Some(digest), .. }] if is_at_its_end(&entries[0]) => serializer.collect_str(digest),
            [Entry { digest: None, .. }] if is_at_its_end(&entries[0]) => serializer.serialize_map(Some(0))?.end(),
            _ => {
                let fields = entries.chunk_by(|one, next| one.path.segments()[depth] == next.path.segments()[depth]);
                let below =
                    |entries: &'r [Entry]| (&entries[0].path.segments()[depth], Fields { entries, depth: depth + 1 });
                serializer.collect_map(fields.map(below))
            }
        }
    }
}

impl Entry {
    /// Tells whether the injected value is still there as it was injected.
    #[must_use]
    pub fn is_in(&self, pod_spec: &Value) -> bool {
        self.path.get(pod_spec).is_some_and(|value| Some(digest::of_value(value)) == self.digest)
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
        forged.entries = receipt_of("2").entries;
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
        let paths: Vec<String> = receipt.entries().map(|entry| entry.path.to_string()).collect();
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
        let [entry] = &receipt.entries[..] else { panic!("one value was injected") };
        assert_eq!(
            (entry.path.to_string().as_str(), entry.policy.as_str()),
            ("containers/api/resources/limits/cpu", "serving@3")
        );
        assert!(entry.is_in(&template("1")["spec"]));
        assert!(!entry.is_in(&template("2")["spec"]));
    }
}
