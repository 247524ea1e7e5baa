//! The database of a model server: who provides it, and how the model server reaches it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Problem, Wanted, cloudnative_pg, zalando};
use crate::api::{DatabaseEnv, DatabasePart, DatabaseProvider};
use crate::facts::{Apis, Database, Facts, WorkloadRef};
use crate::policy::Effective;
use crate::runtimes::Recognised;
use crate::workload::Workload;

/// A provider of databases.
pub trait Provider {
    /// Tells whether it makes databases; another's are there already.
    fn makes(&self) -> bool {
        true
    }

    /// Returns the API that it offers, for people.
    fn api(&self) -> &'static str;

    /// Tells whether the cluster serves that API.
    fn is_served(&self, facts: &Facts) -> bool;

    /// Tells what stands in the way of a database for this workload.
    fn problem(&self, workload: &WorkloadRef, facts: &Facts) -> Option<Problem>;

    /// Returns how the workload reaches its database. The names in it never change from release to release, for that
    /// would leave the data behind.
    fn binding(&self, workload: &WorkloadRef, facts: &Facts) -> Binding;

    /// Returns the object that makes the provider create the database; of one that makes none, the object that is there.
    fn object(&self, workload: &WorkloadRef, facts: &Facts) -> Value;
}

/// The objects that a provider makes databases of.
#[derive(Debug)]
pub struct Api {
    /// The provider.
    pub provider: DatabaseProvider,
    /// The name of the definition of the objects.
    pub definition: &'static str,
    /// Their group, version and kind.
    pub kind: (&'static str, &'static str, &'static str),
    /// Returns what notes that the API is served.
    pub served: fn(&mut Apis) -> &mut bool,
    /// Reads what decisions know of an object, whoever made it.
    pub read: fn(&Value) -> Database,
    /// Reads what the provider says of an object.
    pub health: fn(&Value) -> Health,
}

/// The objects of each provider that makes databases.
pub const APIS: [&Api; 2] = [&zalando::API, &cloudnative_pg::API];

/// What a provider says of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Whether it can be used, as far as the provider says.
    pub is_ready: bool,
    /// One word for it, as a condition has it.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
    /// What the provider calls it; none where it has said nothing yet.
    pub phase: Option<String>,
}

impl Health {
    /// Tells what a provider says of a database in one word or sentence; none where it has said nothing.
    pub(super) fn of(is_ready: bool, reason: &str, phase: Option<&str>) -> Self {
        let Some(phase) = phase.filter(|phase| !phase.is_empty()) else {
            let message = "its operator has not looked at it yet: does it run?".to_owned();
            return Self { is_ready: false, reason: "Pending".to_owned(), message, phase: None };
        };
        let message =
            if is_ready { "its operator says that it runs".to_owned() } else { format!("its operator says {phase}") };
        Self { is_ready, reason: reason.to_owned(), message, phase: Some(phase.to_owned()) }
    }
}

/// Returns what its provider says of a database.
#[must_use]
pub fn health(database: &Value) -> Health {
    let health = api_of(database).map(|api| (api.health)(database));
    health.unwrap_or_else(|| Health::of(false, "", None))
}

/// Returns the API that an object is of; none where that is no provider's.
#[must_use]
pub fn api_of(object: &Value) -> Option<&'static Api> {
    APIS.into_iter().find(|api| {
        let (group, version, kind) = api.kind;
        object["kind"] == kind && object["apiVersion"] == format!("{group}/{version}")
    })
}

/// How a workload reaches its database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The name of the provider's object, or of the Secret that is there already.
    pub name: String,
    /// The Secret with the credentials.
    pub secret: String,
    /// Where each part comes from.
    pub parts: BTreeMap<DatabasePart, Source>,
}

/// Where a part of a binding comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// It is this.
    Value(String),
    /// It is in the Secret, under this key.
    Key(String),
    /// It is an address of this host, port and database, with user and password before it, which only their variables
    /// tell.
    Address(String),
}

/// An environment variable of a binding.
#[derive(Clone, Debug, PartialEq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Its `value` or `valueFrom`.
    pub source: Value,
    /// The variables that its value is put together from: they stand before it.
    pub of: Vec<String>,
}

impl Binding {
    /// Returns the environment variables, each with where its value comes from. Parts that the provider does not tell are
    /// left out.
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
        // A variable sees only those before it.
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

/// Returns how a workload reaches the database that a policy gives it; none where no policy asks for one.
///
/// # Errors
/// Says in a word and in a sentence why it can have none.
pub fn binding(
    workload: &Workload,
    recognised: &Recognised,
    effective: &Effective,
    facts: &Facts,
) -> Result<Option<Binding>, Problem> {
    let Some((settings, _)) = effective.database().filter(|(settings, _)| settings.is_wanted(workload)) else {
        return Ok(None);
    };
    let reference = workload.reference();
    let provider = settings.provider(&reference, facts);
    if workload.has_generated_name() {
        let message = "its name follows from the workload's, which `generateName` leaves open";
        return Err(("NotBound", message.to_owned()));
    }
    if !provider.is_served(facts) {
        return Err(("ProviderNotServed", format!("the cluster does not serve {}", provider.api())));
    }
    if let Some(problem) = provider.problem(&reference, facts) {
        return Err(problem);
    }
    if let Some(most) = settings.max_per_namespace.filter(|_| provider.makes()) {
        too_many(&reference, most, facts)?;
    }
    recognised.server().map_err(|message| ("NotBound", message))?;
    Ok(Some(provider.binding(&reference, facts)))
}

/// Says why no further database is made in a namespace. One that is there stays.
fn too_many(workload: &WorkloadRef, most: usize, facts: &Facts) -> Result<(), Problem> {
    let made = facts.databases_made_in(&workload.namespace);
    if made < most || facts.databases_of(workload).next().is_some() {
        return Ok(());
    }
    let message = format!("namespace {} has {made} databases, and the policy's most is {most}", workload.namespace);
    Err(("TooManyDatabases", message))
}

/// Plans the database of a workload, and returns how the workload reaches it.
pub(super) fn wanted(
    workload: &Workload,
    recognised: &Recognised,
    effective: &Effective,
    facts: &Facts,
) -> (Wanted, Option<Binding>) {
    match (binding(workload, recognised, effective, facts), effective.database()) {
        (Err((reason, message)), _) => (Wanted::Impossible { reason, message }, None),
        (Ok(Some(binding)), Some((settings, _))) => {
            let reference = workload.reference();
            let provider = settings.provider(&reference, facts);
            let object = provider.object(&reference, facts);
            let wanted = if provider.makes() { Wanted::Object(object) } else { Wanted::Theirs(object) };
            (wanted, Some(binding))
        }
        (Ok(_), _) => (Wanted::Nothing, None),
    }
}

/// Returns why a name cannot be taken: an object has it that was not made for this workload.
pub(super) fn taken(api: &Api, name: &str, workload: &WorkloadRef, facts: &Facts) -> Option<Problem> {
    let found = facts.database(api.provider, &workload.namespace, name)?;
    let WorkloadRef { kind, name: of, .. } = workload;
    let (_, _, object) = api.kind;
    (!found.is_for(workload)).then(|| {
        let message = format!("{object} {name} is there already and was not made by tidegate for {kind}/{of}");
        ("NameTaken", message)
    })
}

/// Returns the name of the object that a provider has made for a workload; none where there is none. Of several, one of
/// this name comes first.
pub(super) fn made<'f>(api: &Api, name: &str, workload: &WorkloadRef, facts: &'f Facts) -> Option<&'f str> {
    let of_provider = || facts.databases_of(workload).filter(|found| found.provider == api.provider);
    of_provider().find(|found| found.name == name).or_else(|| of_provider().next()).map(|found| found.name)
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
        wanted(&workload, &Runtimes::shipped().recognise(&workload), &effective, facts)
    }

    fn kind(planned: &(Wanted, Option<Binding>)) -> &str {
        match &planned.0 {
            Wanted::Object(object) | Wanted::Theirs(object) => object["kind"].as_str().unwrap(),
            Wanted::Impossible { reason, .. } => reason,
            Wanted::Nothing | Wanted::Declined => "nothing",
        }
    }

    fn variables(env: &Value, provider: &str) -> Vec<(String, String)> {
        let (_, binding) = planned(&json!({"provider": provider}), &facts());
        let env: DatabaseEnv = serde_json::from_value(env.clone()).unwrap();
        let told = |variable: Variable| {
            let key = &variable.source["valueFrom"]["secretKeyRef"]["key"];
            let value = variable.source["value"].as_str().map_or_else(|| format!("key {key}"), str::to_owned);
            (variable.name, value)
        };
        binding.unwrap().variables(&env).into_iter().map(told).collect()
    }

    #[test]
    fn an_address_is_put_together_after_what_it_is_put_together_from() {
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
    fn an_address_is_put_together_from_the_variables_that_there_are() {
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
    fn an_address_that_a_secret_has_needs_no_other_variable() {
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
    fn a_database_stays_with_its_provider() {
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
    fn what_a_policy_no_longer_says_of_a_database_is_not_asked_of_it() {
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
    fn no_more_are_made_than_a_namespace_may_have() {
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
        assert_eq!(at_most(0, &own), "postgresql", "it is there");
        assert_eq!(at_most(1, &foreign), "postgresql", "tidegate did not make it");
        assert_eq!(at_most(1, &with_database("web", "acid-web", made_for("Deployment/web"))), "postgresql");
        assert_eq!(at_most(0, &facts()), "TooManyDatabases");
        let of_another_provider =
            with_database_of(DatabaseProvider::CloudNativePg, "ml", "db-web", made_for("Deployment/web"));
        assert_eq!(at_most(1, &of_another_provider), "TooManyDatabases");
        let secret = json!({"provider": "secret", "maxPerNamespace": 0, "secret": {"name": "s", "keys": {"uri": "u"}}, "env": "url"});
        assert_eq!(kind(&planned(&secret, &facts())), "Secret");
    }

    #[test]
    fn one_word_says_why_there_can_be_none() {
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
