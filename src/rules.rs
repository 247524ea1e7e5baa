//! The rules that a model server is judged by, one file each. To add one: write its file, add it to [`ALL`], and add
//! `tests/cases/<subject>/<rule>/{bad,good,fixed}.yaml`.

pub mod annotations;
pub mod autoscaling;
pub mod custom;
pub mod images;
pub mod membership;
pub mod resources;
pub mod security;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::api::Enforcement;
use crate::facts::{Facts, User};
use crate::policy::{Effective, PolicySet};
use crate::runtimes::Recognised;
use crate::workload::{Container, Workload};

/// Every rule, in the order in which findings are told.
pub static ALL: &[&dyn Rule] = &[
    &membership::ModelServerLabelRemoved,
    &images::FloatingTag { tags: Vec::new() },
    &resources::MissingMemoryLimit,
    &resources::ResourcesOutOfBounds { bounds: BTreeMap::new(), policy: String::new() },
    &security::PrivilegedContainer,
    &autoscaling::ReplicasUnderAutoscaler,
    &annotations::AnnotationOutOfBounds,
];

/// One thing that a model server can get wrong.
pub trait Rule: fmt::Debug + Send + Sync {
    /// Returns the name of what was found, such that "allow floating-tag" reads as English. It never changes.
    fn id(&self) -> &str;

    /// Returns the source of the rule, whose front page explains it; empty for a policy's own.
    fn source(&self) -> &'static str {
        ""
    }

    /// Returns how strict the rule is where no policy says.
    fn enforcement(&self) -> Enforcement {
        Enforcement::Enforce
    }

    /// Returns the rule with parameters, as a policy gives them.
    ///
    /// # Errors
    /// Says what is wrong with them, in a sentence that follows their place.
    fn with(&self, params: &Map<String, Value>) -> Result<Arc<dyn Rule>, String> {
        let given: Vec<&str> = params.keys().map(String::as_str).collect();
        Err(format!("the rule takes no parameters; found {}", given.join(", ")))
    }

    /// Tells whether the rule judges a workload that is a model server no longer: the others have nothing to say of it.
    fn is_about_leaving(&self) -> bool {
        false
    }

    /// Returns every place where the workload gets it wrong.
    fn check(&self, context: &Context) -> Vec<Finding>;
}

impl<R: Rule + ?Sized> Rule for &'static R {
    fn id(&self) -> &str {
        (**self).id()
    }

    fn source(&self) -> &'static str {
        (**self).source()
    }

    fn enforcement(&self) -> Enforcement {
        (**self).enforcement()
    }

    fn with(&self, params: &Map<String, Value>) -> Result<Arc<dyn Rule>, String> {
        (**self).with(params)
    }

    fn is_about_leaving(&self) -> bool {
        (**self).is_about_leaving()
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        (**self).check(context)
    }
}

/// Returns the page of a rule: the front page of its source.
#[must_use]
pub fn page(rule: &dyn Rule) -> String {
    let lines = rule.source().lines().map_while(|line| line.strip_prefix("//!"));
    lines.map(|line| line.strip_prefix(' ').unwrap_or(line).to_owned() + "\n").collect()
}

/// The source of the file in which this stands.
macro_rules! this_source {
    () => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/", file!()))
    };
}
pub(crate) use this_source;

/// Reads the parameters of a rule into the rule itself.
fn parameters<R: Rule + DeserializeOwned + 'static>(params: &Map<String, Value>) -> Result<Arc<dyn Rule>, String> {
    match R::deserialize(&Value::Object(params.clone())) {
        Ok(rule) => Ok(Arc::new(rule)),
        Err(error) => Err(error.to_string()),
    }
}

/// Returns the built-in rule of this name.
#[must_use]
pub fn named(id: &str) -> Option<&'static dyn Rule> {
    ALL.iter().copied().find(|rule| rule.id() == id)
}

/// What a rule reads.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Whether the workload is being made.
    pub is_new: bool,
    /// Whether the workload is a model server no longer.
    pub is_leaving: bool,
    /// The workload as it would be stored.
    pub workload: Workload<'a>,
    /// The workload as it is stored, for an update.
    pub old: Option<Workload<'a>>,
    /// All policies, and which workloads are model servers at all.
    pub policies: &'a PolicySet,
    /// The policies that are for the workload.
    pub effective: &'a Effective,
    /// What is known of the cluster.
    pub facts: &'a Facts,
    /// The model server's container and runtime.
    pub recognised: &'a Recognised<'a>,
    /// Who asks.
    pub user: User<'a>,
    /// When it is judged.
    pub now: Timestamp,
}

impl Context<'_> {
    /// Returns the same for the workload as it was before an update.
    pub(crate) fn before(&self) -> Option<Self> {
        self.old.map(|old| Self { is_new: false, workload: old, old: None, ..*self })
    }
}

/// One place where a workload gets something wrong, with what to write instead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Finding {
    /// The field, as a person would write it: `spec.template.spec.containers[0].image`.
    pub place: String,
    /// The container that it is about; empty where it is about the workload.
    pub subject: String,
    /// The field within the subject, whatever place that has in a list.
    pub field: String,
    /// What is there.
    pub found: String,
    /// What should be.
    pub expected: String,
    /// YAML to paste at `place` or above it.
    pub instead: String,
}

impl Finding {
    /// Starts a finding about a field of the workload.
    fn at(place: impl Into<String>) -> Self {
        let place = place.into();
        Self { field: place.clone(), place, ..Self::default() }
    }

    /// Starts a finding about a field of a container.
    fn in_container(container: &Container, field: &str) -> Self {
        let (place, subject) = (container.place(field), container.name().to_owned());
        Self { place, subject, field: field.to_owned(), ..Self::default() }
    }

    fn found(self, found: impl Into<String>) -> Self {
        Self { found: found.into(), ..self }
    }

    fn expected(self, expected: impl Into<String>) -> Self {
        Self { expected: expected.into(), ..self }
    }

    fn instead(self, instead: impl Into<String>) -> Self {
        Self { instead: instead.into(), ..self }
    }
}
