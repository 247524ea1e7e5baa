//! The databases of model servers on a real API server, for each provider. No operator runs here: the tests act in its
//! place.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod common;

use common::{
    ControlPlane, SOON, Sandbox, Tidegate, condition, container, env, free_addresses, in_tree, model_server, serving,
    wait_for, wait_until,
};
use serde_json::{Value, json};

/// Returns the policy `serving` for a namespace, with these database settings.
fn policy(namespace: &str, database: &Value) -> Value {
    let mut policy = serving(namespace);
    let mut whole =
        json!({"provider": "zalando", "zalando": {"teamId": "acid", "version": "17", "volume": {"size": "1Gi"}}});
    json_patch::merge(&mut whole, database);
    policy["spec"]["database"] = whole;
    policy
}

fn sandbox<'a>(namespace: &'a str, database: &Value) -> Sandbox<'a> {
    let sandbox = Sandbox::without_policy(namespace);
    sandbox.put_policy(&policy(namespace, database));
    sandbox
}

fn cloudnative_pg() -> Value {
    json!({"provider": "cloudnative-pg", "cloudNativePg": {"instances": 2, "version": "17", "storage": {"size": "10Gi"}}})
}

/// Waits for a database, and returns it.
#[track_caller]
fn database(sandbox: &Sandbox, kind: &str, name: &str) -> Value {
    wait_for(&format!("the {kind} {name}"), SOON, || sandbox.get(kind, name))
}

/// Acts as an operator: writes the status of a database.
fn report(sandbox: &Sandbox, kind: &str, name: &str, status: &Value) {
    let status = json!({"status": status}).to_string();
    sandbox.kubectl(&["patch", kind, name, "--subresource=status", "--type=merge", "--patch", &status]).succeeds();
}

fn reason(server: &Value) -> &Value {
    &condition(server, "DatabaseReady")["reason"]
}

#[test]
#[ignore = "needs the control plane"]
fn creates_and_binds_a_cloudnative_pg_cluster() {
    let mut database_of = cloudnative_pg();
    database_of["env"] = json!("both");
    let sandbox = sandbox("cnpg", &database_of);
    sandbox.apply(&model_server("api")).succeeds().says_nothing();
    let cluster = database(&sandbox, "Cluster", "db-api");
    assert_eq!(cluster["metadata"]["ownerReferences"], Value::Null);
    assert_eq!(cluster["spec"]["bootstrap"]["initdb"]["owner"], "api");
    assert_eq!(cluster["spec"]["imageName"], "ghcr.io/cloudnative-pg/postgresql:17");
    let container = sandbox.container("api");
    assert_eq!(env(&container, "PGHOST")["value"], "db-api-rw");
    assert_eq!(
        env(&container, "DATABASE_URL")["valueFrom"]["secretKeyRef"],
        json!({"name": "db-api-app", "key": "uri"})
    );

    let waits = sandbox.model_server("api", "that pods wait", |server| reason(server) == "Pending");
    let message = condition(&waits, "DatabaseReady")["message"].as_str().unwrap();
    assert!(message.ends_with("Pods wait until it creates the Secret db-api-app"), "{message}");
    let ready = |status: &str, reason: &str| json!([{"type": "Ready", "status": status, "reason": reason}]);
    let setting_up = json!({"phase": "Setting up primary", "conditions": ready("False", "ClusterIsNotReady")});
    report(&sandbox, "Cluster", "db-api", &setting_up);
    sandbox.model_server("api", "the operator's status", |server| {
        reason(server) == "ClusterIsNotReady" && server["status"]["database"]["phase"] == "Setting up primary"
    });
    let healthy = json!({"phase": "Cluster in healthy state", "conditions": ready("True", "ClusterIsReady")});
    report(&sandbox, "Cluster", "db-api", &healthy);
    sandbox.model_server("api", "that the database is ready", |server| {
        condition(server, "DatabaseReady")["status"] == "True" && server["status"]["database"]["kind"] == "Cluster"
    });

    let edit = r#"{"spec":{"instances":3}}"#;
    sandbox.kubectl(&["patch", "Cluster", "db-api", "--type=merge", "--patch", edit]).succeeds();
    let drifted = sandbox.model_server("api", "that the database drifted", |server| reason(server) == "Drifted");
    assert_eq!(condition(&drifted, "DatabaseReady")["message"], "spec.instances is 3, the policy has 2");
    assert!(sandbox.list("postgresql").is_empty());
}

#[test]
#[ignore = "needs the control plane"]
fn creates_clusters_for_workloads_with_any_name() {
    let sandbox = sandbox("cnpg-names", &cloudnative_pg());
    let long = "m".repeat(63);
    for name in ["7b-chat", "streaming-replica", &long] {
        sandbox.apply(&model_server(name)).succeeds().says_nothing();
    }
    wait_until("three clusters", SOON, || sandbox.list("Cluster").len() == 3);
    let mut names: Vec<String> =
        sandbox.list("Cluster").iter().map(|found| found["metadata"]["name"].as_str().unwrap().to_owned()).collect();
    names.sort_by_key(String::len);
    assert_eq!(names[..2], ["db-7b-chat", "db-streaming-replica"]);
    assert_eq!(names[2].len(), 50);
    assert_eq!(
        database(&sandbox, "Cluster", "db-streaming-replica")["spec"]["bootstrap"]["initdb"]["owner"],
        "app_streaming_replica"
    );
}

#[test]
#[ignore = "needs the control plane"]
fn binds_an_existing_secret() {
    let secret = json!({"name": "{workload}-database", "keys": {"uri": "url"}});
    let sandbox =
        sandbox("secret", &json!({"provider": "secret", "secret": secret, "env": {"MLFLOW_BACKEND_STORE_URI": "uri"}}));
    sandbox.apply(&model_server("api")).succeeds().says_nothing();
    let container = sandbox.container("api");
    let bound = &env(&container, "MLFLOW_BACKEND_STORE_URI")["valueFrom"]["secretKeyRef"];
    assert_eq!(*bound, json!({"name": "api-database", "key": "url"}));
    let server = sandbox.model_server("api", "its Secret", |server| server["status"]["database"]["kind"] == "Secret");
    assert_eq!((&server["status"]["database"]["name"], reason(&server)), (&json!("api-database"), &json!("External")));
    assert!(sandbox.list("postgresql").is_empty() && sandbox.list("Cluster").is_empty());
}

#[test]
#[ignore = "needs the control plane"]
fn the_api_server_accepts_all_zalando_settings() {
    let zalando = json!({
        "instances": 2, "volume": {"size": "1Gi", "storageClass": "fast"},
        "users": {"reporting": ["createdb", "login"]},
        "databases": {"features": "reporting", "predictions": "{workload}"},
        "preparedDatabases": {"store": {"defaultUsers": true, "extensions": {"vector": "public"}, "schemas": {"data": {}}}},
        "connectionPooler": {"instances": 2, "mode": "session", "maxConnections": 60, "resources": {"limits": {"cpu": "1", "memory": "500Mi"}}},
        "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}},
        "tls": {"secretName": "certificate"},
        "clusterLabels": {"cost-center": "ml"}
    });
    let sandbox = sandbox("zalando-all", &json!({"zalando": zalando, "env": "url"}));
    sandbox.apply(&model_server("api")).succeeds().says_nothing();
    let made = sandbox.database("api");
    assert_eq!(made["metadata"]["labels"]["cost-center"], "ml");
    assert_eq!(made["spec"]["databases"], json!({"api": "api", "features": "reporting", "predictions": "api"}));
    assert_eq!(
        env(&sandbox.container("api"), "DATABASE_URL")["value"],
        "postgresql://$(PGUSER):$(PGPASSWORD)@acid-api-pooler:5432/api?sslmode=require"
    );
    // New users and databases are added, and removed ones are kept.
    let later = json!({"env": "url", "zalando": {"users": {"audit": []}, "preparedDatabases": {"more": {}}}});
    sandbox.put_policy(&policy("zalando-all", &later));
    let added = wait_for("the new user and database", SOON, || {
        let found = sandbox.database("api");
        (found["spec"]["users"]["audit"].is_array() && found["spec"]["preparedDatabases"]["more"].is_object())
            .then_some(found)
    });
    assert_eq!(added["spec"]["users"]["reporting"], made["spec"]["users"]["reporting"]);
    assert_eq!(added["spec"]["volume"], made["spec"]["volume"]);
}

#[test]
#[ignore = "needs the control plane"]
fn refuses_settings_that_no_operator_accepts() {
    let sandbox = Sandbox::without_policy("senseless-databases");
    for (database, message) in [
        (json!({"zalando": {"users": {"postgres": []}}}), "spec.database.zalando.users: `postgres` is reserved"),
        (json!({"env": "uri"}), "unknown env `uri`"),
        (json!({"provider": "secret"}), "provider secret needs name and keys"),
        (json!({"maxPerNamespace": -1}), "maxPerNamespace must be at least 0"),
    ] {
        sandbox.apply(&policy("senseless-databases", &database)).fails().says(message);
    }
}

/// Returns the names of the databases in a namespace.
fn databases(sandbox: &Sandbox) -> Vec<String> {
    let name = |found: &Value| found["metadata"]["name"].as_str().unwrap().to_owned();
    sandbox.list("postgresql").iter().map(name).collect()
}

#[test]
#[ignore = "needs the control plane"]
fn keeps_the_name_of_a_database_of_an_earlier_release() {
    let sandbox = sandbox("named-before", &json!({}));
    let metadata = json!({"name": "acid-api", "labels": {"app.kubernetes.io/managed-by": "tidegate"},
        "annotations": {"tidegate.dev/workload": "StatefulSet/api"}});
    let spec =
        json!({"teamId": "acid", "numberOfInstances": 1, "postgresql": {"version": "17"}, "volume": {"size": "1Gi"}});
    sandbox
        .apply(&json!({"apiVersion": "acid.zalan.do/v1", "kind": "postgresql", "metadata": metadata, "spec": spec}))
        .succeeds();
    let mut stateful = model_server("api");
    stateful["kind"] = "StatefulSet".into();
    stateful["spec"]["serviceName"] = "api".into();
    let host = |object: &Value| {
        let arguments = ["apply", "--dry-run=server", "-o", "json", "-f", "-"];
        let tried: Value = serde_json::from_str(&sandbox.kubectl_with(&arguments, object).succeeds().stdout).unwrap();
        env(&tried["spec"]["template"]["spec"]["containers"][0], "PGHOST")["value"].as_str().unwrap().to_owned()
    };
    wait_until("tidegate to see the database", SOON, || host(&stateful) == "acid-api");
    let own = host(&model_server("api"));
    assert!(own.starts_with("acid-api-") && own.len() == "acid-api-".len() + 8, "{own}");
    sandbox.apply(&stateful).succeeds();
    sandbox.apply(&model_server("api")).succeeds();
    wait_until("both to be bound to their databases", SOON, || {
        let of =
            |server: &str| sandbox.get("ModelServer", server).map(|found| found["status"]["database"]["name"].clone());
        of("api-statefulset") == Some("acid-api".into()) && of("api") == Some(own.clone().into())
    });
    assert_eq!(databases(&sandbox), ["acid-api", &own]);
}

#[test]
#[ignore = "needs the control plane"]
fn workloads_that_are_already_bound_come_first() {
    let namespace = "places";
    let sandbox = sandbox(namespace, &json!({"maxPerNamespace": 4}));
    for index in 0..4 {
        sandbox.apply(&model_server(&format!("bound{index}"))).succeeds().says_nothing();
        database(&sandbox, "postgresql", &format!("acid-bound{index}"));
    }
    sandbox.put_policy(&policy(namespace, &json!({"maxPerNamespace": 2})));
    sandbox.kubectl(&["delete", "postgresql", "acid-bound2", "acid-bound3"]).succeeds();
    for index in 0..8 {
        sandbox.apply(&model_server(&format!("a{index}"))).succeeds().says("no database is bound");
    }
    for (given_up, left) in [("bound0", 2), ("bound1", 2)] {
        sandbox.kubectl(&["delete", "deployment", given_up]).succeeds();
        sandbox.kubectl(&["delete", "postgresql", &format!("acid-{given_up}")]).succeeds();
        wait_until("another to take its place", SOON, || databases(&sandbox).len() == left);
        assert!(databases(&sandbox).iter().all(|name| name.starts_with("acid-bound")), "{:?}", databases(&sandbox));
    }
    assert_eq!(databases(&sandbox), ["acid-bound2", "acid-bound3"]);
    // When no bound workloads are left, others get databases.
    sandbox.kubectl(&["delete", "deployment", "bound2"]).succeeds();
    sandbox.kubectl(&["delete", "postgresql", "acid-bound2"]).succeeds();
    wait_until("another to take its place", SOON, || databases(&sandbox).iter().any(|name| name.starts_with("acid-a")));
}

#[test]
#[ignore = "needs the control plane"]
fn limits_the_databases_of_a_namespace() {
    let sandbox = sandbox("bounded", &json!({"maxPerNamespace": 2}));
    let items: Vec<Value> = (0..6).map(|index| model_server(&format!("m{index}"))).collect();
    sandbox.apply(&json!({"apiVersion": "v1", "kind": "List", "items": items})).succeeds();
    let is_refused = |server: &Value| reason(server) == "TooManyDatabases";
    wait_until("four to report too many databases", SOON, || {
        sandbox.list("ModelServer").iter().filter(|server| is_refused(server)).count() == 4
    });
    assert_eq!(sandbox.list("postgresql").len(), 2);
    let tried = sandbox.apply(&model_server("another")).succeeds();
    tried.says("no database is bound: namespace bounded has 2 databases, and the policy allows at most 2");
    assert_eq!(sandbox.container("another")["env"], Value::Null);

    let first = sandbox.list("postgresql")[0]["metadata"]["name"].as_str().unwrap().to_owned();
    sandbox.kubectl(&["delete", "deployment", first.strip_prefix("acid-").unwrap()]).succeeds();
    sandbox.kubectl(&["delete", "postgresql", &first]).succeeds();
    wait_until("another to take its place", SOON, || {
        let found = sandbox.list("postgresql");
        found.len() == 2 && found.iter().all(|database| database["metadata"]["name"] != first.as_str())
    });
}

#[test]
#[ignore = "needs the control plane"]
fn keeps_a_database_when_the_policy_changes() {
    let sandbox = sandbox("provider-changes", &json!({"zalando": {"volume": {"size": "10Gi"}}}));
    sandbox.apply(&model_server("api")).succeeds();
    let before = sandbox.database("api");
    sandbox.put_policy(&policy("provider-changes", &json!({"zalando": {"version": "18", "volume": {"size": "1Gi"}}})));
    sandbox.model_server("api", "that the policy has another version", |server| reason(server) == "Drifted");
    sandbox.put_policy(&policy("provider-changes", &cloudnative_pg()));
    sandbox.apply(&model_server("later")).succeeds();
    database(&sandbox, "Cluster", "db-later");
    sandbox.kubectl(&["rollout", "restart", "deployment", "api"]).succeeds().says_nothing();
    assert_eq!(env(&sandbox.container("api"), "PGHOST")["value"], "acid-api");
    assert_eq!(env(&sandbox.container("later"), "PGHOST")["value"], "db-later-rw");
    assert_eq!(sandbox.list("Cluster").len(), 1);
    let after = sandbox.database("api");
    assert_eq!((&after["spec"], &after["metadata"]["uid"]), (&before["spec"], &before["metadata"]["uid"]));
}

#[test]
#[ignore = "needs the control plane"]
fn labels_an_orphaned_database_until_it_is_used_again() {
    let sandbox = sandbox("orphaned", &json!({}));
    sandbox.apply(&model_server("api")).succeeds();
    let made = sandbox.database("api");
    let label = || sandbox.database("api")["metadata"]["labels"]["tidegate.dev/orphaned-since"].clone();
    assert_eq!(label(), Value::Null);
    sandbox.kubectl(&["delete", "deployment", "api"]).succeeds();
    wait_until("the database to be marked as orphaned", SOON, || label().is_string());
    let listed = sandbox.kubectl(&["get", "postgresqls", "-l", "tidegate.dev/orphaned-since", "-o", "name"]).succeeds();
    assert_eq!(listed.stdout, "postgresql.acid.zalan.do/acid-api\n");

    sandbox.apply(&model_server("api")).succeeds().says_nothing();
    wait_until("the database to be used again", SOON, || label().is_null());
    assert_eq!(sandbox.database("api")["metadata"]["uid"], made["metadata"]["uid"]);

    // A workload that declines a database stays bound until its pods change.
    sandbox.kubectl(&["annotate", "deployment", "api", "tidegate.dev/database=none"]).succeeds();
    sandbox.model_server("api", "that none is wanted", |server| reason(server) == "Unmanaged");
    assert_eq!(label(), Value::Null);
    sandbox.kubectl(&["rollout", "restart", "deployment", "api"]).succeeds();
    assert_eq!(sandbox.container("api")["env"], Value::Null);
    wait_until("the database to be marked as orphaned", SOON, || label().is_string());
}

/// Sets the database annotation of a model server.
fn annotate(object: &mut Value, said: &str) {
    object["metadata"]["annotations"] = json!({"tidegate.dev/database": said});
}

#[test]
#[ignore = "needs the control plane"]
fn never_mixes_a_binding_with_the_users_variables() {
    let sandbox = sandbox("own-server", &json!({}));
    let mut object = model_server("api");
    container(&mut object)["env"] = json!([{"name": "PGHOST", "value": "db.internal"}]);
    let told = sandbox.apply(&object).succeeds();
    told.says("no database is bound: container api sets PGHOST").says("tidegate.dev/database: \"true\"");
    assert_eq!(sandbox.container("api")["env"], json!([{"name": "PGHOST", "value": "db.internal"}]));
    let server = sandbox.model_server("api", "that it has a database", |server| reason(server) == "OwnDatabase");
    assert_eq!(condition(&server, "DatabaseReady")["status"], "True");
    assert!(sandbox.list("postgresql").is_empty());

    // On request, it is bound with all its variables or not at all.
    annotate(&mut object, "true");
    container(&mut object)["image"] = "registry.example.com/api:2.0.0".into();
    let told = sandbox.apply(&object).succeeds();
    told.says("database-variable-overridden").says("leave PGHOST out");
    assert_eq!(sandbox.container("api")["env"], json!([{"name": "PGHOST", "value": "db.internal"}]));
    sandbox.model_server("api", "the conflicting variables", |server| reason(server) == "VariablesConflict");
    assert!(sandbox.list("postgresql").is_empty());

    let mut bound = model_server("api");
    annotate(&mut bound, "true");
    sandbox.apply(&bound).succeeds().says_nothing();
    assert_eq!(env(&sandbox.container("api"), "PGHOST")["value"], "acid-api");
    sandbox.database("api");
    // A workload that sets a server later is unbound; the data is kept.
    object["metadata"].as_object_mut().unwrap().remove("annotations");
    sandbox.apply(&object).succeeds().says("no database is bound: container api sets PGHOST");
    assert_eq!(sandbox.container("api")["env"], json!([{"name": "PGHOST", "value": "db.internal"}]));
    wait_until("the database to be marked as orphaned", SOON, || {
        sandbox.database("api")["metadata"]["labels"]["tidegate.dev/orphaned-since"].is_string()
    });
}

#[test]
#[ignore = "needs the control plane"]
fn does_not_bind_over_env_from() {
    let sandbox = sandbox("env-from", &json!({}));
    sandbox.kubectl(&["create", "configmap", "settings", "--from-literal=LOG_LEVEL=info"]).succeeds();
    let mut object = model_server("api");
    container(&mut object)["envFrom"] = json!([{"configMapRef": {"name": "settings"}}]);
    let told = sandbox.apply(&object).succeeds();
    told.says("no database is bound: container api takes variables from `envFrom`").says("\"true\" to bind Tidegate's");
    assert_eq!(sandbox.container("api")["env"], Value::Null);
    sandbox.model_server("api", "that it may have a database", |server| reason(server) == "OwnDatabase");
    assert!(sandbox.list("postgresql").is_empty());

    let mut prefixed = model_server("prefixed");
    container(&mut prefixed)["envFrom"] = json!([{"prefix": "MODEL_", "configMapRef": {"name": "settings"}}]);
    sandbox.apply(&prefixed).succeeds().says_nothing();
    assert_eq!(env(&sandbox.container("prefixed"), "PGHOST")["value"], "acid-prefixed");

    let mut asking = object.clone();
    annotate(&mut asking, "true");
    container(&mut asking)["image"] = "registry.example.com/api:2.0.0".into();
    sandbox.apply(&asking).succeeds().says_nothing();
    assert_eq!(env(&sandbox.container("api"), "PGHOST")["value"], "acid-api");
    let made = sandbox.database("api");

    // A bound workload stays bound without the annotation, and finds its data when it is recreated.
    container(&mut object)["image"] = "registry.example.com/api:3.0.0".into();
    sandbox.apply(&object).succeeds().says("the database acid-api is bound anyway");
    assert_eq!(env(&sandbox.container("api"), "PGHOST")["value"], "acid-api");
    sandbox.kubectl(&["delete", "deployment", "api"]).succeeds();
    sandbox.apply(&object).succeeds().says("the database acid-api is bound anyway");
    sandbox.model_server("api", "its database", |server| reason(server) == "Pending");
    assert_eq!(sandbox.database("api")["metadata"]["uid"], made["metadata"]["uid"]);

    sandbox.put_policy(&policy("env-from", &json!({"overEnvFrom": true})));
    let mut later = model_server("later");
    container(&mut later)["envFrom"] = container(&mut object)["envFrom"].clone();
    sandbox.apply(&later).succeeds().says("the database acid-later is bound anyway");
    assert_eq!(env(&sandbox.container("later"), "PGHOST")["value"], "acid-later");
}

#[test]
#[ignore = "needs the control plane"]
fn does_not_adopt_an_existing_cluster() {
    let sandbox = sandbox("cnpg-taken", &cloudnative_pg());
    let theirs = json!({"apiVersion": "postgresql.cnpg.io/v1", "kind": "Cluster", "metadata": {"name": "db-api"},
        "spec": {"instances": 1, "storage": {"size": "1Gi"}}});
    sandbox.apply(&theirs).succeeds();
    wait_until("tidegate to see the cluster", SOON, || {
        let tried = sandbox.kubectl_with(&["apply", "--dry-run=server", "-f", "-"], &model_server("api")).succeeds();
        tried.stderr.contains("no database is bound: Cluster db-api already exists")
    });
    sandbox.apply(&model_server("api")).succeeds();
    sandbox.model_server("api", "that the name is taken", |server| reason(server) == "NameTaken");
    assert_eq!(database(&sandbox, "Cluster", "db-api")["metadata"]["labels"], Value::Null);
}

#[test]
#[ignore = "needs the control plane"]
fn protects_a_database_while_a_model_server_uses_it() {
    let plane = ControlPlane::start(&[]);
    let addresses @ [listen, _] = free_addresses();
    let url = format!("https://{listen}");
    let tidegate = Tidegate::run(&plane, &plane.kubeconfig(), addresses, &["--webhook-url", &url, "--guard-databases"]);
    wait_until("tidegate to be ready", SOON, || tidegate.is_ready());
    let sandbox = Sandbox::on(&plane, None, "guarded");
    sandbox.put_policy(&policy("guarded", &json!({})));
    sandbox.apply(&model_server("api")).succeeds();
    sandbox.apply(&model_server("web")).succeeds();
    sandbox.rolled_out("api");
    sandbox.database("web");
    let delete = ["delete", "postgresql", "acid-api", "--wait=false"];
    let dry = ["delete", "postgresql", "acid-api", "--dry-run=server"];
    wait_until("the database to be protected", SOON, || sandbox.kubectl(&dry).code != 0);
    let refused = sandbox.kubectl(&delete).fails();
    refused.says("tidegate refuses to delete postgresql acid-api: model server Deployment/api uses it");

    // A workload without pods does not protect its database, nor does a namespace that is deleted.
    sandbox.kubectl(&["scale", "deployment", "api", "--replicas=0"]).succeeds();
    wait_until("the database to be unprotected", SOON, || sandbox.kubectl(&dry).code == 0);
    sandbox.kubectl(&delete).succeeds();
    plane.kubectl(&["delete", "namespace", "guarded", "--timeout=60s"], "").succeeds();
}

/// Installs an operator, changes its versions, and removes it.
#[test]
#[ignore = "needs the control plane"]
fn detects_when_an_operator_is_installed_and_removed() {
    let plane = ControlPlane::start(&["--no-crds"]);
    let _tidegate = Tidegate::start(&plane);
    let sandbox = Sandbox::on(&plane, None, "comes-and-goes");
    sandbox.put_policy(&policy("comes-and-goes", &cloudnative_pg()));
    sandbox.apply(&model_server("early")).succeeds().says("the cluster does not serve clusters.postgresql.cnpg.io");
    sandbox.model_server("early", "that there is no operator", |server| reason(server) == "ProviderNotServed");
    let definition = in_tree("dev/controlplane/crds/clusters.postgresql.cnpg.io.yaml");
    plane.kubectl(&["apply", "-f", &definition], "").succeeds();
    let made = wait_for("the cluster of the one that waited", SOON, || sandbox.get("Cluster", "db-early"));
    assert_eq!(made["spec"]["instances"], 2);
    sandbox.apply(&model_server("late")).succeeds().says_nothing();
    plane.kubectl(&["delete", "-f", &definition], "").succeeds();
    sandbox.model_server("late", "that the operator has gone", |server| reason(server) == "ProviderNotServed");

    // The operator does not offer the version.
    sandbox.put_policy(&policy("comes-and-goes", &json!({"zalando": {"version": "13"}})));
    let definition = in_tree("dev/controlplane/crds/postgresqls.acid.zalan.do.yaml");
    plane.kubectl(&["apply", "-f", &definition], "").succeeds();
    let told = "the operator does not offer PostgreSQL 13; it offers 14, 15, 16, 17, 18";
    let server =
        sandbox.model_server("late", "that there is no such version", |server| reason(server) == "VersionNotOffered");
    assert_eq!(condition(&server, "DatabaseReady")["message"], told);
    sandbox.apply(&model_server("last")).succeeds().says(told);
    assert!(sandbox.list("postgresql").is_empty());
    let field =
        "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/postgresql/properties/version/enum/-";
    let older = json!([{"op": "add", "path": field, "value": "13"}]).to_string();
    plane.kubectl(&["patch", "crd", "postgresqls.acid.zalan.do", "--type=json", "-p", &older], "").succeeds();
    wait_for("the databases to be created", SOON, || sandbox.get("postgresql", "acid-last"));
}
