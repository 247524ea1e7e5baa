//! Carries injected values over to an update, so that no pods restart because a policy changed.
//!
//! The fields in the receipt are removed from the old and the new template; the rest is the user's part. While that
//! stays the same, the injected values stay too, byte for byte. Once it changes, the pods restart anyway, and all
//! injected values are computed again from the current policies.

use serde_json::Value;

use super::Operation;
use super::receipt::{Entry, Receipt};
use super::subject::Subject;
use crate::api::ADOPTED_ANNOTATION;
use crate::digest;
use crate::workload::{FieldPath, Workload, complete_probe};

/// How to continue with the template of a request.
pub(super) enum Template {
    /// The workload existed before Tidegate, or before it was a model server, and its template is not changed: inject
    /// nothing.
    Unmanaged,
    /// The template is the one that was admitted with this receipt: keep it.
    Kept(Receipt),
    /// The user's part is unchanged: use the old template, with the old injected values.
    Restored(Value, Receipt),
    /// The user's part has changed: inject into this template, from which injected values have been removed.
    Fresh(Value),
}

/// Returns how to continue with the template of a request.
pub(super) fn template_of(operation: Operation, new: &Subject, old: Option<&Subject>) -> Template {
    let kept = |receipt: Option<Receipt>| {
        receipt.or_else(|| adopted(&new.workload)).map_or(Template::Unmanaged, Template::Kept)
    };
    let receipt = new.receipt();
    if operation == Operation::Observe {
        return kept(receipt.cloned());
    }
    let Some(old) = old else {
        return Template::Fresh(users_part(new, &[receipt]));
    };
    let (template, template_before, before) = (new.workload.template(), old.workload.template(), old.receipt());
    if template == template_before && receipt == before {
        return kept(before.cloned());
    }
    // `kubectl rollout undo` restores the annotations of the ReplicaSet together with its template.
    if let Some(receipt) = receipt.filter(|receipt| before.is_some() && receipt.fits(template)) {
        return Template::Kept(receipt.clone());
    }
    let Some(before) = before else {
        let is_same = digest::of_template(template) == digest::of_template(template_before);
        return if is_same { kept(None) } else { Template::Fresh(users_part(new, &[receipt])) };
    };
    let users_before = users_part(old, &[Some(before)]);
    let users_now = users_part(new, &[receipt.filter(|receipt| *receipt != before), Some(before)]);
    if digest::of_template(&users_now) == digest::of_template(&users_before) {
        return Template::Restored(template_before.clone(), before.clone());
    }
    Template::Fresh(users_now)
}

/// Returns the receipt of an adopted workload: it existed before Tidegate, and is kept as it is.
fn adopted(workload: &Workload) -> Option<Receipt> {
    let is_adopted = workload.annotation(ADOPTED_ANNOTATION) == Some("true");
    is_adopted.then(|| Receipt::empty(workload.template()))
}

/// Returns a note why nothing is injected into a workload that existed before Tidegate.
pub(super) fn unmanaged(workload: &Workload) -> String {
    format!(
        "{} {} was not admitted by tidegate: nothing is injected and no companions are created until its pod template \
         changes; run `kubectl rollout restart` to inject, or `tidegate adopt` to create companions only",
        workload.kind(),
        workload.name()
    )
}

/// Returns the template without the values that Tidegate injected, by the receipts, and that no user has declared
/// since.
fn users_part(subject: &Subject, receipts: &[Option<&Receipt>]) -> Value {
    let entries = receipts.iter().flatten().flat_map(|receipt| receipt.entries());
    without_injected(subject.workload.template().clone(), entries, &|path| subject.ownership.is_set_by_author(path))
}

/// Returns a template without the injected values of a receipt's entries, unless its author has declared them since.
pub(super) fn without_injected<'e>(
    mut template: Value,
    entries: impl Iterator<Item = &'e Entry>,
    is_set_by_author: &dyn Fn(&FieldPath) -> bool,
) -> Value {
    let pod = &template["spec"];
    let injected: Vec<&Entry> = entries.filter(|entry| entry.is_in(pod) && !is_set_by_author(&entry.path)).collect();
    if injected.is_empty() {
        return template;
    }
    let pod = &mut template["spec"];
    for entry in &injected {
        entry.path.remove(pod, is_set_by_author);
    }
    // If the user replaced an injected probe, set the defaults that were removed with it: the API server would set them
    // only after the receipt is signed.
    for entry in &injected {
        complete_probe(pod, &entry.path);
    }
    template
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::api::RECEIPT_ANNOTATION;
    use crate::decision::{Injection, Request};
    use crate::facts::User;
    use crate::policy::PolicyRef;
    use crate::testing::with_container;

    /// Returns a Deployment with an injected limit and its receipt.
    fn admitted(limit: &str) -> Value {
        let mut object = with_container(&json!({"resources": {"limits": {"cpu": limit}}}));
        let injection = Injection {
            path: FieldPath::new(["containers", "api", "resources", "limits", "cpu"]),
            value: limit.into(),
            policy: PolicyRef { name: "serving".into(), generation: 1 },
        };
        let receipt = receipt(&object["spec"]["template"], &[injection]);
        object["metadata"]["annotations"] = json!({RECEIPT_ANNOTATION: receipt.to_string()});
        object
    }

    fn receipt(template: &Value, injections: &[Injection]) -> Receipt {
        let mut receipt = Receipt::from_injections(injections);
        receipt.sign(template);
        receipt
    }

    fn container(object: &mut Value) -> &mut Value {
        &mut object["spec"]["template"]["spec"]["containers"][0]
    }

    fn changed(mut object: Value, field: &str, value: Value) -> Value {
        container(&mut object)[field] = value;
        object
    }

    fn without_receipt(mut object: Value) -> Value {
        object["metadata"]["annotations"] = json!({});
        object
    }

    fn template(request: &Request) -> Template {
        let old = request.old.map(Subject::new);
        template_of(request.operation, &Subject::new(request.workload), old.as_ref())
    }

    /// Returns the variant of `Template` for an update, and the container in it.
    fn update(old: &Value, new: &Value) -> (&'static str, Value) {
        let (workload, old) = (Workload::view(new).unwrap(), Workload::view(old).unwrap());
        variant(&Request {
            operation: Operation::Update,
            workload,
            old: Some(old),
            user: User::named("jane"),
            now: Timestamp::UNIX_EPOCH,
        })
    }

    fn variant(request: &Request) -> (&'static str, Value) {
        let (word, mut template) = match template(request) {
            Template::Unmanaged => ("unmanaged", request.workload.template().clone()),
            Template::Kept(_) => ("kept", request.workload.template().clone()),
            Template::Restored(template, _) => ("restored", template),
            Template::Fresh(template) => ("fresh", template),
        };
        (word, template["spec"]["containers"][0].take())
    }

    fn bare() -> Value {
        container(&mut with_container(&json!({}))).take()
    }

    #[test]
    fn injects_nothing_into_existing_workloads_until_they_change() {
        let old = with_container(&json!({}));
        assert_eq!(update(&old, &old).0, "unmanaged");
        assert_eq!(update(&old, &changed(old.clone(), "image", json!("api:2"))).0, "fresh");
        // An empty field is not a change.
        assert_eq!(update(&old, &changed(old.clone(), "resources", json!({}))).0, "unmanaged");
    }

    /// Returns a Deployment that has just been adopted.
    fn adopted_now() -> Value {
        let mut object = with_container(&json!({}));
        object["metadata"]["annotations"] = json!({crate::api::ADOPTED_ANNOTATION: "true"});
        object
    }

    #[test]
    fn keeps_an_adopted_workload_with_an_empty_receipt() {
        let (before, adopted) = (with_container(&json!({})), adopted_now());
        assert_eq!(update(&before, &adopted), ("kept", bare()));
        let workload = Workload::view(&adopted).unwrap();
        let observed = Request::new(Operation::Observe, workload, Timestamp::UNIX_EPOCH);
        assert_eq!(variant(&observed).0, "kept", "also if the webhook wrote no receipt");
        let Template::Kept(receipt) = template(&observed) else { panic!("it is kept") };
        assert!(receipt.entries().next().is_none() && receipt.fits(workload.template()));
        let mut refused = adopted.clone();
        refused["metadata"]["annotations"][crate::api::ADOPTED_ANNOTATION] = "false".into();
        assert_eq!(update(&before, &refused).0, "unmanaged");
    }

    #[test]
    fn injects_into_an_adopted_workload_with_its_next_change() {
        let adopted = adopted_now();
        assert_eq!(update(&adopted, &changed(adopted.clone(), "image", json!("api:2"))).0, "fresh");
    }

    #[test]
    fn the_note_on_an_existing_workload_says_what_to_do() {
        let object = with_container(&json!({}));
        let note = unmanaged(&Workload::view(&object).unwrap());
        assert!(
            note.starts_with("Deployment api was not admitted by tidegate") && note.contains("rollout restart"),
            "{note}"
        );
    }

    #[test]
    fn keeps_an_unchanged_template() {
        let old = admitted("1");
        assert_eq!(update(&old, &old), ("kept", container(&mut old.clone()).take()));
    }

    #[test]
    fn keeps_an_earlier_revision_with_its_receipt() {
        let (now, earlier) = (admitted("1"), admitted("2"));
        assert_eq!(update(&now, &earlier), ("kept", container(&mut earlier.clone()).take()));
    }

    #[test]
    fn restores_injected_values_and_the_receipt() {
        let old = admitted("1");
        let stored = container(&mut old.clone()).take();
        assert_eq!(update(&old, &with_container(&json!({}))), ("restored", stored.clone()));
        assert_eq!(update(&old, &without_receipt(old.clone())), ("restored", stored));
    }

    #[test]
    fn removes_injected_values_on_a_change() {
        let old = admitted("1");
        let (word, container) = update(&old, &changed(old.clone(), "image", json!("api:2")));
        assert_eq!((word, container), ("fresh", json!({"name": "api", "image": "api:2"})));
    }

    #[test]
    fn removes_injected_values_that_are_applied_as_they_were_read() {
        let old = admitted("1");
        let mut dumped = changed(old.clone(), "image", json!("api:2"));
        dumped["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] =
            dumped.to_string().into();
        let (word, container) = update(&old, &dumped);
        assert_eq!((word, container), ("fresh", json!({"name": "api", "image": "api:2"})));
    }

    #[test]
    fn keeps_values_that_the_user_changed() {
        let old = admitted("1");
        let limit = json!({"limits": {"cpu": "3"}});
        let (word, container) = update(&old, &changed(old.clone(), "resources", limit.clone()));
        assert_eq!((word, &container["resources"]), ("fresh", &limit));
    }

    #[test]
    fn keeps_values_that_the_user_declared_even_if_equal() {
        let mut new = changed(admitted("1"), "image", json!("api:2"));
        let applied = without_receipt(new.clone()).to_string();
        new["metadata"]["annotations"]["kubectl.kubernetes.io/last-applied-configuration"] = applied.into();
        let (word, container) = update(&admitted("1"), &new);
        assert_eq!((word, &container["resources"]), ("fresh", &json!({"limits": {"cpu": "1"}})));
    }

    #[test]
    fn ignores_a_receipt_on_a_workload_that_was_never_admitted() {
        let old = with_container(&json!({}));
        assert_eq!(update(&old, &admitted("1")), ("fresh", bare()));
        let same = without_receipt(admitted("1"));
        assert_eq!(update(&same, &admitted("1")).0, "unmanaged");
    }

    #[test]
    fn ignores_a_receipt_for_another_template() {
        let old = admitted("1");
        let mut new = changed(old.clone(), "resources", json!({"limits": {"cpu": "2"}}));
        new["metadata"]["annotations"] = admitted("3")["metadata"]["annotations"].clone();
        assert_eq!(update(&old, &new).0, "fresh");
    }

    #[test]
    fn removes_values_in_the_receipt_of_the_new_object() {
        let earlier = changed(admitted("2"), "image", json!("api:2"));
        assert_eq!(update(&admitted("1"), &earlier), ("fresh", json!({"name": "api", "image": "api:2"})));
    }

    #[test]
    fn keeps_a_variable_that_the_user_declared_without_a_value() {
        let injection = Injection {
            path: FieldPath::new(["containers", "api", "env", "PGHOST", "value"]),
            value: "db".into(),
            policy: PolicyRef { name: "serving".into(), generation: 1 },
        };
        let mut object = with_container(&json!({"env": [{"name": "PGHOST", "value": "db"}]}));
        let receipt = receipt(&object["spec"]["template"], &[injection]);
        let applied = with_container(&json!({"env": [{"name": "PGHOST"}]})).to_string();
        object["metadata"]["annotations"] = json!({
            RECEIPT_ANNOTATION: receipt.to_string(), "kubectl.kubernetes.io/last-applied-configuration": applied
        });
        let (_, container) = update(&object, &changed(object.clone(), "image", json!("api:2")));
        assert_eq!(container["env"], json!([{"name": "PGHOST"}]));
    }

    #[test]
    fn removes_injected_values_from_a_copy() {
        let object = admitted("1");
        let workload = Workload::view(&object).unwrap();
        let request =
            Request { user: User::named("jane"), ..Request::new(Operation::Create, workload, Timestamp::UNIX_EPOCH) };
        assert_eq!(variant(&request), ("fresh", bare()));
    }

    #[test]
    fn completes_a_probe_that_replaces_an_injected_one() {
        let probe = |handler: Value| {
            let pod = json!({"containers": [{"name": "api", "readinessProbe": handler}]});
            json!({"spec": {"template": {"spec": pod}}})
        };
        let policy = PolicyRef { name: "serving".into(), generation: 1 };
        let injection = |field: &str, value: Value| Injection {
            path: FieldPath::new(["containers", "api", "readinessProbe", field]),
            value,
            policy: policy.clone(),
        };
        let ours = [injection("httpGet", json!({"port": 8000})), injection("timeoutSeconds", json!(5))];
        let receipt = receipt(&Value::Null, &ours);
        let mut object = probe(json!({"httpGet": {"port": 8000}, "tcpSocket": {"port": 8000}, "timeoutSeconds": 5}));
        object["metadata"]["annotations"][RECEIPT_ANNOTATION] = receipt.to_string().into();
        let left = users_part(&Subject::new(Workload::view(&object).unwrap()), &[Some(&receipt)]);
        let stored = json!({"tcpSocket": {"port": 8000}, "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1,
            "failureThreshold": 3});
        assert_eq!(left["spec"]["containers"][0]["readinessProbe"], stored);
    }
}
