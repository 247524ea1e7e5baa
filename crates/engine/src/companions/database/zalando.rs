//! A database from Zalando's postgres-operator: one `postgresql` object for each model server.
//!
//! <https://github.com/zalando/postgres-operator/blob/master/docs/reference/cluster_manifest.md>

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    Api, Binding, Health, Problem, Provider, ProviderKind, Source, WORKLOAD, is_dns_name, max_connections, object_name,
    one, taken,
};
use crate::api::{
    ConnectionPooler, DatabaseAmounts, DatabaseEnv, DatabasePart, DatabaseProvider, DatabaseResources, DatabaseTls,
    PoolerMode, PreparedDatabase, RoleFlag, Volume,
};
use crate::companions::{MANAGED_BY_LABEL, MANAGER, names};
use crate::facts::{Database, Facts};
use crate::quantity::Quantity;
use crate::workload::WorkloadRef;

/// The operator's objects.
pub(crate) const API: Api = Api {
    provider: DatabaseProvider::Zalando,
    definition: "postgresqls.acid.zalan.do",
    kind: ("acid.zalan.do", "v1", "postgresql"),
    served: |apis| &mut apis.zalando,
    read: |object| {
        let max_connections = max_connections(object);
        Database { is_pooled: is_pooled(object), max_connections, ..Database::default() }
    },
    health,
    // <https://github.com/zalando/postgres-operator/blob/master/docs/user.md>
    services: &["", "-repl", "-pooler", "-pooler-repl"],
    // The operator's default template. If the operator uses another one, the policy sets the name.
    is_secret: |secret, name| secret.split('.').skip(1).any(|part| part == name),
};

/// The provider.
pub(crate) const KIND: ProviderKind = ProviderKind {
    provider: DatabaseProvider::Zalando,
    field: "zalando",
    needs: "provider zalando needs teamId, version and volume",
    read: |written| {
        Ok(Arc::new(Postgresql {
            settings: written.map(serde_json::from_value).transpose().map_err(|error| error.to_string())?,
        }))
    },
    api: Some(&API),
};

/// The settings of provider `zalando`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ZalandoSettings {
    /// The team that owns the clusters.
    pub team_id: String,
    /// The PostgreSQL major version.
    pub version: String,
    /// How many PostgreSQL instances a cluster has.
    #[serde(default = "one")]
    pub instances: i32,
    /// The volume of each instance.
    pub volume: Volume,
    /// The operator's template for the names of Secrets.
    #[serde(default = "secret_name")]
    pub secret_name: String,
    /// Additional users.
    #[serde(default)]
    pub users: BTreeMap<String, Vec<RoleFlag>>,
    /// Additional databases, each with its owner.
    #[serde(default)]
    pub databases: BTreeMap<String, String>,
    /// Databases with roles, schemas and extensions.
    #[serde(default)]
    pub prepared_databases: BTreeMap<String, PreparedDatabase>,
    /// The connection pooler.
    pub connection_pooler: Option<ConnectionPooler>,
    /// The requests and limits of each instance.
    pub resources: Option<DatabaseResources>,
    /// The TLS certificate.
    pub tls: Option<DatabaseTls>,
    /// Labels of the objects.
    #[serde(default)]
    pub cluster_labels: BTreeMap<String, String>,
}

/// Returns the default template of Zalando's operator.
fn secret_name() -> String {
    "{username}.{cluster}.credentials.{tprkind}.{tprgroup}".to_owned()
}

impl ZalandoSettings {
    /// Returns the connection pooler, if it is enabled.
    #[must_use]
    pub(crate) fn pooler(&self) -> Option<&ConnectionPooler> {
        self.connection_pooler.as_ref().filter(|pooler| pooler.enabled.unwrap_or(true))
    }
}

/// The operator's `postgresql` objects, under one policy's settings.
#[derive(Debug)]
pub(crate) struct Postgresql {
    /// The settings; `None` if the cluster exists but the policy no longer has any.
    pub settings: Option<ZalandoSettings>,
}

impl Postgresql {
    /// Returns the name of a workload's cluster. An existing one keeps its name even if the policy changes: with
    /// another, the workload would start with an empty database.
    fn cluster(&self, workload: &WorkloadRef, facts: &Facts) -> String {
        let team = self.settings.as_ref().map_or(MANAGER, |settings| &settings.team_id);
        let (kind, of) = (&workload.kind, &workload.name);
        let spare = || names::spare_postgres_cluster(team, kind, of);
        object_name(&API, names::postgres_cluster(team, kind, of), spare, workload, facts)
    }

    /// Expands the operator's `secret_name_template`, in which a user's `_` becomes `-`.
    fn secret(&self, user: &str, cluster: &str) -> String {
        let template = self.settings.as_ref().map_or_else(secret_name, |settings| settings.secret_name.clone());
        let named = template.replace("{username}", &user.replace('_', "-")).replace("{cluster}", cluster);
        named.replace("{tprkind}", "postgresql").replace("{tprgroup}", "acid.zalan.do")
    }

    /// Returns the host: the pooler's, if there is one. For an existing cluster, this does not depend on the policy.
    fn host(&self, cluster: &str, workload: &WorkloadRef, facts: &Facts) -> String {
        let there = facts.database(API.provider, &workload.namespace, cluster);
        let wanted = || self.settings.as_ref().is_some_and(|settings| settings.pooler().is_some());
        if there.map_or_else(wanted, |found| found.is_pooled) {
            format!("{cluster}-pooler")
        } else {
            cluster.to_owned()
        }
    }

    fn spec(&self, name: &str) -> Value {
        let (own_user, own_database) = (json!({name: []}), json!({name: name}));
        let Some(settings) = &self.settings else { return json!({"users": own_user, "databases": own_database}) };
        let mut users = json!(settings.users);
        if users[name].is_null() {
            users[name] = json!([]);
        }
        let owned = settings.databases.iter().map(|(database, owner)| (database, owner.replace(WORKLOAD, name)));
        let mut databases: Map<String, Value> =
            owned.map(|(database, owner)| (database.clone(), owner.into())).collect();
        databases.insert(name.to_owned(), name.into());
        let mut volume = json!(settings.volume);
        volume["size"] = settings.volume.size.to_string().into();
        let mut spec = json!({
            "teamId": settings.team_id,
            "numberOfInstances": settings.instances,
            "postgresql": {"version": settings.version},
            "volume": volume,
            "users": users,
            "databases": databases
        });
        // An empty object would create another database, named after the cluster.
        if !settings.prepared_databases.is_empty() {
            spec["preparedDatabases"] = json!(settings.prepared_databases);
        }
        if let Some(pooler) = settings.pooler() {
            spec["enableConnectionPooler"] = true.into();
            let settings = pooler_spec(pooler);
            if !settings.is_empty() {
                spec["connectionPooler"] = settings.into();
            }
        }
        if let Some(resources) = &settings.resources {
            spec["resources"] = json!(resources);
        }
        if let Some(tls) = &settings.tls {
            spec["tls"] = json!(tls);
        }
        spec
    }
}

/// Returns the settings of a pooler under the operator's names.
fn pooler_spec(pooler: &ConnectionPooler) -> Map<String, Value> {
    let ConnectionPooler { enabled: _, instances, mode, max_connections, resources } = pooler;
    let mode = mode.map(|mode| match mode {
        PoolerMode::Session => "session",
        PoolerMode::Transaction => "transaction",
    });
    let fields = [
        ("numberOfInstances", json!(instances)),
        ("mode", json!(mode)),
        ("maxDBConnections", json!(max_connections)),
        ("resources", json!(resources)),
    ];
    fields.into_iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Returns the versions that the CustomResourceDefinition of `postgresql` lists, if any.
#[must_use]
pub fn offered_versions(definition: &Value) -> BTreeSet<String> {
    let versions = definition["spec"]["versions"].as_array().map_or(&[][..], Vec::as_slice);
    let served = versions.iter().find(|version| version["name"] == "v1");
    let field = "/schema/openAPIV3Schema/properties/spec/properties/postgresql/properties/version/enum";
    let listed = served.and_then(|served| served.pointer(field)).and_then(Value::as_array);
    listed.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Returns whether the operator creates a pooler for a cluster: it is enabled or configured.
fn is_pooled(postgresql: &Value) -> bool {
    let spec = &postgresql["spec"];
    spec["enableConnectionPooler"].as_bool().unwrap_or(spec["connectionPooler"].is_object())
}

impl Provider for Postgresql {
    fn check(&self, _: &DatabaseEnv) -> Result<(), String> {
        self.settings.as_ref().map_or(Ok(()), check)
    }

    fn makes(&self) -> Option<&'static Api> {
        Some(&API)
    }

    fn api(&self) -> &'static str {
        "postgresqls.acid.zalan.do, the API of Zalando's postgres-operator"
    }

    fn is_served(&self, facts: &Facts) -> bool {
        facts.apis.zalando
    }

    fn problem(&self, workload: &WorkloadRef, facts: &Facts) -> Option<Problem> {
        let cluster = self.cluster(workload, facts);
        if facts.database(API.provider, &workload.namespace, &cluster).is_some() {
            return taken(&API, &cluster, workload, facts);
        }
        let (version, offered) = (&self.settings.as_ref()?.version, &facts.zalando_versions);
        (!offered.is_empty() && !offered.contains(version)).then(|| {
            let offered = offered.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            ("VersionNotOffered", format!("the operator does not offer PostgreSQL {version}; it offers {offered}"))
        })
    }

    fn binding(&self, workload: &WorkloadRef, facts: &Facts) -> Binding {
        let cluster = self.cluster(workload, facts);
        let database = names::postgres_database(&workload.name);
        let host = self.host(&cluster, workload, facts);
        // The operator's PostgreSQL refuses connections from other hosts without TLS, and its certificate is
        // self-signed unless the cluster is configured with another.
        let ssl_mode = "require";
        // The operator's Secret has only the user and password. Generated ones need no escaping in a URL.
        let address = format!("{host}:5432/{database}?sslmode={ssl_mode}");
        let parts = [
            (DatabasePart::Host, Source::Value(host)),
            (DatabasePart::Port, Source::Value("5432".to_owned())),
            (DatabasePart::Database, Source::Value(database.clone())),
            (DatabasePart::User, Source::Key("username".to_owned())),
            (DatabasePart::Password, Source::Key("password".to_owned())),
            (DatabasePart::Uri, Source::Address(address)),
            (DatabasePart::SslMode, Source::Value(ssl_mode.to_owned())),
        ];
        Binding { secret: self.secret(&database, &cluster), name: cluster, parts: parts.into() }
    }

    /// The object has no owner: the operator copies owners to the objects that it creates, so the garbage collector
    /// would delete the data with the workload. It has none of the workload's labels, by which a GitOps tool might
    /// prune it.
    fn object(&self, workload: &WorkloadRef, facts: &Facts) -> Value {
        let mut labels = json!({MANAGED_BY_LABEL: MANAGER});
        for (name, value) in self.settings.iter().flat_map(|settings| &settings.cluster_labels) {
            labels[name] = value.as_str().into();
        }
        json!({
            "apiVersion": "acid.zalan.do/v1",
            "kind": "postgresql",
            "metadata": {
                "name": self.cluster(workload, facts),
                "namespace": workload.namespace,
                "labels": labels,
                "annotations": super::annotations(workload)
            },
            "spec": self.spec(&names::postgres_database(&workload.name))
        })
    }
}

/// The operator reports one word; old versions wrote the status as a plain string. It reports `Running` before the pods
/// run; the Secret exists earlier.
fn health(postgresql: &Value) -> Health {
    let status = &postgresql["status"];
    let phase = status["PostgresClusterStatus"].as_str().or_else(|| status.as_str());
    Health::of(phase == Some("Running"), phase.unwrap_or_default(), phase)
}

fn check(settings: &ZalandoSettings) -> Result<(), String> {
    let ZalandoSettings { users, databases, prepared_databases, .. } = settings;
    check_users(users)?;
    for (name, owner) in databases {
        check_identifier("databases", name, 63)?;
        if owner != WORKLOAD && !users.contains_key(owner) {
            return Err(format!(
                ".databases.{name}: unknown owner `{owner}`: must be one of the users or `{WORKLOAD}`"
            ));
        }
    }
    for (name, prepared) in prepared_databases {
        // The operator creates a role `<name>_owner_user`, and role names have at most 63 characters.
        check_identifier("preparedDatabases", name, 52)?;
        if databases.contains_key(name) {
            return Err(format!(".preparedDatabases: `{name}` is also listed in databases"));
        }
        prepared.schemas.keys().try_for_each(|schema| check_form("preparedDatabases.schemas", schema, 63))?;
    }
    check_size(".volume.size", &settings.volume.size)?;
    check_resources(".resources", settings.resources.as_ref())?;
    let of_pooler = settings.connection_pooler.as_ref().and_then(|pooler| pooler.resources.as_ref());
    check_resources(".connectionPooler.resources", of_pooler)?;
    settings.cluster_labels.iter().try_for_each(|(name, value)| check_label(name, value))
}

/// Checks that the operator accepts the names of users, and that each has its own Secret, in whose name `_` becomes
/// `-`.
fn check_users(users: &BTreeMap<String, Vec<RoleFlag>>) -> Result<(), String> {
    let mut secrets = BTreeSet::new();
    for name in users.keys() {
        let is_inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
        let is_end = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if name.len() > 63 || !name.chars().all(is_inner) || !name.starts_with(is_end) || !name.ends_with(is_end) {
            return Err(format!(
                ".users: invalid user name `{name}`: must be at most 63 lower-case letters, digits, `-` and `_`, with \
                 a letter or digit at both ends"
            ));
        }
        if names::is_reserved(name) {
            return Err(format!(".users: `{name}` is reserved by the operator or PostgreSQL"));
        }
        if !secrets.insert(name.replace('_', "-")) {
            return Err(format!(
                ".users: the Secret of `{name}` would have the name of another user's: `_` becomes `-` there"
            ));
        }
    }
    Ok(())
}

fn check_identifier(field: &str, name: &str, length: usize) -> Result<(), String> {
    check_form(field, name, length)?;
    if names::is_reserved(name) {
        return Err(format!(".{field}: `{name}` is reserved by the operator or PostgreSQL"));
    }
    Ok(())
}

fn check_form(field: &str, name: &str, length: usize) -> Result<(), String> {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if name.len() > length || !starts_well || !name.chars().all(is_fine) {
        return Err(format!(
            ".{field}: invalid name `{name}`: must be at most {length} letters, digits and `_`, not starting with a \
             digit"
        ));
    }
    Ok(())
}

fn check_resources(field: &str, resources: Option<&DatabaseResources>) -> Result<(), String> {
    let Some(DatabaseResources { requests, limits }) = resources else { return Ok(()) };
    for (of, amounts) in [("requests", requests), ("limits", limits)] {
        let Some(DatabaseAmounts { cpu, memory }) = amounts else { continue };
        if let Some(memory) = memory {
            check_size(&format!("{field}.{of}.memory"), memory)?;
        }
        if let Some(cpu) = cpu.as_ref().filter(|cpu| !is_number(cpu.to_string().trim_end_matches('m'))) {
            return Err(format!("{field}.{of}.cpu: the operator does not accept `{cpu}`: write it as `500m` or `0.5`"));
        }
    }
    Ok(())
}

/// Checks that a size has one of the units that the operator accepts.
fn check_size(field: &str, size: &Quantity) -> Result<(), String> {
    let text = size.to_string();
    let number = text.trim_end_matches('i').trim_end_matches(['E', 'P', 'T', 'G', 'M', 'K']);
    if is_number(number) {
        Ok(())
    } else {
        Err(format!("{field}: the operator does not accept `{size}`: write it as `10Gi`"))
    }
}

fn is_number(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit()) && text.chars().all(|c| c.is_ascii_digit() || c == '.')
}

/// Checks that a label is valid and not reserved by Tidegate.
fn check_label(name: &str, value: &str) -> Result<(), String> {
    let is_end = |c: char| c.is_ascii_alphanumeric();
    let is_inner = |c: char| is_end(c) || "-_.".contains(c);
    let is_word = |text: &str| {
        text.len() <= 63 && text.starts_with(is_end) && text.ends_with(is_end) && text.chars().all(is_inner)
    };
    let (prefix, word) = name.split_once('/').map_or((None, name), |(prefix, word)| (Some(prefix), word));
    if !is_word(word) || prefix.is_some_and(|prefix| !is_dns_name(prefix)) || !(value.is_empty() || is_word(value)) {
        return Err(format!(".clusterLabels: invalid label `{name}: {value}`"));
    }
    if name == MANAGED_BY_LABEL || prefix == Some("tidegate.dev") {
        return Err(format!(".clusterLabels: the label `{name}` is reserved by Tidegate"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::companions::WORKLOAD_ANNOTATION;
    use crate::facts::Apis;
    use crate::testing::{facts, made_for, reference, with_database};

    fn settings(more: &Value) -> ZalandoSettings {
        let mut settings = json!({"teamId": "acid", "version": "17", "instances": 2, "volume": {"size": "1024Mi"}});
        json_patch::merge(&mut settings, more);
        serde_json::from_value(settings).unwrap()
    }

    fn named(name: &str) -> WorkloadRef {
        WorkloadRef { name: name.into(), ..reference() }
    }

    #[test]
    fn plans_the_cluster_of_a_plain_model_server() {
        let settings = settings(&json!({}));
        insta::assert_json_snapshot!(Postgresql { settings: Some(settings.clone()) }.object(&named("ai-model-serving"), &facts()), @r#"
        {
          "apiVersion": "acid.zalan.do/v1",
          "kind": "postgresql",
          "metadata": {
            "annotations": {
              "argocd.argoproj.io/sync-options": "Prune=false,Delete=false",
              "kustomize.toolkit.fluxcd.io/prune": "disabled",
              "tidegate.dev/workload": "Deployment/ai-model-serving"
            },
            "labels": {
              "app.kubernetes.io/managed-by": "tidegate"
            },
            "name": "acid-ai-model-serving",
            "namespace": "ml"
          },
          "spec": {
            "databases": {
              "ai_model_serving": "ai_model_serving"
            },
            "numberOfInstances": 2,
            "postgresql": {
              "version": "17"
            },
            "teamId": "acid",
            "users": {
              "ai_model_serving": []
            },
            "volume": {
              "size": "1Gi"
            }
          }
        }
        "#);
    }

    #[test]
    fn the_cluster_has_no_owner_and_no_labels_of_the_workload() {
        let settings = settings(&json!({}));
        let metadata =
            Postgresql { settings: Some(settings.clone()) }.object(&reference(), &facts())["metadata"].take();
        assert_eq!(metadata["ownerReferences"], json!(null));
        assert_eq!(metadata["labels"], json!({MANAGED_BY_LABEL: MANAGER}));
        assert_eq!(metadata["annotations"][WORKLOAD_ANNOTATION], "Deployment/api");
    }

    #[test]
    fn binds_the_objects_that_the_operator_creates() {
        let settings = settings(&json!({}));
        let binding = Postgresql { settings: Some(settings.clone()) }.binding(&named("ai-model-serving"), &facts());
        let value = |text: &str| Source::Value(text.to_owned());
        let part = |part: DatabasePart| binding.parts[&part].clone();
        assert_eq!(part(DatabasePart::Host), value("acid-ai-model-serving"));
        assert_eq!((part(DatabasePart::Port), part(DatabasePart::SslMode)), (value("5432"), value("require")));
        assert_eq!(part(DatabasePart::Database), value("ai_model_serving"));
        assert_eq!(binding.secret, "ai-model-serving.acid-ai-model-serving.credentials.postgresql.acid.zalan.do");
        assert_eq!(part(DatabasePart::User), Source::Key("username".to_owned()));
        assert_eq!(part(DatabasePart::Password), Source::Key("password".to_owned()));
    }

    #[test]
    fn names_the_secret_by_the_operators_template() {
        let secret = |template: &str| {
            let settings = settings(&json!({"secretName": template}));
            Postgresql { settings: Some(settings.clone()) }.binding(&named("a.b-c"), &facts()).secret
        };
        let cluster = names::postgres_cluster("acid", "Deployment", "a.b-c");
        assert_eq!(secret("{cluster}/{username}"), format!("{cluster}/a-b-c"));
        assert_eq!(secret("{username}.{tprkind}.{tprgroup}"), "a-b-c.postgresql.acid.zalan.do");
    }

    #[test]
    fn keeps_the_name_of_a_database_when_the_team_changes() {
        let settings = settings(&json!({"teamId": "search"}));
        let provider = Postgresql { settings: Some(settings.clone()) };
        let made_for_workload = |workload: &str| with_database("ml", "acid-api", made_for(workload));
        let name = |facts: &Facts| {
            let names = [
                provider.binding(&reference(), facts).name,
                provider.object(&reference(), facts)["metadata"]["name"].as_str().unwrap().to_owned(),
            ];
            assert_eq!(names[0], names[1]);
            names[0].clone()
        };
        assert_eq!(name(&made_for_workload("Deployment/api")), "acid-api");
        assert_eq!(name(&made_for_workload("Deployment/web")), "search-api");
        assert_eq!(name(&facts()), "search-api");
        let mut both = made_for_workload("Deployment/api");
        let inside = std::sync::Arc::make_mut(both.databases.get_mut("ml").unwrap());
        inside.insert((API.provider, "search-api".into()), made_for("Deployment/api"));
        assert_eq!(name(&both), "search-api");
    }

    #[test]
    fn databases_differ_between_kinds_and_teams() {
        let settings = settings(&json!({}));
        let provider = Postgresql { settings: Some(settings.clone()) };
        let stateful = WorkloadRef { kind: "StatefulSet".into(), ..reference() };
        assert_eq!(provider.binding(&stateful, &facts()).name, "acid-api-statefulset");
        // An earlier release gave a StatefulSet the name for a Deployment: it keeps that, and the Deployment gets
        // another.
        let there = with_database("ml", "acid-api", made_for("StatefulSet/api"));
        assert_eq!(provider.binding(&stateful, &there).name, "acid-api");
        let spare = names::spare_postgres_cluster("acid", "Deployment", "api");
        assert_eq!(provider.binding(&reference(), &there).name, spare);
        assert_eq!(provider.problem(&reference(), &there), None);
        let (of_another_team, dashed) = (made_for("Deployment/platform-api"), named("platform-api"));
        let facts = with_database("ml", "acid-platform-api", of_another_team);
        assert_eq!(provider.binding(&dashed, &facts).name, "acid-platform-api");
        let of_team = self::settings(&json!({"teamId": "acid-platform"}));
        let other = Postgresql { settings: Some(of_team) };
        let spare = names::spare_postgres_cluster("acid-platform", "Deployment", "api");
        assert_eq!(other.binding(&reference(), &facts).name, spare);
    }

    #[test]
    fn rejects_a_name_that_is_taken_by_another_workload() {
        let settings = settings(&json!({}));
        let provider = Postgresql { settings: Some(settings.clone()) };
        let problem = |made_for: Option<&str>| {
            let database = Database { made_for: made_for.map(str::to_owned), ..Database::default() };
            provider.problem(&reference(), &with_database("ml", "acid-api", database))
        };
        assert_eq!(provider.problem(&reference(), &facts()), None);
        assert_eq!(problem(Some("Deployment/api")), None);
        assert!(problem(Some("Deployment/web")).is_some() && problem(None).is_some());
        let elsewhere = with_database("web", "acid-api", Database::default());
        assert_eq!(provider.problem(&reference(), &elsewhere), None);
        assert!(provider.is_served(&facts()) && !provider.is_served(&Facts { apis: Apis::default(), ..facts() }));
    }

    #[test]
    fn passes_on_settings() {
        let settings = settings(&json!({
            "users": {"reporting": ["createdb"], "api": ["login"]},
            "databases": {"features": "reporting", "predictions": "{workload}"},
            "preparedDatabases": {"store": {"defaultUsers": true, "extensions": {"vector": "public"}}},
            "connectionPooler": {"instances": 2, "mode": "session", "maxConnections": 60},
            "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}},
            "volume": {"storageClass": "fast"},
            "tls": {"secretName": "certificate"},
            "clusterLabels": {"cost-center": "ml"}
        }));
        let object = Postgresql { settings: Some(settings.clone()) }.object(&reference(), &facts());
        insta::assert_json_snapshot!(object["spec"], @r#"
        {
          "connectionPooler": {
            "maxDBConnections": 60,
            "mode": "session",
            "numberOfInstances": 2
          },
          "databases": {
            "api": "api",
            "features": "reporting",
            "predictions": "api"
          },
          "enableConnectionPooler": true,
          "numberOfInstances": 2,
          "postgresql": {
            "version": "17"
          },
          "preparedDatabases": {
            "store": {
              "defaultUsers": true,
              "extensions": {
                "vector": "public"
              }
            }
          },
          "resources": {
            "requests": {
              "cpu": "500m",
              "memory": "1Gi"
            }
          },
          "teamId": "acid",
          "tls": {
            "secretName": "certificate"
          },
          "users": {
            "api": [
              "login"
            ],
            "reporting": [
              "createdb"
            ]
          },
          "volume": {
            "size": "1Gi",
            "storageClass": "fast"
          }
        }
        "#);
        assert_eq!(object["metadata"]["labels"], json!({MANAGED_BY_LABEL: MANAGER, "cost-center": "ml"}));
    }

    #[test]
    fn binds_the_pooler_if_there_is_one() {
        let host = |pooler: Value, facts: &Facts| {
            let settings = settings(&json!({"connectionPooler": pooler}));
            let binding = Postgresql { settings: Some(settings.clone()) }.binding(&reference(), facts);
            let Source::Value(host) = &binding.parts[&DatabasePart::Host] else { panic!("the host is a value") };
            let address = format!("{host}:5432/api?sslmode=require");
            assert_eq!(binding.parts[&DatabasePart::Uri], Source::Address(address));
            host.clone()
        };
        assert_eq!(host(json!({}), &facts()), "acid-api-pooler");
        assert_eq!(host(json!({"enabled": false, "instances": 2}), &facts()), "acid-api");
        assert_eq!(host(json!(null), &facts()), "acid-api");
        let there =
            |is_pooled: bool| with_database("ml", "acid-api", Database { is_pooled, ..made_for("Deployment/api") });
        assert_eq!(host(json!({}), &there(false)), "acid-api", "it was created without");
        assert_eq!(host(json!(null), &there(true)), "acid-api-pooler");
    }

    #[test]
    fn detects_poolers_like_the_operator() {
        let pooled = |spec: Value| (API.read)(&json!({"spec": spec})).is_pooled;
        assert!(pooled(json!({"enableConnectionPooler": true})) && pooled(json!({"connectionPooler": {}})));
        assert!(!pooled(json!({})) && !pooled(json!({"enableConnectionPooler": false, "connectionPooler": {}})));
    }

    #[test]
    fn requires_an_offered_version_for_new_databases_only() {
        let settings = settings(&json!({}));
        let problem = |versions: &[&str], facts: Facts| {
            let zalando_versions = versions.iter().map(|&version| version.to_owned()).collect();
            Postgresql { settings: Some(settings.clone()) }.problem(&reference(), &Facts { zalando_versions, ..facts })
        };
        assert_eq!(problem(&["16", "17"], facts()), None);
        assert_eq!(problem(&[], facts()), None, "the versions are unknown");
        assert_eq!(problem(&["16"], with_database("ml", "acid-api", made_for("Deployment/api"))), None);
        let (reason, message) = problem(&["15", "16"], facts()).unwrap();
        assert_eq!(reason, "VersionNotOffered");
        assert_eq!(message, "the operator does not offer PostgreSQL 17; it offers 15, 16");
    }

    #[test]
    fn reads_both_forms_of_the_status() {
        let of = |object: Value| {
            let health = health(&object);
            (health.is_ready, health.reason, health.phase)
        };
        let word = |word: &str| Some(word.to_owned());
        assert_eq!(
            of(json!({"status": {"PostgresClusterStatus": "Running"}})),
            (true, "Running".into(), word("Running"))
        );
        assert_eq!(of(json!({"status": "Running"})), (true, "Running".into(), word("Running")));
        let failed = of(json!({"status": {"PostgresClusterStatus": "CreateFailed"}}));
        assert_eq!(failed, (false, "CreateFailed".into(), word("CreateFailed")));
        for nothing in [json!({}), json!({"status": ""}), json!({"status": {"PostgresClusterStatus": ""}})] {
            assert_eq!(of(nothing), (false, "Pending".into(), None));
        }
    }
}
