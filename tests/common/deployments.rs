//! Generated Deployments and policies for property tests: valid and slightly invalid ones.

#![allow(dead_code, reason = "each test binary uses a part")]

use proptest::collection::{btree_map, vec};
use proptest::option::{of, weighted};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Map, Value, json};

use super::policies::SCOPE;

/// Any JSON, two levels deep or so.
pub(crate) fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[ -~]{0,6}".prop_map(Value::from),
        select(vec!["a", "b", "always", "Always", "1Gi", "\u{0}", "é", ""]).prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(any_field(), inner, 0..4).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// A field's name: one that Tidegate reads, or any.
fn any_field() -> impl Strategy<Value = String> {
    let known = [
        "metadata",
        "spec",
        "template",
        "containers",
        "initContainers",
        "name",
        "env",
        "resources",
        "limits",
        "labels",
        "requests",
        "cpu",
        "ports",
        "readinessProbe",
        "httpGet",
        "annotations",
        "managedFields",
        "replicas",
        "image",
    ];
    prop_oneof![3 => select(known.to_vec()).prop_map(str::to_owned), 1 => "[ -~]{0,5}"]
}

/// A Deployment that is a model server.
pub(crate) fn deployment() -> impl Strategy<Value = Value> {
    let metadata = (
        select(vec![
            "api",
            "7b-chat",
            "team.api",
            "postgres",
            "a-very-long-name-for-a-model-server-that-goes-on-and-on",
        ]),
        small_map(&["team", "app"]),
        of(small_map(&["note", "tidegate.dev/receipt", "kubectl.kubernetes.io/last-applied-configuration"])),
        weighted(0.3, select(vec!["true", "none"])),
        extras(),
    )
        .prop_map(|(name, labels, annotations, database, extras)| {
            let mut metadata = object([("name", json!(name)), ("namespace", json!("ml"))], extras);
            metadata["labels"] = labels.into();
            metadata["labels"][SCOPE.0] = SCOPE.1.into();
            set(&mut metadata, "annotations", annotations);
            if let Some(database) = database {
                metadata["annotations"]["tidegate.dev/database"] = database.into();
            }
            metadata
        });
    let spec = (of(0..5_i64), template(), extras()).prop_map(|(replicas, template, extras)| {
        let mut spec = object([("selector", json!({"matchLabels": {"app": "a"}})), ("template", template)], extras);
        set(&mut spec, "replicas", replicas);
        spec
    });
    (metadata, spec, extras()).prop_map(|(metadata, spec, extras)| {
        let kind = [("apiVersion", json!("apps/v1")), ("kind", json!("Deployment"))];
        object(kind.into_iter().chain([("metadata", metadata), ("spec", spec)]), extras)
    })
}

fn template() -> impl Strategy<Value = Value> {
    let metadata = weighted(
        0.8,
        (small_map(&["app"]), of(small_map(&["note"]))).prop_map(|(labels, annotations)| {
            let mut metadata = json!({"labels": labels});
            set(&mut metadata, "annotations", annotations);
            metadata
        }),
    );
    let pod = (
        subsequence(vec!["api", "proxy", "agent/1", "model"], 1..=3),
        subsequence(vec!["setup", "mesh", "api"], 0..=2),
        vec(container(), 3),
        vec((container(), of(select(vec!["Always", "Never"]))), 2),
        weighted(0.2, resources()),
        extras(),
    )
        .prop_map(|(names, init_names, containers, init, resources, extras)| {
            let named = |name: &str, mut container: Value| {
                container["name"] = name.into();
                container
            };
            let containers: Vec<Value> =
                names.into_iter().zip(containers).map(|(name, container)| named(name, container)).collect();
            let init = init_names.into_iter().zip(init).map(|(name, (mut container, restart))| {
                set(&mut container, "restartPolicy", restart);
                named(name, container)
            });
            let init: Vec<Value> = init.collect();
            let mut pod = object([("containers", containers.into())], extras);
            if !init.is_empty() {
                pod["initContainers"] = init.into();
            }
            set(&mut pod, "resources", resources);
            pod
        });
    (metadata, pod, extras()).prop_map(|(metadata, pod, extras)| {
        let mut template = object([("spec", pod)], extras);
        set(&mut template, "metadata", metadata);
        template
    })
}

/// A container without its name.
fn container() -> impl Strategy<Value = Value> {
    let images = vec![
        "registry.example.com:5000/api:1.2",
        "vllm/vllm-openai:v0.11.0",
        "mirror.example.com/vllm/vllm-openai@sha256:0f1e",
        "python:3.12",
        "api",
    ];
    let commands = vec![
        json!({}),
        json!({"args": []}),
        json!({"args": ["--port", "9000", "--api-key=x"]}),
        json!({"command": ["/bin/sh", "-c"], "args": ["vllm serve m --port=9001 --ssl-keyfile /k"]}),
        json!({"command": ["python", "-m", "vllm.entrypoints.openai.api_server"]}),
    ];
    let probes = (of(probe()), of(probe()), of(probe()));
    let variables = (of(env()), env_from());
    (select(images), select(commands), variables, of(resources()), of(ports()), probes, extras()).prop_map(
        |(image, command, (env, env_from), resources, ports, probes, extras)| {
            let mut container = object([("image", json!(image))], extras);
            json_patch::merge(&mut container, &command);
            set(&mut container, "env", env);
            set(&mut container, "envFrom", env_from);
            set(&mut container, "resources", resources);
            set(&mut container, "ports", ports);
            set(&mut container, "startupProbe", probes.0);
            set(&mut container, "readinessProbe", probes.1);
            set(&mut container, "livenessProbe", probes.2);
            container
        },
    )
}

/// Environment variables, sometimes with a name that Tidegate sets or with a duplicate name.
fn env() -> impl Strategy<Value = Value> {
    let names = vec![
        "A",
        "B",
        "C",
        "D",
        "E",
        "F",
        "PGHOST",
        "PGUSER",
        "PGPASSWORD",
        "PGSSLMODE",
        "DATABASE_URL",
        "VLLM_API_KEY",
    ];
    let source = prop_oneof![
        4 => "[a-z$()]{0,5}".prop_map(|value| json!({"value": value})),
        2 => Just(json!({"valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": true}}})),
        1 => Just(json!({})),
    ];
    let variable = (select(names), source, extras()).prop_map(|(name, source, extras)| {
        let mut variable = object([("name", json!(name))], extras);
        json_patch::merge(&mut variable, &source);
        variable
    });
    vec(variable, 0..5).prop_map(Value::from)
}

/// Sources of variables, sometimes with a prefix.
fn env_from() -> impl Strategy<Value = Option<Value>> {
    let source = select(vec![json!({}), json!({"prefix": "PG"}), json!({"prefix": "MODEL_"})]);
    let source = source.prop_map(|mut source| {
        source["configMapRef"] = json!({"name": "settings"});
        json!([source])
    });
    weighted(0.2, source)
}

fn ports() -> impl Strategy<Value = Value> {
    let port = (1..9999_u16, of(select(vec!["http", "grpc", "metrics"])), of(select(vec!["TCP", "UDP"]))).prop_map(
        |(number, name, protocol)| {
            let mut port = json!({"containerPort": number});
            set(&mut port, "name", name);
            set(&mut port, "protocol", protocol);
            port
        },
    );
    vec(port, 0..3).prop_map(Value::from)
}

/// A probe: whole, without a handler, or empty.
fn probe() -> impl Strategy<Value = Value> {
    let handlers = vec![
        json!({}),
        json!({"httpGet": {"port": 9002}}),
        json!({"httpGet": {"port": "http", "path": "/ready", "httpHeaders": [{"name": "A", "value": "b"}]}}),
        json!({"tcpSocket": {"port": 9003}}),
        json!({"exec": {"command": ["true"]}}),
        json!({"grpc": {"port": 9004}}),
        json!({"httpGet": null}),
    ];
    let timing = btree_map(
        select(vec!["periodSeconds", "failureThreshold", "timeoutSeconds", "initialDelaySeconds"]),
        1..60_u8,
        0..3,
    );
    (select(handlers), timing, extras()).prop_map(|(handler, timing, extras)| {
        let mut probe = object([], extras);
        json_patch::merge(&mut probe, &handler);
        json_patch::merge(&mut probe, &json!(timing));
        probe
    })
}

/// Requests and limits, consistent or not, in many notations.
fn resources() -> impl Strategy<Value = Value> {
    let amounts = || {
        prop_oneof![
            3 => btree_map(select(vec!["cpu", "memory", "ephemeral-storage"]), quantity(), 0..3).prop_map(|map| json!(map)),
            1 => select(vec![json!({"nvidia.com/gpu": 1}), json!({"nvidia.com/gpu": "0"}), json!(null)]),
        ]
    };
    (of(amounts()), of(amounts()), extras()).prop_map(|(requests, limits, extras)| {
        let mut resources = object([], extras);
        set(&mut resources, "requests", requests);
        set(&mut resources, "limits", limits);
        resources
    })
}

/// A quantity, in the notations of users and programs.
pub(crate) fn quantity() -> impl Strategy<Value = Value> {
    let written =
        ["1", "100m", "0.1", "1e3", "2Gi", "1024Mi", "500M", "0", "1500m", "+5", "1.125", "128974848", "3E-1", "64Gi"];
    prop_oneof![
        4 => select(written.to_vec()).prop_map(Value::from),
        1 => (0..2_000_000_000_i64).prop_map(Value::from),
        1 => select(vec![json!(0.5), json!(1.5e9)]),
    ]
}

/// Fields of a future version.
fn extras() -> impl Strategy<Value = Map<String, Value>> {
    let extra = btree_map(select(vec!["future", "x-more", "zeta/~1", "namespaceSelector"]), any_json(), 1..3);
    weighted(0.25, extra).prop_map(|extras| {
        extras.unwrap_or_default().into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    })
}

fn small_map(keys: &'static [&'static str]) -> impl Strategy<Value = Map<String, Value>> {
    btree_map(select(keys.to_vec()), "[a-z{}\"]{0,4}", 0..3)
        .prop_map(|map| map.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect())
}

fn object<'a>(fields: impl IntoIterator<Item = (&'a str, Value)>, mut extras: Map<String, Value>) -> Value {
    extras.extend(fields.into_iter().map(|(name, value)| (name.to_owned(), value)));
    extras.into()
}

fn set<T: Into<Value>>(object: &mut Value, field: &str, value: Option<T>) {
    if let Some(value) = value {
        object[field] = value.into();
    }
}

/// A policy that injects.
pub(crate) fn policy() -> impl Strategy<Value = Value> {
    let resources = of((of(defaults()), of(defaults()), any::<bool>()).prop_map(|(cpu, gpu, bounded)| {
        let mut resources = json!({});
        set(&mut resources, "cpu", cpu);
        set(&mut resources, "gpu", gpu);
        if bounded {
            resources["bounds"] = json!({"cpu": {"max": "16"}, "memory": {"min": "1Mi", "max": "64Gi"}});
        }
        resources
    }));
    let probes = of(select(vec![json!({}), json!({"from": "none"}), json!({"startupBudget": "90s"})]));
    let autoscaling = of(select(vec![
        json!({"metrics": [{"type": "ContainerResource", "containerResource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}]}),
        json!({"engine": "none", "preserveReplicas": false}),
    ]));
    let zalando = |team: &str| json!({"teamId": team, "version": "17", "volume": {"size": "1Gi"}});
    let providers = vec![
        json!({"provider": "zalando", "zalando": zalando("acid")}),
        json!({"provider": "zalando", "zalando": zalando("ml")}),
        json!({"provider": "cloudnative-pg", "cloudNativePg": {"storage": {"size": "1Gi"}}}),
    ];
    let envs = vec![json!("libpq"), json!("url"), json!("both"), json!({"MODEL": "host", "PGHOST": "uri"})];
    let database = of((select(providers), of(select(envs))).prop_map(|(mut database, env)| {
        set(&mut database, "env", env);
        database
    }));
    let name = (select(vec!["baseline", "serving"]), 1..4_i64);
    (name, select(vec!["warn", "enforce"]), resources, probes, autoscaling, database).prop_map(
        |((name, generation), enforcement, resources, probes, autoscaling, database)| {
            let mut spec = json!({"enforcement": enforcement});
            set(&mut spec, "resources", resources);
            set(&mut spec, "probes", probes);
            set(&mut spec, "autoscaling", autoscaling);
            set(&mut spec, "database", database);
            json!({"apiVersion": "tidegate.dev/v1alpha1", "kind": "ServingPolicy",
                "metadata": {"name": name, "generation": generation}, "spec": spec})
        },
    )
}

/// Defaults whose requests are not above their limits.
fn defaults() -> impl Strategy<Value = Value> {
    let low = || select(vec!["100m", "0.2", "300000u"]);
    let high = || select(vec!["1", "1500m", "2e0"]);
    let small = || select(vec!["200Mi", "256M", "1e8"]);
    let large = || select(vec!["1Gi", "500Mi", "2G"]);
    (of(low()), of(small()), of(high()), of(large())).prop_map(|(cpu, memory, cpu_limit, memory_limit)| {
        let mut defaults = json!({"requests": {}, "limits": {}});
        set(&mut defaults["requests"], "cpu", cpu);
        set(&mut defaults["requests"], "memory", memory);
        set(&mut defaults["limits"], "cpu", cpu_limit);
        set(&mut defaults["limits"], "memory", memory_limit);
        defaults
    })
}
