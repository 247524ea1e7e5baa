//! The ScaledObject of a model server. KEDA queries Prometheus for waiting requests, and manages its own
//! HorizontalPodAutoscaler.
//!
//! <https://keda.sh/docs/latest/reference/scaledobject-spec/>

use serde_json::{Value, json};

use super::KedaSettings;
use super::Scaling;
use crate::companions::companion::{ManagedKind, ObjectRef};
use crate::companions::{APPLIED_ANNOTATION, Problem, names};
use crate::digest;
use crate::quantity::Quantity;
use crate::workload::Workload;

/// The shortest cooldown before scaling to zero, in seconds: KEDA's default.
const LEAST_COOLDOWN: u64 = 300;

/// Plans the ScaledObject.
pub(super) fn object(scaling: &Scaling) -> Result<Value, Problem> {
    if !scaling.apis.keda {
        let message = "the cluster does not serve keda.sh/v1alpha1 ScaledObject, which engine keda creates";
        return Err(("EngineNotServed", message.to_owned()));
    }
    let settings = scaling.settings.keda.as_ref();
    let settings =
        settings.ok_or_else(|| ("NoSuitableMetric", "the policy does not set the address of Prometheus".to_owned()))?;
    let query = query(scaling, settings).map_err(|message| ("NoSuitableMetric", message))?;
    let workload = scaling.workload;
    let (least, most) = scaling.bounds();
    let mut metadata = json!({
        "serverAddress": settings.server_address, "query": query, "threshold": decimal(&settings.threshold)
    });
    if let Some(threshold) = &settings.activation_threshold {
        metadata["activationThreshold"] = decimal(threshold).into();
    }
    let mut spec = json!({
        "scaleTargetRef": scaling.target(),
        "minReplicaCount": least,
        "maxReplicaCount": most,
        "advanced": {"horizontalPodAutoscalerConfig": {"behavior": scaling.behavior()}},
        "triggers": [{"type": "prometheus", "metadata": metadata}]
    });
    if let Some(seconds) = settings.polling_interval {
        spec["pollingInterval"] = seconds.into();
    }
    if least == 0 {
        let cooldown = u64::try_from(settings.cooldown_period.unwrap_or(-1));
        let cooldown = cooldown.unwrap_or_else(|_| scaling.startup.as_secs().max(LEAST_COOLDOWN));
        spec["cooldownPeriod"] = cooldown.into();
        // KEDA uses this until the trigger is first active, and its default is 0: a new or handed-over workload would
        // be scaled to zero before its model is loaded.
        spec["initialCooldownPeriod"] = cooldown.into();
    }
    if let Some(fallback) = &settings.fallback {
        spec["fallback"] = json!({"failureThreshold": fallback.failure_threshold, "replicas": fallback.replicas});
    }
    let mut object = json!({
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": scaling.metadata(&names::scaled_object(workload.kind(), workload.name())),
        "spec": spec
    });
    object["metadata"]["annotations"][APPLIED_ANNOTATION] = digest::of_value(&object["spec"]).to_string().into();
    Ok(object)
}

/// Returns the Prometheus query.
fn query(scaling: &Scaling, settings: &KedaSettings) -> Result<String, String> {
    let workload = scaling.workload;
    let pods = pods(workload);
    if let Some(written) = &settings.query {
        let filled = written.replace("{namespace}", workload.namespace()).replace("{name}", workload.name());
        return Ok(filled.replace("{pods}", &pods));
    }
    let queue = scaling.queue()?;
    Ok(format!(r#"sum({queue}{{namespace="{}",pod=~"{pods}"}})"#, workload.namespace()))
}

/// Formats a quantity without a unit, as KEDA requires.
fn decimal(quantity: &Quantity) -> String {
    let nanos = quantity.nanos();
    let text = format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Returns a regular expression for the names of a workload's pods, escaped for a PromQL string.
fn pods(workload: &Workload) -> String {
    let name = workload.name().replace('.', r"\\.");
    format!("{name}-{}", workload.known_kind().pods)
}

/// The kind of ScaledObjects.
pub(super) const MANAGED: ManagedKind = ManagedKind { group: "keda.sh", plural: "scaledobjects", is_built_in: false };

/// Returns a reference to a ScaledObject.
pub(super) fn object_ref(name: String) -> ObjectRef {
    ObjectRef { group: "keda.sh", kind: "ScaledObject", name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::companions::Wanted;
    use crate::companions::autoscaler::Scaling;
    use crate::facts::{Apis, Facts};
    use crate::runtimes::Runtimes;
    use crate::testing::{facts, policies, scaled, with_container};

    fn planned(object: &Value, keda: &Value, facts: &Facts) -> Wanted {
        let least = i32::from(keda["query"].is_null());
        let mut autoscaling = json!({"engine": "keda", "minReplicas": least, "maxReplicas": 4, "keda": keda});
        autoscaling["keda"]["serverAddress"] = "http://prometheus.monitoring:9090".into();
        let policies = policies(&[("serving", json!({"autoscaling": autoscaling}))]);
        let workload = Workload::view(object).unwrap();
        let effective = policies.resolve(&workload, facts).unwrap();
        let recognition = Runtimes::shipped().recognise(&workload);
        let recognised = recognition.view(&workload);
        Scaling::of(&workload, &recognised, &effective, facts).unwrap().wanted()
    }

    fn vllm() -> Value {
        with_container(&json!({"image": "vllm/vllm-openai:v0.11.0"}))
    }

    fn reason(wanted: &Wanted) -> &'static str {
        let Wanted::Impossible { reason, .. } = wanted else { panic!("{wanted:?}") };
        reason
    }

    #[test]
    fn queries_prometheus_for_waiting_requests() {
        let Wanted::Object(object) = planned(&vllm(), &json!({}), &facts()) else { panic!("a ScaledObject") };
        insta::assert_json_snapshot!(object);
    }

    #[test]
    fn uses_the_query_and_timing_of_a_policy() {
        let keda = json!({
            "query": "sum(rate(requests{namespace=\"{namespace}\",app=\"{name}\",pod=~\"{pods}\"}[1m]))", "threshold": "500m",
            "activationThreshold": 2, "pollingInterval": 10, "cooldownPeriod": 0,
            "fallback": {"failureThreshold": 3, "replicas": 2}
        });
        let Wanted::Object(object) = planned(&with_container(&json!({})), &keda, &facts()) else { panic!("one") };
        let spec = &object["spec"];
        let query = r#"sum(rate(requests{namespace="ml",app="api",pod=~"api-[a-z0-9]+-[a-z0-9]+"}[1m]))"#;
        let trigger = json!({"serverAddress": "http://prometheus.monitoring:9090", "query": query, "threshold": "0.5",
            "activationThreshold": "2"});
        assert_eq!(spec["triggers"], json!([{"type": "prometheus", "metadata": trigger}]));
        assert_eq!((&spec["pollingInterval"], &spec["cooldownPeriod"]), (&json!(10), &json!(0)));
        assert_eq!((&spec["minReplicaCount"], &spec["initialCooldownPeriod"]), (&json!(0), &json!(0)));
        assert_eq!(spec["fallback"], json!({"failureThreshold": 3, "replicas": 2}));
    }

    #[test]
    fn keeps_replicas_above_a_lowered_maximum() {
        let mut object = vllm();
        object["spec"]["replicas"] = 8.into();
        let Wanted::Object(object) = planned(&object, &json!({}), &scaled(1, 10)) else { panic!("a ScaledObject") };
        assert_eq!(object["spec"]["maxReplicaCount"], 8);
    }

    #[test]
    fn requires_keda_and_a_runtime_with_metrics() {
        assert_eq!(reason(&planned(&with_container(&json!({})), &json!({}), &facts())), "NoSuitableMetric");
        let without = Facts { apis: Apis { keda: false, ..Apis::all() }, ..facts() };
        assert_eq!(reason(&planned(&vllm(), &json!({}), &without)), "EngineNotServed");
    }

    #[test]
    fn escapes_the_names_of_pods() {
        let mut object = vllm();
        object["metadata"]["name"] = "llama3.1".into();
        assert_eq!(pods(&Workload::view(&object).unwrap()), r"llama3\\.1-[a-z0-9]+-[a-z0-9]+");
        object["kind"] = "StatefulSet".into();
        assert_eq!(pods(&Workload::view(&object).unwrap()), r"llama3\\.1-[0-9]+");
    }
}
