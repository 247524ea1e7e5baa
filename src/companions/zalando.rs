//! A database from Zalando's postgres-operator: one `postgresql` object for each model server.
//!
//! <https://github.com/zalando/postgres-operator/blob/master/docs/reference/cluster_manifest.md>

use serde_json::{Map, Value, json};

use super::database::{Api, Health, made, taken};
use super::{Binding, MANAGED_BY_LABEL, MANAGER, Problem, Provider, Source, WORKLOAD_ANNOTATION, names};
use crate::api::{ConnectionPooler, DatabasePart, DatabaseProvider, PoolerMode};
use crate::facts::{Database, Facts, WorkloadRef};
use crate::policy::{WORKLOAD, ZalandoSettings, secret_name};

/// The operator's objects.
pub const API: Api = Api {
    provider: DatabaseProvider::Zalando,
    definition: "postgresqls.acid.zalan.do",
    kind: ("acid.zalan.do", "v1", "postgresql"),
    served: |apis| &mut apis.zalando,
    read: |object| Database { is_pooled: is_pooled(object), ..Database::default() },
    health,
};

/// The operator's `postgresql` objects, under one policy's settings.
pub struct Postgresql<'s> {
    /// The settings; none where the policy has none any more, but the cluster is there.
    pub settings: Option<&'s ZalandoSettings>,
}

impl Postgresql<'_> {
    /// Returns the name of a workload's cluster. One that is there keeps its name whatever the policy says since: under
    /// another, the workload would start with an empty database.
    fn cluster(&self, workload: &WorkloadRef, facts: &Facts) -> String {
        let team = self.settings.map_or(MANAGER, |settings| &settings.team_id);
        let name = names::postgres_cluster(team, &workload.name);
        made(&API, &name, workload, facts).map(str::to_owned).unwrap_or(name)
    }

    /// The operator's `secret_name_template`; in it, a user's `_` becomes `-`.
    fn secret(&self, user: &str, cluster: &str) -> String {
        let template = self.settings.map_or_else(secret_name, |settings| settings.secret_name.clone());
        let named = template.replace("{username}", &user.replace('_', "-")).replace("{cluster}", cluster);
        named.replace("{tprkind}", "postgresql").replace("{tprgroup}", "acid.zalan.do")
    }

    /// Returns the host: the pooler's where there is one. A cluster that is there has it or not, whatever the policy says.
    fn host(&self, cluster: &str, workload: &WorkloadRef, facts: &Facts) -> String {
        let there = facts.database(API.provider, &workload.namespace, cluster);
        let wanted = || self.settings.is_some_and(|settings| settings.pooler().is_some());
        if there.map_or_else(wanted, |found| found.is_pooled) {
            format!("{cluster}-pooler")
        } else {
            cluster.to_owned()
        }
    }

    fn spec(&self, name: &str) -> Value {
        let (own_user, own_database) = (json!({name: []}), json!({name: name}));
        let Some(settings) = self.settings else { return json!({"users": own_user, "databases": own_database}) };
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
        // An empty one would be another database, named after the cluster.
        if !settings.prepared_databases.is_empty() {
            spec["preparedDatabases"] = json!(settings.prepared_databases);
        }
        if let Some(pooler) = settings.pooler() {
            spec["enableConnectionPooler"] = true.into();
            let told = told_of(pooler);
            if !told.is_empty() {
                spec["connectionPooler"] = told.into();
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

/// What the operator is told of a pooler, as it calls it.
fn told_of(pooler: &ConnectionPooler) -> Map<String, Value> {
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

/// Tells whether the operator puts a pooler before a cluster: one is asked for, or described.
fn is_pooled(postgresql: &Value) -> bool {
    let spec = &postgresql["spec"];
    spec["enableConnectionPooler"].as_bool().unwrap_or(spec["connectionPooler"].is_object())
}

impl Provider for Postgresql<'_> {
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
        let (version, offered) = (&self.settings?.version, &facts.zalando_versions);
        (!offered.is_empty() && !offered.contains(version)).then(|| {
            let offered = offered.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            ("VersionNotOffered", format!("the operator offers no PostgreSQL {version}; its versions are {offered}"))
        })
    }

    fn binding(&self, workload: &WorkloadRef, facts: &Facts) -> Binding {
        let cluster = self.cluster(workload, facts);
        let database = names::postgres_database(&workload.name);
        let host = self.host(&cluster, workload, facts);
        // The operator's PostgreSQL refuses connections from other hosts without TLS, and its certificate is
        // self-signed unless the cluster is given another.
        let ssl_mode = "require";
        // The operator's Secret has user and password and nothing else. Those that it generates need no escapes in an
        // address.
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

    /// The object has no owner: the operator copies its owners onto what it makes, so that the garbage collector would
    /// take the data away together with the workload. Nor has it any of the workload's labels, by which a GitOps tool
    /// would prune it.
    fn object(&self, workload: &WorkloadRef, facts: &Facts) -> Value {
        let mut labels = json!({MANAGED_BY_LABEL: MANAGER});
        for (name, value) in self.settings.into_iter().flat_map(|settings| &settings.cluster_labels) {
            labels[name] = value.as_str().into();
        }
        json!({
            "apiVersion": "acid.zalan.do/v1",
            "kind": "postgresql",
            "metadata": {
                "name": self.cluster(workload, facts),
                "namespace": workload.namespace,
                "labels": labels,
                "annotations": {WORKLOAD_ANNOTATION: format!("{}/{}", workload.kind, workload.name)}
            },
            "spec": self.spec(&names::postgres_database(&workload.name))
        })
    }
}

/// The operator writes one word; old versions wrote the status as a bare string. It writes `Running` before the pods are;
/// the Secret is there earlier.
fn health(postgresql: &Value) -> Health {
    let status = &postgresql["status"];
    let phase = status["PostgresClusterStatus"].as_str().or_else(|| status.as_str());
    Health::of(phase == Some("Running"), phase.unwrap_or_default(), phase)
}

#[cfg(test)]
mod tests {
    use super::*;
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
    fn the_object_of_a_plain_model_server() {
        let settings = settings(&json!({}));
        insta::assert_json_snapshot!(Postgresql { settings: Some(&settings) }.object(&named("ai-model-serving"), &facts()), @r#"
        {
          "apiVersion": "acid.zalan.do/v1",
          "kind": "postgresql",
          "metadata": {
            "annotations": {
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
    fn the_object_has_no_owner_and_nothing_of_the_workloads() {
        let settings = settings(&json!({}));
        let metadata = Postgresql { settings: Some(&settings) }.object(&reference(), &facts())["metadata"].take();
        assert_eq!(metadata["ownerReferences"], json!(null));
        assert_eq!(metadata["labels"], json!({MANAGED_BY_LABEL: MANAGER}));
        assert_eq!(metadata["annotations"], json!({WORKLOAD_ANNOTATION: "Deployment/api"}));
    }

    #[test]
    fn the_binding_names_what_the_operator_makes() {
        let settings = settings(&json!({}));
        let binding = Postgresql { settings: Some(&settings) }.binding(&named("ai-model-serving"), &facts());
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
    fn the_secret_is_named_as_the_operators_template_says() {
        let secret = |template: &str| {
            let settings = settings(&json!({"secretName": template}));
            Postgresql { settings: Some(&settings) }.binding(&named("a.b-c"), &facts()).secret
        };
        let cluster = names::postgres_cluster("acid", "a.b-c");
        assert_eq!(secret("{cluster}/{username}"), format!("{cluster}/a-b-c"));
        assert_eq!(secret("{username}.{tprkind}.{tprgroup}"), "a-b-c.postgresql.acid.zalan.do");
    }

    #[test]
    fn a_database_keeps_its_name_when_the_team_changes() {
        let settings = settings(&json!({"teamId": "search"}));
        let provider = Postgresql { settings: Some(&settings) };
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
    fn the_name_is_taken_unless_the_object_was_made_for_this_workload() {
        let settings = settings(&json!({}));
        let provider = Postgresql { settings: Some(&settings) };
        let problem = |made_for: Option<&str>| {
            let database = Database { made_for: made_for.map(str::to_owned), ..Database::default() };
            provider.problem(&reference(), &with_database("ml", "acid-api", database))
        };
        assert_eq!(provider.problem(&reference(), &facts()), None);
        assert_eq!(problem(Some("Deployment/api")), None);
        assert!(problem(Some("StatefulSet/api")).is_some() && problem(None).is_some());
        let elsewhere = with_database("web", "acid-api", Database::default());
        assert_eq!(provider.problem(&reference(), &elsewhere), None);
        assert!(provider.is_served(&facts()) && !provider.is_served(&Facts { apis: Apis::default(), ..facts() }));
    }

    #[test]
    fn settings_are_handed_on() {
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
        let object = Postgresql { settings: Some(&settings) }.object(&reference(), &facts());
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
    fn a_pooler_is_bound_where_there_is_one() {
        let host = |pooler: Value, facts: &Facts| {
            let settings = settings(&json!({"connectionPooler": pooler}));
            let binding = Postgresql { settings: Some(&settings) }.binding(&reference(), facts);
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
        assert_eq!(host(json!({}), &there(false)), "acid-api", "it was made without");
        assert_eq!(host(json!(null), &there(true)), "acid-api-pooler");
    }

    #[test]
    fn what_the_operator_takes_for_a_pooler_is_one() {
        let pooled = |spec: Value| (API.read)(&json!({"spec": spec})).is_pooled;
        assert!(pooled(json!({"enableConnectionPooler": true})) && pooled(json!({"connectionPooler": {}})));
        assert!(!pooled(json!({})) && !pooled(json!({"enableConnectionPooler": false, "connectionPooler": {}})));
    }

    #[test]
    fn only_a_new_database_needs_a_version_that_is_offered() {
        let settings = settings(&json!({}));
        let problem = |versions: &[&str], facts: Facts| {
            let zalando_versions = versions.iter().map(|&version| version.to_owned()).collect();
            Postgresql { settings: Some(&settings) }.problem(&reference(), &Facts { zalando_versions, ..facts })
        };
        assert_eq!(problem(&["16", "17"], facts()), None);
        assert_eq!(problem(&[], facts()), None, "nobody knows");
        assert_eq!(problem(&["16"], with_database("ml", "acid-api", made_for("Deployment/api"))), None);
        let (reason, message) = problem(&["15", "16"], facts()).unwrap();
        assert_eq!(reason, "VersionNotOffered");
        assert_eq!(message, "the operator offers no PostgreSQL 17; its versions are 15, 16");
    }

    #[test]
    fn the_status_is_one_word_in_either_form() {
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
