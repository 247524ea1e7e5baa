//! ## What it checks
//! Unknown annotations `tidegate.dev/…` of a workload, such as `tidegate.dev/min-replica`, and known ones in the
//! metadata of the pod template, where Tidegate does not read them.
//! ## Why it matters
//! Such an annotation has no effect: the model server would not run as its author expects.
//! ## Instead
//! Correct the name of the annotation, and set it in the metadata of the workload itself.

use serde_json::{Map, Value, json};

use crate::api::{ANNOTATION_PREFIX, AUTHORS_ANNOTATIONS, Enforcement, RECEIPT_ANNOTATION};
use crate::companions::{APPLIED_ANNOTATION, WORKLOAD_ANNOTATION};
use crate::kind;
use crate::policy::{Context, Finding, Rule};
use crate::rules::{snippet, this_source};
use crate::spelling::nearest;
use crate::workload::Workload;

/// The annotations that Tidegate itself writes, which users may have copied.
const OWN: [&str; 3] = [RECEIPT_ANNOTATION, WORKLOAD_ANNOTATION, APPLIED_ANNOTATION];

/// Finds Tidegate annotations that have no effect.
#[derive(Debug)]
pub struct UnknownAnnotation;

impl Rule for UnknownAnnotation {
    fn id(&self) -> &'static str {
        "unknown-annotation"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let workload = context.workload;
        let template = format!("{}.metadata", kind::place(workload.template_pointer()));
        let unknown = annotations(workload.metadata("annotations"))
            .filter(|(key, _)| !AUTHORS_ANNOTATIONS.contains(key))
            .map(|(key, value)| misspelt(&workload, "metadata", key, value));
        // Charts set common annotations in both places. Those of the workload have already been checked.
        let misplaced = annotations(&workload.template()["metadata"]["annotations"])
            .filter(|(key, _)| workload.annotation(key).is_none())
            .map(|(key, value)| match AUTHORS_ANNOTATIONS.iter().find(|known| *known == &key) {
                Some(known) => misplaced(&template, known, value),
                None => misspelt(&workload, &template, key, value),
            });
        unknown.chain(misplaced).collect()
    }
}

/// Returns the Tidegate annotations that users set.
fn annotations(annotations: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let all = annotations.as_object().into_iter().flatten().map(|(key, value)| (key.as_str(), value));
    all.filter(|(key, _)| key.starts_with(ANNOTATION_PREFIX) && !OWN.contains(key))
}

fn misspelt(workload: &Workload, metadata: &str, key: &str, value: &Value) -> Finding {
    let names = AUTHORS_ANNOTATIONS.map(|known| known.trim_start_matches(ANNOTATION_PREFIX));
    let meant =
        nearest(key.trim_start_matches(ANNOTATION_PREFIX), names).map(|name| format!("{ANNOTATION_PREFIX}{name}"));
    let question = meant.as_ref().map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default();
    let instead = meant.filter(|meant| workload.annotation(meant).is_none());
    Finding::at(format!("{metadata}.annotations[{key}]"))
        .found(format!("`{key}`, which is not an annotation of Tidegate"))
        .expected(format!("one of `{ANNOTATION_PREFIX}{{{}}}`{question}", names.join(",")))
        .fix(moved(metadata, key, instead.as_deref(), value))
}

fn misplaced(template: &str, key: &str, value: &Value) -> Finding {
    Finding::at(format!("{template}.annotations[{key}]"))
        .found(format!("`{key}`, which Tidegate does not read there"))
        .expected("the annotation in the metadata of the workload")
        .fix(moved(template, key, Some(key), value))
}

/// Formats an annotation with its correct name in the metadata of the workload, and removes the wrong one.
fn moved(metadata: &str, key: &str, right: Option<&str>, value: &Value) -> String {
    let mut written = json!({});
    let mut put = |metadata: &str, key: &str, value: &Value| {
        let place = metadata.split('.').fold(&mut written, |place, field| &mut place[field]);
        let annotations = &mut place["annotations"];
        let known = annotations.as_object().cloned().unwrap_or_default();
        *annotations = known.into_iter().chain([(key.to_owned(), value.clone())]).collect::<Map<_, _>>().into();
    };
    put(metadata, key, &Value::Null);
    if let Some(right) = right {
        put("metadata", right, value);
    }
    snippet(&written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_every_annotation_of_the_api() {
        let source = include_str!("../../api.rs").lines().filter(|line| line.contains("_ANNOTATION: &str = "));
        let names: Vec<&str> = source.filter_map(|line| line.split('"').nth(1)).collect();
        assert!(names.len() >= 8);
        let is_known = |name: &&str| AUTHORS_ANNOTATIONS.contains(name) || OWN.contains(name);
        assert!(names.iter().all(is_known), "{names:?}");
    }

    #[test]
    fn suggests_the_annotation_that_was_meant() {
        let object = json!({"metadata": {"annotations": {"tidegate.dev/runtime": "none"}}});
        let workload = Workload::view(&object).unwrap();
        let suggestion = |key: &str| {
            let found = misspelt(&workload, "metadata", key, &"2".into());
            (found.expected.split_once("; ").map(|(_, question)| question.to_owned()), found.fix)
        };
        let (question, instead) = suggestion("tidegate.dev/minReplicas");
        assert_eq!(question.as_deref(), Some("did you mean `tidegate.dev/min-replicas`?"));
        assert!(instead.contains("tidegate.dev/min-replicas: ") && instead.contains("tidegate.dev/minReplicas: null"));
        let (question, instead) = suggestion("tidegate.dev/runtimes");
        assert_eq!(question.as_deref(), Some("did you mean `tidegate.dev/runtime`?"));
        assert!(!instead.contains("tidegate.dev/runtime: "), "it is already set: {instead}");
        assert_eq!(suggestion("tidegate.dev/owner").0, None);
    }
}
