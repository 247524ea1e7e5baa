//! The objects that belong to a model server: its autoscaler, its disruption budget and its database. Each is planned here, purely; the
//! controller makes and keeps them once the workload is stored.

mod hpa;
mod keda;
pub mod names;
mod pdb;
mod scaling;
pub mod zalando;

use serde_json::{Value, json};

use crate::facts::{Facts, WorkloadRef};
use crate::policy::Effective;
use crate::runtimes::Recognised;
use crate::workload::Workload;
use scaling::Scaling;

/// Label on everything that Tidegate makes.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";

/// The value of that label, and Tidegate's field manager.
pub const MANAGER: &str = "tidegate";

/// Annotation on a companion: the kind and name of the workload that it was made for, such as `Deployment/api`.
pub const WORKLOAD_ANNOTATION: &str = "tidegate.dev/workload";

/// Annotation on an autoscaler: the digest of what Tidegate applied.
const APPLIED_ANNOTATION: &str = "tidegate.dev/applied";

/// The objects that a model server should have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Companions {
    /// Its autoscaler.
    pub autoscaler: Wanted,
    /// Its PodDisruptionBudget.
    pub budget: Wanted,
    /// Its database.
    pub database: Wanted,
}

/// Whether a companion should be there.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Wanted {
    /// No policy asks for one.
    #[default]
    Nothing,
    /// This one.
    Object(Value),
    /// A policy asks for one, but it cannot be had.
    Impossible {
        /// One word for why, as a condition has it.
        reason: &'static str,
        /// A sentence for people.
        message: String,
    },
}

/// Why a companion cannot be had: one word, as a condition has it, and a sentence for people.
pub type Problem = (&'static str, String);

/// A provider of databases.
pub trait Provider {
    /// Returns the API that it offers, for people.
    fn api(&self) -> &'static str;

    /// Tells whether the cluster serves that API.
    fn is_served(&self, facts: &Facts) -> bool;

    /// Tells what stands in the way of a database for this workload.
    fn problem(&self, workload: &WorkloadRef, facts: &Facts) -> Option<String>;

    /// Returns how the workload reaches its database. The names in it never change from release to release, for that
    /// would leave the data behind.
    fn binding(&self, workload: &WorkloadRef, facts: &Facts) -> Binding;

    /// Returns the object that makes the provider create the database.
    fn object(&self, workload: &WorkloadRef, facts: &Facts) -> Value;
}

/// How a workload reaches its database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// The name of the provider's object.
    pub name: String,
    /// The host.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The database on that host.
    pub database: String,
    /// The `sslmode` of libpq.
    pub ssl_mode: &'static str,
    /// The Secret with the credentials.
    pub secret: String,
    /// The Secret's key for the user.
    pub user_key: &'static str,
    /// The Secret's key for the password.
    pub password_key: &'static str,
}

impl Binding {
    /// Returns the environment variables of libpq, each with where its value comes from.
    #[must_use]
    pub fn variables(&self) -> Vec<(&'static str, Value)> {
        let secret = |key: &str| json!({"valueFrom": {"secretKeyRef": {"name": self.secret, "key": key}}});
        let value = |value: &str| json!({"value": value});
        vec![
            ("PGHOST", value(&self.host)),
            ("PGPORT", value(&self.port.to_string())),
            ("PGDATABASE", value(&self.database)),
            ("PGUSER", secret(self.user_key)),
            ("PGPASSWORD", secret(self.password_key)),
            ("PGSSLMODE", value(self.ssl_mode)),
        ]
    }
}

/// Plans the companions of a workload.
#[must_use]
pub fn wanted(workload: &Workload, recognised: &Recognised, effective: &Effective, facts: &Facts) -> Companions {
    if workload.name().is_empty() {
        return Companions::default();
    }
    let scaling = Scaling::of(workload, recognised, effective, facts);
    Companions {
        autoscaler: scaling.map(|scaling| scaling.wanted()).unwrap_or_default(),
        budget: pdb::wanted(workload, effective, facts),
        database: database(workload, recognised, effective, facts),
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
    let (provider, reference) = (settings.provider(), workload.reference());
    if workload.has_generated_name() {
        let message = "its name follows from the workload's, which `generateName` leaves open";
        return Err(("NotBound", message.to_owned()));
    }
    if !provider.is_served(facts) {
        return Err(("ProviderNotServed", format!("the cluster does not serve {}", provider.api())));
    }
    if let Some(message) = provider.problem(&reference, facts) {
        return Err(("NameTaken", message));
    }
    recognised.server().map_err(|message| ("NotBound", message))?;
    Ok(Some(provider.binding(&reference, facts)))
}

/// Returns why the autoscaler that a policy asks for cannot be had, in a sentence.
#[must_use]
pub fn autoscaler_problem(
    workload: &Workload,
    recognised: &Recognised,
    effective: &Effective,
    facts: &Facts,
) -> Option<String> {
    let scaling = Scaling::of(workload, recognised, effective, facts).filter(|_| !workload.name().is_empty())?;
    scaling.problem()
}

/// Returns the reference by which a companion is its workload's, and goes with it.
fn owner(workload: &Workload) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": workload.kind(), "name": workload.name(), "uid": workload.uid(),
        "controller": true, "blockOwnerDeletion": true
    })
}

fn database(workload: &Workload, recognised: &Recognised, effective: &Effective, facts: &Facts) -> Wanted {
    match binding(workload, recognised, effective, facts) {
        Err((reason, message)) => Wanted::Impossible { reason, message },
        Ok(binding) => match effective.database().filter(|_| binding.is_some()) {
            Some((settings, _)) => Wanted::Object(settings.provider().object(&workload.reference(), facts)),
            None => Wanted::Nothing,
        },
    }
}

/// Tells whether everything that is wanted is there; what else is there does not matter.
#[must_use]
pub fn contains(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => {
            wanted.iter().all(|(field, value)| found.get(field).is_some_and(|found| contains(found, value)))
        }
        (Value::Array(found), Value::Array(wanted)) => {
            found.len() == wanted.len() && found.iter().zip(wanted).all(|(found, wanted)| contains(found, wanted))
        }
        _ => found == wanted,
    }
}
