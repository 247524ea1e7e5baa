//! Who wrote a field: what people declared stays theirs, even where it happens to equal what Tidegate would inject.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::{Path, Workload};

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// What people declared of one workload, by client-side and by server-side apply.
///
/// Updates are not looked at: whoever changes a value by one is told by the value itself.
pub struct Authors<'a> {
    last_applied: Option<Value>,
    appliers: Vec<&'a Value>,
}

impl<'a> Authors<'a> {
    /// Reads the `last-applied-configuration` annotation and the managed fields of a workload.
    #[must_use]
    pub fn of(workload: &Workload<'a>) -> Self {
        Self {
            last_applied: workload.annotation(LAST_APPLIED).and_then(|text| serde_json::from_str(text).ok()),
            appliers: appliers(workload).collect(),
        }
    }

    /// Tells whether somebody declared the value at a path of the pod spec.
    #[must_use]
    pub fn wrote(&self, path: &Path) -> bool {
        let declared = self.last_applied.as_ref().and_then(|applied| path.get(&applied["spec"]["template"]["spec"]));
        declared.is_some() || self.appliers.iter().any(|fields| owns(fields, path))
    }
}

/// Tells whether somebody declared the number of replicas of a workload.
#[must_use]
pub fn wrote_replicas(workload: &Workload) -> bool {
    #[derive(Deserialize)]
    struct Applied {
        spec: Spec,
    }
    #[derive(Deserialize)]
    struct Spec {
        replicas: Option<IgnoredAny>,
    }
    let applied = workload.annotation(LAST_APPLIED).and_then(|text| serde_json::from_str::<Applied>(text).ok());
    applied.is_some_and(|applied| applied.spec.replicas.is_some())
        || appliers(workload).any(|fields| !fields["f:spec"]["f:replicas"].is_null())
}

/// Returns the fields of those who applied a workload by server-side apply.
fn appliers<'a>(workload: &Workload<'a>) -> impl Iterator<Item = &'a Value> + use<'a> {
    let managers = workload.metadata("managedFields").as_array().map_or(&[][..], Vec::as_slice);
    managers.iter().filter(|manager| manager["operation"] == "Apply").map(|manager| &manager["fieldsV1"])
}

/// Tells whether a set of managed fields has the path.
///
/// The format is `fieldsV1` of
/// <https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management>.
fn owns(fields: &Value, path: &Path) -> bool {
    let pod = &fields["f:spec"]["f:template"]["f:spec"];
    let found = path.segments().iter().try_fold(pod, |fields, segment| {
        fields
            .get(format!("f:{segment}"))
            .or_else(|| fields.get(format!("k:{{\"name\":{}}}", Value::from(segment.as_str()))))
    });
    found.is_some()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn limit(resource: &str) -> Path {
        Path::new(["containers", "api", "resources", "limits", resource])
    }

    #[test]
    fn a_declared_field_is_its_authors() {
        let applied = json!({"spec": {"template": {"spec": {"containers": [
            {"name": "api", "resources": {"limits": {"cpu": "1"}}}]}}}});
        let object = json!({"metadata": {"annotations": {LAST_APPLIED: applied.to_string()}}});
        let authors = Authors::of(&Workload::view(&object).unwrap());
        assert!(authors.wrote(&limit("cpu")));
        assert!(!authors.wrote(&limit("memory")));
    }

    #[test]
    fn an_applied_field_is_its_authors_and_an_updated_one_is_not_told() {
        let fields = json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {"k:{\"name\":\"api\"}":
            {"f:resources": {"f:limits": {"f:cpu": {}}}}}}}}});
        let object = json!({"metadata": {"managedFields": [{"operation": "Apply", "fieldsV1": fields}]}});
        assert!(Authors::of(&Workload::view(&object).unwrap()).wrote(&limit("cpu")));
        let object = json!({"metadata": {"managedFields": [{"operation": "Update", "fieldsV1": fields}]}});
        assert!(!Authors::of(&Workload::view(&object).unwrap()).wrote(&limit("cpu")));
    }
}
