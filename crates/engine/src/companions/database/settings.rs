//! The database settings of policies, parsed and with defaults filled in.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{PROVIDERS, Provider, ProviderKind};
use crate::api::{DatabaseCreation, DatabaseEnv, DatabasePart, DatabaseProvider};
use crate::facts::Facts;
use crate::policy::{Merged, PolicyRef, SettingsError, field};
use crate::workload::{Annotations, Workload, WorkloadRef};

/// The placeholder for the name of a workload, and for its role.
pub const WORKLOAD: &str = "{workload}";

/// Providers with the settings of a policy.
type Providers = Vec<(DatabaseProvider, Arc<dyn Provider>)>;

/// The database settings.
#[derive(Clone, Debug)]
pub struct DatabaseSettings {
    /// Which model servers get a database.
    pub create: DatabaseCreation,
    /// The provider of new databases.
    pub provider: DatabaseProvider,
    /// The variables of the binding.
    pub env: DatabaseEnv,
    /// The maximum number of databases that are created in a namespace.
    pub max_per_namespace: Option<usize>,
    /// Whether workloads are bound even if their `envFrom` may name another database.
    pub over_env_from: bool,
    /// Every provider with the settings of the policy.
    providers: Providers,
}

impl DatabaseSettings {
    /// Returns whether a workload gets a database, which its author can choose by annotation.
    #[must_use]
    pub fn is_wanted(&self, workload: &Workload) -> bool {
        let requested = Annotations::new(workload).database().said();
        requested.unwrap_or(self.create == DatabaseCreation::Always)
    }

    /// Returns the provider of the database of a workload. An existing database keeps its provider even if the policy
    /// changes: with another, the workload would start with an empty database.
    ///
    /// # Panics
    /// Never: every provider is in the list.
    #[must_use]
    pub fn provider(&self, workload: &WorkloadRef, facts: &Facts) -> &dyn Provider {
        let there: Vec<DatabaseProvider> = facts.databases_of(workload).map(|found| found.provider).collect();
        let kept = there.iter().find(|found| **found == self.provider).or_else(|| there.first());
        let named = kept.unwrap_or(&self.provider);
        let found = self.providers.iter().find(|(provider, _)| provider == named);
        found.map(|(_, provider)| &**provider).expect("every provider is read")
    }
}

/// Parses the database settings, with the policy that sets the provider; `None` without a provider.
pub(super) fn read(merged: &Merged) -> Result<Option<(DatabaseSettings, PolicyRef)>, SettingsError> {
    let written = &merged.values()["database"];
    let provider: DatabaseProvider = field(written, "provider").unwrap_or_default();
    let Some(source) = merged.source(&["database", "provider"]).filter(|_| provider != DatabaseProvider::None) else {
        return Ok(None);
    };
    let max: Option<i32> = field(written, "maxPerNamespace");
    let env = field(written, "env").unwrap_or_default();
    check_env(&env).map_err(|problem| SettingsError(format!("database.env: {problem}")))?;
    let settings = DatabaseSettings {
        create: field(written, "create").unwrap_or_default(),
        provider,
        max_per_namespace: max.and_then(|max| max.try_into().ok()),
        over_env_from: field(written, "overEnvFrom").unwrap_or_default(),
        providers: providers(written, provider, &env)?,
        env,
    };
    Ok(Some((settings, source.clone())))
}

/// Returns every provider with the settings of the policy. The chosen one needs all of its settings; those of others,
/// which may still have databases, may be missing.
fn providers(written: &Value, chosen: DatabaseProvider, env: &DatabaseEnv) -> Result<Providers, SettingsError> {
    let read = |kind: &&ProviderKind| {
        let settings = written.get(kind.field).cloned().unwrap_or_else(|| Value::Object(Map::new()));
        let provider = match (kind.read)(Some(settings)) {
            Ok(provider) => provider,
            Err(_) if kind.provider != chosen => (kind.read)(None)?,
            Err(error) => return Err(format!("{}: {error}; {}", kind.field, kind.needs)),
        };
        if kind.provider == chosen {
            provider.check(env).map_err(|problem| format!("{}{problem}", kind.field))?;
        }
        Ok((kind.provider, provider))
    };
    let all: Result<_, String> = PROVIDERS.iter().map(read).collect();
    all.map_err(|problem| SettingsError(format!("database.{problem}")))
}

/// Checks that the variables can be set.
fn check_env(env: &DatabaseEnv) -> Result<(), String> {
    let variables = env.variables();
    if variables.is_empty() {
        return Err("at least one variable is required".to_owned());
    }
    for (name, part) in variables {
        let is_fine = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if !name.chars().all(is_fine) || name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(format!(
                "invalid variable name `{name}`: must be letters, digits, `_`, `-` and `.`, not starting with a digit"
            ));
        }
        let meaning = [("PGUSER", DatabasePart::User), ("PGPASSWORD", DatabasePart::Password)];
        if let Some((_, meant)) = meaning.iter().find(|(known, meant)| *known == name && *meant != part) {
            return Err(format!("`{name}` must hold the {}, not the {}", meant.name(), part.name()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::BUILTIN;
    use crate::policy::Policy;
    use crate::testing::{chain, policy};

    /// Returns the error for the database settings of a policy, if any.
    fn error(database: &Value) -> Option<String> {
        let compiled = Policy::compile(&policy("serving", &json!({"database": database})), &BUILTIN);
        compiled.err().map(|error| chain(&error))
    }

    fn zalando(more: &Value) -> Value {
        let mut zalando = json!({"teamId": "acid", "version": "17", "volume": {"size": "1Gi"}});
        json_patch::merge(&mut zalando, more);
        json!({"provider": "zalando", "zalando": zalando})
    }

    fn secret(name: &str, keys: &Value, env: &Value) -> Value {
        json!({"provider": "secret", "secret": {"name": name, "keys": keys}, "env": env})
    }

    #[test]
    fn rejects_settings_that_no_operator_accepts() {
        let specs = [
            zalando(&json!({"users": {"Reporting": []}})),
            zalando(&json!({"users": {"postgres": []}})),
            zalando(&json!({"users": {"a_b": [], "a-b": []}})),
            zalando(&json!({"databases": {"my-features": "{workload}"}})),
            zalando(&json!({"databases": {"features": "reporting"}})),
            zalando(&json!({"preparedDatabases": {"1st": {}}})),
            zalando(&json!({"preparedDatabases": {"a": {"schemas": {"b-c": {}}}}})),
            zalando(&json!({"databases": {"a": "{workload}"}, "preparedDatabases": {"a": {}}})),
            zalando(&json!({"volume": {"size": "500k"}})),
            zalando(&json!({"volume": {"storageClass": "Fast SSD"}})),
            zalando(&json!({"resources": {"requests": {"cpu": "1e3"}}})),
            zalando(&json!({"connectionPooler": {"resources": {"limits": {"memory": "1k"}}}})),
            zalando(&json!({"connectionPooler": {"instances": 0}})),
            zalando(&json!({"clusterLabels": {"cost center": "ml"}})),
            zalando(&json!({"clusterLabels": {"app.kubernetes.io/managed-by": "me"}})),
            zalando(&json!({"tls": {"secretName": "My Secret"}})),
            json!({"provider": "cloudnative-pg"}),
            json!({"provider": "cloudnative-pg", "cloudNativePg": {"storage": {"size": "1Gi"}, "version": "seventeen"}}),
            json!({"provider": "cloudnative-pg", "cloudNativePg": {"storage": {"size": "1Gi"}, "version": "17", "imageName": "a"}}),
            json!({"provider": "secret"}),
            secret("{workload}_db", &json!({"uri": "uri"}), &json!("url")),
            secret("db", &json!({"uri": "a/b"}), &json!("url")),
            secret("db", &json!({"uri": "uri"}), &json!("libpq")),
            secret("db", &json!({"uri": "uri"}), &json!({"DB_MODE": "sslmode"})),
            json!({"provider": "zalando", "maxPerNamespace": -1}),
            json!({"provider": "none", "env": {}, "zalando": {}}),
        ];
        let mut errors: Vec<String> = specs.iter().map(|spec| error(spec).unwrap_or_default()).collect();
        let with_env = |env: Value| {
            let mut database = zalando(&json!({}));
            database["env"] = env;
            error(&database).unwrap_or_default()
        };
        errors.extend([json!({}), json!({"1ST": "uri"}), json!({"PGUSER": "host"})].map(with_env));
        insta::assert_snapshot!(errors.join("\n"), @r#"
        spec.database.zalando.users: invalid user name `Reporting`: must be at most 63 lower-case letters, digits, `-` and `_`, with a letter or digit at both ends
        spec.database.zalando.users: `postgres` is reserved by the operator or PostgreSQL
        spec.database.zalando.users: the Secret of `a_b` would have the name of another user's: `_` becomes `-` there
        spec.database.zalando.databases: invalid name `my-features`: must be at most 63 letters, digits and `_`, not starting with a digit
        spec.database.zalando.databases.features: unknown owner `reporting`: must be one of the users or `{workload}`
        spec.database.zalando.preparedDatabases: invalid name `1st`: must be at most 52 letters, digits and `_`, not starting with a digit
        spec.database.zalando.preparedDatabases.schemas: invalid name `b-c`: must be at most 63 letters, digits and `_`, not starting with a digit
        spec.database.zalando.preparedDatabases: `a` is also listed in databases
        spec.database.zalando.volume.size: the operator does not accept `500k`: write it as `10Gi`
        spec.database.zalando.volume.storageClass: storageClass must be the name of a StorageClass: lower-case letters, digits, dashes and dots
        spec.database.zalando.resources.requests.cpu: the operator does not accept `1e3`: write it as `500m` or `0.5`
        spec.database.zalando.connectionPooler.resources.limits.memory: the operator does not accept `1k`: write it as `10Gi`
        spec.database.zalando.connectionPooler.instances: instances must be at least 1
        spec.database.zalando.clusterLabels: invalid label `cost center: ml`
        spec.database.zalando.clusterLabels: the label `app.kubernetes.io/managed-by` is reserved by Tidegate
        spec.database.zalando.tls.secretName: secretName must be the name of a Secret: lower-case letters, digits, dashes and dots
        spec.database.cloudNativePg: missing field `storage`; provider cloudnative-pg needs storage
        spec.database.cloudNativePg.version: version must be a version such as "17" or "17.5"
        spec.database.cloudNativePg: version and imageName are mutually exclusive: set one of them
        spec.database.secret: missing field `name`; provider secret needs name and keys
        spec.database.secret.name: invalid Secret name `{workload}_db`: must be lower-case letters, digits, `-`, `.` and `{workload}`
        spec.database.secret.keys.uri: invalid Secret key `a/b`
        spec.database.secret.keys: no key for host, which the variable PGHOST needs
        spec.database.secret.keys: no key for sslmode, which the variable DB_MODE needs
        spec.database.maxPerNamespace: maxPerNamespace must be at least 0

        spec.database.env: at least one variable is required
        spec.database.env: invalid variable name `1ST`: must be letters, digits, `_`, `-` and `.`, not starting with a digit
        spec.database.env: `PGUSER` must hold the user, not the host
        "#);
    }

    #[test]
    fn accepts_valid_settings() {
        let all = json!({
            "instances": 2, "volume": {"size": "1.5Gi", "storageClass": "fast"},
            "users": {"reporting": ["createdb", "login"], "a-b": []},
            "databases": {"features": "reporting", "predictions": "{workload}"},
            "preparedDatabases": {"store": {"defaultUsers": true, "extensions": {"vector": "public"}, "schemas": {"data": {}, "public": {}}}},
            "connectionPooler": {"instances": 2, "mode": "session", "maxConnections": 60},
            "resources": {"requests": {"cpu": "0.5", "memory": "500Mi"}, "limits": {"cpu": "500m", "memory": "1G"}},
            "tls": {"secretName": "certificate"},
            "clusterLabels": {"cost-center": "ml", "example.com/tier": ""}
        });
        let keys = json!({"host": "h", "database": "d", "user": "u", "password": "p"});
        for database in [
            zalando(&all),
            json!({"provider": "cloudnative-pg", "cloudNativePg": {"storage": {"size": "1Gi"}, "version": "17.5"}}),
            json!({"provider": "cloudnative-pg", "env": "both", "cloudNativePg": {"storage": {"size": "1Gi"}, "imageName": "a/b:1"}}),
            secret("{workload}-db", &keys, &json!("libpq")),
            secret("db", &json!({"uri": "DATABASE_URL"}), &json!({"MLFLOW_BACKEND_STORE_URI": "uri"})),
            json!({"env": "url"}),
            json!({"provider": "none", "zalando": {}}),
        ] {
            assert_eq!(error(&database), None, "{database}");
        }
    }
}
