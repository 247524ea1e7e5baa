//! ## What it checks
//! Updates after which an InferencePool no longer selects the pods.
//! ## Why it matters
//! The gateway stops sending requests to them once they are replaced. If no other pods are in the pool, it refuses all
//! requests.
//! ## Instead
//! Keep the labels that the pool selects; or change the selector of the pool in the same step.

use serde_json::{Map, Value, json};

use crate::api::Enforcement;
use crate::kind;
use crate::policy::{Context, Finding, Rule};
use crate::rules::{snippet, this_source};

/// Finds pods that leave their InferencePool.
#[derive(Debug)]
pub struct LeftPool;

impl Rule for LeftPool {
    fn id(&self) -> &'static str {
        "left-pool"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let workload = &context.workload;
        let Some(old) = context.old else { return Vec::new() };
        let (labels, before) = (&workload.template()["metadata"]["labels"], &old.template()["metadata"]["labels"]);
        let left = context.facts.pools_for(workload.namespace(), before).into_iter();
        let lost = before.as_object().into_iter().flatten().filter(|(key, value)| labels[*key] != **value);
        let lost: Map<String, Value> = lost.map(|(key, value)| (key.clone(), value.clone())).collect();
        let names = lost.iter().map(|(key, value)| format!("`{key}: {}`", value.as_str().unwrap_or_default()));
        let names = names.collect::<Vec<_>>().join(", ");
        let place = format!("{}.metadata.labels", kind::place(workload.template_pointer()));
        let finding = |name: &str| {
            Finding::at(&*place)
                .found(format!("labels without {names}, which InferencePool `{name}` does not select"))
                .expected("labels that it selects, as before")
                .fix(snippet(&json!({"spec": {"template": {"metadata": {"labels": lost}}}})))
        };
        left.filter(|(_, pool)| !pool.selector.selects(labels)).map(|(name, _)| finding(name)).collect()
    }
}
