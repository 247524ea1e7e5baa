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
use crate::companions::{self, Companions};
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
    // The patch only ever adds values of the types that were seen before it.
    let workload = Workload::view(object).unwrap_or(request.workload);
    let recognised = runtimes::recognise(&workload);
    let context = Context { workload, old: request.old, policies, effective, facts, recognised: &recognised };
    let judged = ratchet::judge(&context);
    Decision {
        patch: patch::between(request.workload.object(), object),
        violations: judged.violations,
        audited: judged.audited,
        notes,
        warnings: judged.warnings,
        companions: companions::wanted(&workload, &recognised, effective, facts, receipt.is_some()),
        receipt,
        runtime: recognised.preset_name(),
        policies: effective.names(),
    }
}

/// Judges a workload that leaves Tidegate's reach, without touching it.
fn judge_only(request: &Request, policies: &PolicySet, effective: &Effective, facts: &Facts) -> Decision {
    let recognised = Recognised::default();
    let context =
        Context { workload: request.workload, old: request.old, policies, effective, facts, recognised: &recognised };
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
