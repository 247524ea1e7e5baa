//! An existing database, with its credentials in an existing Secret. Tidegate creates nothing and reads no Secrets: it
//! only refers to this one.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Binding, Problem, Provider, ProviderKind, Source, WORKLOAD, is_dns_name};
use crate::api::{DatabaseEnv, DatabaseKeys, DatabasePart, DatabaseProvider};
use crate::facts::Facts;
use crate::workload::WorkloadRef;

/// The provider.
pub(crate) const KIND: ProviderKind = ProviderKind {
    provider: DatabaseProvider::Secret,
    field: "secret",
    needs: "provider secret needs name and keys",
    read: |written| {
        Ok(Arc::new(Existing {
            settings: written.map(serde_json::from_value).transpose().map_err(|error| error.to_string())?,
        }))
    },
    api: None,
};

/// The settings of provider `secret`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SecretSettings {
    /// The Secret's name, which may contain [`WORKLOAD`].
    pub name: String,
    /// The keys of the parts.
    pub keys: DatabaseKeys,
}

/// Existing Secrets, under one policy's settings.
#[derive(Debug)]
pub(crate) struct Existing {
    /// The settings, which are required.
    pub settings: Option<SecretSettings>,
}

impl Existing {
    fn name(&self, workload: &WorkloadRef) -> String {
        self.settings.as_ref().map(|settings| settings.name.replace(WORKLOAD, &workload.name)).unwrap_or_default()
    }
}

impl Provider for Existing {
    fn check(&self, env: &DatabaseEnv) -> Result<(), String> {
        self.settings.as_ref().map_or(Ok(()), |settings| check(settings, env))
    }

    fn api(&self) -> &'static str {
        "secrets"
    }

    fn is_served(&self, _: &Facts) -> bool {
        true
    }

    fn problem(&self, workload: &WorkloadRef, _: &Facts) -> Option<Problem> {
        let name = self.name(workload);
        let message =
            || format!("the name of its Secret would have {} characters; at most 253 are allowed", name.len());
        (name.len() > 253).then(|| ("NotBound", message()))
    }

    fn binding(&self, workload: &WorkloadRef, _: &Facts) -> Binding {
        let keys = self.settings.as_ref().map(|settings| settings.keys.by_part()).unwrap_or_default();
        let parts = keys.into_iter().map(|(part, key)| (part, Source::Key(key.to_owned()))).collect();
        Binding { name: self.name(workload), secret: self.name(workload), parts }
    }

    fn object(&self, workload: &WorkloadRef, _: &Facts) -> Value {
        let metadata = json!({"name": self.name(workload), "namespace": workload.namespace});
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata})
    }
}

fn check(settings: &SecretSettings, env: &DatabaseEnv) -> Result<(), String> {
    let named = settings.name.replace(WORKLOAD, "a");
    if !is_dns_name(&named) {
        return Err(format!(
            ".name: invalid Secret name `{}`: must be lower-case letters, digits, `-`, `.` and `{WORKLOAD}`",
            settings.name
        ));
    }
    let keys = settings.keys.by_part();
    let is_fine = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if let Some((part, key)) = keys.iter().find(|(_, key)| key.is_empty() || !key.chars().all(is_fine)) {
        return Err(format!(".keys.{}: invalid Secret key `{key}`", part.name()));
    }
    // libpq has defaults for these.
    let has_default = |part: DatabasePart| {
        !matches!(env, DatabaseEnv::Mapping(_)) && matches!(part, DatabasePart::Port | DatabasePart::SslMode)
    };
    let variables = env.variables();
    let missing = variables.iter().find(|(_, part)| !keys.contains_key(part) && !has_default(*part));
    missing.map_or(Ok(()), |(variable, part)| {
        Err(format!(".keys: no key for {}, which the variable {variable} needs", part.name()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{DatabaseEnv, DatabasePart};
    use crate::testing::{facts, reference};

    fn settings(name: &str) -> SecretSettings {
        let keys = json!({"host": "address", "user": "login", "password": "pw", "database": "db"});
        serde_json::from_value(json!({"name": name, "keys": keys})).unwrap()
    }

    #[test]
    fn names_the_secret_of_each_workload_and_maps_its_keys() {
        let settings = settings("{workload}-database");
        let binding = Existing { settings: Some(settings.clone()) }.binding(&reference(), &facts());
        assert_eq!((&*binding.name, &*binding.secret), ("api-database", "api-database"));
        assert_eq!(binding.parts[&DatabasePart::Host], Source::Key("address".to_owned()));
        let names: Vec<String> =
            binding.variables(&DatabaseEnv::Libpq).into_iter().map(|variable| variable.name).collect();
        assert_eq!(names, ["PGHOST", "PGDATABASE", "PGUSER", "PGPASSWORD"], "libpq has defaults for the others");
    }

    #[test]
    fn rejects_names_that_are_too_long() {
        let (long, settings) = (WorkloadRef { name: "a".repeat(250), ..reference() }, settings("{workload}-database"));
        let provider = Existing { settings: Some(settings.clone()) };
        assert!(provider.problem(&long, &facts()).is_some());
        assert_eq!(provider.problem(&reference(), &facts()), None);
    }
}
