//! Exceptions: which workloads may violate which rules, and until when.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::core::{ParseExpressionError, Selector, SelectorExt};

use super::compile::label_selector;
use super::{Builtin, text_map};
use crate::api::ServingException;
use crate::workload::Workload;

/// A compiled exception.
#[derive(Debug)]
pub struct Exception {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Why it exists.
    pub reason: String,
    names: BTreeSet<String>,
    selector: Option<Selector>,
    rules: BTreeSet<String>,
    created: Option<Timestamp>,
    expires: Timestamp,
}

/// Why an exception is invalid.
#[derive(Debug, thiserror::Error)]
pub enum ExceptionError {
    /// It has no name or no namespace.
    #[error("the exception has no metadata.name or no metadata.namespace")]
    Unnamed,
    /// It selects no workloads.
    #[error("spec.workloads: names or selector is required")]
    NoWorkloads,
    /// Its selector is invalid.
    #[error("spec.workloads.selector: invalid label selector")]
    Selector(#[source] ParseExpressionError),
}

/// The limits that the policies of a workload set for exceptions.
#[derive(Clone, Debug, Default)]
pub struct ExceptionLimits {
    /// The rules that allow no exceptions, each with the policy that sets this.
    pub(super) never: BTreeMap<String, String>,
    /// The maximum lifetime of an exception, counted from its creation.
    pub(super) longest: Option<SignedDuration>,
}

impl Exception {
    /// Compiles an exception. Unknown rules are accepted, since they may be custom rules of a policy.
    ///
    /// # Errors
    /// Returns an error with the invalid field.
    pub fn compile(written: &ServingException) -> Result<Self, ExceptionError> {
        let (metadata, spec) = (&written.metadata, &written.spec);
        let named = metadata.namespace.clone().zip(metadata.name.clone());
        let (namespace, name) = named.ok_or(ExceptionError::Unnamed)?;
        if spec.workloads.names.is_empty() && spec.workloads.selector.is_none() {
            return Err(ExceptionError::NoWorkloads);
        }
        let selector = spec.workloads.selector.clone().map(label_selector).transpose();
        Ok(Self {
            namespace,
            name,
            reason: spec.reason.clone(),
            names: spec.workloads.names.iter().cloned().collect(),
            selector: selector.map_err(ExceptionError::Selector)?,
            rules: spec.rules.iter().cloned().collect(),
            created: metadata.creation_timestamp.as_ref().map(|time| time.0),
            expires: spec.expires.0,
        })
    }

    /// Returns whether the exception applies to a workload of its namespace.
    #[must_use]
    pub fn is_for(&self, workload: &Workload) -> bool {
        let labels = || workload.labels().map(text_map).unwrap_or_default();
        self.names.contains(workload.name())
            || self.selector.as_ref().is_some_and(|selector| selector.matches(&labels()))
    }

    /// Returns whether the exception exempts a workload from a rule at a given time.
    #[must_use]
    pub fn exempts(&self, rule: &str, now: Timestamp, limits: &ExceptionLimits) -> bool {
        self.rules.contains(rule) && !limits.never.contains_key(rule) && now < self.until(limits)
    }

    /// Returns when the exception ends.
    #[must_use]
    pub fn until(&self, limits: &ExceptionLimits) -> Timestamp {
        let longest = self.created.zip(limits.longest).and_then(|(created, longest)| created.checked_add(longest).ok());
        longest.map_or(self.expires, |longest| longest.min(self.expires))
    }

    /// Returns the rules that it names.
    pub fn rules(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(String::as_str)
    }

    /// Returns the rules that it names that are not built in.
    pub fn unknown_rules<'e>(&'e self, builtin: &'e Builtin) -> impl Iterator<Item = &'e str> {
        self.rules().filter(|id| builtin.rule(id).is_none())
    }

    /// Returns when the exception expires, regardless of any limits.
    #[must_use]
    pub fn expires(&self) -> Timestamp {
        self.expires
    }
}
