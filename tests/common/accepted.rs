//! Generated Deployments, most of which an API server accepts.

use proptest::option::{of, weighted};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use super::model_server;

/// Returns a strategy for model servers in a namespace.
pub(crate) fn deployments(namespace: &'static str) -> impl Strategy<Value = Value> {
    let containers = (1..=3_usize).prop_flat_map(|count| prop::collection::vec(container(), count));
    let init_containers = prop::collection::vec((container(), of(Just("Always"))), 0..=2);
    (containers, init_containers, weighted(0.15, pod_resources()), pod_fields(), annotations()).prop_map(
        move |(containers, init_containers, resources, fields, annotations)| {
            let mut object = model_server("api");
            object["metadata"]["namespace"] = namespace.into();
            put(&mut object["metadata"], "annotations", annotations);
            // No pods are needed here.
            object["spec"]["replicas"] = 0.into();
            let pod = &mut object["spec"]["template"]["spec"];
            pod["containers"] = named(&["api", "proxy", "log"], containers).into();
            let init_containers = init_containers.into_iter().map(|(container, restart)| of_init(container, restart));
            pod["initContainers"] = named(&["fetch", "mesh"], init_containers.collect()).into();
            put(pod, "resources", resources);
            put_all(pod, fields);
            object
        },
    )
}

fn named(names: &[&str], containers: Vec<Value>) -> Vec<Value> {
    let named = names.iter().zip(containers).map(|(name, mut container)| {
        container["name"] = (*name).into();
        container
    });
    named.collect()
}

/// Init containers have probes only if they are restartable.
fn of_init(mut container: Value, restart: Option<&str>) -> Value {
    let fields = container.as_object_mut().unwrap();
    if restart.is_none() {
        fields.retain(|name, _| !name.ends_with("Probe"));
    }
    put(&mut container, "restartPolicy", restart);
    container
}

fn container() -> impl Strategy<Value = Value> {
    let images = vec![
        "registry.example.com/api:1.0.0",
        "vllm/vllm-openai:v0.10.0",
        "vllm/vllm-openai:v0.10.0",
        "api",
        "registry.example.com/api@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    ];
    let commands = vec![
        json!({}),
        json!({}),
        json!({"args": ["--port", "9000", "--api-key=secret"]}),
        json!({"command": ["/bin/sh", "-c"], "args": ["vllm serve model --port=9001 --ssl-keyfile /key"]}),
        json!({"command": ["python", "-m", "vllm.entrypoints.openai.api_server"]}),
        json!({"command": ["vllm"], "args": ["serve", "model", "--tensor-parallel-size", "2"]}),
        json!({"command": ["tritonserver"], "lifecycle": {"postStart": {"exec": {"command": ["true"]}}}}),
    ];
    let security = vec![json!({"privileged": true}), json!({"runAsUser": 1000}), json!({})];
    let probes = (of(probe(true)), of(probe(false)), of(probe(true)));
    let rest = (of(select(security)), weighted(0.1, Just(true)));
    (select(images), select(commands), of(resources()), ports(), of(env()), probes, rest).prop_map(
        |(image, commands, resources, ports, env, probes, (security, terminal))| {
            let mut container = commands;
            container["image"] = image.into();
            // Its default depends on the tag, but is kept when the tag changes.
            container["imagePullPolicy"] = "IfNotPresent".into();
            put(&mut container, "resources", resources);
            put(&mut container, "ports", ports);
            put(&mut container, "env", env);
            put(&mut container, "startupProbe", probes.0);
            put(&mut container, "readinessProbe", probes.1);
            put(&mut container, "livenessProbe", probes.2);
            put(&mut container, "securityContext", security);
            put(&mut container, "tty", terminal);
            container
        },
    )
}

fn ports() -> impl Strategy<Value = Option<Value>> {
    let known = vec![
        json!({"containerPort": 8080}),
        json!({"containerPort": 8000, "name": "http"}),
        json!({"containerPort": 9090, "name": "metrics", "protocol": "TCP"}),
        json!({"containerPort": 5353, "name": "dns", "protocol": "UDP"}),
    ];
    of(subsequence(known, 0..=3).prop_map(Value::from))
}

fn env() -> impl Strategy<Value = Value> {
    let known = vec![
        json!({"name": "MODEL", "value": "llama"}),
        json!({"name": "LOG_TO", "value": "$(PGHOST)/$(PGDATABASE)"}),
        json!({"name": "EMPTY"}),
        json!({"name": "PGHOST", "value": "elsewhere"}),
        json!({"name": "PGHOST", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}),
        json!({"name": "PGPASSWORD", "valueFrom": {"secretKeyRef": {"name": "mine", "key": "password", "optional": true}}}),
        json!({"name": "PGSSLMODE", "value": "verify-full"}),
        json!({"name": "VLLM_API_KEY", "valueFrom": {"secretKeyRef": {"name": "mine", "key": "key"}}}),
    ];
    subsequence(known, 0..=6).prop_shuffle().prop_map(Value::from)
}

/// A probe; liveness and startup probes require a success threshold of one.
fn probe(one_success: bool) -> impl Strategy<Value = Value> {
    let handlers = vec![
        json!({"httpGet": {"port": 8080}}),
        json!({"httpGet": {"port": "http", "path": "/ready", "scheme": "HTTPS"}}),
        json!({"httpGet": {"port": 8000, "httpHeaders": [{"name": "Host", "value": "model"}]}}),
        json!({"tcpSocket": {"port": "metrics"}}),
        json!({"exec": {"command": ["true"]}}),
        json!({"grpc": {"port": 9000, "service": "model"}}),
    ];
    let times = subsequence(vec!["periodSeconds", "timeoutSeconds", "failureThreshold", "initialDelaySeconds"], 0..=4);
    (select(handlers), times, 1..60_u8, of(2..4_u8)).prop_map(move |(mut probe, times, seconds, successes)| {
        for field in times {
            probe[field] = seconds.into();
        }
        put(&mut probe, "successThreshold", successes.filter(|_| !one_success));
        probe
    })
}

/// Requests and limits of a container: sometimes a request above its limit, which is rejected.
fn resources() -> impl Strategy<Value = Value> {
    let low = ("cpu", vec!["50m", "0.2", "100m", "0"]);
    let high = ("cpu", vec!["500m", "1", "2000m", "0.1", "32"]);
    let small = ("memory", vec!["64Mi", "200Mi", "1e8", "134217728"]);
    let large = ("memory", vec!["500Mi", "1Gi", "0.5Gi", "100Mi", "1T"]);
    let disk = || ("ephemeral-storage", vec!["1Gi", "2G"]);
    let gpu = weighted(0.2, select(vec![json!(1), json!("2")]));
    let requests = (some_of(low), some_of(small), some_of(disk())).prop_map(|(a, b, c)| amounts([a, b, c]));
    let limits = (some_of(high), some_of(large), some_of(disk())).prop_map(|(a, b, c)| amounts([a, b, c]));
    (of(requests), of(limits), gpu).prop_map(|(requests, limits, gpu)| {
        let mut resources = json!({});
        put(&mut resources, "requests", requests);
        put(&mut resources, "limits", limits);
        if let Some(gpu) = gpu {
            resources["limits"]["nvidia.com/gpu"] = gpu;
        }
        resources
    })
}

fn pod_resources() -> impl Strategy<Value = Value> {
    let pod = |name, values| some_of((name, values));
    let requests = (pod("cpu", vec!["4", "8"]), pod("memory", vec!["2Gi", "8Gi"]));
    let limits = (pod("cpu", vec!["8", "16"]), pod("memory", vec!["8Gi", "32Gi"]));
    (requests, limits).prop_map(|(requests, limits)| {
        json!({"requests": amounts([requests.0, requests.1]), "limits": amounts([limits.0, limits.1])})
    })
}

type Amount = Option<(&'static str, &'static str)>;

fn some_of((name, values): (&'static str, Vec<&'static str>)) -> impl Strategy<Value = Amount> {
    of(select(values).prop_map(move |value| (name, value)))
}

fn amounts(amounts: impl IntoIterator<Item = Amount>) -> Value {
    amounts.into_iter().flatten().map(|(name, value)| (name.to_owned(), Value::from(value))).collect()
}

fn pod_fields() -> impl Strategy<Value = Value> {
    let known = vec![
        json!({"hostNetwork": false}),
        json!({"nodeSelector": {"pool": "gpu"}}),
        json!({"tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}]}),
        json!({"volumes": [{"name": "weights", "emptyDir": {}}]}),
        json!({"shareProcessNamespace": true, "terminationGracePeriodSeconds": 5}),
        json!({"hostAliases": [{"ip": "127.0.0.2", "hostnames": ["model"]}]}),
    ];
    subsequence(known, 0..=3).prop_map(|fields| {
        let mut all = json!({});
        for fields in fields {
            put_all(&mut all, fields);
        }
        all
    })
}

fn annotations() -> impl Strategy<Value = Option<Value>> {
    let known = vec![
        json!({"tidegate.dev/container": "api"}),
        json!({"tidegate.dev/container": "proxy"}),
        json!({"tidegate.dev/receipt": "{}"}),
        json!({"tidegate.dev/receipt": r#"{"template":"0123456789abcdef","set":{"serving@1":{"containers":{"api":{"env":{"MODEL":{"value":"00000000"}}}}}}}"#}),
    ];
    weighted(0.5, select(known))
}

fn put<T: Into<Value>>(object: &mut Value, field: &str, value: Option<T>) {
    if let Some(value) = value {
        object[field] = value.into();
    }
}

fn put_all(object: &mut Value, fields: Value) {
    let Value::Object(fields) = fields else { return };
    fields.into_iter().for_each(|(name, value)| object[name] = value);
}
