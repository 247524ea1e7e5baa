//! The database settings of a policy.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use crate::quantity::Quantity;

/// The provider of the database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum DatabaseProvider {
    /// Zalando's postgres-operator, with a `postgresql` object.
    #[serde(rename = "zalando")]
    Zalando,
    /// CloudNativePG, with a `Cluster` object.
    #[serde(rename = "cloudnative-pg")]
    CloudNativePg,
    /// Something else, with an existing Secret. Nothing is created.
    #[serde(rename = "secret")]
    Secret,
    /// No database.
    #[default]
    #[serde(rename = "none")]
    None,
}

/// Which model servers get a database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DatabaseCreation {
    /// All, except those with the annotation `tidegate.dev/database: none`.
    #[default]
    Always,
    /// Only those with the annotation `tidegate.dev/database: "true"`.
    OnRequest,
}

/// The database of each model server.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Database {
    /// The provider. Default: `none`. An existing database keeps its provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<DatabaseProvider>,
    /// Which model servers get one. Default: `always`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub create: Option<DatabaseCreation>,
    /// The maximum number of databases that Tidegate creates in a namespace, including those whose workload was
    /// deleted. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("self >= 0", "maxPerNamespace must be at least 0"))]
    pub max_per_namespace: Option<i32>,
    /// Whether a model server whose container has `envFrom` gets one too: the injected variables then take precedence
    /// over those of the ConfigMap or Secret, which may already name a database. Default: false. The annotation
    /// `tidegate.dev/database: "true"` on a workload requests one in any case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over_env_from: Option<bool>,
    /// The environment variables that hold the connection settings. `libpq`: `PGHOST`, `PGPORT`, `PGDATABASE`,
    /// `PGUSER`, `PGPASSWORD` and `PGSSLMODE`; `url`: `DATABASE_URL`; `both`; or names of variables, each with one of
    /// `host`, `port`, `database`, `user`, `password`, `uri` and `sslmode`, such as `{MLFLOW_BACKEND_STORE_URI: uri}`.
    /// Default: `libpq`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "env_schema")]
    pub env: Option<DatabaseEnv>,
    /// Settings for provider `zalando`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zalando: Option<Zalando>,
    /// Settings for provider `cloudnative-pg`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloud_native_pg: Option<CloudNativePg>,
    /// Settings for provider `secret`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<DatabaseSecret>,
}

/// A string or a mapping: a structural schema has no type for that.
fn env_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"x-kubernetes-preserve-unknown-fields": true})
}

/// The environment variables that hold the connection settings of a database.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DatabaseEnv {
    /// Those of libpq.
    #[default]
    Libpq,
    /// `DATABASE_URL`.
    Url,
    /// Those of libpq and `DATABASE_URL`.
    Both,
    /// Variables by name, each with what it holds.
    Mapping(BTreeMap<String, DatabasePart>),
}

/// The variables of libpq.
///
/// <https://www.postgresql.org/docs/current/libpq-envars.html>
const LIBPQ: [(&str, DatabasePart); 6] = [
    ("PGHOST", DatabasePart::Host),
    ("PGPORT", DatabasePart::Port),
    ("PGDATABASE", DatabasePart::Database),
    ("PGUSER", DatabasePart::User),
    ("PGPASSWORD", DatabasePart::Password),
    ("PGSSLMODE", DatabasePart::SslMode),
];

const URL: (&str, DatabasePart) = ("DATABASE_URL", DatabasePart::Uri);

impl DatabaseEnv {
    /// Returns the names of the variables, each with what it holds.
    #[must_use]
    pub fn variables(&self) -> Vec<(&str, DatabasePart)> {
        match self {
            Self::Libpq => LIBPQ.to_vec(),
            Self::Url => vec![URL],
            Self::Both => LIBPQ.into_iter().chain([URL]).collect(),
            Self::Mapping(mapping) => mapping.iter().map(|(name, part)| (name.as_str(), *part)).collect(),
        }
    }
}

impl Serialize for DatabaseEnv {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Libpq => serializer.serialize_str("libpq"),
            Self::Url => serializer.serialize_str("url"),
            Self::Both => serializer.serialize_str("both"),
            Self::Mapping(mapping) => mapping.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for DatabaseEnv {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::String(text) => match text.as_str() {
                "libpq" => Ok(Self::Libpq),
                "url" => Ok(Self::Url),
                "both" => Ok(Self::Both),
                other => Err(D::Error::custom(format!(
                    "unknown env `{other}`, expected `libpq`, `url`, `both`, or variables such as {{DATABASE_URL: uri}}"
                ))),
            },
            mapping @ Value::Object(_) => BTreeMap::deserialize(mapping).map(Self::Mapping).map_err(D::Error::custom),
            other => Err(D::Error::custom(format!("`{other}` is not a valid env"))),
        }
    }
}

/// One connection setting of a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DatabasePart {
    /// The host.
    Host,
    /// The port.
    Port,
    /// The database on that host.
    Database,
    /// The user.
    User,
    /// The user's password.
    Password,
    /// All of it as one URL: `postgresql://user:password@host:port/database`.
    Uri,
    /// The `sslmode` of libpq.
    SslMode,
}

impl DatabasePart {
    /// Returns its name in policies.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Port => "port",
            Self::Database => "database",
            Self::User => "user",
            Self::Password => "password",
            Self::Uri => "uri",
            Self::SslMode => "sslmode",
        }
    }
}

/// Settings of the `postgresql` objects for Zalando's postgres-operator.
///
/// <https://github.com/zalando/postgres-operator/blob/master/docs/reference/cluster_manifest.md>
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Zalando {
    /// The team that owns the clusters; also the first part of their names. There is no default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 15))]
    #[x_kube(validation = (
        "self.matches('^[a-z]([-a-z0-9]{0,13}[a-z0-9])?$')",
        "teamId must be at most 15 lower-case letters, digits and dashes, and start with a letter"
    ))]
    pub team_id: Option<String>,
    /// The PostgreSQL major version, such as `"17"`. There is no default. No database is created with a
    /// version that the operator's CRD does not offer; this is reported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8))]
    #[x_kube(validation = ("self.matches('^[0-9]+$')", "version must be a major version such as \"17\""))]
    pub version: Option<String>,
    /// The number of PostgreSQL instances of a cluster. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("self >= 1", "instances must be at least 1"))]
    pub instances: Option<i32>,
    /// The volume of each instance. There is no default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<Volume>,
    /// How the operator names the Secret of a user: its `secret_name_template`; `{tprkind}` and `{tprgroup}` may be
    /// left in it. Default: the operator's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = (
        "self.contains('{username}') && self.contains('{cluster}')",
        "secretName must have both {username} and {cluster}"
    ))]
    pub secret_name: Option<String>,
    /// Users in addition to the workload's own, with their flags. The operator creates a Secret for each.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub users: BTreeMap<String, Vec<RoleFlag>>,
    /// Databases in addition to the workload's own, each with its owner: one of `users`, or `{workload}` for the
    /// workload's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub databases: BTreeMap<String, String>,
    /// Databases for which the operator also creates roles, schemas and extensions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub prepared_databases: BTreeMap<String, PreparedDatabase>,
    /// A connection pooler for each cluster; model servers connect to it. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection_pooler: Option<ConnectionPooler>,
    /// Requests and limits of each instance. Default: the operator's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<DatabaseResources>,
    /// The certificate of the clusters. Default: a self-signed one for each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<DatabaseTls>,
    /// Labels that each `postgresql` object gets in addition to Tidegate's own, such as those that the operator copies
    /// to its objects because of `inherited_labels`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub cluster_labels: BTreeMap<String, String>,
}

/// A privilege of a PostgreSQL role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RoleFlag {
    /// All privileges.
    Superuser,
    /// Create databases.
    Createdb,
    /// Create roles.
    Createrole,
    /// Inherit the privileges of its groups.
    Inherit,
    /// Can connect.
    Login,
    /// Cannot connect.
    Nologin,
    /// Replicate.
    Replication,
    /// Bypass row-level security.
    Bypassrls,
}

/// A database for which the operator also creates roles, schemas and extensions.
///
/// <https://github.com/zalando/postgres-operator/blob/master/docs/user.md#prepared-databases-with-roles-and-default-privileges>
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PreparedDatabase {
    /// Whether its roles have users that can connect, each with a Secret. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_users: Option<bool>,
    /// Extensions, each with the schema in which it is created.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub extensions: BTreeMap<String, String>,
    /// Its schemas. Default: `data`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub schemas: BTreeMap<String, PreparedSchema>,
}

/// A schema of a prepared database.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PreparedSchema {
    /// Whether it has its own roles. Default: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_roles: Option<bool>,
    /// Whether those have users that can connect. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_users: Option<bool>,
}

/// A connection pooler.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConnectionPooler {
    /// Whether there is one. Default: true if `connectionPooler` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// The number of pods. Default: the operator's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("self >= 1", "instances must be at least 1"))]
    pub instances: Option<i32>,
    /// How long a client keeps a connection: `session` or `transaction`. Default: the operator's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<PoolerMode>,
    /// The maximum number of connections to PostgreSQL. Default: the operator's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("self >= 1", "maxConnections must be at least 1"))]
    pub max_connections: Option<i32>,
    /// Requests and limits of each pod. Default: the operator's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<DatabaseResources>,
}

/// How long a client of a pooler keeps a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum PoolerMode {
    /// Until it disconnects.
    Session,
    /// Until its transaction ends: prepared statements and `LISTEN` do not work.
    Transaction,
}

/// Requests and limits of a database's pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DatabaseResources {
    /// The requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<DatabaseAmounts>,
    /// The limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<DatabaseAmounts>,
}

/// Amounts of CPU and memory.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DatabaseAmounts {
    /// CPU, such as `500m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Quantity>,
    /// Memory, such as `1Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Quantity>,
}

/// The certificate of a database.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DatabaseTls {
    /// The Secret with `tls.crt` and `tls.key`, in the namespace of the model server.
    #[schemars(length(max = 253))]
    #[x_kube(validation = (
        "self.matches('^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$')",
        "secretName must be the name of a Secret: lower-case letters, digits, dashes and dots"
    ))]
    pub secret_name: String,
}

/// A volume that an operator creates.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Volume {
    /// Its size, such as `10Gi`.
    pub size: Quantity,
    /// Its storage class. Default: the cluster's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = (
        "self.matches('^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$')",
        "storageClass must be the name of a StorageClass: lower-case letters, digits, dashes and dots"
    ))]
    pub storage_class: Option<String>,
}

/// Settings of the `Cluster` objects for CloudNativePG.
///
/// <https://cloudnative-pg.io/documentation/current/cloudnative-pg.v1/#postgresql-cnpg-io-v1-ClusterSpec>
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[x_kube(validation = (
    "!has(self.version) || !has(self.imageName)",
    "version and imageName are mutually exclusive: set one of them"
))]
pub struct CloudNativePg {
    /// The number of PostgreSQL instances of a cluster. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = ("self >= 1", "instances must be at least 1"))]
    pub instances: Option<i32>,
    /// The version of PostgreSQL, such as `"17"`: the tag of the operator's image
    /// `ghcr.io/cloudnative-pg/postgresql`. Default: the operator's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    #[x_kube(validation = (
        "self.matches('^[0-9]+([.][0-9]+)?$')",
        "version must be a version such as \"17\" or \"17.5\""
    ))]
    pub version: Option<String>,
    /// The PostgreSQL image, instead of `version`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image_name: Option<String>,
    /// The volume of each instance. There is no default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<Volume>,
    /// Requests and limits of each instance. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<DatabaseResources>,
}

/// Settings for databases whose credentials are in existing Secrets.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DatabaseSecret {
    /// The name of the Secret, in the namespace of the model server; `{workload}` is replaced by the workload's name.
    /// There is no default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub name: Option<String>,
    /// The keys of the Secret for each part, such as `{uri: DATABASE_URL}`. There is no default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<DatabaseKeys>,
}

/// The keys of a Secret for each part.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DatabaseKeys {
    /// The host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// The port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<String>,
    /// The database on that host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// The user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The user's password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// All of it as one URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// The `sslmode` of libpq.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sslmode: Option<String>,
}

impl DatabaseKeys {
    /// Returns the key of each part that has one.
    #[must_use]
    pub fn by_part(&self) -> BTreeMap<DatabasePart, &str> {
        let keys = [
            (DatabasePart::Host, &self.host),
            (DatabasePart::Port, &self.port),
            (DatabasePart::Database, &self.database),
            (DatabasePart::User, &self.user),
            (DatabasePart::Password, &self.password),
            (DatabasePart::Uri, &self.uri),
            (DatabasePart::SslMode, &self.sslmode),
        ];
        keys.into_iter().filter_map(|(part, key)| Some((part, key.as_deref()?))).collect()
    }
}
