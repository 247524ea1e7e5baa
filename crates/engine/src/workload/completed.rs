//! Completes a workload as the API server does before it calls webhooks: it sets defaults of absent fields and removes
//! empty fields. A manifest in a file has neither. `tests/cel.rs` and `tests/generated.rs` compare this with a real API
//! server.
//!
//! The `SetDefaults_…` of <https://github.com/kubernetes/kubernetes/blob/v1.36.3/pkg/apis/apps/v1/defaults.go> and
//! <https://github.com/kubernetes/kubernetes/blob/v1.36.3/pkg/apis/core/v1/defaults.go>.

use serde_json::{Map, Value, json};

use super::Image;
use super::defaults::{GRACE_PERIOD, PROGRESS_DEADLINE, complete};
use crate::kind::{Defaults, Kind};
use crate::quantity::Quantity;

/// Sets the defaults that the API server sets, and removes the fields that it removes.
#[must_use]
pub fn completed(mut object: Value) -> Value {
    let kind = Kind::from_object(&object);
    if kind.defaults == Defaults::None {
        return object;
    }
    let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else { return object };
    remove_empty(spec);
    fill(spec, &json!({"replicas": 1, "revisionHistoryLimit": 10}));
    let status = match kind.defaults {
        Defaults::Deployment => deployment(spec),
        Defaults::StatefulSet => stateful_set(spec),
        Defaults::None => json!({}),
    };
    for pointer in kind.templates {
        if let Some(template) = object.pointer_mut(pointer) {
            fill(template, &json!({"metadata": {}, "spec": {}}));
            template.get_mut("spec").into_iter().for_each(pod);
        }
    }
    fill(&mut object, &json!({"status": status}));
    object
}

/// Sets absent fields of an object. Other values are not changed.
fn fill(place: &mut Value, defaults: &Value) {
    let (Some(fields), Some(defaults)) = (place.as_object_mut(), defaults.as_object()) else { return };
    for (name, default) in defaults {
        let field = fields.entry(name).or_insert(Value::Null);
        if field.is_null() {
            *field = default.clone();
        }
    }
}

/// Sets absent fields of an object in a field.
fn fill_in(place: &mut Value, field: &str, defaults: &Value) {
    if let Some(field) = place.get_mut(field) {
        fill(field, defaults);
    }
}

/// Sets the defaults of a Deployment, and returns its status before there are pods.
fn deployment(spec: &mut Value) -> Value {
    remove_zero(spec, &[("paused", json!(false)), ("minReadySeconds", json!(0))]);
    fill(spec, &json!({"progressDeadlineSeconds": PROGRESS_DEADLINE}));
    rolling_update(spec, "strategy", &json!({"maxSurge": "25%", "maxUnavailable": "25%"}));
    json!({})
}

/// Sets the defaults of a StatefulSet, and returns its status before there are pods.
fn stateful_set(spec: &mut Value) -> Value {
    remove_zero(spec, &[("minReadySeconds", json!(0))]);
    let kept = "persistentVolumeClaimRetentionPolicy";
    fill(spec, &json!({kept: {}, "podManagementPolicy": "OrderedReady", "serviceName": ""}));
    fill_in(spec, kept, &json!({"whenDeleted": "Retain", "whenScaled": "Retain"}));
    rolling_update(spec, "updateStrategy", &json!({"partition": 0}));
    items_mut(spec, "volumeClaimTemplates").for_each(claim);
    json!({"replicas": 0, "availableReplicas": 0})
}

fn claim(claim: &mut Value) {
    let status = json!({"phase": "Pending"});
    fill(claim, &json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "spec": {}, "status": status}));
    fill_in(claim, "spec", &json!({"volumeMode": "Filesystem"}));
    if let Some(resources) = claim.pointer_mut("/spec/resources") {
        amounts(resources);
    }
}

fn rolling_update(spec: &mut Value, field: &str, defaults: &Value) {
    fill(spec, &json!({field: {}}));
    fill_in(spec, field, &json!({"type": "RollingUpdate"}));
    if spec[field]["type"] == "RollingUpdate" {
        fill_in(spec, field, &json!({"rollingUpdate": {}}));
        fill_in(&mut spec[field], "rollingUpdate", defaults);
    }
}

fn pod(pod: &mut Value) {
    let switches = ["hostNetwork", "hostPID", "hostIPC"].map(|switch| (switch, json!(false)));
    remove_zero(pod, &switches);
    let scheduled =
        json!({"dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler"});
    fill(pod, &scheduled);
    fill(pod, &json!({"securityContext": {}, "terminationGracePeriodSeconds": GRACE_PERIOD}));
    if let Some(account) = ["serviceAccountName", "serviceAccount"].iter().find_map(|name| pod[*name].as_str()) {
        let account = Value::from(account);
        pod["serviceAccountName"] = account.clone();
        pod["serviceAccount"] = account;
    }
    pod.get_mut("resources").into_iter().for_each(amounts);
    for list in ["initContainers", "containers"] {
        items_mut(pod, list).for_each(container);
    }
    items_mut(pod, "volumes").for_each(volume);
}

fn container(container: &mut Value) {
    let image = Image::new(container["image"].as_str().unwrap_or_default());
    let is_latest = image.tag().map_or(image.digest().is_none() && !image.text().is_empty(), |tag| tag == "latest");
    let pull = if is_latest { "Always" } else { "IfNotPresent" };
    let switches = ["stdin", "stdinOnce", "tty"].map(|switch| (switch, json!(false)));
    remove_zero(container, &switches);
    remove_zero(container, &[("workingDir", json!(""))]);
    let message = json!({"terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"});
    fill(container, &message);
    fill(container, &json!({"imagePullPolicy": pull, "resources": {}}));
    container.get_mut("resources").into_iter().for_each(amounts);
    items_mut(container, "ports").for_each(|port| fill(port, &json!({"protocol": "TCP"})));
    items_mut(container, "env").for_each(variable);
    let shared = [("readOnly", json!(false)), ("subPath", json!(""))];
    items_mut(container, "volumeMounts").for_each(|mount| remove_zero(mount, &shared));
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        if let Some(probe) = container.get_mut(probe) {
            remove_zero(probe, &[("initialDelaySeconds", json!(0))]);
            complete(probe);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(get) = container.pointer_mut(&format!("/lifecycle/{hook}/httpGet")) {
            fill(get, &json!({"path": "/", "scheme": "HTTP"}));
        }
    }
}

fn variable(variable: &mut Value) {
    remove_zero(variable, &[("value", json!(""))]);
    let Some(source) = variable.get_mut("valueFrom") else { return };
    fill_in(source, "fieldRef", &json!({"apiVersion": "v1"}));
    fill_in(source, "resourceFieldRef", &json!({"divisor": "0"}));
    if let Some(divisor) = source.pointer_mut("/resourceFieldRef/divisor") {
        canonicalize(divisor);
    }
}

/// The kinds of volumes whose files have a mode.
const WITH_MODE: [&str; 4] = ["configMap", "downwardAPI", "projected", "secret"];

/// The default mode of their files, `0644`.
const MODE: u32 = 420;

fn volume(volume: &mut Value) {
    let Some(fields) = volume.as_object_mut() else { return };
    if fields.iter().all(|(name, value)| name == "name" || value.is_null()) {
        fields.insert("emptyDir".to_owned(), json!({}));
    }
    for kind in WITH_MODE {
        fill_in(volume, kind, &json!({"defaultMode": MODE}));
    }
    fill_in(volume, "hostPath", &json!({"type": ""}));
    if let Some(claim) = volume.get_mut("persistentVolumeClaim") {
        remove_zero(claim, &[("readOnly", json!(false))]);
    }
    if let Some(limit) = volume.pointer_mut("/emptyDir/sizeLimit") {
        canonicalize(limit);
    }
    let Some(projected) = volume.get_mut("projected") else { return };
    let lasting = json!({"expirationSeconds": 3600});
    items_mut(projected, "sources").for_each(|source| fill_in(source, "serviceAccountToken", &lasting));
}

/// Writes requests and limits in canonical form: `0.5Gi` as `512Mi`, and numbers as strings.
fn amounts(resources: &mut Value) {
    for of in ["requests", "limits"] {
        let amounts = resources.get_mut(of).and_then(Value::as_object_mut);
        amounts.into_iter().flat_map(Map::values_mut).for_each(canonicalize);
    }
}

fn canonicalize(amount: &mut Value) {
    if let Ok(quantity) = Quantity::from_json(amount) {
        *amount = quantity.to_string().into();
    }
}

/// Lists that are kept if they are empty.
const KEPT_LISTS: [&str; 2] = ["containers", "nodeSelectorTerms"];

/// Maps that are removed if they are empty. Other empty objects may have a meaning.
const MAPS: [&str; 7] = ["annotations", "labels", "limits", "matchLabels", "nodeSelector", "overhead", "requests"];

/// Removes null fields, empty lists and empty maps, at any depth.
fn remove_empty(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(remove_empty);
            fields.retain(|name, value| match value {
                Value::Null => false,
                Value::Array(items) => !items.is_empty() || KEPT_LISTS.contains(&name.as_str()),
                Value::Object(entries) => !entries.is_empty() || !MAPS.contains(&name.as_str()),
                _ => true,
            });
        }
        Value::Array(items) => items.iter_mut().for_each(remove_empty),
        _ => {}
    }
}

/// Removes fields that have their zero value.
fn remove_zero(place: &mut Value, zero_values: &[(&str, Value)]) {
    let Some(fields) = place.as_object_mut() else { return };
    for (name, value) in zero_values {
        if fields.get(*name) == Some(value) {
            fields.remove(*name);
        }
    }
}

fn items_mut<'v>(place: &'v mut Value, list: &str) -> impl Iterator<Item = &'v mut Value> + use<'v> {
    place.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::NAMES;

    #[test]
    fn does_not_change_a_completed_workload() {
        for kind in NAMES {
            let container = json!({"name": "a", "image": "a", "readinessProbe": {"httpGet": {"port": 80}}});
            let pod = json!({"containers": [container], "volumes": [{"name": "v"}, {"name": "h", "hostPath": {"path": "/"}}]});
            let bare = json!({"kind": kind, "spec": {"template": {"spec": pod}}});
            let once = completed(bare);
            assert_eq!(completed(once.clone()), once);
        }
    }

    #[test]
    fn keeps_fields_that_are_set() {
        let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0}});
        let pod = json!({"containers": [{"name": "a", "image": "a:1", "imagePullPolicy": "Never"}]});
        let spec = json!({"replicas": 0, "strategy": strategy, "template": {"spec": pod}});
        let found = completed(json!({"kind": "Deployment", "spec": spec}));
        assert_eq!(found["spec"]["strategy"]["rollingUpdate"], json!({"maxSurge": 0, "maxUnavailable": "25%"}));
        assert_eq!(found["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"], "Never");
        assert_eq!(found["spec"]["replicas"], 0);
        let recreate = json!({"kind": "Deployment", "spec": {"strategy": {"type": "Recreate"}}});
        assert_eq!(completed(recreate)["spec"]["strategy"], json!({"type": "Recreate"}));
    }

    #[test]
    fn the_pull_policy_depends_on_the_tag() {
        let of = |image: &str| {
            let pod = json!({"containers": [{"name": "a", "image": image}]});
            let object = completed(json!({"kind": "Deployment", "spec": {"template": {"spec": pod}}}));
            object["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"].clone()
        };
        let digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        assert_eq!([of("a"), of("a:latest"), of(&format!("a:latest@{digest}"))], ["Always"; 3]);
        assert_eq!([of("a:1"), of("r:5000/a:main"), of(&format!("a@{digest}"))], ["IfNotPresent"; 3]);
    }

    #[test]
    fn does_not_change_fields_of_other_types() {
        let words = json!({"strategy": "x", "updateStrategy": "x", "persistentVolumeClaimRetentionPolicy": 1,
            "volumeClaimTemplates": ["x", null, {"spec": {"resources": "x"}}], "template": {"spec": {
                "resources": 1, "volumes": ["x", null, {"configMap": "x", "projected": {"sources": ["x"]}}],
                "containers": [null, {"resources": null, "env": [null, {"valueFrom": "x"}], "ports": [1],
                    "volumeMounts": ["x"], "lifecycle": "x", "livenessProbe": {"grpc": "x"}}]}}});
        for kind in NAMES {
            let object = completed(json!({"kind": kind, "spec": words}));
            assert_eq!(object["spec"]["template"]["spec"]["containers"][1]["lifecycle"], "x");
        }
        let object = completed(json!({"kind": "Deployment", "spec": {"template": "x"}}));
        assert_eq!(object["spec"]["template"], "x");
    }

    #[test]
    fn does_not_change_other_objects() {
        for object in [json!({"kind": "Deployment"}), json!({"spec": null}), json!({"spec": []})] {
            assert_eq!(completed(object.clone()), object);
        }
    }
}
