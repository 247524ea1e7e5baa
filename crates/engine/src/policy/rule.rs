//! What a rule is, and what it reads.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value};

use super::{Effective, Expressions, Finding, PolicySet};
use crate::api::{Enforcement, ServingPolicySpec};
use crate::facts::{Facts, User};
use crate::runtimes::Recognised;
use crate::workload::{FieldOwnership, PriorBinding, Workload};

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
    fn with_params(&self, params: &Map<String, Value>) -> Result<Arc<dyn Rule>, String> {
        let given: Vec<&str> = params.keys().map(String::as_str).collect();
        Err(format!("the rule takes no parameters; found {}", given.join(", ")))
    }

    /// Returns the rule as the other settings of a policy have it; none where they say nothing of it.
    fn for_policy(&self, _policy: &str, _spec: &ServingPolicySpec) -> Option<Arc<dyn Rule>> {
        None
    }

    /// Returns which workloads the rule judges.
    fn concerns(&self) -> Membership {
        Membership::Member
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

    fn with_params(&self, params: &Map<String, Value>) -> Result<Arc<dyn Rule>, String> {
        (**self).with_params(params)
    }

    fn for_policy(&self, policy: &str, spec: &ServingPolicySpec) -> Option<Arc<dyn Rule>> {
        (**self).for_policy(policy, spec)
    }

    fn concerns(&self) -> Membership {
        (**self).concerns()
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        (**self).check(context)
    }
}

/// Whether a workload is a model server, as far as labels say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Membership {
    /// It is one.
    Member,
    /// It was one until this update.
    Leaving,
    /// It is none, and was none.
    Never,
}

/// What a rule reads.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Whether the workload is being made.
    pub is_new: bool,
    /// Whether the workload is a model server.
    pub membership: Membership,
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
    /// How its database was bound so far.
    pub prior: &'a PriorBinding,
    /// What its author declared.
    pub ownership: &'a FieldOwnership<'a>,
    /// Who asks.
    pub user: User<'a>,
    /// When it is judged.
    pub now: Timestamp,
    /// What custom rules share.
    pub expressions: &'a Expressions<'a>,
}
