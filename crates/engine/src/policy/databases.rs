//! What policies say of databases, parsed and with every default filled in.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::settings::{SettingsError, field};
use super::{Merged, PolicyRef};
use crate::api::{
    ConnectionPooler, DatabaseAmounts, DatabaseCreation, DatabaseEnv, DatabaseKeys, DatabasePart, DatabaseProvider,
    DatabaseResources, DatabaseTls, PreparedDatabase, RoleFlag, Volume,
};
use crate::companions::{MANAGED_BY_LABEL, Provider, cloudnative_pg, names, secret, zalando};
use crate::facts::Facts;
use crate::quantity::Quantity;
use crate::workload::{Wishes, Workload, WorkloadRef};

/// Stands for the name of a workload, and for its role.
pub const WORKLOAD: &str = "{workload}";

/// The database of each model server.
#[derive(Clone, Debug, PartialEq)]
pub struct DatabaseSettings {
    /// Which model servers get one.
    pub create: DatabaseCreation,
    /// Who provides those that are not there yet.
    pub provider: DatabaseProvider,
    /// The variables that tell of it.
    pub env: DatabaseEnv,
    /// The most databases that are made in a namespace.
    pub max_per_namespace: Option<usize>,
    /// Whether those are bound too whose variables come from elsewhere, which may name a database.
    pub over_env_from: bool,
    /// What Zalando's postgres-operator is told; there where the policy says all that it needs.
    pub zalando: Option<ZalandoSettings>,
    /// What CloudNativePG is told; there where the policy says all that it needs.
    pub cloud_native_pg: Option<CloudNativePgSettings>,
    /// Where Secrets are that are there already; there where the policy says all that is needed.
    pub secret: Option<SecretSettings>,
}

/// What Zalando's postgres-operator is told.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ZalandoSettings {
    /// The team that owns the clusters.
    pub team_id: String,
    /// The PostgreSQL major version.
    pub version: String,
    /// How many PostgreSQL instances a cluster has.
    #[serde(default = "one")]
    pub instances: i32,
    /// The volume of each instance.
    pub volume: Volume,
    /// How the operator names the Secret of a user.
    #[serde(default = "secret_name")]
    pub secret_name: String,
    /// Users beside the workload's own.
    #[serde(default)]
    pub users: BTreeMap<String, Vec<RoleFlag>>,
    /// Databases beside the workload's own, each with its owner.
    #[serde(default)]
    pub databases: BTreeMap<String, String>,
    /// Databases with roles, schemas and extensions.
    #[serde(default)]
    pub prepared_databases: BTreeMap<String, PreparedDatabase>,
    /// A pooler of connections.
    pub connection_pooler: Option<ConnectionPooler>,
    /// What each instance requests, and its limits.
    pub resources: Option<DatabaseResources>,
    /// The certificate.
    pub tls: Option<DatabaseTls>,
    /// Labels of the objects.
    #[serde(default)]
    pub cluster_labels: BTreeMap<String, String>,
}

/// What CloudNativePG is told.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CloudNativePgSettings {
    /// How many PostgreSQL instances a cluster has.
    #[serde(default = "one")]
    pub instances: i32,
    /// The version of PostgreSQL.
    pub version: Option<String>,
    /// The image of PostgreSQL.
    pub image_name: Option<String>,
    /// The volume of each instance.
    pub storage: Volume,
    /// What each instance requests, and its limits.
    pub resources: Option<DatabaseResources>,
}

/// Where Secrets are that are there already.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretSettings {
    /// The Secret's name, with [`WORKLOAD`] in it or not.
    pub name: String,
    /// Under which keys the parts are.
    pub keys: DatabaseKeys,
}

const fn one() -> i32 {
    1
}

/// The template of Zalando's operator where it is configured to no other.
pub(crate) fn secret_name() -> String {
    "{username}.{cluster}.credentials.{tprkind}.{tprgroup}".to_owned()
}

impl ZalandoSettings {
    /// Returns the pooler of connections, where there is to be one.
    #[must_use]
    pub fn pooler(&self) -> Option<&ConnectionPooler> {
        self.connection_pooler.as_ref().filter(|pooler| pooler.enabled.unwrap_or(true))
    }
}

impl DatabaseSettings {
    /// Tells whether a workload is to have a database: its author has a say.
    #[must_use]
    pub fn is_wanted(&self, workload: &Workload) -> bool {
        let wish = Wishes::of(workload).database.said();
        wish.unwrap_or(self.create == DatabaseCreation::Always)
    }

    /// Returns who provides the database of a workload. One that is there stays with its provider, whatever the policy
    /// says since: with another, the workload would start with an empty database.
    #[must_use]
    pub fn provider(&self, workload: &WorkloadRef, facts: &Facts) -> Box<dyn Provider + '_> {
        let there: Vec<DatabaseProvider> = facts.databases_of(workload).map(|found| found.provider).collect();
        let kept = there.iter().find(|found| **found == self.provider).or_else(|| there.first());
        match kept.unwrap_or(&self.provider) {
            DatabaseProvider::CloudNativePg => {
                Box::new(cloudnative_pg::Cluster { settings: self.cloud_native_pg.as_ref() })
            }
            DatabaseProvider::Secret => Box::new(secret::Existing { settings: self.secret.as_ref() }),
            DatabaseProvider::Zalando | DatabaseProvider::None => {
                Box::new(zalando::Postgresql { settings: self.zalando.as_ref() })
            }
        }
    }
}

/// Reads what is said of databases, and by which policy; none where there is no provider.
pub(super) fn read(merged: &Merged) -> Result<Option<(DatabaseSettings, PolicyRef)>, SettingsError> {
    let written = &merged.values()["database"];
    let provider: DatabaseProvider = field(written, "provider").unwrap_or_default();
    let Some(source) = merged.source(&["database", "provider"]).filter(|_| provider != DatabaseProvider::None) else {
        return Ok(None);
    };
    let max: Option<i32> = field(written, "maxPerNamespace");
    let settings = DatabaseSettings {
        create: field(written, "create").unwrap_or_default(),
        provider,
        env: field(written, "env").unwrap_or_default(),
        max_per_namespace: max.and_then(|max| max.try_into().ok()),
        over_env_from: field(written, "overEnvFrom").unwrap_or_default(),
        zalando: of_provider(written, "zalando").ok(),
        cloud_native_pg: of_provider(written, "cloudNativePg").ok(),
        secret: of_provider(written, "secret").ok(),
    };
    check_env(&settings.env).map_err(|problem| SettingsError::Database(format!("env: {problem}")))?;
    let (name, checked) = match provider {
        DatabaseProvider::Zalando => {
            ("zalando", of_provider(written, "zalando").and_then(|found| check_zalando(&found)))
        }
        DatabaseProvider::CloudNativePg => {
            ("cloudNativePg", of_provider(written, "cloudNativePg").and_then(|found| check_cloud_native_pg(&found)))
        }
        _ => ("secret", of_provider(written, "secret").and_then(|found| check_secret(&found, &settings.env))),
    };
    checked.map_err(|problem| SettingsError::Database(format!("{name}{problem}")))?;
    Ok(Some((settings, source.clone())))
}

/// What a provider cannot do without.
const NEEDED: [(&str, &str); 3] = [
    ("zalando", "provider zalando needs teamId, version and volume"),
    ("cloudNativePg", "provider cloudnative-pg needs storage"),
    ("secret", "provider secret needs name and keys"),
];

fn of_provider<T: DeserializeOwned>(written: &Value, name: &str) -> Result<T, String> {
    let settings = written.get(name).cloned().unwrap_or_else(|| Value::Object(serde_json::Map::new()));
    let needed = NEEDED.iter().find(|(known, _)| *known == name).map_or("", |(_, needed)| needed);
    serde_json::from_value(settings).map_err(|error| format!(": {error}; {needed}"))
}

/// Sees that the variables can be set.
fn check_env(env: &DatabaseEnv) -> Result<(), String> {
    let variables = env.variables();
    if variables.is_empty() {
        return Err("it names no variable".to_owned());
    }
    for (name, part) in variables {
        let is_fine = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if !name.chars().all(is_fine) || name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(format!(
                "`{name}` is no name of a variable: letters, digits, `_`, `-` and `.`, no digit first"
            ));
        }
        let meaning = [("PGUSER", DatabasePart::User), ("PGPASSWORD", DatabasePart::Password)];
        if let Some((_, meant)) = meaning.iter().find(|(known, meant)| *known == name && *meant != part) {
            return Err(format!(
                "`{name}` is the {} for everything that reads it, not the {}",
                meant.name(),
                part.name()
            ));
        }
    }
    Ok(())
}

fn check_zalando(settings: &ZalandoSettings) -> Result<(), String> {
    let ZalandoSettings { users, databases, prepared_databases, .. } = settings;
    check_users(users)?;
    for (name, owner) in databases {
        check_identifier("databases", name, 63)?;
        if owner != WORKLOAD && !users.contains_key(owner) {
            return Err(format!(
                ".databases.{name}: the owner `{owner}` is not among the users, nor is it `{WORKLOAD}`"
            ));
        }
    }
    for (name, prepared) in prepared_databases {
        // The operator makes a role `<name>_owner_user`, and names of roles have at most 63 characters.
        check_identifier("preparedDatabases", name, 52)?;
        if databases.contains_key(name) {
            return Err(format!(".preparedDatabases: `{name}` is among the databases too"));
        }
        prepared.schemas.keys().try_for_each(|schema| check_form("preparedDatabases.schemas", schema, 63))?;
    }
    check_size(".volume.size", &settings.volume.size)?;
    check_resources(".resources", settings.resources.as_ref())?;
    let of_pooler = settings.connection_pooler.as_ref().and_then(|pooler| pooler.resources.as_ref());
    check_resources(".connectionPooler.resources", of_pooler)?;
    settings.cluster_labels.iter().try_for_each(|(name, value)| check_label(name, value))
}

/// Names of users are as the operator takes them, and each has a Secret of its own: there, a `_` becomes a `-`.
fn check_users(users: &BTreeMap<String, Vec<RoleFlag>>) -> Result<(), String> {
    let mut secrets = BTreeSet::new();
    for name in users.keys() {
        let is_inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_".contains(c);
        let is_end = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if name.len() > 63 || !name.chars().all(is_inner) || !name.starts_with(is_end) || !name.ends_with(is_end) {
            return Err(format!(
                ".users: the operator takes no user `{name}`: at most 63 lower-case letters, digits, `-` and `_`, \
                 with a letter or digit at both ends"
            ));
        }
        if names::is_reserved(name) {
            return Err(format!(".users: `{name}` is a name that the operator or PostgreSQL keeps for itself"));
        }
        if !secrets.insert(name.replace('_', "-")) {
            return Err(format!(
                ".users: the Secret of `{name}` would have the name of another's: `_` becomes `-` there"
            ));
        }
    }
    Ok(())
}

fn check_identifier(field: &str, name: &str, length: usize) -> Result<(), String> {
    check_form(field, name, length)?;
    if names::is_reserved(name) {
        return Err(format!(".{field}: `{name}` is a name that the operator or PostgreSQL keeps for itself"));
    }
    Ok(())
}

fn check_form(field: &str, name: &str, length: usize) -> Result<(), String> {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if name.len() > length || !starts_well || !name.chars().all(is_fine) {
        return Err(format!(
            ".{field}: the operator takes no `{name}`: at most {length} letters, digits and `_`, no digit first"
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
            return Err(format!("{field}.{of}.cpu: the operator takes no `{cpu}`: write it as `500m` or `0.5`"));
        }
    }
    Ok(())
}

/// The operator takes the usual units of sizes, and no others.
fn check_size(field: &str, size: &Quantity) -> Result<(), String> {
    let text = size.to_string();
    let number = text.trim_end_matches('i').trim_end_matches(['E', 'P', 'T', 'G', 'M', 'K']);
    if is_number(number) { Ok(()) } else { Err(format!("{field}: the operator takes no `{size}`: write it as `10Gi`")) }
}

fn is_number(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit()) && text.chars().all(|c| c.is_ascii_digit() || c == '.')
}

/// Sees that a label is one, and is not one that Tidegate needs for itself.
fn check_label(name: &str, value: &str) -> Result<(), String> {
    let is_end = |c: char| c.is_ascii_alphanumeric();
    let is_inner = |c: char| is_end(c) || "-_.".contains(c);
    let is_word = |text: &str| {
        text.len() <= 63 && text.starts_with(is_end) && text.ends_with(is_end) && text.chars().all(is_inner)
    };
    let (prefix, word) = name.split_once('/').map_or((None, name), |(prefix, word)| (Some(prefix), word));
    if !is_word(word) || prefix.is_some_and(|prefix| !is_dns_name(prefix)) || !(value.is_empty() || is_word(value)) {
        return Err(format!(".clusterLabels: `{name}: {value}` is no label"));
    }
    if name == MANAGED_BY_LABEL || prefix == Some("tidegate.dev") {
        return Err(format!(".clusterLabels: the label `{name}` is tidegate's own"));
    }
    Ok(())
}

/// Tells whether a text can be the name of most objects.
fn is_dns_name(text: &str) -> bool {
    let is_end = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_label = |label: &str| {
        label.starts_with(is_end) && label.ends_with(is_end) && label.chars().all(|c| is_end(c) || c == '-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

fn check_cloud_native_pg(settings: &CloudNativePgSettings) -> Result<(), String> {
    // Two policies may say one each.
    match (&settings.version, &settings.image_name) {
        (Some(_), Some(_)) => Err(": version and imageName say the same: write one of them".to_owned()),
        _ => Ok(()),
    }
}

fn check_secret(settings: &SecretSettings, env: &DatabaseEnv) -> Result<(), String> {
    let named = settings.name.replace(WORKLOAD, "a");
    if !is_dns_name(&named) {
        return Err(format!(
            ".name: `{}` is no name of a Secret: lower-case letters, digits, `-` and `.`, and `{WORKLOAD}`",
            settings.name
        ));
    }
    let keys = settings.keys.by_part();
    let is_fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if let Some((part, key)) = keys.iter().find(|(_, key)| key.is_empty() || !key.chars().all(is_fine)) {
        return Err(format!(".keys.{}: `{key}` is no key of a Secret", part.name()));
    }
    // libpq has defaults for these.
    let has_default = |part: DatabasePart| {
        !matches!(env, DatabaseEnv::Mapping(_)) && matches!(part, DatabasePart::Port | DatabasePart::SslMode)
    };
    let variables = env.variables();
    let missing = variables.iter().find(|(_, part)| !keys.contains_key(part) && !has_default(*part));
    missing.map_or(Ok(()), |(variable, part)| {
        Err(format!(".keys: there is no key for {}, which the variable {variable} is to hold", part.name()))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::BUILTIN;
    use crate::policy::Policy;
    use crate::testing::{chain, policy};

    /// What is said of the databases of a policy; nothing where it makes sense.
    fn complaint(database: &Value) -> Option<String> {
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
    fn what_no_operator_would_take_is_told_when_the_policy_is_read() {
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
        let mut told: Vec<String> = specs.iter().map(|spec| complaint(spec).unwrap_or_default()).collect();
        let with_env = |env: Value| {
            let mut database = zalando(&json!({}));
            database["env"] = env;
            complaint(&database).unwrap_or_default()
        };
        told.extend([json!({}), json!({"1ST": "uri"}), json!({"PGUSER": "host"})].map(with_env));
        insta::assert_snapshot!(told.join("\n"), @r#"
        spec.database.zalando.users: the operator takes no user `Reporting`: at most 63 lower-case letters, digits, `-` and `_`, with a letter or digit at both ends
        spec.database.zalando.users: `postgres` is a name that the operator or PostgreSQL keeps for itself
        spec.database.zalando.users: the Secret of `a_b` would have the name of another's: `_` becomes `-` there
        spec.database.zalando.databases: the operator takes no `my-features`: at most 63 letters, digits and `_`, no digit first
        spec.database.zalando.databases.features: the owner `reporting` is not among the users, nor is it `{workload}`
        spec.database.zalando.preparedDatabases: the operator takes no `1st`: at most 52 letters, digits and `_`, no digit first
        spec.database.zalando.preparedDatabases.schemas: the operator takes no `b-c`: at most 63 letters, digits and `_`, no digit first
        spec.database.zalando.preparedDatabases: `a` is among the databases too
        spec.database.zalando.volume.size: the operator takes no `500k`: write it as `10Gi`
        spec.database.zalando.volume.storageClass: storageClass is the name of a StorageClass: lower-case letters, digits, dashes and dots
        spec.database.zalando.resources.requests.cpu: the operator takes no `1e3`: write it as `500m` or `0.5`
        spec.database.zalando.connectionPooler.resources.limits.memory: the operator takes no `1k`: write it as `10Gi`
        spec.database.zalando.connectionPooler.instances: instances is at least 1
        spec.database.zalando.clusterLabels: `cost center: ml` is no label
        spec.database.zalando.clusterLabels: the label `app.kubernetes.io/managed-by` is tidegate's own
        spec.database.zalando.tls.secretName: secretName is the name of a Secret: lower-case letters, digits, dashes and dots
        spec.database.cloudNativePg: missing field `storage`; provider cloudnative-pg needs storage
        spec.database.cloudNativePg.version: version is a version such as "17" or "17.5"
        spec.database.cloudNativePg: version and imageName say the same: write one of them
        spec.database.secret: missing field `name`; provider secret needs name and keys
        spec.database.secret.name: `{workload}_db` is no name of a Secret: lower-case letters, digits, `-` and `.`, and `{workload}`
        spec.database.secret.keys.uri: `a/b` is no key of a Secret
        spec.database.secret.keys: there is no key for host, which the variable PGHOST is to hold
        spec.database.secret.keys: there is no key for sslmode, which the variable DB_MODE is to hold
        spec.database.maxPerNamespace: maxPerNamespace is not below zero

        spec.database.env: it names no variable
        spec.database.env: `1ST` is no name of a variable: letters, digits, `_`, `-` and `.`, no digit first
        spec.database.env: `PGUSER` is the user for everything that reads it, not the host
        "#);
    }

    #[test]
    fn what_can_be_had_makes_sense() {
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
            assert_eq!(complaint(&database), None, "{database}");
        }
    }
}
