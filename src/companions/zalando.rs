//! A database from Zalando's postgres-operator: one `postgresql` object for each model server.
//!
//! <https://github.com/zalando/postgres-operator/blob/master/docs/reference/cluster_manifest.md>

use serde_json::{Value, json};

use super::{Binding, MANAGED_BY_LABEL, MANAGER, Provider, WORKLOAD_ANNOTATION, names};
use crate::facts::{Facts, WorkloadRef};
use crate::policy::ZalandoSettings;

/// The operator's `postgresql` objects, under one policy's settings.
pub struct Postgresql<'s> {
    /// The settings.
    pub settings: &'s ZalandoSettings,
}

impl Postgresql<'_> {
    /// Returns the name of a workload's cluster. One that is there keeps its name whatever the policy says since: under
    /// another, the workload would start with an empty database.
    fn cluster(&self, workload: &WorkloadRef, facts: &Facts) -> String {
        let name = names::postgres_cluster(&self.settings.team_id, &workload.name);
        if facts.database(&workload.namespace, &name).is_some_and(|found| found.is_for(workload)) {
            return name;
        }
        facts.databases_of(workload).next().map_or(name, str::to_owned)
    }

    /// The operator's `secret_name_template`; in it, a user's `_` becomes `-`.
    fn secret(&self, user: &str, cluster: &str) -> String {
        let template = &self.settings.secret_name;
        let named = template.replace("{username}", &user.replace('_', "-")).replace("{cluster}", cluster);
        named.replace("{tprkind}", "postgresql").replace("{tprgroup}", "acid.zalan.do")
    }
}

impl Provider for Postgresql<'_> {
    fn api(&self) -> &'static str {
        "postgresqls.acid.zalan.do, the API of Zalando's postgres-operator"
    }

    fn is_served(&self, facts: &Facts) -> bool {
        facts.apis.zalando
    }

    fn problem(&self, workload: &WorkloadRef, facts: &Facts) -> Option<String> {
        let cluster = self.cluster(workload, facts);
        let found = facts.database(&workload.namespace, &cluster)?;
        let WorkloadRef { kind, name, .. } = workload;
        (!found.is_for(workload))
            .then(|| format!("postgresql {cluster} is there already and was not made by tidegate for {kind}/{name}"))
    }

    fn binding(&self, workload: &WorkloadRef, facts: &Facts) -> Binding {
        let cluster = self.cluster(workload, facts);
        let database = names::postgres_database(&workload.name);
        Binding {
            host: cluster.clone(),
            secret: self.secret(&database, &cluster),
            name: cluster,
            port: 5432,
            database,
            // The operator's PostgreSQL refuses connections from other hosts without TLS, and its certificate is
            // self-signed unless the cluster is given another.
            ssl_mode: "require",
            user_key: "username",
            password_key: "password",
        }
    }

    /// The object has no owner: the operator copies its owners onto what it makes, so that the garbage collector would
    /// take the data away together with the workload. Nor has it any of the workload's labels, by which a GitOps tool
    /// would prune it.
    fn object(&self, workload: &WorkloadRef, facts: &Facts) -> Value {
        let name = names::postgres_database(&workload.name);
        json!({
            "apiVersion": "acid.zalan.do/v1",
            "kind": "postgresql",
            "metadata": {
                "name": self.cluster(workload, facts),
                "namespace": workload.namespace,
                "labels": {MANAGED_BY_LABEL: MANAGER},
                "annotations": {WORKLOAD_ANNOTATION: format!("{}/{}", workload.kind, workload.name)}
            },
            "spec": {
                "teamId": self.settings.team_id,
                "numberOfInstances": self.settings.instances,
                "postgresql": {"version": self.settings.version},
                "volume": {"size": self.settings.volume.size.to_string()},
                "users": {&name: []},
                "databases": {&name: &name}
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Apis, Database};
    use crate::testing::{facts, reference, with_database};

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
        insta::assert_json_snapshot!(Postgresql { settings: &settings }.object(&named("ai-model-serving"), &facts()), @r#"
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
        let metadata = Postgresql { settings: &settings }.object(&reference(), &facts())["metadata"].take();
        assert_eq!(metadata["ownerReferences"], json!(null));
        assert_eq!(metadata["labels"], json!({MANAGED_BY_LABEL: MANAGER}));
        assert_eq!(metadata["annotations"], json!({WORKLOAD_ANNOTATION: "Deployment/api"}));
    }

    #[test]
    fn the_binding_names_what_the_operator_makes() {
        let settings = settings(&json!({}));
        let binding = Postgresql { settings: &settings }.binding(&named("ai-model-serving"), &facts());
        assert_eq!((&*binding.host, binding.port), ("acid-ai-model-serving", 5432));
        assert_eq!((&*binding.database, binding.ssl_mode), ("ai_model_serving", "require"));
        let secret = "ai-model-serving.acid-ai-model-serving.credentials.postgresql.acid.zalan.do";
        assert_eq!((&*binding.secret, binding.user_key, binding.password_key), (secret, "username", "password"));
    }

    #[test]
    fn the_secret_is_named_as_the_operators_template_says() {
        let secret = |template: &str| {
            let settings = settings(&json!({"secretName": template}));
            Postgresql { settings: &settings }.binding(&named("a.b-c"), &facts()).secret
        };
        let cluster = names::postgres_cluster("acid", "a.b-c");
        assert_eq!(secret("{cluster}/{username}"), format!("{cluster}/a-b-c"));
        assert_eq!(secret("{username}.{tprkind}.{tprgroup}"), "a-b-c.postgresql.acid.zalan.do");
    }

    #[test]
    fn a_database_keeps_its_name_when_the_team_changes() {
        let settings = settings(&json!({"teamId": "search"}));
        let provider = Postgresql { settings: &settings };
        let made_for =
            |workload: &str| with_database("ml", "acid-api", Database { made_for: Some(workload.to_owned()) });
        let name = |facts: &Facts| {
            let names = [
                provider.binding(&reference(), facts).host,
                provider.object(&reference(), facts)["metadata"]["name"].as_str().unwrap().to_owned(),
            ];
            assert_eq!(names[0], names[1]);
            names[0].clone()
        };
        assert_eq!(name(&made_for("Deployment/api")), "acid-api");
        assert_eq!(name(&made_for("Deployment/web")), "search-api");
        assert_eq!(name(&facts()), "search-api");
        let mut both = made_for("Deployment/api");
        let newer = Database { made_for: Some("Deployment/api".to_owned()) };
        both.databases.get_mut("ml").unwrap().insert("search-api".to_owned(), newer);
        assert_eq!(name(&both), "search-api");
    }

    #[test]
    fn the_name_is_taken_unless_the_object_was_made_for_this_workload() {
        let settings = settings(&json!({}));
        let provider = Postgresql { settings: &settings };
        let problem = |made_for: Option<&str>| {
            let database = Database { made_for: made_for.map(str::to_owned) };
            provider.problem(&reference(), &with_database("ml", "acid-api", database))
        };
        assert_eq!(provider.problem(&reference(), &facts()), None);
        assert_eq!(problem(Some("Deployment/api")), None);
        assert!(problem(Some("StatefulSet/api")).is_some() && problem(None).is_some());
        let elsewhere = with_database("web", "acid-api", Database { made_for: None });
        assert_eq!(provider.problem(&reference(), &elsewhere), None);
        assert!(provider.is_served(&facts()) && !provider.is_served(&Facts { apis: Apis::default(), ..facts() }));
    }
}
