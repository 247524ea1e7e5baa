//! ## What it checks
//! Workloads in a queue of Kueue (`kueue.x-k8s.io/queue-name`) whose pod template names another queue or, in a cluster,
//! none. In a file, none is right: Kueue copies the label to the template.
//! ## Why it matters
//! The label of the pods counts. Pods without it start at once and use what the queue has promised to others: Kueue
//! does not manage workloads of this kind, or not in this namespace. Another queue is replaced by that of the workload,
//! and whoever applies the template sees a difference each time.
//! ## Instead
//! Set the same queue on the workload and on the pod template.

use serde_json::json;

use crate::api::Enforcement;
use crate::kind;
use crate::policy::{Context, Finding, Rule};
use crate::rules::{snippet, this_source};
use crate::workload::QUEUE_LABEL;

/// Finds pods that are not in the queue of their workload.
#[derive(Debug)]
pub struct QueueNotOnPods;

impl Rule for QueueNotOnPods {
    fn id(&self) -> &'static str {
        "queue-not-on-pods"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let workload = &context.workload;
        let of_pods = workload.template()["metadata"]["labels"][QUEUE_LABEL].as_str();
        // Kueue's webhook has seen an object with a UID.
        let is_known = of_pods.is_some() || !workload.uid().is_empty();
        let found = workload.queue().filter(|queue| is_known && of_pods != Some(queue)).map(|queue| {
            let labels = json!({"metadata": {"labels": {QUEUE_LABEL: queue}}});
            let place = kind::place(workload.template_pointer());
            let found = of_pods.map_or_else(|| "nothing".to_owned(), |other| format!("`{other}`"));
            Finding::at(format!("{place}.metadata.labels[{QUEUE_LABEL}]"))
                .found(found)
                .expected(format!("`{queue}`, the queue of the workload"))
                .fix(snippet(&json!({"spec": {"template": labels}})))
        });
        found.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::decision::{Operation, Request, decide};
    use crate::testing::{facts, policies, with_container};
    use crate::workload::Workload;

    #[test]
    fn a_label_that_kueue_did_not_copy_is_reported_in_a_cluster() {
        let count = |uid: &str| {
            let mut object = with_container(&json!({}));
            object["metadata"]["uid"] = uid.into();
            object["metadata"]["labels"][QUEUE_LABEL] = "serving".into();
            let request = Request::new(Operation::Observe, Workload::view(&object).unwrap(), Timestamp::UNIX_EPOCH);
            let policies =
                policies(&[("serving", json!({"rules": {"queue-not-on-pods": {"enforcement": "enforce"}}}))]);
            let verdict = decide(&request, &policies, &facts()).verdict;
            verdict.violations.iter().filter(|violation| violation.rule == "queue-not-on-pods").count()
        };
        assert_eq!((count("0-1"), count("")), (1, 0));
    }
}
