//! The HorizontalPodAutoscaler of a model server.
//!
//! <https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/horizontal-pod-autoscaler-v2/>

use serde_json::{Map, Value, json};

use super::QueueSettings;
use super::Scaling;
use crate::companions::companion::{ManagedKind, ObjectRef};
use crate::companions::{APPLIED_ANNOTATION, Problem, names};
use crate::digest;
use crate::facts::Metric;
use crate::quantity::fields::Fields;
use crate::workload::Container;

/// Checks that a HorizontalPodAutoscaler can be created, without planning one, since each admission does this.
pub(super) fn check(scaling: &Scaling) -> Result<(), Problem> {
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
    // KEDA's webhook refuses a ScaledObject for a workload with an HPA, unless the HPA allows it:
    // https://keda.sh/docs/latest/concepts/admission-webhooks/
    annotations["validations.keda.sh/hpa-ownership"] = "false".into();
    // Settings that were removed from a policy are detected only by comparing with what was applied before.
    annotations[APPLIED_ANNOTATION] = digest.to_string().into();
    Ok(object)
}

/// Returns the metrics of the autoscaler, and whether the model server's queue is among them.
fn usable_metrics(scaling: &Scaling) -> Result<(Vec<Value>, bool), Problem> {
    let (metrics, has_queue) = metrics(scaling).map_err(|message| ("NoSuitableMetric", message))?;
    if scaling.settings.replicas(scaling.workload).0 == 0 {
        can_scale_to_zero(scaling, &metrics)?;
    }
    Ok((metrics, has_queue))
}

/// Checks that the API server accepts zero replicas, and that a metric exists without pods.
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

/// Returns the suitable metrics that are served, and whether the queue is among them. A container metric without a
/// container gets the model server's. A GPU server is not scaled on CPU or memory, which say little about its load.
fn metrics(scaling: &Scaling) -> Result<(Vec<Value>, bool), String> {
    let has_gpu = scaling.has_gpu();
    let suitable = scaling.settings.metrics.iter().filter(|metric| !has_gpu || !is_resource(metric));
    let container = scaling.recognised.container.as_ref();
    let mut metrics: Vec<Value> = suitable.map(|metric| completed(metric, container)).collect::<Result<_, _>>()?;
    let queue = scaling.settings.queue.as_ref().filter(|_| has_gpu || metrics.is_empty());
    let queue = queue.map(|settings| queue_metric(scaling, settings)).transpose();
    let (queue, without) = queue.map_or_else(|why| (None, Some(why)), |queue| (queue, None));
    // A policy may list the queue itself, with its target in another notation.
    let of_metric =
        Fields::for_kind("autoscaling", "HorizontalPodAutoscaler").below("spec").below("metrics").below("*");
    let is_queue = |metric: &Value| queue.as_ref().is_some_and(|queue| of_metric.are_same(metric, queue));
    if !metrics.iter().any(is_queue) {
        metrics.extend(queue.clone());
    }
    let (usable, unusable): (Vec<Value>, Vec<Value>) =
        metrics.into_iter().partition(|metric| missing(scaling, metric).is_none());
    if !usable.is_empty() {
        let has_queue = usable.iter().any(is_queue);
        return Ok((usable, has_queue));
    }
    let lacking = unusable.first().and_then(|metric| missing(scaling, metric));
    Err(lacking.or(without).unwrap_or_else(|| {
        "the policy has no metric that suits this model server: CPU and memory say little about the load of a GPU \
         server"
            .to_owned()
    }))
}

/// Returns what a metric needs but lacks. An existing autoscaler keeps its metrics: adapters restart, and a request may
/// come from a `LimitRange`.
fn missing(scaling: &Scaling, metric: &Value) -> Option<String> {
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
            let workload = scaling.workload;
            let mut containers = workload.long_running();
            let container = containers.find(|container| metric.lacks_request_of(workload, container))?.name();
            let of_pod = if workload.pod_requests(name) { "; the pod's counts only for type `Resource`" } else { "" };
            return Some(format!(
                "container {container} has no {name} request, which the metric `{name}` compares usage with{of_pod}"
            ));
        }
    };
    (!is_served).then(|| {
        format!("the cluster does not serve {api}, which the metric `{name}` needs: install a metrics adapter")
    })
}

/// Returns the metric of waiting requests per pod.
fn queue_metric(scaling: &Scaling, settings: &QueueSettings) -> Result<Value, String> {
    let name = match &settings.metric {
        Some(name) => name.clone(),
        // A Prometheus name may have a prefix with a colon, which a Kubernetes name may not.
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

/// The kind of HorizontalPodAutoscalers.
pub(super) const MANAGED: ManagedKind =
    ManagedKind { group: "autoscaling", plural: "horizontalpodautoscalers", is_built_in: true };

/// Returns a reference to a HorizontalPodAutoscaler.
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

    /// Returns a Deployment with a request for the measured resource.
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
        let recognition = Runtimes::shipped().recognise(&workload);
        let recognised = recognition.view(&workload);
        Scaling::of(&workload, &recognised, &effective, facts).map_or(Wanted::Nothing, |scaling| scaling.wanted())
    }

    /// Returns the reason and message for an autoscaler that cannot be created.
    fn problem(wanted: Wanted) -> String {
        match wanted {
            Wanted::Impossible { reason, message } => format!("{reason}: {message}"),
            other => panic!("{other:?}"),
        }
    }

    fn metrics(object: &Value, metrics: &Value) -> Result<Value, &'static str> {
        match planned(object, &json!({"metrics": metrics})) {
            Wanted::Object(object) => Ok(object["spec"]["metrics"].clone()),
            Wanted::Impossible { reason, .. } => Err(reason),
            _ => Err("nothing"),
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
    fn plans_the_autoscaler_of_a_plain_model_server() {
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
    fn keeps_an_existing_autoscaler_whatever_the_replicas() {
        let mut object = plain();
        object["spec"]["replicas"] = json!(50);
        let of = |facts: &Facts| planned_in(&object, &json!({"metrics": [cpu()]}), facts);
        assert!(matches!(of(&facts()), Wanted::Impossible { reason: "ReplicasOutOfBounds", .. }));
        assert!(matches!(of(&scaled(1, 10)), Wanted::Object(_)));
    }

    #[test]
    fn requires_a_request_for_metrics_that_compare_with_it() {
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
            let why = problem(planned(&bare, json!([of("Utilization", kind)])));
            assert_eq!(
                why,
                "NoSuitableMetric: container api has no cpu request, which the metric `cpu` compares usage with"
            );
            assert!(matches!(planned(&bare, json!([of("AverageValue", kind)])), Wanted::Object(_)));
            assert!(matches!(planned(&whole, json!([of("Utilization", kind)])), Wanted::Object(_)));
        }
        // The other container has one; with `Resource`, all containers count.
        let (sidecar, limit) = (json!({"name": "b", "image": "b:1"}), json!({"limits": {"cpu": "1"}}));
        let mut two = deployment(&json!([{"name": "api", "image": "a:1", "resources": limit}, sidecar]));
        two["metadata"]["annotations"] = json!({"tidegate.dev/container": "api"});
        assert!(matches!(planned(&two, json!([of("Utilization", "ContainerResource")])), Wanted::Object(_)));
        assert!(
            problem(planned(&two, json!([of("Utilization", "Resource")]))).contains("container b has no cpu request")
        );
        let Wanted::Object(object) = planned(&bare, json!([of("Utilization", "Resource"), queue()])) else {
            panic!("one of them is usable")
        };
        assert_eq!(object["spec"]["metrics"], json!([queue()]));
    }

    #[test]
    fn keeps_the_metrics_of_an_existing_autoscaler() {
        // The request may come from a LimitRange, which is unknown here.
        let mut facts = scaled(1, 10);
        let metric = Metric::read(&cpu());
        facts.autoscalers.get_mut(&reference()).unwrap()[0].metrics = vec![metric];
        let planned = planned_in(&with_container(&json!({})), &json!({"metrics": [cpu()]}), &facts);
        assert!(matches!(planned, Wanted::Object(_)));
    }

    /// Returns a vLLM server on a GPU.
    fn vllm() -> Value {
        let gpu = json!({"limits": {"nvidia.com/gpu": 1}});
        with_container(&json!({"image": "vllm/vllm-openai:v0.11.0", "resources": gpu}))
    }

    #[test]
    fn scales_a_gpu_server_on_its_queue_with_slow_behavior() {
        let autoscaling = json!({"metrics": [cpu()], "queue": {}});
        let Wanted::Object(object) = planned(&vllm(), &autoscaling) else { panic!("an autoscaler") };
        insta::assert_json_snapshot!(object["spec"]);
        let Wanted::Object(object) = planned(&plain(), &autoscaling) else { panic!("an autoscaler") };
        assert_eq!(object["spec"]["metrics"][0]["type"], "ContainerResource", "not a GPU server");
        assert_eq!(object["spec"]["behavior"], Value::Null);
    }

    #[test]
    fn uses_the_adapters_name_for_the_queue() {
        let queue = json!({"queue": {"metric": "waiting", "averageValue": "500m"}, "behavior": {"scaleUp": {}}});
        let Wanted::Object(object) = planned(&gpu(), &queue) else { panic!("an autoscaler") };
        let pods = &object["spec"]["metrics"][0]["pods"];
        assert_eq!((&pods["metric"]["name"], &pods["target"]["averageValue"]), (&json!("waiting"), &json!("500m")));
        assert_eq!(object["spec"]["behavior"], json!({"scaleUp": {}}), "the policy's own");
    }

    #[test]
    fn scales_a_cpu_server_on_its_queue_without_other_metrics() {
        let tei = with_container(&json!({"image": "ghcr.io/huggingface/text-embeddings-inference:cpu-1.8"}));
        let Wanted::Object(object) = planned(&tei, &json!({"queue": {}})) else { panic!("an autoscaler") };
        assert_eq!(object["spec"]["metrics"][0]["pods"]["metric"]["name"], "te_queue_size");
    }

    #[test]
    fn requires_a_runtime_that_reports_its_queue() {
        let sglang = |args: Value| {
            with_container(&json!({"image": "lmsysorg/sglang:v0.5.0", "args": args,
            "command": ["python3", "-m", "sglang.launch_server"], "resources": {"limits": {"nvidia.com/gpu": 1}}}))
        };
        let queue = json!({"metrics": [cpu()], "queue": {}});
        let silent = problem(planned(&sglang(json!([])), &queue));
        assert_eq!(silent, "NoSuitableMetric: it reports waiting requests only with the flag --enable-metrics");
        assert!(matches!(planned(&sglang(json!(["--enable-metrics"])), &queue), Wanted::Object(_)));
        let of = |image: &str, args: Value, env: Value| {
            planned(&with_container(&json!({"image": image, "args": args, "env": env})), &json!({"queue": {}}))
        };
        let llama = |value: &str| {
            let env = json!([{"name": "LLAMA_ARG_ENDPOINT_METRICS", "value": value}]);
            of("ghcr.io/ggml-org/llama.cpp:server", json!([]), env)
        };
        assert!(matches!(llama("1"), Wanted::Object(_)) && problem(llama("0")).contains("the flag --metrics"));
        let lmdeploy = |args: Value| of("openmmlab/lmdeploy:v0.10.1", args, json!([]));
        let (words, off) = (json!(["lmdeploy", "serve", "api_server", "m"]), "--disable-metrics");
        assert!(matches!(lmdeploy(words), Wanted::Object(_)));
        let silent = problem(lmdeploy(json!(["lmdeploy", "serve", "api_server", "m", off])));
        assert_eq!(silent, "NoSuitableMetric: it reports no waiting requests with the flag --disable-metrics");
        let ray = |words: &str| of("app:1", json!(["bash", "-c", words]), json!([]));
        assert!(problem(ray("serve run app:app")).contains("the flag --metrics-export-port"));
        let exported = "ray start --head --metrics-export-port=8080 && serve run app:app";
        assert_eq!(ray(exported), Wanted::Nothing, "other pods may join it");
        let unknown = problem(planned(&gpu(), &queue));
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
    fn omits_metrics_that_are_not_served() {
        let (plain, served) = (plain(), without_adapter());
        assert_eq!(
            problem(planned_in(&vllm(), &json!({"queue": {}}), &served)),
            "NoSuitableMetric: the cluster does not serve custom.metrics.k8s.io, which the metric \
             `vllm_num_requests_waiting` needs: install a metrics adapter"
        );
        let external = json!({"type": "External", "external": {"metric": {"name": "jobs"},
            "target": {"type": "AverageValue", "averageValue": "5"}}});
        let message = problem(planned_in(&plain, &json!({"metrics": [external]}), &served));
        assert!(message.contains("external.metrics.k8s.io, which the metric `jobs` needs"), "{message}");
        let Wanted::Object(object) = planned_in(&plain, &json!({"metrics": [queue(), cpu()]}), &served) else {
            panic!("CPU is served")
        };
        assert_eq!(object["spec"]["metrics"].as_array().map(Vec::len), Some(1));
    }

    #[test]
    fn keeps_a_metric_while_the_adapter_is_unavailable() {
        let mut facts = scaled(1, 10);
        facts.apis = without_adapter().apis;
        let wanted = |facts: &Facts| planned_in(&vllm(), &json!({"metrics": [queue()]}), facts);
        assert!(matches!(wanted(&facts), Wanted::Impossible { reason: "NoSuitableMetric", .. }));
        facts.autoscalers.get_mut(&reference()).unwrap()[0].metrics = vec![Metric::read(&queue())];
        assert!(matches!(wanted(&facts), Wanted::Object(_)));
    }

    #[test]
    fn scales_to_zero_if_the_api_server_accepts_it() {
        let external = json!({"type": "External", "external": {"metric": {"name": "jobs"},
            "target": {"type": "AverageValue", "averageValue": "5"}}});
        let autoscaling = json!({"minReplicas": 0, "metrics": [external, cpu()]});
        let object = plain();
        let Wanted::Object(made) = planned(&object, &autoscaling) else { panic!("an autoscaler") };
        assert_eq!(made["spec"]["minReplicas"], 0);
        let old = Facts { apis: Apis { hpa_scale_to_zero: false, ..Apis::all() }, ..facts() };
        insta::assert_snapshot!(problem(planned_in(&object, &autoscaling, &old)), @"ScaleToZeroNotServed: the API server accepts minReplicas 0 from Kubernetes 1.37 on; before, use engine keda");
        let unserved = problem(planned_in(&object, &autoscaling, &without_adapter()));
        assert_eq!(
            unserved,
            "NoSuitableMetric: minReplicas 0 needs a metric of type Object or External that is served"
        );
    }

    #[test]
    fn completes_a_container_metric_with_the_model_server() {
        let mut other = cpu();
        other["containerResource"]["container"] = "proxy".into();
        let found = metrics(&plain(), &json!([cpu(), other, queue()])).unwrap();
        assert_eq!(found[0]["containerResource"]["container"], "api");
        assert_eq!((&found[1], &found[2]), (&other, &queue()));
    }

    #[test]
    fn does_not_duplicate_a_queue_in_another_notation() {
        let mut written = queue();
        written["pods"]["target"]["averageValue"] = json!(5);
        let autoscaling = json!({"metrics": [written], "queue": {"metric": "queue", "averageValue": "5000m"}});
        let Wanted::Object(object) = planned(&gpu(), &autoscaling) else { panic!("an autoscaler") };
        assert_eq!(object["spec"]["metrics"], json!([written]));
        assert!(object["spec"]["behavior"]["scaleDown"].is_object(), "it has the behavior for a queue");
    }

    #[test]
    fn ignores_nulls_in_a_policy() {
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
    fn does_not_scale_a_gpu_server_on_cpu() {
        let target = json!({"type": "Utilization", "averageUtilization": 50});
        let resource = json!({"type": "Resource", "resource": {"name": "cpu", "target": target}});
        assert_eq!(metrics(&gpu(), &json!([cpu(), resource])), Err("NoSuitableMetric"));
        assert_eq!(metrics(&gpu(), &json!([cpu(), queue()])), Ok(json!([queue()])));
    }

    #[test]
    fn requires_a_known_model_server_container() {
        let two = deployment(&json!([{"name": "a", "image": "a:1"}, {"name": "b", "image": "b:1"}]));
        assert_eq!(metrics(&two, &json!([cpu()])), Err("NoSuitableMetric"));
        assert_eq!(metrics(&two, &json!([queue()])), Ok(json!([queue()])));
    }

    #[test]
    fn refuses_an_autoscaler_that_would_stop_replicas() {
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
    fn keeps_replicas_above_a_lowered_maximum() {
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
        assert_eq!((most(12, 8, json!({})), most(12, 4, json!({}))), (8, 4), "requesting more does not grant more");
        let asks = |count: &str| json!({"tidegate.dev/max-replicas": count});
        assert_eq!((most(8, 10, asks("3")), most(8, 10, asks("9"))), (3, 8), "its author may lower the number");
    }

    #[test]
    fn annotations_apply_within_the_policys_bounds() {
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
            assert_eq!(bounds(json!({min: bad, max: "5"})), (json!(2), json!(5)), "{bad} must not affect the other");
            assert_eq!(bounds(json!({min: "5", max: bad})), (json!(5), json!(8)), "{bad} must not affect the other");
        }
        assert_eq!(bounds(json!({min: "6", max: "4"})), (json!(2), json!(8)), "they exclude each other");
        assert_eq!(with(json!({"tidegate.dev/autoscaling": "external"})), Wanted::Nothing);
    }

    #[test]
    fn engine_none_plans_no_autoscaler() {
        assert_eq!(planned(&plain(), &json!({"engine": "none"})), Wanted::Nothing);
    }
}
