//! What an update keeps: nobody's pods restart because a policy changed.
//!
//! What the receipt says is ours is taken out of the old and the new template; what is left is the user's part. While
//! that stays the same, the injected values stay too, byte for byte. Once it changes, the pods restart anyway, and
//! everything of ours is computed afresh from today's policies.

use serde_json::Value;

use super::receipt::{Entry, Receipt};
use super::{Operation, Request};
use crate::digest;
use crate::workload::{Authors, Path, Workload, complete_probe};

/// What becomes of the template of a request.
pub(super) enum Template {
    /// It was here before Tidegate, or before it was a model server, and is not changed now: it is left alone.
    Unmanaged,
    /// It is exactly what was admitted with this receipt.
    Kept(Receipt),
    /// The user's part is as before: the object with the old injected values put back.
    Restored(Value, Receipt),
    /// The user's part is new: the object with everything of ours taken out.
    Fresh(Value),
}

/// Says what becomes of the template of a request.
pub(super) fn template_of(request: &Request) -> Template {
    let new = &request.workload;
    let Some(old) = request.old.filter(|_| request.operation == Operation::Update) else {
        return Template::Fresh(users_part(new, &[Receipt::of(new)]));
    };
    let (receipt, before) = (Receipt::of(new), Receipt::of(&old));
    // `kubectl rollout undo` brings back the annotations of the ReplicaSet together with its template.
    if let Some(receipt) = receipt.clone().filter(|receipt| before.is_some() && receipt.fits(new.template())) {
        return Template::Kept(receipt);
    }
    let Some(before) = before else {
        let same = digest::of_template(new.template()) == digest::of_template(old.template());
        return if same { Template::Unmanaged } else { Template::Fresh(users_part(new, &[receipt])) };
    };
    let users_before = users_part(&old, &[Some(before.clone())]);
    let users_now = users_part(new, &[receipt, Some(before.clone())]);
    if digest::of_template(&users_now["spec"]["template"]) == digest::of_template(&users_before["spec"]["template"]) {
        return Template::Restored(with_template(new, old.template()), before);
    }
    Template::Fresh(users_now)
}

/// Returns the object with the old template: the same user's part, with what was injected into it.
fn with_template(workload: &Workload, template: &Value) -> Value {
    let mut object = workload.object().clone();
    object["spec"]["template"] = template.clone();
    object
}

/// Tells the author of an update why nothing is injected into a workload that was here before.
pub(super) fn unmanaged(workload: &Workload) -> String {
    format!(
        "{} {} was not admitted by tidegate: nothing is injected until its pod template changes \
         (`kubectl rollout restart` is a change)",
        workload.kind(),
        workload.name()
    )
}

/// Returns the object without what the receipts say is ours and which nobody has declared since.
fn users_part(workload: &Workload, receipts: &[Option<Receipt>]) -> Value {
    let mut object = workload.object().clone();
    let entries: Vec<Entry> = receipts.iter().flatten().flat_map(Receipt::entries).collect();
    if entries.is_empty() {
        return object;
    }
    let authors = Authors::of(workload);
    let pod = &mut object["spec"]["template"]["spec"];
    let is_ours = |entry: &&Entry| entry.is_in(workload.pod_spec()) && !authors.wrote(&entry.path);
    let ours: Vec<&Entry> = entries.iter().filter(is_ours).collect();
    let keep = |path: &Path| authors.wrote(path);
    for entry in &ours {
        entry.path.remove(pod, &keep);
    }
    // The author's own probe in place of ours: the API server fills in what went with ours, after the receipt is written.
    for entry in &ours {
        complete_probe(pod, &entry.path);
    }
    object
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::RECEIPT_ANNOTATION;
    use crate::engine::Injection;
    use crate::policy::PolicyRef;

    #[test]
    fn a_probe_that_takes_the_place_of_ours_is_left_as_the_api_server_stores_it() {
        let probe = |handler: Value| {
            let pod = json!({"containers": [{"name": "api", "readinessProbe": handler}]});
            json!({"spec": {"template": {"spec": pod}}})
        };
        let policy = PolicyRef { name: "serving".into(), generation: 1 };
        let injection = |field: &str, value: Value| Injection {
            path: Path::new(["containers", "api", "readinessProbe", field]),
            value,
            policy: policy.clone(),
        };
        let ours = [injection("httpGet", json!({"port": 8000})), injection("timeoutSeconds", json!(5))];
        let receipt = Receipt::write(&Value::Null, &ours);
        let mut object = probe(json!({"httpGet": {"port": 8000}, "tcpSocket": {"port": 8000}, "timeoutSeconds": 5}));
        object["metadata"]["annotations"][RECEIPT_ANNOTATION] = receipt.to_string().into();
        let left = users_part(&Workload::view(&object).unwrap(), &[Some(receipt)]);
        let stored = json!({"tcpSocket": {"port": 8000}, "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1,
            "failureThreshold": 3});
        assert_eq!(left["spec"]["template"]["spec"]["containers"][0]["readinessProbe"], stored);
    }
}
