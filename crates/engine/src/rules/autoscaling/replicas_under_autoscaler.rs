//! ## What it checks
//! A new workload whose manifest sets `spec.replicas` although an autoscaler will set them.
//! ## Why it matters
//! Every `kubectl apply` of that manifest asks for the written number again. Tidegate keeps the live one then, but
//! server-side apply stops with a conflict before Tidegate is asked, and GitOps tools report a difference for ever.
//! ## Instead
//! Leave `spec.replicas` out of the manifest.

use crate::api::Enforcement;
use crate::companions;
use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;
use crate::workload::is_set_by_author;

/// Finds manifests that set what an autoscaler sets.
#[derive(Debug)]
pub struct ReplicasUnderAutoscaler;

impl Rule for ReplicasUnderAutoscaler {
    fn id(&self) -> &'static str {
        "replicas-under-autoscaler"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let Some(replicas) = context.workload.replicas().filter(|_| context.is_new) else { return Vec::new() };
        // The API server fills in 1, so a 1 counts only where somebody is known to have written it.
        if !is_scaled(context) || (replicas == 1 && !is_set_by_author(&context.workload, &["spec", "replicas"])) {
            return Vec::new();
        }
        let finding = Finding::at("spec.replicas").found(format!("`{replicas}`"));
        vec![finding.expected("nothing, since an autoscaler sets it").fix("# remove spec.replicas")]
    }
}

/// Tells whether the workload has an autoscaler, or gets one that can be had.
fn is_scaled(context: &Context) -> bool {
    let Context { workload, recognised, effective, facts, .. } = context;
    !facts.autoscalers_of(&workload.reference()).is_empty()
        || (companions::autoscaler::settings(effective).is_some_and(|settings| settings.is_wanted(workload))
            && companions::autoscaler_problem(workload, recognised, effective, facts).is_none())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use serde_json::{Value, json};

    use crate::decision::{Operation, Request, User, decide};
    use crate::facts::{Apis, Facts};
    use crate::testing::{deployment, facts, policies, scaled};
    use crate::workload::Workload;

    fn of(replicas: i64) -> Value {
        let mut object = deployment(&json!([]));
        object["spec"]["replicas"] = replicas.into();
        object
    }

    fn warns(object: &Value, old: Option<&Value>, facts: &Facts) -> bool {
        let operation = if old.is_some() { Operation::Update } else { Operation::Create };
        let (workload, old) = (Workload::view(object).unwrap(), old.map(|old| Workload::view(old).unwrap()));
        let request = Request { operation, workload, old, user: User::named("jane"), now: Timestamp::UNIX_EPOCH };
        !decide(&request, &policies(&[("serving", json!({}))]), facts).verdict.warnings.is_empty()
    }

    #[test]
    fn an_autoscaler_that_somebody_else_made_counts() {
        assert!(warns(&of(3), None, &scaled(1, 4)));
        assert!(!warns(&of(3), None, &facts()));
    }

    #[test]
    fn an_autoscaler_counts_only_where_it_can_be_had() {
        let scaling = |metric: Value| json!({"autoscaling": {"maxReplicas": 4, "metrics": [metric]}});
        let unserved = Facts { apis: Apis::default(), ..facts() };
        let asks = |replicas: i64, metric: Value| {
            let object = of(replicas);
            let workload = Workload::view(&object).unwrap();
            let operation = Operation::Create;
            let request =
                Request { operation, workload, old: None, user: User::named("jane"), now: Timestamp::UNIX_EPOCH };
            let verdict = decide(&request, &policies(&[("serving", scaling(metric))]), &unserved).verdict;
            verdict.warnings.iter().any(|warning| warning.to_string().contains("spec.replicas"))
        };
        let memory = json!({"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue",
            "averageValue": "1Gi"}}});
        let rate = json!({"type": "Pods", "pods": {"metric": {"name": "rps"}, "target": {"type": "AverageValue",
            "averageValue": "10"}}});
        assert!(asks(3, memory.clone()));
        assert!(!asks(3, rate), "no adapter serves the metric");
        assert!(!asks(9, memory), "nine run, and it has four at most");
    }

    #[test]
    fn an_update_is_not_asked_for_what_the_live_object_has() {
        assert!(!warns(&of(3), Some(&of(3)), &scaled(1, 4)));
    }

    #[test]
    fn one_counts_where_somebody_wrote_it() {
        let mut written = of(1);
        assert!(warns(&written, None, &scaled(1, 4)), "a manifest as its author wrote it");
        written["metadata"]["managedFields"] = json!([{"operation": "Update"}]);
        assert!(!warns(&written, None, &scaled(1, 4)), "the API server fills in 1");
        let applied = written.to_string();
        written["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": applied});
        assert!(warns(&written, None, &scaled(1, 4)));
    }
}
