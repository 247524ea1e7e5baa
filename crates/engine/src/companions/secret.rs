//! A database of somebody else's: its credentials are in a Secret that is there already. Tidegate makes nothing, and reads
//! no Secrets: it only names this one.

use serde_json::{Value, json};

use super::{Binding, Problem, Provider, Source};
use crate::facts::Facts;
use crate::policy::{SecretSettings, WORKLOAD};
use crate::workload::WorkloadRef;

/// Secrets that are there already, under one policy's settings.
pub struct Existing<'s> {
    /// The settings; a policy without them makes no sense.
    pub settings: Option<&'s SecretSettings>,
}

impl Existing<'_> {
    fn name(&self, workload: &WorkloadRef) -> String {
        self.settings.map(|settings| settings.name.replace(WORKLOAD, &workload.name)).unwrap_or_default()
    }
}

impl Provider for Existing<'_> {
    fn makes(&self) -> bool {
        false
    }

    fn api(&self) -> &'static str {
        "secrets"
    }

    fn is_served(&self, _: &Facts) -> bool {
        true
    }

    fn problem(&self, workload: &WorkloadRef, _: &Facts) -> Option<Problem> {
        let name = self.name(workload);
        let message = || format!("the name of its Secret would have {} characters, and 253 is the most", name.len());
        (name.len() > 253).then(|| ("NotBound", message()))
    }

    fn binding(&self, workload: &WorkloadRef, _: &Facts) -> Binding {
        let keys = self.settings.map(|settings| settings.keys.by_part()).unwrap_or_default();
        let parts = keys.into_iter().map(|(part, key)| (part, Source::Key(key.to_owned()))).collect();
        Binding { name: self.name(workload), secret: self.name(workload), parts }
    }

    fn object(&self, workload: &WorkloadRef, _: &Facts) -> Value {
        let metadata = json!({"name": self.name(workload), "namespace": workload.namespace});
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata})
    }
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
    fn the_secret_of_each_workload_is_named_and_its_keys_are_mapped() {
        let settings = settings("{workload}-database");
        let binding = Existing { settings: Some(&settings) }.binding(&reference(), &facts());
        assert_eq!((&*binding.name, &*binding.secret), ("api-database", "api-database"));
        assert_eq!(binding.parts[&DatabasePart::Host], Source::Key("address".to_owned()));
        let names: Vec<String> =
            binding.variables(&DatabaseEnv::Libpq).into_iter().map(|variable| variable.name).collect();
        assert_eq!(names, ["PGHOST", "PGDATABASE", "PGUSER", "PGPASSWORD"], "libpq has defaults for the others");
    }

    #[test]
    fn a_name_that_no_secret_can_have_is_a_problem() {
        let (long, settings) = (WorkloadRef { name: "a".repeat(250), ..reference() }, settings("{workload}-database"));
        let provider = Existing { settings: Some(&settings) };
        assert!(provider.problem(&long, &facts()).is_some());
        assert_eq!(provider.problem(&reference(), &facts()), None);
    }
}
