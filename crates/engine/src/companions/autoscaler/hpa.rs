//! The HorizontalPodAutoscaler of a model server.
//!
//! <https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/horizontal-pod-autoscaler-v2/>

use serde_json::{Map, Value, json};

use super::QueueSettings;
use super::Scaling;
use crate::companions::companion::ObjectRef;
use crate::companions::{APPLIED_ANNOTATION, Problem, names};
use crate::digest;
use crate::facts::Metric;
use crate::quantity::fields::Fields;
use crate::workload::Container;

/// Sees that a HorizontalPodAutoscaler can be had, without planning one: each admission asks.
pub(super) fn can_be_had(scaling: &Scaling) -> Result<(), Problem> {
    usable_metrics(scaling).map(drop)
}

/// Plans the HorizontalPodAutoscaler.
pub(super) fn object(scaling: &Scaling) -> Result<Value, Problem> {
    let (metrics, has_queue) = usable_metrics(scaling)?;
    let workload = scaling.workload;
    let (least, most) = scaling.bounds();
    let mut object = json!({
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": scaling.metadata(&names::autoscaler(workload.kind(), workload.name())),
        "spec": {
            "scaleTargetRef": scaling.target(),
            "minReplicas": least,
            "maxReplicas": most,
            "metrics": metrics
        }
    });
    let behavior = if has_queue { scaling.behavior() } else { scaling.settings.behavior.clone() };
    if !behavior.is_empty() {
        object["spec"]["behavior"] = Value::Object(behavior);
    }
    let digest = digest::of_value(&object["spec"]);
    let annotations = &mut object["metadata"]["annotations"];
    // KEDA's webhook refuses a ScaledObject for a workload that has an HPA, unless the HPA says that it yields:
    // https://keda.sh/docs/latest/concepts/admission-webhooks/
    annotations["validations.keda.sh/hpa-ownership"] = "false".into();
    // What a policy says no longer is told only by what was applied before.
    annotations[APPLIED_ANNOTATION] = digest.into();
    Ok(object)
}

/// Returns the metrics that the autoscaler has, and whether the model server's queue is among them.
fn usable_metrics(scaling: &Scaling) -> Result<(Vec<Value>, bool), Problem> {
    let (metrics, has_queue) = metrics(scaling).map_err(|message| ("NoSuitableMetric", message))?;
    if scaling.settings.replicas(scaling.workload).0 == 0 {
        can_scale_to_zero(scaling, &metrics)?;
    }
    Ok((metrics, has_queue))
}

/// Sees that the API server takes zero as the least number of replicas, and that something tells when one is needed.
fn can_scale_to_zero(scaling: &Scaling, metrics: &[Value]) -> Result<(), Problem> {
    if !scaling.apis.hpa_scale_to_zero {
        let message = "the API server accepts minReplicas 0 from Kubernetes 1.37 on; before, use engine keda";
        return Err(("ScaleToZeroNotServed", message.to_owned()));
    }
    if !metrics.iter().any(|metric| metric["type"] == "Object" || metric["type"] == "External") {
        let message = "minReplicas 0 needs a metric of type Object or External that is served";
        return Err(("NoSuitableMetric", message.to_owned()));
    }
    Ok(())
}

/// Returns the metrics that suit the model server and are served, and whether its queue is among them. A metric of one
/// container names it, and a GPU server is not scaled on its CPU or memory, which say little of its load.
fn metrics(scaling: &Scaling) -> Result<(Vec<Value>, bool), String> {
    let has_gpu = scaling.has_gpu();
    let suitable = scaling.settings.metrics.iter().filter(|metric| !has_gpu || !is_resource(metric));
    let container = scaling.recognised.container.as_ref();
    let mut metrics: Vec<Value> = suitable.map(|metric| completed(metric, container)).collect::<Result<_, _>>()?;
    let queue = scaling.settings.queue.as_ref().filter(|_| has_gpu || metrics.is_empty());
    let queue = queue.map(|settings| queue_metric(scaling, settings)).transpose();
    let (queue, without) = queue.map_or_else(|why| (None, Some(why)), |queue| (queue, None));
    // A policy may name the queue itself, and write its target otherwise.
    let of_metric =
        Fields::for_kind("autoscaling", "HorizontalPodAutoscaler").below("spec").below("metrics").below("*");
    let is_queue = |metric: &Value| queue.as_ref().is_some_and(|queue| of_metric.are_same(metric, queue));
    if !metrics.iter().any(is_queue) {
        metrics.extend(queue.clone());
    }
    let (usable, useless): (Vec<Value>, Vec<Value>) =
        metrics.into_iter().partition(|metric| lack(scaling, metric).is_none());
    if !usable.is_empty() {
        let has_queue = usable.iter().any(is_queue);
        return Ok((usable, has_queue));
    }
    let lacking = useless.first().and_then(|metric| lack(scaling, metric));
    Err(lacking.or(without).unwrap_or_else(|| {
        "the policy has no metric that suits this model server: CPU and memory say little about the load of a GPU server"
            .to_owned()
    }))
}

/// Says what a metric needs and does not have. An autoscaler that has the metric already keeps it: adapters are restarted, and
/// a request may come from a `LimitRange`.
fn lack(scaling: &Scaling, metric: &Value) -> Option<String> {
    let metric = Metric::read(metric);
    let has = |known: &Metric| (&known.kind, &known.name) == (&metric.kind, &metric.name);
    if scaling.existing.is_some_and(|existing| existing.metrics.iter().any(has)) {
        return None;
    }
    let name = &metric.name;
    let (api, is_served) = match &*metric.kind {
        "Pods" | "Object" => ("custom.metrics.k8s.io", scaling.apis.custom_metrics),
        "External" => ("external.metrics.k8s.io", scaling.apis.external_metrics),
        _ => {
            let mut without = scaling.workload.without_request(name);
            let container = without.find(|container| metric.needs_request_of(container.name()))?.name();
            return Some(format!(
                "container {container} has no {name} request, which the metric `{name}` compares usage with"
            ));
        }
    };
    (!is_served).then(|| {
        format!("the cluster does not serve {api}, which the metric `{name}` needs: install a metrics adapter")
    })
}

/// Returns the metric of how many requests wait for each pod.
fn queue_metric(scaling: &Scaling, settings: &QueueSettings) -> Result<Value, String> {
    let name = match &settings.metric {
        Some(name) => name.clone(),
        // What comes before the colon is a prefix to Prometheus, and no part of a name to Kubernetes.
        None => scaling.queue()?.replace(':', "_"),
    };
    let target = json!({"type": "AverageValue", "averageValue": settings.average_value.to_string()});
    Ok(json!({"type": "Pods", "pods": {"metric": {"name": name}, "target": target}}))
}

fn is_resource(metric: &Map<String, Value>) -> bool {
    metric.contains_key("resource") || metric.contains_key("containerResource")
}

fn completed(metric: &Map<String, Value>, container: Option<&Container>) -> Result<Value, String> {
    let mut metric = Value::Object(metric.clone());
    let Some(of_container) = metric.get_mut("containerResource") else { return Ok(metric) };
    if of_container["container"].is_null() {
        let container =
            container.ok_or("it is unknown which container is the model server, whose usage is to be measured")?;
        of_container["container"] = container.name().into();
    }
    Ok(metric)
}

/// Names a HorizontalPodAutoscaler.
pub(super) fn object_ref(name: String) -> ObjectRef {
    ObjectRef { group: "autoscaling", kind: "HorizontalPodAutoscaler", name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::companions::Wanted;
    use crate::facts::{Apis, Facts};
    use crate::runtimes::Runtimes;
    use crate::testing::{deployment, facts, policies, reference, scaled, with_container};
    use crate::workload::Workload;

    /// A Deployment that requests what is measured.
    fn plain() -> Value {
        with_container(&json!({"resources": {"requests": {"cpu": "1"}}}))
    }

    /// Plans the autoscaler of a Deployment under a policy's `autoscaling`.
    fn planned(object: &Value, autoscaling: &Value) -> Wanted {
        planned_in(object, autoscaling, &facts())
    }

    fn planned_in(object: &Value, autoscaling: &Value, facts: &Facts) -> Wanted {
        let policies = policies(&[("serving", json!({"autoscaling": autoscaling}))]);
        let workload = Workload::view(object).unwrap();
        let effective = policies.resolve(&workload, facts).unwrap();
        let recognised = Runtimes::shipped().recognise(&workload);
        Scaling::of(&workload, &recognised, &effective, facts).map_or(Wanted::Nothing, |scaling| scaling.wanted())
    }

    /// The reason and the message of what cannot be had.
    fn told(wanted: Wanted) -> String {
        match wanted {
            Wanted::Impossible { reason, message } => format!("{reason}: {message}"),
            other => panic!("{other:?}"),
        }
    }

    fn metrics(object: &Value, metrics: &Value) -> Result<Value, &'static str> {
        match planned(object, &json!({"metrics": metrics})) {
            Wanted::Object(object) => Ok(object["spec"]["metrics"].clone()),
            Wanted::Impossible { reason, .. } => Err(reason),
            Wanted::Nothing | Wanted::Declined | Wanted::Elsewhere(_) | Wanted::Theirs(_) => Err("nothing"),
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
        let Wanted::Object(object) = planned(&plain(), &autoscaling) else { panic!("there should be an autoscaler") };
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
        let mut object = plain();
        object["spec"]["replicas"] = json!(50);
        let of = |facts: &Facts| planned_in(&object, &json!({"metrics": [cpu()]}), facts);
        assert!(matches!(of(&facts()), Wanted::Impossible { reason: "ReplicasOutOfBounds", .. }));
        assert!(matches!(of(&scaled(1, 10)), Wanted::Object(_)));
    }

    #[test]
    fn a_metric_that_compares_with_a_request_needs_one() {
        let of = |target: &str, kind: &str| {
            let mut source = json!({"name": "cpu", "target": {"type": target}});
            source["target"][if target == "Utilization" { "averageUtilization" } else { "averageValue" }] =
                if target == "Utilization" { 50.into() } else { "1".into() };
            let mut metric = json!({"type": kind});
            metric[if kind == "Resource" { "resource" } else { "containerResource" }] = source;
            metric
        };
        let requests = json!({"resources": {"requests": {"cpu": "1"}}});
        let (bare, whole) = (with_container(&json!({})), with_container(&requests));
        let planned = |object: &Value, metrics: Value| planned(object, &json!({"metrics": metrics}));
        for kind in ["Resource", "ContainerResource"] {
            let why = told(planned(&bare, json!([of("Utilization", kind)])));
            assert_eq!(
                why,
                "NoSuitableMetric: container api has no cpu request, which the metric `cpu` compares usage with"
            );
            assert!(matches!(planned(&bare, json!([of("AverageValue", kind)])), Wanted::Object(_)));
            assert!(matches!(planned(&whole, json!([of("Utilization", kind)])), Wanted::Object(_)));
        }
        // The other one does; and with `Resource` all containers count.
        let (sidecar, limit) = (json!({"name": "b", "image": "b:1"}), json!({"limits": {"cpu": "1"}}));
        let mut two = deployment(&json!([{"name": "api", "image": "a:1", "resources": limit}, sidecar]));
        two["metadata"]["annotations"] = json!({"tidegate.dev/container": "api"});
        assert!(matches!(planned(&two, json!([of("Utilization", "ContainerResource")])), Wanted::Object(_)));
        assert!(told(planned(&two, json!([of("Utilization", "Resource")]))).contains("container b has no cpu request"));
        let Wanted::Object(object) = planned(&bare, json!([of("Utilization", "Resource"), queue()])) else {
            panic!("one of them works")
        };
        assert_eq!(object["spec"]["metrics"], json!([queue()]));
    }

    #[test]
    fn an_autoscaler_keeps_a_metric_that_it_has() {
        // The request may come from a LimitRange, which is not known here.
        let mut facts = scaled(1, 10);
        let metric = Metric::read(&cpu());
        facts.autoscalers.get_mut(&reference()).unwrap()[0].metrics = vec![metric];
        let planned = planned_in(&with_container(&json!({})), &json!({"metrics": [cpu()]}), &facts);
        assert!(matches!(planned, Wanted::Object(_)));
    }

    /// A vLLM server on a GPU.
    fn vllm() -> Value {
        let gpu = json!({"limits": {"nvidia.com/gpu": 1}});
        with_container(&json!({"image": "vllm/vllm-openai:v0.11.0", "resources": gpu}))
    }

    #[test]
    fn a_gpu_server_is_scaled_on_its_queue_and_as_slowly_as_it_starts() {
        let autoscaling = json!({"metrics": [cpu()], "queue": {}});
        let Wanted::Object(object) = planned(&vllm(), &autoscaling) else { panic!("an autoscaler") };
        insta::assert_json_snapshot!(object["spec"]);
        let Wanted::Object(object) = planned(&plain(), &autoscaling) else { panic!("an autoscaler") };
        assert_eq!(object["spec"]["metrics"][0]["type"], "ContainerResource", "no GPU server");
        assert_eq!(object["spec"]["behavior"], Value::Null);
    }

    #[test]
    fn the_queue_is_called_as_the_adapter_has_it() {
        let queue = json!({"queue": {"metric": "waiting", "averageValue": "500m"}, "behavior": {"scaleUp": {}}});
        let Wanted::Object(object) = planned(&gpu(), &queue) else { panic!("an autoscaler") };
        let pods = &object["spec"]["metrics"][0]["pods"];
        assert_eq!((&pods["metric"]["name"], &pods["target"]["averageValue"]), (&json!("waiting"), &json!("500m")));
        assert_eq!(object["spec"]["behavior"], json!({"scaleUp": {}}), "the policy's own");
    }

    #[test]
    fn a_server_without_a_gpu_is_scaled_on_its_queue_where_the_policy_has_no_other_metric() {
        let tei = with_container(&json!({"image": "ghcr.io/huggingface/text-embeddings-inference:cpu-1.8"}));
        let Wanted::Object(object) = planned(&tei, &json!({"queue": {}})) else { panic!("an autoscaler") };
        assert_eq!(object["spec"]["metrics"][0]["pods"]["metric"]["name"], "te_queue_size");
    }

    #[test]
    fn a_queue_that_nobody_tells_of_is_none() {
        let sglang = |args: Value| {
            with_container(&json!({"image": "lmsysorg/sglang:v0.5.0", "args": args,
            "command": ["python3", "-m", "sglang.launch_server"], "resources": {"limits": {"nvidia.com/gpu": 1}}}))
        };
        let queue = json!({"metrics": [cpu()], "queue": {}});
        let silent = told(planned(&sglang(json!([])), &queue));
        assert_eq!(silent, "NoSuitableMetric: it reports waiting requests only with the flag --enable-metrics");
        assert!(matches!(planned(&sglang(json!(["--enable-metrics"])), &queue), Wanted::Object(_)));
        let unknown = told(planned(&gpu(), &queue));
        assert_eq!(
            unknown,
            "NoSuitableMetric: it runs an unknown runtime, which has no known metric for waiting requests"
        );
    }

    fn without_adapter() -> Facts {
        let apis = Apis { custom_metrics: false, external_metrics: false, ..Apis::all() };
        Facts { apis, ..facts() }
    }

    #[test]
    fn a_metric_whose_api_is_not_served_is_left_out_and_told_where_it_is_the_only_one() {
        let (plain, served) = (plain(), without_adapter());
        assert_eq!(
            told(planned_in(&vllm(), &json!({"queue": {}}), &served)),
            "NoSuitableMetric: the cluster does not serve custom.metrics.k8s.io, which the metric \
             `vllm_num_requests_waiting` needs: install a metrics adapter"
        );
        let external = json!({"type": "External", "external": {"metric": {"name": "jobs"},
            "target": {"type": "AverageValue", "averageValue": "5"}}});
        let message = told(planned_in(&plain, &json!({"metrics": [external]}), &served));
        assert!(message.contains("external.metrics.k8s.io, which the metric `jobs` needs"), "{message}");
        let Wanted::Object(object) = planned_in(&plain, &json!({"metrics": [queue(), cpu()]}), &served) else {
            panic!("CPU is served")
        };
        assert_eq!(object["spec"]["metrics"].as_array().map(Vec::len), Some(1));
    }

    #[test]
    fn a_metric_that_the_autoscaler_has_stays_while_the_adapter_is_away() {
        let mut facts = scaled(1, 10);
        facts.apis = without_adapter().apis;
        let wanted = |facts: &Facts| planned_in(&vllm(), &json!({"metrics": [queue()]}), facts);
        assert!(matches!(wanted(&facts), Wanted::Impossible { reason: "NoSuitableMetric", .. }));
        facts.autoscalers.get_mut(&reference()).unwrap()[0].metrics = vec![Metric::read(&queue())];
        assert!(matches!(wanted(&facts), Wanted::Object(_)));
    }

    #[test]
    fn no_replica_is_kept_where_the_api_server_takes_that() {
        let external = json!({"type": "External", "external": {"metric": {"name": "jobs"},
            "target": {"type": "AverageValue", "averageValue": "5"}}});
        let autoscaling = json!({"minReplicas": 0, "metrics": [external, cpu()]});
        let object = plain();
        let Wanted::Object(made) = planned(&object, &autoscaling) else { panic!("an autoscaler") };
        assert_eq!(made["spec"]["minReplicas"], 0);
        let old = Facts { apis: Apis { hpa_scale_to_zero: false, ..Apis::all() }, ..facts() };
        insta::assert_snapshot!(told(planned_in(&object, &autoscaling, &old)), @"ScaleToZeroNotServed: the API server accepts minReplicas 0 from Kubernetes 1.37 on; before, use engine keda");
        let unserved = told(planned_in(&object, &autoscaling, &without_adapter()));
        assert_eq!(
            unserved,
            "NoSuitableMetric: minReplicas 0 needs a metric of type Object or External that is served"
        );
    }

    #[test]
    fn a_metric_of_one_container_is_of_the_model_server() {
        let mut other = cpu();
        other["containerResource"]["container"] = "proxy".into();
        let found = metrics(&plain(), &json!([cpu(), other, queue()])).unwrap();
        assert_eq!(found[0]["containerResource"]["container"], "api");
        assert_eq!((&found[1], &found[2]), (&other, &queue()));
    }

    #[test]
    fn a_queue_that_a_policy_names_in_other_words_is_there_once() {
        let mut written = queue();
        written["pods"]["target"]["averageValue"] = json!(5);
        let autoscaling = json!({"metrics": [written], "queue": {"metric": "queue", "averageValue": "5000m"}});
        let Wanted::Object(object) = planned(&gpu(), &autoscaling) else { panic!("an autoscaler") };
        assert_eq!(object["spec"]["metrics"], json!([written]));
        assert!(object["spec"]["behavior"]["scaleDown"].is_object(), "it is scaled as suits a queue");
    }

    #[test]
    fn what_is_null_in_a_policy_says_nothing() {
        let mut written = queue();
        written["pods"]["metric"]["selector"] = Value::Null;
        let behavior = json!({"scaleUp": null, "scaleDown": {"selectPolicy": null, "tolerance": 0.05}});
        let autoscaling = json!({"metrics": [written], "behavior": behavior});
        let Wanted::Object(object) = planned(&with_container(&json!({})), &autoscaling) else {
            panic!("an autoscaler")
        };
        assert_eq!(object["spec"]["metrics"], json!([queue()]));
        assert_eq!(object["spec"]["behavior"], json!({"scaleDown": {"tolerance": "50m"}}));
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
            let mut object = plain();
            object["spec"]["replicas"] = replicas.into();
            planned(&object, &json!({"maxReplicas": 4, "metrics": [cpu()]}))
        };
        assert!(matches!(with(4), Wanted::Object(_)));
        let Wanted::Impossible { reason, message } = with(6) else { panic!("an autoscaler would stop two") };
        insta::assert_snapshot!(format!("{reason}: {message}"), @"ReplicasOutOfBounds: 6 replicas are running, but the autoscaler's maxReplicas is 4: it would stop 2 at once");
    }

    #[test]
    fn a_policy_that_allows_fewer_replicas_than_there_are_stops_none() {
        let most = |replicas: i64, of_autoscaler: i64, annotations: Value| {
            let mut object = plain();
            (object["spec"]["replicas"], object["metadata"]["annotations"]) = (replicas.into(), annotations);
            let autoscaling = json!({"maxReplicas": 4, "metrics": [cpu()]});
            match planned_in(&object, &autoscaling, &scaled(1, of_autoscaler)) {
                Wanted::Object(object) => object["spec"]["maxReplicas"].as_i64().unwrap(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(most(8, 10, json!({})), 8, "all that there are are kept");
        assert_eq!((most(6, 8, json!({})), most(4, 6, json!({})), most(2, 4, json!({}))), (6, 4, 4), "and no more");
        assert_eq!((most(12, 8, json!({})), most(12, 4, json!({}))), (8, 4), "nobody gets more by asking for more");
        let asks = |count: &str| json!({"tidegate.dev/max-replicas": count});
        assert_eq!((most(8, 10, asks("3")), most(8, 10, asks("9"))), (3, 8), "its author may stop them");
    }

    #[test]
    fn authors_have_a_say_within_the_policys_bounds() {
        let with = |annotations: Value| {
            let mut object = plain();
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
        for bad in ["1", "9", "0", "-3", "many", ""] {
            assert_eq!(
                bounds(json!({min: bad, max: "5"})),
                (json!(2), json!(5)),
                "{bad} is no reason to forget the other"
            );
            assert_eq!(
                bounds(json!({min: "5", max: bad})),
                (json!(5), json!(8)),
                "{bad} is no reason to forget the other"
            );
        }
        assert_eq!(bounds(json!({min: "6", max: "4"})), (json!(2), json!(8)), "they exclude each other");
        assert_eq!(with(json!({"tidegate.dev/autoscaling": "external"})), Wanted::Nothing);
    }

    #[test]
    fn a_policy_can_want_none() {
        assert_eq!(planned(&plain(), &json!({"engine": "none"})), Wanted::Nothing);
    }
}
