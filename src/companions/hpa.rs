//! The HorizontalPodAutoscaler of a model server.
//!
//! <https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/horizontal-pod-autoscaler-v2/>

use serde_json::{Map, Value, json};

use super::{MANAGED_BY_LABEL, MANAGER, WORKLOAD_ANNOTATION, Wanted, names};
use crate::policy::{AutoscalingSettings, Class};
use crate::runtimes::Recognised;
use crate::workload::{Container, Workload};

/// Plans the autoscaler of a workload.
pub(super) fn wanted(workload: &Workload, recognised: &Recognised, settings: &AutoscalingSettings) -> Wanted {
    if !settings.enabled {
        return Wanted::Nothing;
    }
    if let Some(replicas) = workload.replicas().filter(|replicas| *replicas > settings.max_replicas.into()) {
        let message = format!(
            "{replicas} replicas run, but the policy's most is {}: an autoscaler would stop {} at once",
            settings.max_replicas,
            replicas - i64::from(settings.max_replicas)
        );
        return Wanted::Impossible { reason: "ReplicasOutOfBounds", message };
    }
    match metrics(recognised, settings) {
        Ok(metrics) => Wanted::Object(object(workload, settings, &metrics)),
        Err(message) => Wanted::Impossible { reason: "NoSuitableMetric", message },
    }
}

fn object(workload: &Workload, settings: &AutoscalingSettings, metrics: &[Value]) -> Value {
    let mut object = json!({
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {
            "name": names::autoscaler(workload.name()),
            "namespace": workload.namespace(),
            "labels": {MANAGED_BY_LABEL: MANAGER},
            "annotations": {
                WORKLOAD_ANNOTATION: format!("{}/{}", workload.kind(), workload.name()),
                // KEDA's webhook refuses a ScaledObject for a workload that has an HPA, unless the HPA says that it
                // yields: https://keda.sh/docs/latest/concepts/admission-webhooks/
                "validations.keda.sh/hpa-ownership": "false"
            },
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": workload.kind(), "name": workload.name(), "uid": workload.uid(),
                "controller": true, "blockOwnerDeletion": true
            }]
        },
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": workload.kind(), "name": workload.name()},
            "minReplicas": settings.min_replicas,
            "maxReplicas": settings.max_replicas,
            "metrics": metrics
        }
    });
    if !settings.behavior.is_empty() {
        object["spec"]["behavior"] = Value::Object(settings.behavior.clone());
    }
    object
}

/// Returns the metrics that suit the model server: a metric of one container names it, and a GPU server is not scaled
/// on its CPU or memory, which say little of its load.
fn metrics(recognised: &Recognised, settings: &AutoscalingSettings) -> Result<Vec<Value>, String> {
    let has_gpu = recognised.container.as_ref().is_some_and(|container| Class::of(container) == Class::Gpu);
    let suitable: Result<Vec<Option<Value>>, String> = settings
        .metrics
        .iter()
        .map(|metric| {
            if has_gpu && is_resource(metric) {
                Ok(None)
            } else {
                completed(metric, recognised.container.as_ref()).map(Some)
            }
        })
        .collect();
    let metrics: Vec<Value> = suitable?.into_iter().flatten().collect();
    if metrics.is_empty() {
        let message = "the policy names no metric that suits this model server: CPU and memory say little of the load of \
                       a GPU server";
        return Err(message.to_owned());
    }
    Ok(metrics)
}

fn is_resource(metric: &Map<String, Value>) -> bool {
    metric.contains_key("resource") || metric.contains_key("containerResource")
}

fn completed(metric: &Map<String, Value>, container: Option<&Container>) -> Result<Value, String> {
    let mut metric = Value::Object(metric.clone());
    let Some(of_container) = metric.get_mut("containerResource") else { return Ok(metric) };
    if of_container["container"].is_null() {
        let container =
            container.ok_or("it cannot be told which container is the model server, whose use is to be measured")?;
        of_container["container"] = container.name().into();
    }
    Ok(metric)
}
