//! A database from Zalando's postgres-operator: one `postgresql` object for each model server.
//!
//! <https://github.com/zalando/postgres-operator/blob/master/docs/reference/cluster_manifest.md>

use serde_json::{Value, json};

use super::{Binding, MANAGED_BY_LABEL, MANAGER, Provider, WORKLOAD_ANNOTATION, names};
use crate::api::Zalando;
use crate::facts::{Facts, WorkloadRef};

/// The operator's `postgresql` objects, under one policy's settings.
pub struct Postgresql<'s> {
    /// The settings.
    pub settings: &'s Zalando,
}

impl Postgresql<'_> {
    fn cluster(&self, workload: &WorkloadRef) -> String {
        names::postgres_cluster(&self.settings.team_id, &workload.name)
    }

    /// The operator's `secret_name_template`; in it, a user's `_` becomes `-`.
    fn secret(&self, workload: &WorkloadRef) -> String {
        let user = names::postgres_database(&workload.name).replace('_', "-");
        let template = &self.settings.secret_name;
        let named = template.replace("{username}", &user).replace("{cluster}", &self.cluster(workload));
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
        let cluster = self.cluster(workload);
        let wanted = format!("{}/{}", workload.kind, workload.name);
        let found = facts.databases.get(&(workload.namespace.clone(), cluster.clone()))?;
        (found.made_for.as_ref() != Some(&wanted))
            .then(|| format!("postgresql {cluster} is there already and was not made by tidegate for {wanted}"))
    }

    fn binding(&self, workload: &WorkloadRef) -> Binding {
        let cluster = self.cluster(workload);
        Binding {
            host: cluster.clone(),
            name: cluster,
            port: 5432,
            database: names::postgres_database(&workload.name),
            // The operator's PostgreSQL refuses connections from other hosts without TLS, and its certificate is
            // self-signed unless the cluster is given another.
            ssl_mode: "require",
            secret: self.secret(workload),
            user_key: "username",
            password_key: "password",
        }
    }

    /// The object has no owner: the operator copies its owners onto what it makes, so that the garbage collector would
    /// take the data away together with the workload. Nor has it any of the workload's labels, by which a GitOps tool
    /// would prune it.
    fn object(&self, workload: &WorkloadRef) -> Value {
        let name = names::postgres_database(&workload.name);
        json!({
            "apiVersion": "acid.zalan.do/v1",
            "kind": "postgresql",
            "metadata": {
                "name": self.cluster(workload),
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
