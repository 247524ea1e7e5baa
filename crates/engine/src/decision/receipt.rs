//! The receipt: an annotation on the workload that records which fields Tidegate injected.

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
use crate::digest::{self, Digest};
use crate::workload::{FieldPath, PriorBinding, Workload};

/// The fields that were injected into a pod template, by which policies, and for which template.
///
/// The JSON has an object for each policy and generation (`serving@3`) with the injected fields in the form of the pod
/// spec. Keyed lists are objects, and each value is replaced by its digest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(from = "Written")]
pub struct Receipt {
    /// The digest of the template, including injected values.
    template: String,
    /// Sorted by policy and path.
    entries: Vec<Entry>,
}

/// The entry of an injected value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The policy and generation that injected it, such as `serving@3`.
    pub policy: SmolStr,
    /// Its path, from the pod spec.
    pub path: FieldPath,
    /// The digest of the value; none for an object without fields.
    digest: Option<Digest>,
}

/// The JSON of a receipt.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    template: String,
    set: Map<String, Value>,
}

/// A field that is injected and removed as a whole: server-side apply manages name and key of a Secret as one
/// (`x-kubernetes-map-type: atomic`).
const ATOMIC_FIELD: &str = "secretKeyRef";

impl Receipt {
    /// Creates a receipt of injections. It has to be signed for a template.
    #[must_use]
    pub fn from_injections(injections: &[Injection]) -> Self {
        let mut entries = Vec::with_capacity(injections.len() * 4);
        for of_policy in injections.chunk_by(|one, next| one.policy == next.policy) {
            let policy = format_smolstr!("{}", of_policy[0].policy);
            // Sorted first, the longer list of their entries is nearly so: this halves the work for each request.
            let mut sorted: Vec<&Injection> = of_policy.iter().collect();
            sorted.sort_by(|one, other| one.path.cmp(&other.path));
            for Injection { path, value, .. } in sorted {
                add_entries(&policy, &mut path.segments().to_vec(), value, &mut entries);
            }
        }
        entries.sort_by(|one, other| (&one.policy, &one.path).cmp(&(&other.policy, &other.path)));
        // A later entry at or below the path of an earlier one replaces it.
        entries.dedup_by(|next, entry| {
            let is_replaced = next.policy == entry.policy && next.path.segments().starts_with(entry.path.segments());
            is_replaced.then(|| mem::swap(next, entry)).is_some()
        });
        Self { template: String::new(), entries }
    }

    /// Returns a receipt without entries, for an adopted workload.
    pub(super) fn empty(template: &Value) -> Self {
        let mut receipt = Self::default();
        receipt.sign(template);
        receipt
    }

    /// Signs the receipt for a template, which includes the injected values.
    pub fn sign(&mut self, template: &Value) {
        self.template = digest::of_template(template);
    }

    /// Reads the receipt of a workload; none if it is absent or invalid.
    #[must_use]
    pub fn read(workload: &Workload) -> Option<Self> {
        Self::of(workload.object())
    }

    /// Reads the receipt of a workload, or the one that a revision of it has kept; none if it is absent or invalid.
    pub(super) fn of(object: &Value) -> Option<Self> {
        serde_json::from_str(object["metadata"]["annotations"][RECEIPT_ANNOTATION].as_str()?).ok()
    }

    /// Returns whether the receipt was signed for this template, which still has every injected value.
    #[must_use]
    pub fn fits(&self, template: &Value) -> bool {
        self.template == digest::of_template(template) && self.entries().all(|entry| entry.is_in(&template["spec"]))
    }

    /// Returns the entries of all injected values.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> + Clone {
        self.entries.iter().filter(|entry| entry.digest.is_some())
    }

    /// Returns the injected variables that are unchanged, by container and name.
    fn variables(&self, pod_spec: &Value) -> BTreeSet<(String, String)> {
        let of = |entry: &Entry| match entry.path.segments() {
            [_, container, list, name, _, ..] if list == "env" => Some((container.to_string(), name.to_string())),
            _ => None,
        };
        let changed: HashSet<_> = self.entries().filter(|entry| !entry.is_in(pod_spec)).filter_map(of).collect();
        self.entries().filter_map(of).filter(|variable| !changed.contains(variable)).collect()
    }

    /// Returns the change that removes the receipt of a workload; none if there is no receipt.
    pub(super) fn forget(workload: &Workload) -> Option<PatchOperation> {
        workload.annotation(RECEIPT_ANNOTATION)?;
        let path = PointerBuf::from_tokens(["metadata", "annotations", RECEIPT_ANNOTATION]);
        Some(PatchOperation::Remove(RemoveOperation { path }))
    }

    /// Returns the change that sets the receipt of a workload; none if it is already set.
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

/// Returns how a workload is bound to its database, by its receipt: all injected variables belong to the binding.
pub(super) fn prior_binding(receipt: Option<&Receipt>, workload: &Workload) -> PriorBinding {
    let variables = receipt.map(|receipt| receipt.variables(workload.pod_spec())).unwrap_or_default();
    PriorBinding::new(variables, workload)
}

/// Adds an entry for each field of an injected value, or for the value itself if it has no fields.
fn add_entries(policy: &SmolStr, path: &mut Vec<SmolStr>, value: &Value, entries: &mut Vec<Entry>) {
    let fields = value.as_object().filter(|_| path.last().is_none_or(|field| field != ATOMIC_FIELD));
    for (name, value) in fields.into_iter().flatten() {
        path.push(name.into());
        add_entries(policy, path, value, entries);
        path.pop();
    }
    let digest = fields.is_none().then(|| digest::of_value(value));
    if digest.is_some() || fields.is_some_and(Map::is_empty) {
        entries.push(Entry { policy: policy.clone(), path: FieldPath::new(path.iter().cloned()), digest });
    }
}

impl From<Written> for Receipt {
    fn from(Written { template, set }: Written) -> Self {
        let mut entries = Vec::new();
        for (policy, fields) in &set {
            read(&policy.into(), fields, &mut Vec::new(), &mut entries);
        }
        Self { template, entries }
    }
}

/// Reads the entries at and below a path. Values of other types are ignored.
fn read(policy: &SmolStr, value: &Value, path: &mut Vec<SmolStr>, entries: &mut Vec<Entry>) {
    let mut add = |digest| {
        entries.push(Entry { policy: policy.clone(), path: FieldPath::new(path.iter().cloned()), digest });
    };
    match value {
        Value::String(text) => Digest::parse(text).into_iter().for_each(|digest| add(Some(digest))),
        Value::Object(fields) if fields.is_empty() => add(None),
        Value::Object(fields) => {
            for (name, value) in fields {
                path.push(name.into());
                read(policy, value, path, entries);
                path.pop();
            }
        }
        _ => {}
    }
}

impl Serialize for Receipt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut receipt = serializer.serialize_struct("Receipt", 2)?;
        receipt.serialize_field("template", &self.template)?;
        receipt.serialize_field("set", &Policies(&self.entries))?;
        receipt.end()
    }
}

/// Serializes the entries of a receipt by policy.
struct Policies<'r>(&'r [Entry]);

impl Serialize for Policies<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let policies = self.0.chunk_by(|one, next| one.policy == next.policy);
        serializer.collect_map(policies.map(|entries| (&entries[0].policy, Fields { entries, depth: 0 })))
    }
}

/// Serializes entries whose paths share the first `depth` segments.
struct Fields<'r> {
    entries: &'r [Entry],
    depth: usize,
}

impl<'r> Serialize for Fields<'r> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { entries, depth } = *self;
        let is_leaf = |entry: &Entry| entry.path.segments().len() == depth;
        match entries {
            [Entry { digest: Some(digest), .. }] if is_leaf(&entries[0]) => serializer.collect_str(digest),
            [Entry { digest: None, .. }] if is_leaf(&entries[0]) => serializer.serialize_map(Some(0))?.end(),
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
    /// Returns whether the injected value is unchanged.
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
        let mut receipt = Receipt::from_injections(&[injection]);
        receipt.sign(&template(cpu));
        receipt
    }

    #[test]
    fn a_receipt_fits_its_template_only() {
        assert!(receipt().fits(&template("1")));
        assert!(!receipt().fits(&template("2")));
    }

    #[test]
    fn a_receipt_with_other_values_does_not_fit() {
        let mut forged = receipt();
        forged.entries = receipt_of("2").entries;
        assert!(!forged.fits(&template("1")));
    }

    #[test]
    fn adds_an_entry_for_each_field_but_one_for_a_secret_reference() {
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
    fn reads_a_receipt_from_its_annotation() {
        let object = json!({"metadata": {"annotations": {RECEIPT_ANNOTATION: receipt().to_string()}}});
        assert_eq!(Receipt::read(&Workload::view(&object).unwrap()), Some(receipt()));
    }

    #[test]
    fn ignores_invalid_receipts() {
        for text in ["", "{}", "null", r#"{"template":1}"#, r#"{"template":"a","set":{},"more":1}"#] {
            let object = json!({"metadata": {"annotations": {RECEIPT_ANNOTATION: text}}});
            assert_eq!(Receipt::read(&Workload::view(&object).unwrap()), None, "{text}");
        }
    }

    #[test]
    fn detects_changed_values() {
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
