//! The trait of rules, and their input.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value};

use super::{Effective, Expressions, Finding, PolicySet};
use crate::api::{Enforcement, ServingPolicySpec};
use crate::facts::{Facts, User};
use crate::runtimes::Recognised;
use crate::workload::{FieldOwnership, PriorBinding, Workload};

/// A check of model servers.
pub trait Rule: fmt::Debug + Send + Sync {
    /// Returns the id, which names the problem (`floating-tag`) and never changes.
    fn id(&self) -> &str;

    /// Returns the source code of the rule, whose module documentation explains it; empty for custom rules.
    fn source(&self) -> &'static str {
        ""
    }

    /// Returns the default enforcement.
    fn enforcement(&self) -> Enforcement {
        Enforcement::Enforce
    }

    /// Returns the rule with the parameters of a policy.
    ///
    /// # Errors
    /// Returns a message, to be printed after the path of the parameters.
    fn with_params(&self, params: &Map<String, Value>) -> Result<Arc<dyn Rule>, String> {
        let given: Vec<&str> = params.keys().map(String::as_str).collect();
        Err(format!("the rule takes no parameters; found {}", given.join(", ")))
    }

    /// Returns the rule as configured by other settings of a policy, or `None` if they do not configure it.
    fn for_policy(&self, _policy: &str, _spec: &ServingPolicySpec) -> Option<Arc<dyn Rule>> {
        None
    }

    /// Returns which workloads the rule checks.
    fn concerns(&self) -> Membership {
        Membership::Member
    }

    /// Returns whether the rule checks pods of any kind: those of every pod template of a workload, not only those of
    /// the model server.
    fn is_about_pods(&self) -> bool {
        false
    }

    /// Returns all violations of the workload.
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

    fn with_params(&self, params: &Map<String, Value>) -> Result<Arc<dyn Rule>, String> {
        (**self).with_params(params)
    }

    fn for_policy(&self, policy: &str, spec: &ServingPolicySpec) -> Option<Arc<dyn Rule>> {
        (**self).for_policy(policy, spec)
    }

    fn concerns(&self) -> Membership {
        (**self).concerns()
    }

    fn is_about_pods(&self) -> bool {
        (**self).is_about_pods()
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        (**self).check(context)
    }
}

/// Whether a workload is a model server, according to its labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// It is a model server.
    Member,
    /// It was a model server until this update.
    Leaving,
    /// It is not a model server and was not one before.
    Never,
}

/// The input of a rule.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Whether the workload is being created.
    pub is_new: bool,
    /// Whether the workload is a model server.
    pub membership: Membership,
    /// The workload as it would be stored.
    pub workload: Workload<'a>,
    /// For an update, the workload as stored.
    pub old: Option<Workload<'a>>,
    /// All policies, and the labels that select model servers.
    pub policies: &'a PolicySet,
    /// The merged policies of the workload.
    pub effective: &'a Effective,
    /// What is known of the cluster.
    pub facts: &'a Facts,
    /// The model server's container and runtime.
    pub recognised: &'a Recognised<'a>,
    /// The existing binding to its database.
    pub prior: &'a PriorBinding,
    /// What its author declared.
    pub ownership: &'a FieldOwnership<'a>,
    /// The user who sent the request.
    pub user: User<'a>,
    /// The time of evaluation.
    pub now: Timestamp,
    /// The input that custom rules share.
    pub expressions: &'a Expressions<'a>,
}
