//! `decide`: everything that Tidegate does about one workload, as a function of what it is given.
//!
//! No client, clock, environment, log or `async` below this line: the same input gives the same bytes in the webhook,
//! in the controller and on the command line.

mod inject;
mod patch;
mod ratchet;
mod receipt;
mod replicas;
mod sticky;

use json_patch::Patch;
use serde_json::Value;

pub use inject::Injection;
pub use patch::between;
pub use ratchet::Violation;
pub use receipt::Receipt;

use crate::api::RECEIPT_ANNOTATION;
use crate::companions::{self, Companions, Wanted};
use crate::facts::Facts;
use crate::policy::{Effective, PolicySet};
use crate::rules::Context;
use crate::runtimes::{self, Recognised};
use crate::workload::Workload;

/// What happens to a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It is made.
    Create,
    /// It is changed.
    Update,
    /// Nothing: it is looked at as it is stored.
    Observe,
}

/// One question to the engine.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// What happens.
    pub operation: Operation,
    /// The workload as it would become.
    pub workload: Workload<'a>,
    /// The workload as it is stored, for an update.
    pub old: Option<Workload<'a>>,
    /// Who asks, as the API server knows them.
    pub user: &'a str,
}

/// All that follows from a request.
#[derive(Debug, Default)]
pub struct Decision {
    /// What to change in the workload; empty where it is as it should be.
    pub patch: Patch,
    /// What the workload is refused for, after the patch.
    pub violations: Vec<Violation>,
    /// Violations that are only reported, for their policy is in audit.
    pub audited: Vec<Violation>,
    /// What the author should know of the patch: one line each.
    pub notes: Vec<String>,
    /// What the author should know of the verdict: one line each.
    pub warnings: Vec<String>,
    /// The objects that belong to the workload once it is stored.
    pub companions: Companions,
    /// What the workload would record of the injection.
    pub receipt: Option<Receipt>,
    /// The runtime that was recognised.
    pub runtime: Option<&'static str>,
    /// The names of the policies that select the workload.
    pub policies: Vec<String>,
}

/// The users on whose behalf the control plane takes things down; what they ask for is never refused.
const COLLECTORS: [&str; 2] = [
    "system:serviceaccount:kube-system:generic-garbage-collector",
    "system:serviceaccount:kube-system:namespace-controller",
];

/// Decides one request. The same input always gives the same decision.
#[must_use]
pub fn decide(request: &Request, policies: &PolicySet, facts: &Facts) -> Decision {
    if is_on_its_way_out(request, facts) {
        return Decision::default();
    }
    let covered = |workload: &Workload| policies.covers(workload);
    let judged_by = Some(request.workload).filter(covered).or(request.old.filter(covered));
    let Some(effective) = judged_by.and_then(|workload| policies.resolve(&workload, facts)) else {
        return Decision::default();
    };
    if policies.covers(&request.workload) {
        decide_within(request, policies, &effective, facts)
    } else {
        judge_only(request, policies, &effective, facts)
    }
}

/// A workload that is deleted, in a namespace that is, or that the control plane is clearing away.
fn is_on_its_way_out(request: &Request, facts: &Facts) -> bool {
    request.workload.is_being_deleted()
        || facts.is_terminating(request.workload.namespace())
        || COLLECTORS.contains(&request.user)
}

/// Injects, judges what came out, and plans its companions.
fn decide_within(request: &Request, policies: &PolicySet, effective: &Effective, facts: &Facts) -> Decision {
    let mut notes = Vec::new();
    let (object, receipt) = mended(request, effective, facts, &mut notes);
    let object = object.as_ref().unwrap_or(request.workload.object());
    let workload = Workload::changed(object);
    let recognised = runtimes::recognise(&workload);
    let is_new = request.operation == Operation::Create;
    let context = Context { is_new, workload, old: request.old, policies, effective, facts, recognised: &recognised };
    let judged = ratchet::judge(&context);
    let companions = companions::wanted(&workload, &recognised, effective, facts, receipt.is_some());
    if let (true, Wanted::Impossible { message, .. }) = (is_new, &companions.autoscaler) {
        notes.push(format!("no autoscaler is made: {message}"));
    }
    Decision {
        patch: patch::between(request.workload.object(), object),
        violations: judged.violations,
        audited: judged.audited,
        notes,
        warnings: judged.warnings,
        companions,
        receipt,
        runtime: recognised.preset_name(),
        policies: effective.names(),
    }
}

/// Judges a workload that leaves Tidegate's reach, without touching it.
fn judge_only(request: &Request, policies: &PolicySet, effective: &Effective, facts: &Facts) -> Decision {
    let recognised = Recognised::default();
    let context = Context {
        is_new: false,
        workload: request.workload,
        old: request.old,
        policies,
        effective,
        facts,
        recognised: &recognised,
    };
    let judged = ratchet::judge(&context);
    Decision {
        violations: judged.violations,
        audited: judged.audited,
        warnings: judged.warnings,
        policies: effective.names(),
        ..Decision::default()
    }
}

/// Returns the workload as it should be stored where that differs from what was asked for, with its receipt.
fn mended(
    request: &Request,
    effective: &Effective,
    facts: &Facts,
    notes: &mut Vec<String>,
) -> (Option<Value>, Option<Receipt>) {
    if !effective.injects() {
        return (None, None);
    }
    let (mut object, receipt) = match sticky::template_of(request) {
        sticky::Template::Unmanaged => {
            notes.push(sticky::unmanaged(&request.workload));
            (None, None)
        }
        sticky::Template::Kept(receipt) => (with_receipt(request, None, &receipt), Some(receipt)),
        sticky::Template::Restored(object, receipt) => (with_receipt(request, Some(object), &receipt), Some(receipt)),
        sticky::Template::Fresh(object) => {
            let (object, receipt) = inject::afresh(object, effective, facts, notes);
            (with_receipt(request, Some(object), &receipt), Some(receipt))
        }
    };
    if let Some(kept) = replicas::kept(request, effective, facts) {
        notes.push(kept.warning);
        let object = object.get_or_insert_with(|| request.workload.object().clone());
        object["spec"]["replicas"] = kept.replicas.into();
    }
    (object, receipt)
}

/// Puts the receipt on the object unless it is there already.
fn with_receipt(request: &Request, object: Option<Value>, receipt: &Receipt) -> Option<Value> {
    let text = receipt.to_string();
    if object.is_none() && request.workload.annotation(RECEIPT_ANNOTATION) == Some(&text) {
        return None;
    }
    let mut object = object.unwrap_or_else(|| request.workload.object().clone());
    let annotations = &mut object["metadata"]["annotations"];
    if !annotations.is_object() {
        *annotations = Value::Object(serde_json::Map::new());
    }
    annotations[RECEIPT_ANNOTATION] = text.into();
    Some(object)
}

impl Decision {
    /// Tells whether the workload may be stored.
    #[must_use]
    pub fn allows(&self) -> bool {
        self.violations.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::companions::Wanted;
    use crate::facts::Namespace;
    use crate::testing::{LABEL, facts, policies, with_container};

    fn spec(enforcement: &str) -> Value {
        json!({
            "enforcement": enforcement,
            "resources": {"cpu": {"limits": {"memory": "1Gi"}}},
            "autoscaling": {"metrics": [{"type": "ContainerResource", "containerResource": {"name": "cpu"}}]}
        })
    }

    fn violating() -> Value {
        with_container(&json!({"image": "api:latest"}))
    }

    fn decided(spec: Value, object: &Value, old: Option<&Value>, user: &str, facts: &Facts) -> Decision {
        let operation = if old.is_some() { Operation::Update } else { Operation::Create };
        let (workload, old) = (Workload::view(object).unwrap(), old.map(|old| Workload::view(old).unwrap()));
        decide(&Request { operation, workload, old, user }, &policies(&[("serving", spec)]), facts)
    }

    fn created(enforcement: &str, object: &Value) -> Decision {
        decided(spec(enforcement), object, None, "jane", &facts())
    }

    /// Tells whether nothing at all follows from a request.
    fn is_nothing(decision: &Decision) -> bool {
        decision.patch.is_empty()
            && decision.allows()
            && decision.audited.is_empty()
            && decision.receipt.is_none()
            && decision.companions == Companions::default()
            && decision.policies.is_empty()
    }

    #[test]
    fn what_is_on_its_way_out_is_let_go() {
        let old = with_container(&json!({}));
        let on = |object: &Value, user: &str, facts: &Facts| decided(spec("enforce"), object, Some(&old), user, facts);
        assert!(!on(&violating(), "jane", &facts()).allows());
        let mut deleted = violating();
        deleted["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert!(is_nothing(&on(&deleted, "jane", &facts())));
        let terminating = Namespace { terminating: true, ..Namespace::default() };
        let facts_then = Facts { namespaces: [("ml".into(), terminating)].into(), ..facts() };
        assert!(is_nothing(&on(&violating(), "jane", &facts_then)));
        for collector in ["generic-garbage-collector", "namespace-controller"] {
            let user = format!("system:serviceaccount:kube-system:{collector}");
            assert!(is_nothing(&on(&violating(), &user, &facts())), "{user}");
            let other = format!("system:serviceaccount:ml:{collector}");
            assert!(!on(&violating(), &other, &facts()).allows(), "{other}");
        }
    }

    #[test]
    fn a_policy_in_audit_changes_refuses_and_makes_nothing() {
        let decision = created("audit", &violating());
        assert!(
            decision.patch.is_empty() && decision.allows() && decision.warnings.is_empty() && decision.notes.is_empty()
        );
        assert_eq!((decision.receipt, decision.companions), (None, Companions::default()));
        let audited: Vec<&str> = decision.audited.iter().map(|violation| violation.rule).collect();
        assert_eq!(audited, ["floating-tag", "missing-memory-limit"]);
    }

    #[test]
    fn without_a_policy_everything_is_admitted() {
        assert!(is_nothing(&created("off", &violating())));
        let mut other = violating();
        other["metadata"]["labels"][LABEL] = "web".into();
        assert!(is_nothing(&created("enforce", &other)));
        assert!(is_nothing(&decided(spec("enforce"), &other, Some(&other), "jane", &facts())));
    }

    #[test]
    fn a_label_that_is_taken_off_is_judged_and_nothing_is_changed() {
        let mut other = with_container(&json!({"resources": {"limits": {"memory": "1Gi"}}}));
        let old = other.clone();
        other["metadata"]["labels"] = json!({});
        let decision = decided(spec("enforce"), &other, Some(&old), "jane", &facts());
        let found: Vec<&str> = decision.violations.iter().map(|violation| violation.rule).collect();
        assert_eq!((decision.patch.len(), &found[..]), (0, &["model-server-label-removed"][..]));
        let back = decided(spec("enforce"), &old, Some(&other), "jane", &facts());
        assert!(back.allows() && back.receipt.is_none(), "putting it on is no change of the template");
    }

    #[test]
    fn companions_are_for_what_was_admitted_and_has_a_name() {
        let object = with_container(&json!({}));
        assert!(matches!(created("warn", &object).companions.autoscaler, Wanted::Object(_)));
        let there_before = decided(spec("warn"), &object, Some(&object), "jane", &facts());
        assert_eq!(there_before.companions, Companions::default());
        let mut unnamed = object;
        unnamed["metadata"]["name"] = json!("");
        assert_eq!(created("warn", &unnamed).companions, Companions::default());
    }
}
