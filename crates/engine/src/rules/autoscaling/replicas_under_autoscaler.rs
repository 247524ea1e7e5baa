//! ## What it checks
//! A new workload whose manifest sets `spec.replicas` although an autoscaler manages them.
//! ## Why it matters
//! Every `kubectl apply` of that manifest resets the number. Tidegate keeps the live one, but server-side apply fails
//! with a conflict before Tidegate is called, and GitOps tools keep reporting a difference.
//! ## Instead
//! Remove `spec.replicas` from the manifest.

use crate::api::Enforcement;
use crate::companions;
use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;

/// Finds manifests that set the replicas of an autoscaled workload.
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
        // The API server sets 1 by default, so a 1 counts only if a user is known to have set it.
        if !is_scaled(context) || (replicas == 1 && !context.ownership.is_declared(&["spec", "replicas"])) {
            return Vec::new();
        }
        let finding = Finding::at("spec.replicas").found(format!("`{replicas}`"));
        vec![finding.expected("nothing, since an autoscaler sets it").fix("# remove spec.replicas")]
    }
}

/// Returns whether the workload has an autoscaler, or gets one that can be created.
fn is_scaled(context: &Context) -> bool {
    let Context { workload, recognised, effective, facts, .. } = context;
    !facts.autoscalers_of(&workload.reference()).is_empty()
        || (companions::autoscaler::settings_for(effective, workload, recognised, facts).is_some()
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
    fn considers_autoscalers_of_users() {
        assert!(warns(&of(3), None, &scaled(1, 4)));
        assert!(!warns(&of(3), None, &facts()));
    }

    #[test]
    fn ignores_an_autoscaler_that_cannot_be_created() {
        let scaling = |metric: Value| json!({"autoscaling": {"maxReplicas": 4, "metrics": [metric]}});
        let unserved = Facts { apis: Apis::default(), ..facts() };
        let asks = |replicas: i64, metric: Value| {
            let object = of(replicas);
            let workload = Workload::view(&object).unwrap();
            let operation = Operation::Create;
            let request =
                Request { user: User::named("jane"), ..Request::new(operation, workload, Timestamp::UNIX_EPOCH) };
            let verdict = decide(&request, &policies(&[("serving", scaling(metric))]), &unserved).verdict;
            verdict.warnings.iter().any(|warning| warning.to_string().contains("spec.replicas"))
        };
        let memory = json!({"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue",
            "averageValue": "1Gi"}}});
        let rate = json!({"type": "Pods", "pods": {"metric": {"name": "rps"}, "target": {"type": "AverageValue",
            "averageValue": "10"}}});
        assert!(asks(3, memory.clone()));
        assert!(!asks(3, rate), "no adapter serves the metric");
        assert!(!asks(9, memory), "nine run, and its maximum is four");
    }

    #[test]
    fn ignores_updates() {
        assert!(!warns(&of(3), Some(&of(3)), &scaled(1, 4)));
    }

    #[test]
    fn reports_one_replica_only_if_a_user_set_it() {
        let mut written = of(1);
        assert!(warns(&written, None, &scaled(1, 4)), "a manifest as written");
        written["metadata"]["managedFields"] = json!([{"operation": "Update"}]);
        assert!(!warns(&written, None, &scaled(1, 4)), "the API server sets 1 by default");
        let applied = written.to_string();
        written["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": applied});
        assert!(warns(&written, None, &scaled(1, 4)));
    }
}
