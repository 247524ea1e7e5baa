//! A database from CloudNativePG: one `Cluster` object for each model server.
//!
//! <https://cloudnative-pg.io/documentation/current/cloudnative-pg.v1/#postgresql-cnpg-io-v1-Cluster>

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Api, Binding, Health, Problem, Provider, ProviderKind, Source, max_connections, object_name, one, taken};
use crate::api::{DatabaseEnv, DatabasePart, DatabaseProvider, DatabaseResources, Volume};
use crate::companions::{MANAGED_BY_LABEL, MANAGER, names};
use crate::facts::{Database, Facts};
use crate::workload::WorkloadRef;

/// The operator's objects.
pub(crate) const API: Api = Api {
    provider: DatabaseProvider::CloudNativePg,
    definition: "clusters.postgresql.cnpg.io",
    kind: ("postgresql.cnpg.io", "v1", "Cluster"),
    served: |apis| &mut apis.cloudnative_pg,
    read: |object| Database { max_connections: max_connections(object), ..Database::default() },
    health,
    // <https://cloudnative-pg.io/documentation/current/service_management/>
    services: &["-rw", "-ro", "-r"],
    // <https://cloudnative-pg.io/documentation/current/applications/#secrets>, and those of its certificates
    is_secret: |secret, name| SECRETS.iter().any(|ending| secret.strip_suffix(ending) == Some(name)),
};

/// The suffixes that follow the cluster's name in the names of the operator's Secrets.
const SECRETS: [&str; 5] = ["-app", "-superuser", "-ca", "-server", "-replication"];

/// The image whose tags are versions.
const IMAGE: &str = "ghcr.io/cloudnative-pg/postgresql";

/// The provider.
pub(crate) const KIND: ProviderKind = ProviderKind {
    provider: DatabaseProvider::CloudNativePg,
    field: "cloudNativePg",
    needs: "provider cloudnative-pg needs storage",
    read: |written| {
        Ok(Arc::new(Cluster {
            settings: written.map(serde_json::from_value).transpose().map_err(|error| error.to_string())?,
        }))
    },
    api: Some(&API),
};

/// The settings of provider `cloudnative-pg`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CloudNativePgSettings {
    /// How many PostgreSQL instances a cluster has.
    #[serde(default = "one")]
    pub instances: i32,
    /// The version of PostgreSQL.
    pub version: Option<String>,
    /// The image of PostgreSQL.
    pub image_name: Option<String>,
    /// The volume of each instance.
    pub storage: Volume,
    /// The requests and limits of each instance.
    pub resources: Option<DatabaseResources>,
}

/// The operator's `Cluster` objects, under one policy's settings.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// The settings; `None` if the cluster exists but the policy no longer has any.
    pub settings: Option<CloudNativePgSettings>,
}

impl Cluster {
    /// Returns the name of a workload's cluster.
    fn cluster(workload: &WorkloadRef, facts: &Facts) -> String {
        let (kind, of) = (&workload.kind, &workload.name);
        let spare = || names::spare_cloudnative_pg_cluster(kind, of);
        object_name(&API, names::cloudnative_pg_cluster(kind, of), spare, workload, facts)
    }

    fn spec(&self, workload: &WorkloadRef) -> Value {
        let Some(settings) = &self.settings else { return json!({}) };
        let name = names::postgres_database(&workload.name);
        let mut spec = json!({
            "instances": settings.instances,
            "storage": settings.storage,
            "bootstrap": {"initdb": {"database": name, "owner": name}}
        });
        let of_version = || settings.version.as_ref().map(|version| format!("{IMAGE}:{version}"));
        if let Some(image) = settings.image_name.clone().or_else(of_version) {
            spec["imageName"] = image.into();
        }
        if let Some(resources) = &settings.resources {
            spec["resources"] = json!(resources);
        }
        spec
    }
}

impl Provider for Cluster {
    fn check(&self, _: &DatabaseEnv) -> Result<(), String> {
        self.settings.as_ref().map_or(Ok(()), check)
    }

    fn makes(&self) -> Option<&'static Api> {
        Some(&API)
    }

    fn api(&self) -> &'static str {
        "clusters.postgresql.cnpg.io, the API of CloudNativePG"
    }

    fn is_served(&self, facts: &Facts) -> bool {
        facts.apis.cloudnative_pg
    }

    fn problem(&self, workload: &WorkloadRef, facts: &Facts) -> Option<Problem> {
        taken(&API, &Self::cluster(workload, facts), workload, facts)
    }

    /// The operator creates a Secret `<cluster>-app`; its `uri` has the password escaped for a URL.
    fn binding(&self, workload: &WorkloadRef, facts: &Facts) -> Binding {
        let name = Self::cluster(workload, facts);
        let key = |name: &str| Source::Key(name.to_owned());
        let parts = [
            (DatabasePart::Host, Source::Value(format!("{name}-rw"))),
            (DatabasePart::Port, Source::Value("5432".to_owned())),
            (DatabasePart::Database, Source::Value(names::postgres_database(&workload.name))),
            (DatabasePart::User, key("username")),
            (DatabasePart::Password, key("password")),
            (DatabasePart::Uri, key("uri")),
            // The operator's PostgreSQL always has a certificate, signed by its own CA.
            (DatabasePart::SslMode, Source::Value("require".to_owned())),
        ];
        Binding { secret: format!("{name}-app"), name, parts: parts.into() }
    }

    /// The object has no owner, so that the garbage collector does not delete the data with the workload. It has none
    /// of the workload's labels, by which a GitOps tool might prune it.
    fn object(&self, workload: &WorkloadRef, facts: &Facts) -> Value {
        json!({
            "apiVersion": "postgresql.cnpg.io/v1",
            "kind": "Cluster",
            "metadata": {
                "name": Self::cluster(workload, facts),
                "namespace": workload.namespace,
                "labels": {MANAGED_BY_LABEL: MANAGER},
                "annotations": super::annotations(workload)
            },
            "spec": self.spec(workload)
        })
    }
}

/// Uses the condition `Ready`; the phase is a text for people.
fn health(cluster: &Value) -> Health {
    let conditions = cluster["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready");
    let is_ready = ready.is_some_and(|ready| ready["status"] == "True");
    let text = |field: &'static str| ready.and_then(|ready| ready[field].as_str()).filter(|text| !text.is_empty());
    let reason = text("reason").unwrap_or(if is_ready { "Ready" } else { "NotReady" });
    let phase = cluster["status"]["phase"].as_str().filter(|phase| !phase.is_empty());
    Health::of(is_ready, reason, phase.or_else(|| text("message")).or_else(|| ready.map(|_| reason)))
}

fn check(settings: &CloudNativePgSettings) -> Result<(), String> {
    // Two policies may set one each.
    match (&settings.version, &settings.image_name) {
        (Some(_), Some(_)) => Err(": version and imageName are mutually exclusive".to_owned()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::companions::WORKLOAD_ANNOTATION;
    use crate::testing::{facts, made_for, reference, with_database_of};

    fn settings(more: &Value) -> CloudNativePgSettings {
        let mut settings = json!({"storage": {"size": "10Gi"}});
        json_patch::merge(&mut settings, more);
        serde_json::from_value(settings).unwrap()
    }

    fn named(name: &str) -> WorkloadRef {
        WorkloadRef { name: name.into(), ..reference() }
    }

    #[test]
    fn plans_the_cluster_of_a_plain_model_server() {
        let settings = settings(&json!({}));
        insta::assert_json_snapshot!(Cluster { settings: Some(settings.clone()) }.object(&named("ai-model-serving"), &facts()), @r#"
        {
          "apiVersion": "postgresql.cnpg.io/v1",
          "kind": "Cluster",
          "metadata": {
            "annotations": {
              "argocd.argoproj.io/sync-options": "Prune=false,Delete=false",
              "kustomize.toolkit.fluxcd.io/prune": "disabled",
              "tidegate.dev/workload": "Deployment/ai-model-serving"
            },
            "labels": {
              "app.kubernetes.io/managed-by": "tidegate"
            },
            "name": "db-ai-model-serving",
            "namespace": "ml"
          },
          "spec": {
            "bootstrap": {
              "initdb": {
                "database": "ai_model_serving",
                "owner": "ai_model_serving"
              }
            },
            "instances": 1,
            "storage": {
              "size": "10Gi"
            }
          }
        }
        "#);
    }

    #[test]
    fn passes_on_settings() {
        let spec = |more: &Value| {
            let settings = settings(more);
            Cluster { settings: Some(settings.clone()) }.object(&reference(), &facts())["spec"].take()
        };
        let resources = json!({"requests": {"cpu": "500m", "memory": "1Gi"}});
        let found = spec(
            &json!({"instances": 3, "version": "17", "storage": {"storageClass": "fast"}, "resources": resources}),
        );
        assert_eq!(
            (&found["instances"], &found["imageName"]),
            (&json!(3), &json!("ghcr.io/cloudnative-pg/postgresql:17"))
        );
        assert_eq!(found["storage"], json!({"size": "10Gi", "storageClass": "fast"}));
        assert_eq!(found["resources"], resources);
        assert_eq!(
            spec(&json!({"imageName": "registry.example.com/pg:17"}))["imageName"],
            "registry.example.com/pg:17"
        );
    }

    #[test]
    fn the_cluster_has_no_owner_and_no_labels_of_the_workload() {
        let settings = settings(&json!({}));
        let metadata = Cluster { settings: Some(settings.clone()) }.object(&reference(), &facts())["metadata"].take();
        assert_eq!(metadata["ownerReferences"], json!(null));
        assert_eq!(metadata["labels"], json!({MANAGED_BY_LABEL: MANAGER}));
        assert_eq!(metadata["annotations"][WORKLOAD_ANNOTATION], "Deployment/api");
    }

    #[test]
    fn binds_the_objects_that_the_operator_creates() {
        let settings = settings(&json!({}));
        let binding = Cluster { settings: Some(settings.clone()) }.binding(&named("ai-model-serving"), &facts());
        assert_eq!((&*binding.name, &*binding.secret), ("db-ai-model-serving", "db-ai-model-serving-app"));
        assert_eq!(binding.parts[&DatabasePart::Host], Source::Value("db-ai-model-serving-rw".to_owned()));
        assert_eq!(binding.parts[&DatabasePart::Uri], Source::Key("uri".to_owned()));
    }

    #[test]
    fn uses_only_a_cluster_that_was_created_for_the_workload() {
        let settings = settings(&json!({}));
        let provider = Cluster { settings: Some(settings.clone()) };
        let with = |made_for: Database| with_database_of(DatabaseProvider::CloudNativePg, "ml", "db-api", made_for);
        assert_eq!(provider.problem(&reference(), &facts()), None);
        assert_eq!(provider.problem(&reference(), &with(made_for("Deployment/api"))), None);
        let (reason, message) = provider.problem(&reference(), &with(Database::default())).unwrap();
        assert_eq!(reason, "NameTaken");
        assert_eq!(message, "Cluster db-api already exists and was not created by Tidegate for Deployment/api");
    }

    #[test]
    fn uses_the_condition_and_reports_the_phase() {
        let of = |status: Value| {
            let health = health(&json!({"status": status}));
            (health.is_ready, health.reason, health.phase)
        };
        let ready = |status: &str, reason: &str| json!([{"type": "Backup", "status": "True"}, {"type": "Ready", "status": status, "reason": reason}]);
        let phase = |text: &str| Some(text.to_owned());
        let healthy = "Cluster in healthy state";
        assert_eq!(
            of(json!({"phase": healthy, "conditions": ready("True", "ClusterIsReady")})),
            (true, "ClusterIsReady".into(), phase(healthy))
        );
        assert_eq!(
            of(json!({"phase": "Setting up primary", "conditions": ready("False", "ClusterIsNotReady")})),
            (false, "ClusterIsNotReady".into(), phase("Setting up primary"))
        );
        assert_eq!(
            of(json!({"phase": healthy})),
            (false, "NotReady".into(), phase(healthy)),
            "the phase alone is not enough"
        );
        assert_eq!(of(json!({"conditions": ready("True", "")})), (true, "Ready".into(), phase("Ready")));
        for nothing in [json!(null), json!({}), json!({"phase": ""}), json!("Running"), json!({"conditions": "Ready"})]
        {
            assert_eq!(of(nothing), (false, "Pending".into(), None));
        }
    }
}
