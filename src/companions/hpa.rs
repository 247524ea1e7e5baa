//! The HorizontalPodAutoscaler of a model server.
//!
//! <https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/horizontal-pod-autoscaler-v2/>

use serde_json::{Map, Value, json};

use super::{MANAGED_BY_LABEL, MANAGER, Problem, WORKLOAD_ANNOTATION, Wanted, names};
use crate::digest;
use crate::policy::{AutoscalingSettings, Class};
use crate::runtimes::Recognised;
use crate::workload::{Container, Workload};

/// Annotation on an autoscaler: the digest of what Tidegate applied.
const APPLIED_ANNOTATION: &str = "tidegate.dev/applied";

/// Plans the autoscaler of a workload; `exists` where it is there already.
pub(super) fn wanted(
    workload: &Workload,
    recognised: &Recognised,
    settings: &AutoscalingSettings,
    exists: bool,
) -> Wanted {
    if !settings.is_wanted(workload) {
        return Wanted::Nothing;
    }
    match possible(workload, recognised, settings, exists) {
        Ok(metrics) => Wanted::Object(object(workload, settings, &metrics)),
        Err((reason, message)) => Wanted::Impossible { reason, message },
    }
}

/// Returns why an autoscaler is wanted but cannot be had, in a sentence.
pub(super) fn problem(
    workload: &Workload,
    recognised: &Recognised,
    settings: &AutoscalingSettings,
    exists: bool,
) -> Option<String> {
    let settings = Some(settings).filter(|settings| settings.is_wanted(workload))?;
    possible(workload, recognised, settings, exists).err().map(|(_, message)| message)
}

/// Returns the metrics of the autoscaler, or why there can be none: a word and a sentence.
fn possible(
    workload: &Workload,
    recognised: &Recognised,
    settings: &AutoscalingSettings,
    exists: bool,
) -> Result<Vec<Value>, Problem> {
    let (_, most) = settings.replicas(workload);
    let too_many = |replicas: &i64| !exists && *replicas > i64::from(most);
    if let Some(replicas) = workload.replicas().filter(too_many) {
        let message = format!(
            "{replicas} replicas run, but its autoscaler's most is {most}: it would stop {} at once",
            replicas - i64::from(most)
        );
        return Err(("ReplicasOutOfBounds", message));
    }
    metrics(recognised, settings).map_err(|message| ("NoSuitableMetric", message))
}

fn object(workload: &Workload, settings: &AutoscalingSettings, metrics: &[Value]) -> Value {
    let (least, most) = settings.replicas(workload);
    let mut object = json!({
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {
            "name": names::autoscaler(workload.kind(), workload.name()),
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
            "minReplicas": least,
            "maxReplicas": most,
            "metrics": metrics
        }
    });
    if !settings.behavior.is_empty() {
        object["spec"]["behavior"] = Value::Object(settings.behavior.clone());
    }
    // What a policy says no longer is told only by what was applied before.
    object["metadata"]["annotations"][APPLIED_ANNOTATION] = digest::of_value(&object["spec"]).into();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtimes::Runtimes;
    use crate::testing::{deployment, facts, policies, with_container};

    /// Plans the autoscaler of a Deployment under a policy's `autoscaling`.
    fn planned(object: &Value, autoscaling: &Value) -> Wanted {
        let policies = policies(&[("serving", json!({"autoscaling": autoscaling}))]);
        let workload = Workload::view(object).unwrap();
        let effective = policies.resolve(&workload, &facts()).unwrap();
        wanted(&workload, &Runtimes::shipped().recognise(&workload), effective.autoscaling().unwrap(), false)
    }

    fn metrics(object: &Value, metrics: &Value) -> Result<Value, &'static str> {
        match planned(object, &json!({"metrics": metrics})) {
            Wanted::Object(object) => Ok(object["spec"]["metrics"].clone()),
            Wanted::Impossible { reason, .. } => Err(reason),
            Wanted::Nothing => Err("nothing"),
        }
    }

    fn cpu() -> Value {
        json!({"type": "ContainerResource", "containerResource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}})
    }

    fn queue() -> Value {
        json!({"type": "Pods", "pods": {"metric": {"name": "queue"}, "target": {"type": "AverageValue", "averageValue": "5"}}})
    }

    fn gpu() -> Value {
        with_container(&json!({"resources": {"limits": {"nvidia.com/gpu": 1}}}))
    }

    #[test]
    fn the_autoscaler_of_a_plain_model_server() {
        let scale_down = json!({"scaleDown": {"stabilizationWindowSeconds": 600}});
        let autoscaling = json!({"minReplicas": 2, "maxReplicas": 4, "metrics": [cpu()], "behavior": scale_down});
        let Wanted::Object(object) = planned(&with_container(&json!({})), &autoscaling) else {
            panic!("there should be an autoscaler")
        };
        insta::assert_json_snapshot!(object, @r#"
        {
          "apiVersion": "autoscaling/v2",
          "kind": "HorizontalPodAutoscaler",
          "metadata": {
            "annotations": {
              "tidegate.dev/applied": "e6e2bc00",
              "tidegate.dev/workload": "Deployment/api",
              "validations.keda.sh/hpa-ownership": "false"
            },
            "labels": {
              "app.kubernetes.io/managed-by": "tidegate"
            },
            "name": "api-tidegate",
            "namespace": "ml",
            "ownerReferences": [
              {
                "apiVersion": "apps/v1",
                "blockOwnerDeletion": true,
                "controller": true,
                "kind": "Deployment",
                "name": "api",
                "uid": "0-1"
              }
            ]
          },
          "spec": {
            "behavior": {
              "scaleDown": {
                "stabilizationWindowSeconds": 600
              }
            },
            "maxReplicas": 4,
            "metrics": [
              {
                "containerResource": {
                  "container": "api",
                  "name": "cpu",
                  "target": {
                    "averageUtilization": 50,
                    "type": "Utilization"
                  }
                },
                "type": "ContainerResource"
              }
            ],
            "minReplicas": 2,
            "scaleTargetRef": {
              "apiVersion": "apps/v1",
              "kind": "Deployment",
              "name": "api"
            }
          }
        }
        "#);
    }

    #[test]
    fn an_autoscaler_that_is_there_is_kept_whatever_the_replicas() {
        let mut object = with_container(&json!({}));
        object["spec"]["replicas"] = json!(50);
        let policies = policies(&[("serving", json!({"autoscaling": {"metrics": [cpu()]}}))]);
        let workload = Workload::view(&object).unwrap();
        let effective = policies.resolve(&workload, &facts()).unwrap();
        let settings = effective.autoscaling().unwrap();
        let of = |exists| wanted(&workload, &Runtimes::shipped().recognise(&workload), settings, exists);
        assert!(matches!(of(false), Wanted::Impossible { reason: "ReplicasOutOfBounds", .. }));
        assert!(matches!(of(true), Wanted::Object(_)));
    }

    #[test]
    fn a_metric_of_one_container_is_of_the_model_server() {
        let mut other = cpu();
        other["containerResource"]["container"] = "proxy".into();
        let found = metrics(&with_container(&json!({})), &json!([cpu(), other, queue()])).unwrap();
        assert_eq!(found[0]["containerResource"]["container"], "api");
        assert_eq!((&found[1], &found[2]), (&other, &queue()));
    }

    #[test]
    fn a_gpu_server_is_not_scaled_on_its_cpu() {
        let target = json!({"type": "Utilization", "averageUtilization": 50});
        let resource = json!({"type": "Resource", "resource": {"name": "cpu", "target": target}});
        assert_eq!(metrics(&gpu(), &json!([cpu(), resource])), Err("NoSuitableMetric"));
        assert_eq!(metrics(&gpu(), &json!([cpu(), queue()])), Ok(json!([queue()])));
    }

    #[test]
    fn a_container_that_cannot_be_told_cannot_be_measured() {
        let two = deployment(&json!([{"name": "a", "image": "a:1"}, {"name": "b", "image": "b:1"}]));
        assert_eq!(metrics(&two, &json!([cpu()])), Err("NoSuitableMetric"));
        assert_eq!(metrics(&two, &json!([queue()])), Ok(json!([queue()])));
    }

    #[test]
    fn more_replicas_than_the_policy_allows_are_not_stopped_at_once() {
        let with = |replicas: i64| {
            let mut object = with_container(&json!({}));
            object["spec"]["replicas"] = replicas.into();
            planned(&object, &json!({"maxReplicas": 4, "metrics": [cpu()]}))
        };
        assert!(matches!(with(4), Wanted::Object(_)));
        let Wanted::Impossible { reason, message } = with(6) else { panic!("an autoscaler would stop two") };
        insta::assert_snapshot!(format!("{reason}: {message}"), @"ReplicasOutOfBounds: 6 replicas run, but its autoscaler's most is 4: it would stop 2 at once");
    }

    #[test]
    fn authors_have_a_say_within_the_policys_bounds() {
        let with = |annotations: Value| {
            let mut object = with_container(&json!({}));
            object["metadata"]["annotations"] = annotations;
            planned(&object, &json!({"minReplicas": 2, "maxReplicas": 8, "metrics": [cpu()]}))
        };
        let bounds = |annotations: Value| match with(annotations) {
            Wanted::Object(object) => (object["spec"]["minReplicas"].clone(), object["spec"]["maxReplicas"].clone()),
            other => panic!("{other:?}"),
        };
        let (min, max) = ("tidegate.dev/min-replicas", "tidegate.dev/max-replicas");
        assert_eq!(bounds(json!({min: "3", max: "5"})), (json!(3), json!(5)));
        assert_eq!(bounds(json!({max: "2"})), (json!(2), json!(2)));
        assert_eq!(bounds(json!({min: "1", max: "9"})), (json!(2), json!(8)), "out of the policy's bounds");
        assert_eq!(bounds(json!({min: "6", max: "4"})), (json!(2), json!(8)), "they exclude each other");
        assert_eq!(with(json!({"tidegate.dev/autoscaling": "external"})), Wanted::Nothing);
    }

    #[test]
    fn a_policy_can_want_none() {
        assert_eq!(planned(&with_container(&json!({})), &json!({"engine": "none"})), Wanted::Nothing);
    }
}
