//! Active policies without a cluster.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::sync::Arc;

use serde_json::Value;
use tidegate_engine::BUILTIN;
use tidegate_engine::api::ServingPolicy;
use tidegate_engine::policy::{Policy, PolicySet};

/// The label that makes a workload a model server.
pub(crate) const SCOPE: (&str, &str) = ("app.kubernetes.io/component", "model-server");

/// Returns a set with one active policy.
pub(crate) fn in_force(policy: &Value) -> PolicySet {
    all_in_force([policy])
}

/// Returns a set of active policies.
pub(crate) fn all_in_force<'p>(policies: impl IntoIterator<Item = &'p Value>) -> PolicySet {
    let compiled = policies.into_iter().map(|policy| {
        let policy: ServingPolicy = serde_json::from_value(policy.clone()).expect("a valid ServingPolicy");
        Arc::new(Policy::compile(&policy, &BUILTIN).expect("a valid policy"))
    });
    PolicySet::new([(SCOPE.0.to_owned(), SCOPE.1.to_owned())].into(), compiled.collect())
}
