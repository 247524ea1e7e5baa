//! The database of a model server: its provider, and how the model server reaches it.

mod author_variables;
mod bound;
mod cloudnative_pg;
mod plan;
mod secret;
mod settings;
mod zalando;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::{Value, json};

pub use author_variables::note;
pub use bound::is_bound;
pub use settings::{DatabaseSettings, WORKLOAD};
pub use zalando::offered_versions;

use super::companion::{Asked, Described, ManagedKind, ObjectRef};
use super::condition::{self, name_of};
use super::plan::{CompanionPlan, CompanionState, Observed};
use super::{Companion, Problem, WORKLOAD_ANNOTATION, Wanted, names};
use crate::api::{Condition, DatabaseEnv, DatabasePart, DatabaseProvider, DatabaseStatus, ModelServerStatus};
use crate::facts::{Apis, Database, Facts};
use crate::policy::{Effective, Merged, Parsed, PolicyRef, Section, SettingsError};
use crate::runtimes::Recognised;
use crate::workload::{PriorBinding, Workload, WorkloadRef};

/// A provider of databases.
pub trait Provider: fmt::Debug + Send + Sync {
    /// Checks its settings, and whether it can set the variables.
    ///
    /// # Errors
    /// Returns the invalid field and the reason.
    fn check(&self, env: &DatabaseEnv) -> Result<(), String>;

    /// Returns the API of the objects that it creates, or `None` if databases exist already.
    fn makes(&self) -> Option<&'static Api> {
        None
    }

    /// Returns the name of its API for messages.
    fn api(&self) -> &'static str;

    /// Returns whether the cluster serves that API.
    fn is_served(&self, facts: &Facts) -> bool;

    /// Returns why a database cannot be created for this workload.
    fn problem(&self, workload: &WorkloadRef, facts: &Facts) -> Option<Problem>;

    /// Returns how the workload reaches its database. The names in it must never change between releases: the data
    /// would be left behind.
    fn binding(&self, workload: &WorkloadRef, facts: &Facts) -> Binding;

    /// Returns the object from which the provider creates the database, or the existing object if it creates none.
    fn object(&self, workload: &WorkloadRef, facts: &Facts) -> Value;
}

/// Returns the annotations of a database that is created for a workload: its workload, and that GitOps tools do not
/// delete it, even if they come to manage it.
///
/// <https://argo-cd.readthedocs.io/en/stable/user-guide/sync-options/>,
/// <https://fluxcd.io/flux/components/kustomize/kustomizations/#controlling-the-apply-behavior-of-resources>
fn annotations(workload: &WorkloadRef) -> Value {
    json!({
        WORKLOAD_ANNOTATION: format!("{}/{}", workload.kind, workload.name),
        "argocd.argoproj.io/sync-options": "Prune=false,Delete=false",
        "kustomize.toolkit.fluxcd.io/prune": "disabled"
    })
}

/// The objects that represent the databases of a provider.
#[derive(Debug)]
pub struct Api {
    /// The provider.
    pub provider: DatabaseProvider,
    /// The name of their CustomResourceDefinition.
    pub definition: &'static str,
    /// Their group, version and kind.
    pub kind: (&'static str, &'static str, &'static str),
    /// Returns the field that records whether the API is served.
    pub served: fn(&mut Apis) -> &mut bool,
    /// Reads the facts about an object that decisions need, whoever created it.
    pub read: fn(&Value) -> Database,
    /// Reads the health that the provider reports for an object.
    pub health: fn(&Value) -> Health,
    /// The suffixes that follow the object's name in the names of the Services of a database.
    pub services: &'static [&'static str],
    /// Returns whether a Secret with the first name is one that the provider creates for the object with the second
    /// name.
    pub is_secret: fn(&str, &str) -> bool,
}

impl Api {
    /// Returns a reference to an object of the provider.
    #[must_use]
    pub fn object_ref(&self, name: &str) -> ObjectRef {
        let (group, _, kind) = self.kind;
        ObjectRef { group, kind, name: name.to_owned() }
    }
}

/// Creates a provider from its settings as written, if any, or returns an error message.
pub type ReadProvider = fn(Option<Value>) -> Result<Arc<dyn Provider>, String>;

/// A kind of provider, independent of any policy.
pub struct ProviderKind {
    /// The provider.
    pub provider: DatabaseProvider,
    /// The field of a policy's `database` that has its settings.
    pub field: &'static str,
    /// A message about its required settings.
    pub needs: &'static str,
    /// Returns the provider with its settings as written, or without any.
    pub read: ReadProvider,
    /// The objects that it creates; `None` if databases exist already.
    pub api: Option<&'static Api>,
}

/// Every provider. To add one: write its module, add it here, and add its settings to [`crate::api`].
pub const PROVIDERS: [&ProviderKind; 3] = [&zalando::KIND, &cloudnative_pg::KIND, &secret::KIND];

/// Returns the API of each provider that creates databases.
pub fn apis() -> impl Iterator<Item = &'static Api> {
    PROVIDERS.into_iter().filter_map(|kind| kind.api)
}

/// The health that a provider reports for a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Whether the provider reports that it can be used.
    pub is_ready: bool,
    /// The reason, as in a condition.
    pub reason: String,
    /// The message.
    pub message: String,
    /// The provider's name for its state; `None` if it has not reported one yet.
    pub phase: Option<String>,
}

impl Health {
    /// Creates a health from the phase that a provider reports, if any.
    pub(super) fn of(is_ready: bool, reason: &str, phase: Option<&str>) -> Self {
        let Some(phase) = phase.filter(|phase| !phase.is_empty()) else {
            let message = "its operator has not reconciled it yet; check that the operator is running".to_owned();
            return Self { is_ready: false, reason: "Pending".to_owned(), message, phase: None };
        };
        let message = if is_ready {
            "its operator reports that it is running".to_owned()
        } else {
            format!("its operator reports {phase}")
        };
        Self { is_ready, reason: reason.to_owned(), message, phase: Some(phase.to_owned()) }
    }
}

/// Reads the facts about a provider's object that decisions need, whoever created it.
#[must_use]
pub fn read(api: &Api, object: &Value) -> Database {
    let made_for = super::made_for(object).map(|workload| format!("{}/{}", workload.kind, workload.name));
    Database { made_for, ..(api.read)(object) }
}

/// Returns the number of connections that a database's parameters of PostgreSQL allow. Both operators have them in the
/// same place.
///
/// <https://github.com/zalando/postgres-operator/blob/master/docs/reference/cluster_manifest.md>,
/// <https://cloudnative-pg.io/documentation/current/postgresql_conf/>
fn max_connections(object: &Value) -> Option<i64> {
    let written = &object["spec"]["postgresql"]["parameters"]["max_connections"];
    written.as_i64().or_else(|| written.as_str()?.trim().parse().ok())
}

/// Returns the databases to which a pod template is bound, each with the name of its object.
pub fn bound_to<'f>(workload: &Workload<'f>, facts: &'f Facts) -> impl Iterator<Item = (&'f str, &'f Database)> {
    let (template, namespace) = (workload.template(), workload.namespace());
    let inside = facts.databases.get(namespace).into_iter().flat_map(|inside| inside.iter());
    inside.filter_map(move |((provider, name), database)| {
        let api = apis().find(|api| api.provider == *provider)?;
        bound::is_bound_to(template, api, name, namespace, None).then_some((name.as_str(), database))
    })
}

/// Returns the health that its provider reports for a database.
#[must_use]
pub fn health(database: &Value) -> Health {
    let health = api_of(database).map(|api| (api.health)(database));
    health.unwrap_or_else(|| Health::of(false, "", None))
}

/// Returns the API of an object, or `None` if it does not belong to a provider.
#[must_use]
pub fn api_of(object: &Value) -> Option<&'static Api> {
    apis().find(|api| {
        let (group, version, kind) = api.kind;
        object["kind"] == kind && object["apiVersion"] == format!("{group}/{version}")
    })
}

/// How a workload reaches its database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The name of the provider's object, or of the existing Secret.
    pub name: String,
    /// The Secret with the credentials.
    pub secret: String,
    /// Where each part comes from.
    pub parts: BTreeMap<DatabasePart, Source>,
}

/// Where a part of a binding comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A literal value.
    Value(String),
    /// A key of the Secret.
    Key(String),
    /// A URL with this host, port and database, and with the user and password from their variables.
    Address(String),
}

/// An environment variable of a binding.
#[derive(Clone, Debug, PartialEq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its `value` or `valueFrom`.
    pub source: Value,
    /// The variables that its value refers to. They come before it.
    pub of: Vec<String>,
}

impl Variable {
    /// Returns whether an entry of a container's `env` is this variable with this value.
    pub(super) fn is(&self, entry: &Value) -> bool {
        entry["name"] == *self.name && ["value", "valueFrom"].iter().all(|field| entry[field] == self.source[field])
    }
}

impl Binding {
    /// Returns the environment variables, each with its source. Parts that the provider does not have are left out.
    #[must_use]
    pub fn variables(&self, env: &DatabaseEnv) -> Vec<Variable> {
        let mut named = env.variables();
        let is_address = |part: DatabasePart| matches!(self.parts.get(&part), Some(Source::Address(_)));
        if named.iter().any(|(_, part)| is_address(*part)) {
            let lacking = [("PGUSER", DatabasePart::User), ("PGPASSWORD", DatabasePart::Password)]
                .into_iter()
                .filter(|(_, part)| named.iter().all(|(_, known)| known != part));
            named.extend(lacking.collect::<Vec<_>>());
        }
        // A variable can refer only to those before it.
        named.sort_by_key(|(_, part)| is_address(*part));
        let name_of = |part: DatabasePart| named.iter().find(|(_, known)| *known == part).map_or("", |(name, _)| name);
        let credentials = [name_of(DatabasePart::User), name_of(DatabasePart::Password)];
        let variable = |(name, part): &(&str, DatabasePart)| {
            let (source, of) = match self.parts.get(part)? {
                Source::Value(value) => (json!({"value": value}), Vec::new()),
                Source::Key(key) => {
                    (json!({"valueFrom": {"secretKeyRef": {"name": self.secret, "key": key}}}), Vec::new())
                }
                Source::Address(address) => {
                    let [user, password] = credentials;
                    let value = format!("postgresql://$({user}):$({password})@{address}");
                    (json!({"value": value}), credentials.map(str::to_owned).to_vec())
                }
            };
            Some(Variable { name: (*name).to_owned(), source, of })
        };
        named.iter().filter_map(variable).collect()
    }
}

/// Why a workload is not bound to a database although a policy asks for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unbound {
    /// The database cannot be created.
    Impossible(Problem),
    /// The workload has, or may have, another database. The message says why.
    Elsewhere(String),
}

impl From<Problem> for Unbound {
    fn from(problem: Problem) -> Self {
        Self::Impossible(problem)
    }
}

impl Unbound {
    /// Returns the message.
    #[must_use]
    pub fn message(&self) -> &str {
        match self {
            Self::Impossible((_, message)) | Self::Elsewhere(message) => message,
        }
    }
}

/// The database companion.
pub struct Databases;

impl Section for Databases {
    fn read(&self, merged: &Merged) -> Result<Option<Parsed>, SettingsError> {
        Ok(settings::read(merged)?.map(Parsed::new))
    }
}

impl Companion for Databases {
    fn name(&self) -> &'static str {
        "Database"
    }

    fn title(&self) -> &'static str {
        "a database"
    }

    fn field(&self) -> &'static str {
        "database"
    }

    fn wanted(&self, asked: &Asked) -> Wanted {
        wanted(asked)
    }

    /// Returns none: databases are never deleted. Their kinds are in [`PROVIDERS`].
    fn managed_kinds(&self) -> &'static [ManagedKind] {
        &[]
    }

    fn around(&self, workload: &Workload, wanted: &Wanted, facts: &Facts) -> Vec<ObjectRef> {
        let named = if let Wanted::Object(object) = wanted {
            api_of(object).zip(object["metadata"]["name"].as_str())
        } else {
            let made = facts.databases_of(&workload.reference()).next();
            made.and_then(|found| Some((apis().find(|api| api.provider == found.provider)?, found.name)))
        };
        named.map(|(api, name)| api.object_ref(name)).into_iter().collect()
    }

    /// Users do not create a database in the same apply.
    fn settles(&self) -> bool {
        false
    }

    fn plan(&self, workload: &WorkloadRef, wanted: &Wanted, observed: &Observed, _: bool) -> CompanionPlan {
        plan::plan(workload, wanted, observed)
    }

    fn condition(&self, state: &CompanionState, described: &Described) -> Condition {
        let secret = described.companions.binding.as_ref().map(|binding| binding.secret.as_str());
        ready(state, secret, described.workload.template())
    }

    fn describe(&self, state: &CompanionState, status: &mut ModelServerStatus) {
        status.database = described(state);
    }
}

/// Returns the condition of a database. `secret` has its credentials, `template` should be bound to it.
fn ready(state: &CompanionState, secret: Option<&str>, template: &Value) -> Condition {
    condition::ready(&Databases, state, |database| {
        if !is_bound(database, secret, template) {
            let message = format!(
                "{} exists, but no pod is bound to it until the pod template changes (`kubectl rollout restart` is \
                 enough) or its own variables name it",
                name_of(database)
            );
            return Condition::new("DatabaseReady", "False", "PodsNotBound", message);
        }
        let Health { is_ready, reason, mut message, phase } = health(database);
        if let Some(secret) = secret.filter(|_| phase.is_none()) {
            message = format!("{message}. Pods wait until it creates the Secret {secret}");
        }
        Condition::new("DatabaseReady", if is_ready { "True" } else { "False" }, &reason, message)
    })
}

/// Returns the status of the existing database.
fn described(state: &CompanionState) -> Option<DatabaseStatus> {
    let (found, phase) = match state {
        CompanionState::Ours(found)
        | CompanionState::Unmanaged(found)
        | CompanionState::Drifted(found, _)
        | CompanionState::Elsewhere(Some(found), _) => (found, health(found).phase),
        CompanionState::External(found) => (found, None),
        _ => return None,
    };
    let kind = found["kind"].as_str().unwrap_or_default().to_owned();
    Some(DatabaseStatus { kind, name: name_of(found), phase })
}

/// Returns the database settings of the policies, with the policy that asks for databases.
#[must_use]
pub fn settings(effective: &Effective) -> Option<(&DatabaseSettings, &PolicyRef)> {
    effective.section().map(|(settings, policy)| (settings, policy))
}

/// Returns how a workload reaches its database, or `None` if no policy asks for one. `prior` is the existing binding.
///
/// # Errors
/// Returns why it cannot have one.
pub fn binding(
    workload: &Workload,
    recognised: &Recognised,
    effective: &Effective,
    facts: &Facts,
    prior: &PriorBinding,
) -> Result<Option<Binding>, Unbound> {
    let Some((settings, _)) = settings(effective).filter(|(settings, _)| settings.is_wanted(workload)) else {
        return Ok(None);
    };
    let reference = workload.reference();
    let provider = settings.provider(&reference, facts);
    let binding = provider.binding(&reference, facts);
    if let Some(container) = &recognised.container
        && let Some(problem) = author_variables::problem(workload, container, &binding, settings, prior)
    {
        return Err(problem);
    }
    can_be_had(workload, provider, settings.max_per_namespace, facts)?;
    recognised.server().map_err(|message| ("NotBound", message))?;
    Ok(Some(binding))
}

/// Checks that a provider can create a database for a workload.
fn can_be_had(workload: &Workload, provider: &dyn Provider, most: Option<usize>, facts: &Facts) -> Result<(), Problem> {
    let reference = workload.reference();
    if workload.has_generated_name() {
        let message = "its name is derived from the workload's, which `generateName` leaves open";
        return Err(("NotBound", message.to_owned()));
    }
    if !provider.is_served(facts) {
        return Err(("ProviderNotServed", format!("the cluster does not serve {}", provider.api())));
    }
    if let Some(problem) = provider.problem(&reference, facts) {
        return Err(problem);
    }
    let most = most.filter(|_| provider.makes().is_some());
    most.map_or(Ok(()), |most| too_many(workload, provider, most, facts))
}

/// Returns the user's variables in the model server's container that prevent the binding to its database; none if they
/// clearly mean another database.
#[must_use]
pub fn in_the_way(
    workload: &Workload,
    recognised: &Recognised,
    effective: &Effective,
    facts: &Facts,
    prior: &PriorBinding,
) -> Vec<String> {
    let wanted = settings(effective).filter(|(settings, _)| settings.is_wanted(workload));
    let (Some((settings, _)), Some(container)) = (wanted, &recognised.container) else { return Vec::new() };
    let reference = workload.reference();
    let binding = settings.provider(&reference, facts).binding(&reference, facts);
    match author_variables::problem(workload, container, &binding, settings, prior) {
        Some(Unbound::Impossible(_)) => author_variables::in_the_way(container, &binding, settings, prior),
        _ => Vec::new(),
    }
}

/// Returns an error if a namespace may have no further database. Existing databases stay, and workloads whose pods are
/// already bound take precedence.
fn too_many(workload: &Workload, provider: &dyn Provider, most: usize, facts: &Facts) -> Result<(), Problem> {
    let (reference, namespace) = (workload.reference(), workload.namespace());
    let made = facts.databases_made_in(namespace);
    let is_there = || facts.databases_of(&reference).next().is_some();
    if made >= most && !is_there() {
        let message = format!("namespace {namespace} has {made} databases, and the policy allows at most {most}");
        return Err((TOO_MANY, message));
    }
    let (free, before) = (most.saturating_sub(made), facts.awaiting_beside(&reference));
    let is_first =
        || is_there() || facts.awaiting.contains_key(&reference) || is_bound_to_own(workload, provider, facts);
    if before >= free && !is_first() {
        let message = format!(
            "namespace {namespace} has {made} databases, the policy allows at most {most}, and other workloads are \
             waiting for theirs ({before})"
        );
        return Err((TOO_MANY, message));
    }
    Ok(())
}

/// The reason if a namespace may have no further database.
const TOO_MANY: &str = "TooManyDatabases";

/// Returns whether the pods of a workload are bound to its database, even if that does not exist yet.
fn is_bound_to_own(workload: &Workload, provider: &dyn Provider, facts: &Facts) -> bool {
    let Some(api) = provider.makes() else { return false };
    let Binding { name, secret, .. } = provider.binding(&workload.reference(), facts);
    bound::is_bound_to(workload.template(), api, &name, workload.namespace(), Some(&secret))
}

/// The precedence of a workload in a namespace with a limited number of databases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precedence {
    /// The workload does not wait: it has its database, does not need one, or the number is not limited.
    #[default]
    Irrelevant,
    /// The workload's pods are bound to a database that does not exist yet. The value is the limit of the namespace.
    First(usize),
    /// The workload's pods are not bound to a database yet.
    Later,
}

impl Precedence {
    /// Returns the precedence of a workload with this planned database.
    pub(super) fn of(workload: &Workload, effective: &Effective, facts: &Facts, planned: &Wanted) -> Self {
        let bounded = settings(effective).and_then(|(settings, _)| Some((settings, settings.max_per_namespace?)));
        let Some((settings, most)) = bounded else { return Self::Irrelevant };
        let reference = workload.reference();
        let is_possible = matches!(planned, Wanted::Object(_) | Wanted::Impossible { reason: TOO_MANY, .. });
        if !is_possible || facts.databases_of(&reference).next().is_some() {
            return Self::Irrelevant;
        }
        let provider = settings.provider(&reference, facts);
        if is_bound_to_own(workload, provider, facts) { Self::First(most) } else { Self::Later }
    }
}

/// Plans the database of a workload.
fn wanted(asked: &Asked) -> Wanted {
    let Asked { workload, effective, facts, binding, .. } = asked;
    match (binding, settings(effective)) {
        (Err(Unbound::Impossible((reason, message))), _) => Wanted::Impossible { reason, message: message.clone() },
        (Err(Unbound::Elsewhere(message)), _) => Wanted::Elsewhere(message.clone()),
        (Ok(Some(_)), Some((settings, _))) => {
            let reference = workload.reference();
            let provider = settings.provider(&reference, facts);
            let object = provider.object(&reference, facts);
            if provider.makes().is_some() { Wanted::Object(object) } else { Wanted::Theirs(object) }
        }
        (Ok(_), _) => Wanted::Nothing,
    }
}

/// Returns an error if an object with this name exists that was not created for this workload.
pub(super) fn taken(api: &Api, name: &str, workload: &WorkloadRef, facts: &Facts) -> Option<Problem> {
    let found = facts.database(api.provider, &workload.namespace, name)?;
    let WorkloadRef { kind, name: of, .. } = workload;
    let (_, _, object) = api.kind;
    (!found.is_for(workload)).then(|| {
        let message = format!("{object} {name} already exists and was not created by Tidegate for {kind}/{of}");
        ("NameTaken", message)
    })
}

/// Returns the name of a workload's object: that of the existing one, if any; otherwise `name`, or `spare` if the
/// object of that name belongs to another workload, as those of earlier releases or other teams may.
pub(super) fn object_name(
    api: &Api,
    name: String,
    spare: impl Fn() -> String,
    workload: &WorkloadRef,
    facts: &Facts,
) -> String {
    if let Some(made) = made(api, &name, workload, facts) {
        return made.to_owned();
    }
    let found = facts.database(api.provider, &workload.namespace, &name);
    // If the name fits neither workload, it is more likely this one's, with an edited annotation, and has its data.
    let is_anothers = |(_, of): (&str, &str)| of == workload.name || names::is_cluster_of(&name, of);
    if found.and_then(Database::workload).is_some_and(is_anothers) { spare() } else { name }
}

/// Returns the name of the object that a provider created for a workload, if any; the one with `name` if there are
/// several.
fn made<'f>(api: &Api, name: &str, workload: &WorkloadRef, facts: &'f Facts) -> Option<&'f str> {
    let of_provider = || facts.databases_of(workload).filter(|found| found.provider == api.provider);
    of_provider().find(|found| found.name == name).or_else(|| of_provider().next()).map(|found| found.name)
}

/// The default number of instances of a database.
const fn one() -> i32 {
    1
}

/// Returns whether a text is a valid name for most objects.
fn is_dns_name(text: &str) -> bool {
    let is_end = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_label = |label: &str| {
        label.starts_with(is_end) && label.ends_with(is_end) && label.chars().all(|c| is_end(c) || c == '-')
    };
    text.len() <= 253 && text.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::Database;
    use crate::runtimes::Runtimes;
    use crate::testing::{facts, made_for, policies, reference, with_container, with_database, with_database_of};

    fn spec(more: &Value) -> Value {
        let zalando = json!({"teamId": "acid", "version": "17", "volume": {"size": "1Gi"}});
        let mut database =
            json!({"provider": "zalando", "zalando": zalando, "cloudNativePg": {"storage": {"size": "1Gi"}}});
        json_patch::merge(&mut database, more);
        json!({"database": database})
    }

    /// Plans the database of `ml/api` under a policy.
    fn planned(more: &Value, facts: &Facts) -> (Wanted, Option<Binding>) {
        let (policies, object) = (policies(&[("serving", spec(more))]), with_container(&json!({})));
        let workload = Workload::view(&object).unwrap();
        let effective = policies.resolve(&workload, facts).unwrap();
        let recognition = Runtimes::shipped().recognise(&workload);
        let prior = PriorBinding::default();
        let companions = crate::companions::wanted(&workload, &recognition.view(&workload), &effective, facts, &prior);
        (companions.of(&Databases).clone(), companions.binding)
    }

    fn kind(planned: &(Wanted, Option<Binding>)) -> &str {
        match &planned.0 {
            Wanted::Object(object) | Wanted::Theirs(object) => object["kind"].as_str().unwrap(),
            Wanted::Impossible { reason, .. } => reason,
            Wanted::Nothing | Wanted::Declined | Wanted::Harmful { .. } | Wanted::Elsewhere(_) => "nothing",
        }
    }

    fn variables(env: &Value, provider: &str) -> Vec<(String, String)> {
        let (_, binding) = planned(&json!({"provider": provider}), &facts());
        let env: DatabaseEnv = serde_json::from_value(env.clone()).unwrap();
        let describe = |variable: Variable| {
            let key = &variable.source["valueFrom"]["secretKeyRef"]["key"];
            let value = variable.source["value"].as_str().map_or_else(|| format!("key {key}"), str::to_owned);
            (variable.name, value)
        };
        binding.unwrap().variables(&env).into_iter().map(describe).collect()
    }

    #[test]
    fn reads_how_many_connections_a_database_accepts() {
        let read = |most: Value| {
            let spec = json!({"postgresql": {"parameters": {"max_connections": most}}});
            let object = json!({"apiVersion": "postgresql.cnpg.io/v1", "kind": "Cluster", "spec": spec});
            super::read(api_of(&object).unwrap(), &object).max_connections
        };
        assert_eq!((read(json!("200")), read(json!(100))), (Some(200), Some(100)));
        assert_eq!((read(json!("many")), read(json!(null))), (None, None));
    }

    #[test]
    fn puts_a_url_after_the_variables_that_it_refers_to() {
        insta::assert_debug_snapshot!(variables(&json!("url"), "zalando"), @r#"
        [
            (
                "PGUSER",
                "key \"username\"",
            ),
            (
                "PGPASSWORD",
                "key \"password\"",
            ),
            (
                "DATABASE_URL",
                "postgresql://$(PGUSER):$(PGPASSWORD)@acid-api:5432/api?sslmode=require",
            ),
        ]
        "#);
        let both = variables(&json!("both"), "zalando");
        assert_eq!(both.last().unwrap().1, "postgresql://$(PGUSER):$(PGPASSWORD)@acid-api:5432/api?sslmode=require");
        assert_eq!(both.len(), 7);
    }

    #[test]
    fn builds_a_url_from_the_configured_variables() {
        let mapping = json!({"A_URI": "uri", "B_USER": "user", "C_HOST": "host"});
        insta::assert_debug_snapshot!(variables(&mapping, "zalando"), @r#"
        [
            (
                "B_USER",
                "key \"username\"",
            ),
            (
                "C_HOST",
                "acid-api",
            ),
            (
                "PGPASSWORD",
                "key \"password\"",
            ),
            (
                "A_URI",
                "postgresql://$(B_USER):$(PGPASSWORD)@acid-api:5432/api?sslmode=require",
            ),
        ]
        "#);
    }

    #[test]
    fn a_url_from_a_secret_needs_no_other_variable() {
        insta::assert_debug_snapshot!(variables(&json!({"A_URI": "uri", "B_USER": "user"}), "cloudnative-pg"), @r#"
        [
            (
                "A_URI",
                "key \"uri\"",
            ),
            (
                "B_USER",
                "key \"username\"",
            ),
        ]
        "#);
    }

    #[test]
    fn keeps_the_provider_of_an_existing_database() {
        let (zalando, cloudnative_pg) = (DatabaseProvider::Zalando, DatabaseProvider::CloudNativePg);
        let with = |provider, name| with_database_of(provider, "ml", name, made_for("Deployment/api"));
        let there = [facts(), with(zalando, "acid-api"), with(cloudnative_pg, "db-api")];
        let secret = json!({"provider": "secret", "secret": {"name": "s", "keys": {"uri": "u"}}, "env": "url"});
        for (policy, kinds) in [
            (json!({}), ["postgresql", "postgresql", "Cluster"]),
            (json!({"provider": "cloudnative-pg"}), ["Cluster", "postgresql", "Cluster"]),
            (json!({"provider": "cloudnative-pg", "zalando": null}), ["Cluster", "postgresql", "Cluster"]),
            (json!({"cloudNativePg": null}), ["postgresql", "postgresql", "Cluster"]),
            (secret, ["Secret", "postgresql", "Cluster"]),
            (json!({"provider": "none"}), ["nothing", "nothing", "nothing"]),
        ] {
            let found: Vec<_> = there.iter().map(|facts| planned(&policy, facts)).collect();
            assert_eq!(found.iter().map(kind).collect::<Vec<_>>(), kinds, "{policy}");
        }
        let mut both = with(zalando, "acid-api");
        let inside = std::sync::Arc::make_mut(both.databases.get_mut("ml").unwrap());
        inside.insert((cloudnative_pg, "db-api".into()), made_for("Deployment/api"));
        assert_eq!(kind(&planned(&json!({"provider": "cloudnative-pg"}), &both)), "Cluster");
    }

    #[test]
    fn keeps_a_database_whose_settings_are_gone() {
        let facts = with_database("ml", "search-api", made_for("Deployment/api"));
        let (Wanted::Object(object), Some(binding)) =
            planned(&json!({"provider": "cloudnative-pg", "zalando": null}), &facts)
        else {
            panic!("the database is still wanted")
        };
        assert_eq!(object["spec"], json!({"users": {"api": []}, "databases": {"api": "api"}}));
        assert_eq!(binding.secret, "api.search-api.credentials.postgresql.acid.zalan.do");
    }

    #[test]
    fn limits_the_databases_of_a_namespace() {
        let at_most = |most: i32, facts: &Facts| {
            let planned = planned(&json!({"maxPerNamespace": most}), facts);
            assert_eq!(planned.1.is_some(), matches!(planned.0, Wanted::Object(_)));
            kind(&planned).to_owned()
        };
        let others = with_database("ml", "acid-web", made_for("Deployment/web"));
        let (own, foreign) = (
            with_database("ml", "acid-api", made_for("Deployment/api")),
            with_database("ml", "acid-web", Database::default()),
        );
        assert_eq!(at_most(1, &others), "TooManyDatabases");
        assert_eq!(at_most(2, &others), "postgresql");
        assert_eq!(at_most(0, &own), "postgresql", "it exists");
        assert_eq!(at_most(1, &foreign), "postgresql", "Tidegate did not create it");
        assert_eq!(at_most(1, &with_database("web", "acid-web", made_for("Deployment/web"))), "postgresql");
        assert_eq!(at_most(0, &facts()), "TooManyDatabases");
        let of_another_provider =
            with_database_of(DatabaseProvider::CloudNativePg, "ml", "db-web", made_for("Deployment/web"));
        assert_eq!(at_most(1, &of_another_provider), "TooManyDatabases");
        let (web, api) = (WorkloadRef { name: "web".into(), ..reference() }, reference());
        let awaited =
            |by: &WorkloadRef, most: usize, facts: Facts| Facts { awaiting: [(by.clone(), most)].into(), ..facts };
        assert_eq!(
            at_most(1, &awaited(&web, 1, facts())),
            "TooManyDatabases",
            "another is already bound to its database"
        );
        assert_eq!(at_most(2, &awaited(&web, 2, facts())), "postgresql", "the limit allows both");
        assert_eq!(at_most(1, &awaited(&web, 0, facts())), "postgresql", "the other may have none");
        assert_eq!(at_most(1, &awaited(&api, 1, facts())), "postgresql", "it is bound to its own");
        assert_eq!(at_most(2, &awaited(&web, 2, others)), "postgresql", "the other has its own by now");
        let secret = json!({"provider": "secret", "maxPerNamespace": 0, "secret": {"name": "s", "keys": {"uri": "u"}}, "env": "url"});
        assert_eq!(kind(&planned(&secret, &facts())), "Secret");
    }

    #[test]
    fn reports_the_reason_for_no_database() {
        let apis = Apis { zalando: false, ..Apis::all() };
        assert_eq!(kind(&planned(&json!({}), &Facts { apis, ..facts() })), "ProviderNotServed");
        let apis = Apis { cloudnative_pg: false, ..Apis::all() };
        let planned_with = |more: &Value| kind(&planned(more, &Facts { apis, ..facts() })).to_owned();
        assert_eq!(planned_with(&json!({"provider": "cloudnative-pg"})), "ProviderNotServed");
        assert_eq!(planned_with(&json!({})), "postgresql");
        let taken = with_database_of(DatabaseProvider::CloudNativePg, "ml", "db-api", made_for("Deployment/web"));
        assert_eq!(kind(&planned(&json!({"provider": "cloudnative-pg"}), &taken)), "NameTaken");
        assert_eq!(kind(&planned(&json!({}), &taken)), "postgresql");
        let offered = Facts { zalando_versions: ["16".to_owned()].into(), ..facts() };
        assert_eq!(kind(&planned(&json!({}), &offered)), "VersionNotOffered");
        let there = with_database("ml", "acid-api", made_for("Deployment/api"));
        let there = Facts { zalando_versions: ["16".to_owned()].into(), ..there };
        assert_eq!(kind(&planned(&json!({}), &there)), "postgresql", "it is there, in whatever version");
        assert_eq!(reference().name, "api");
    }
}
