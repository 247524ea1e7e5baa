//! Whether pods are bound to a database: their template names one of its Services or one of the Secrets with its
//! credentials.

use serde_json::Value;

use super::{Api, api_of};
use crate::workload::items;

/// Returns whether a pod template is bound to a database. `secret` has its credentials, if a policy names it.
#[must_use]
pub fn is_bound(database: &Value, secret: Option<&str>, template: &Value) -> bool {
    let Some(api) = api_of(database) else { return false };
    let text = |field: &str| database["metadata"][field].as_str().unwrap_or_default();
    is_bound_to(template, api, text("name"), text("namespace"), secret)
}

/// Returns whether a pod template is bound to the database with this name, which need not exist.
pub(super) fn is_bound_to(template: &Value, api: &Api, name: &str, namespace: &str, secret: Option<&str>) -> bool {
    let spec = &template["spec"];
    let is_service = |host: &str| api.services.iter().any(|ending| is_host(host, name, ending, namespace));
    secrets(spec).any(|found| Some(found) == secret || (api.is_secret)(found, name))
        || texts(spec).any(|text| hosts(text).any(is_service))
}

fn containers(spec: &Value) -> impl Iterator<Item = &Value> {
    ["initContainers", "containers"].into_iter().flat_map(|list| items(&spec[list]))
}

/// Returns the names of the Secrets that pods use as variables or files.
fn secrets(spec: &Value) -> impl Iterator<Item = &str> {
    let of_containers = containers(spec).flat_map(|container| {
        let variables = items(&container["env"]).map(|entry| &entry["valueFrom"]["secretKeyRef"]["name"]);
        variables.chain(items(&container["envFrom"]).map(|source| &source["secretRef"]["name"]))
    });
    let of_volumes = items(&spec["volumes"]).flat_map(|volume| {
        let projected = items(&volume["projected"]["sources"]).map(|source| &source["secret"]["name"]);
        projected.chain([&volume["secret"]["secretName"]])
    });
    of_containers.chain(of_volumes).filter_map(Value::as_str)
}

/// Returns the texts that may contain a host: the values of variables, and the commands of containers.
fn texts(spec: &Value) -> impl Iterator<Item = &str> {
    let values = containers(spec).flat_map(|container| items(&container["env"])).map(|entry| &entry["value"]);
    values.chain(containers(spec).flat_map(commands).flat_map(items)).filter_map(Value::as_str)
}

/// Returns the commands of a container, each as a list of arguments.
fn commands(container: &Value) -> impl Iterator<Item = &Value> {
    let probes = ["startupProbe", "readinessProbe", "livenessProbe"].map(|probe| &container[probe]["exec"]);
    let hooks = ["postStart", "preStop"].map(|hook| &container["lifecycle"][hook]["exec"]);
    let beside = probes.into_iter().chain(hooks).map(|exec| &exec["command"]);
    ["command", "args"].map(|field| &container[field]).into_iter().chain(beside)
}

/// Returns the hosts in a text, without user, port and path: from a URL, from `host=…` in a connection string, from a
/// flag, or the word itself.
fn hosts(text: &str) -> impl Iterator<Item = &str> {
    let is_between = |c: char| c.is_whitespace() || "'\"`,;&?|(){}[]<>".contains(c);
    text.split(is_between).flat_map(|word| {
        let address = match word.split_once("://") {
            Some((_, address)) => address,
            None => word.rsplit('=').next().unwrap_or_default(),
        };
        let authority = address.split('/').next().unwrap_or_default();
        let host = authority.rsplit('@').next().and_then(|host| host.split(':').next()).unwrap_or_default();
        // The short form of psql: `-hHOST`.
        [Some(host), host.strip_prefix("-h")].into_iter().flatten()
    })
}

/// Returns whether a host is the Service with this name and suffix, as pods in its namespace or others address it.
/// <https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/>
fn is_host(host: &str, name: &str, ending: &str, namespace: &str) -> bool {
    let mut labels = host.split('.');
    let service = labels.next().and_then(|label| label.strip_suffix(ending));
    service.is_some_and(|service| service == name) && labels.next().is_none_or(|label| label == namespace)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn zalando() -> Value {
        json!({"apiVersion": "acid.zalan.do/v1", "kind": "postgresql", "metadata": {"name": "acid-api", "namespace": "ml"}})
    }

    fn cloudnative_pg() -> Value {
        let metadata = json!({"name": "api-db", "namespace": "ml"});
        json!({"apiVersion": "postgresql.cnpg.io/v1", "kind": "Cluster", "metadata": metadata})
    }

    /// Returns whether pods with this container and these volumes are bound to a database.
    fn is_referenced(database: &Value, container: &Value, volumes: &Value) -> bool {
        let with = |list: &str| {
            let spec = json!({list: [container], "volumes": volumes});
            is_bound(database, Some("configured-api"), &json!({"spec": spec}))
        };
        let is_referenced = with("containers");
        assert_eq!(with("initContainers"), is_referenced);
        is_referenced
    }

    fn env(database: &Value, value: &str) -> bool {
        is_referenced(database, &json!({"env": [{"name": "V", "value": value}]}), &json!([]))
    }

    #[test]
    fn matches_the_whole_name_of_a_host() {
        for here in [
            "acid-api",
            "acid-api-pooler",
            "acid-api-repl:5432",
            "acid-api.ml",
            "acid-api.ml.svc.cluster.local.",
            "postgresql://$(PGUSER):$(PGPASSWORD)@acid-api:5432/api?sslmode=require",
            "postgresql://u:p@elsewhere:5432,acid-api-repl:5432/api",
            "postgresql:///api?user=u&host=acid-api",
            "jdbc:postgresql://acid-api.ml.svc:5432/api",
            "host=acid-api port=5432 dbname=api",
            "Server=acid-api;Port=5432;Database=api",
            "elsewhere:6379, acid-api:5432",
            r#"{"host":"acid-api","port":5432}"#,
            "acid-api:5432:api:user:password",
        ] {
            assert!(env(&zalando(), here), "{here}");
        }
        for elsewhere in [
            "acid-api-server",
            "my-acid-api",
            "acid-api2.ml.svc",
            "acid-api.other.svc.cluster.local",
            "elsewhere.acid-api",
            "postgresql://u:p@acid-api-server:5432/api",
            "postgresql://acid-api:acid-api@elsewhere:5432/acid-api",
            "host=acid-api-2 dbname=acid-api2",
            "registry.example.com/acid-api:1",
            "/models/acid-api",
        ] {
            assert!(!env(&zalando(), elsewhere), "{elsewhere}");
        }
    }

    #[test]
    fn matches_only_the_services_of_the_provider() {
        assert!(["api-db-rw", "api-db-ro", "api-db-r.ml.svc"].iter().all(|host| env(&cloudnative_pg(), host)));
        assert!(["api-db", "api-db-pooler", "api-db-rw2"].iter().all(|host| !env(&cloudnative_pg(), host)));
        assert!(!env(&zalando(), "acid-api-rw"));
    }

    #[test]
    fn detects_a_secret_wherever_pods_use_it() {
        let everywhere = |database: &Value, name: &str| {
            let referenced = |container: Value, volumes: Value| is_referenced(database, &container, &volumes);
            let found = [
                referenced(
                    json!({"env": [{"name": "V", "valueFrom": {"secretKeyRef": {"name": name, "key": "k"}}}]}),
                    json!([]),
                ),
                referenced(json!({"envFrom": [{"secretRef": {"name": name}}]}), json!([])),
                referenced(json!({}), json!([{"name": "v", "secret": {"secretName": name}}])),
                referenced(json!({}), json!([{"name": "v", "projected": {"sources": [{"secret": {"name": name}}]}}])),
            ];
            assert!(found.iter().all(|is_referenced| *is_referenced == found[0]), "{name}: {found:?}");
            found[0]
        };
        for name in
            ["api.acid-api.credentials.postgresql.acid.zalan.do", "other-user.acid-api.credentials", "configured-api"]
        {
            assert!(everywhere(&zalando(), name), "{name}");
        }
        for name in ["api.acid-api-server.credentials", "acid-api-tls", "configured-api-2", "my-configured-api"] {
            assert!(!everywhere(&zalando(), name), "{name}");
        }
        assert!(everywhere(&cloudnative_pg(), "api-db-app") && everywhere(&cloudnative_pg(), "api-db-superuser"));
        assert!(!everywhere(&cloudnative_pg(), "api-db-server-app") && !everywhere(&cloudnative_pg(), "api-db"));
    }

    #[test]
    fn detects_hosts_in_commands_only() {
        let referenced =
            |container: Value| is_referenced(&zalando(), &container, &json!([{"name": "acid-api", "emptyDir": {}}]));
        let ready = json!(["sh", "-c", "until pg_isready -h acid-api; do sleep 1; done"]);
        assert!(
            referenced(json!({"command": ready})) && referenced(json!({"startupProbe": {"exec": {"command": ready}}}))
        );
        assert!(referenced(json!({"lifecycle": {"preStop": {"exec": {"command": ["psql", "-hacid-api"]}}}})));
        assert!(referenced(json!({"args": ["--database-url=postgres://u@acid-api/api"]})));
        assert!(referenced(json!({"args": ["--db-host", "acid-api"]})));
        assert!(!referenced(json!({"args": ["--model=/models/acid-api", "--db-host=acid-api-server"]})));
        assert!(!referenced(json!({
            "name": "acid-api", "image": "registry.example.com/acid-api-server:1", "workingDir": "/acid-api",
            "volumeMounts": [{"name": "acid-api", "mountPath": "/acid-api"}], "env": [{"name": "acid-api", "value": ""}]
        })));
    }
}
