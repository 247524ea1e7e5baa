//! `decide`: everything that Tidegate does about one workload, as a function of what it is given.
//!
//! No client, clock, environment, log or `async` below this line: the same input gives the same bytes in the webhook,
//! in the controller and on the command line.

mod carry_over;
mod inject;
mod patch;
mod progress;
mod ratchet;
mod receipt;
mod replicas;

use std::sync::Arc;

use json_patch::Patch;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

pub use inject::Injection;
pub use patch::between;
pub use ratchet::{Excused, Verdict, Violation, Warning};
pub use receipt::{Entry, Receipt};

use crate::companions::{self, Companions};
pub use crate::facts::User;
use crate::facts::{Autoscaler, Facts};
use crate::policy::{Context, Costs, Effective, Expressions, Membership, PolicySet};
use crate::workload::{PriorBinding, Workload};

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
    /// Who asks.
    pub user: User<'a>,
    /// When: exceptions expire.
    pub now: Timestamp,
}

/// All that follows from a request.
#[derive(Debug, Default)]
pub struct Decision {
    /// What to change in the workload; empty where it is as it should be.
    pub patch: Patch,
    /// What the author should know of the patch: one line each.
    pub notes: Vec<String>,
    /// What the rules say of the workload, after the patch.
    pub verdict: Verdict,
    /// The objects that belong to the workload once it is stored.
    pub companions: Companions,
    /// What the workload would record of the injection.
    pub receipt: Option<Receipt>,
    /// The runtime that was recognised.
    pub runtime: Option<String>,
    /// The names of the policies that select the workload.
    pub policies: Vec<String>,
    /// How many rules judge the workload.
    pub rules: usize,
    /// Whether all of them only record: what they would refuse or warn of is among what is recorded.
    pub is_in_audit: bool,
    /// Whether the workload was here before Tidegate, and nobody has changed or adopted it since: it has no companions.
    pub is_unmanaged: bool,
    /// The controller that keeps the workload as it wants it, and whom Tidegate leaves that to.
    pub controller: Option<String>,
}

/// The users on whose behalf the control plane takes things down; what they ask for is never refused.
const COLLECTORS: [&str; 2] = [
    "system:serviceaccount:kube-system:generic-garbage-collector",
    "system:serviceaccount:kube-system:namespace-controller",
];

/// Decides one request. The same input always gives the same decision.
#[must_use]
pub fn decide(request: &Request, policies: &PolicySet, facts: &Facts) -> Decision {
    let evaluation = Evaluation::new(*request, policies, facts);
    Decision {
        patch: evaluation.patch(),
        notes: evaluation.notes(),
        verdict: evaluation.verdict(),
        companions: evaluation.companions(),
        runtime: evaluation.runtime().map(str::to_owned),
        policies: evaluation.policies(),
        rules: evaluation.effective.as_ref().map_or(0, |effective| effective.rules().len()),
        is_in_audit: evaluation.effective.as_ref().is_some_and(|effective| !effective.injects()),
        is_unmanaged: evaluation.is_unmanaged(),
        controller: evaluation.controller.clone(),
        receipt: evaluation.injected.receipt,
    }
}

/// A request, with what injection makes of its workload. All else that follows is worked out when it is asked for: a
/// webhook that changes objects does not judge them.
pub struct Evaluation<'a> {
    request: Request<'a>,
    policies: &'a PolicySet,
    facts: &'a Facts,
    /// The policies that the workload is under; none where nothing at all follows.
    effective: Option<Arc<Effective>>,
    /// Whether the workload is a model server; what is none is judged for that alone.
    membership: Membership,
    /// The controller that owns the workload: what it writes is not changed under its hands.
    controller: Option<String>,
    injected: Injected,
}

/// What injection does to a workload.
#[derive(Default)]
struct Injected {
    template: Option<Value>,
    replicas: Option<i64>,
    progress_deadline: Option<i64>,
    receipt: Option<Receipt>,
    /// Whether the workload was never admitted: a receipt on it is not ours.
    is_unmanaged: bool,
    notes: Vec<String>,
}

impl<'a> Evaluation<'a> {
    /// Considers one request.
    #[must_use]
    pub fn new(request: Request<'a>, policies: &'a PolicySet, facts: &'a Facts) -> Self {
        let covered = |workload: &Workload| policies.covers(workload, facts);
        let (membership, under) = match request.old.filter(covered) {
            _ if covered(&request.workload) => (Membership::Member, request.workload),
            Some(old) => (Membership::Leaving, old),
            None => (Membership::Never, request.workload),
        };
        let under = Some(under).filter(|_| !is_on_its_way_out(&request, facts));
        let effective = under.and_then(|workload| policies.resolve(&workload, facts));
        let controller = request.workload.controller();
        let effective = effective.filter(|effective| {
            let runs_one = || effective.runtimes().recognise(&request.workload).runtime.is_some();
            membership != Membership::Never || controller.is_none() && runs_one()
        });
        let is_left_alone = membership != Membership::Member || controller.is_some();
        let injecting = effective.as_ref().filter(|effective| !is_left_alone && effective.injects());
        let injected = injecting.map(|effective| Injected::new(&request, effective, facts)).unwrap_or_default();
        Self { request, policies, facts, effective, membership, controller, injected }
    }

    /// Returns the workload as it should be stored.
    fn workload(&self) -> Workload<'_> {
        let mut workload = self.request.workload;
        if let Some(template) = &self.injected.template {
            workload = workload.with_template(template);
        }
        if let Some(seconds) = self.injected.progress_deadline {
            workload = workload.with_progress_deadline(seconds);
        }
        self.injected.replicas.map_or(workload, |replicas| workload.with_replicas(replicas))
    }

    /// Returns what to change in the workload.
    #[must_use]
    pub fn patch(&self) -> Patch {
        let (asked, injected) = (&self.request.workload, &self.injected);
        let mut patch = Vec::new();
        match &injected.receipt {
            Some(receipt) => patch.extend(receipt.annotate(asked)),
            None if injected.is_unmanaged => patch.extend(Receipt::forget(asked)),
            None => {}
        }
        patch.extend(injected.replicas.map(replicas::set));
        patch.extend(injected.progress_deadline.map(progress::set));
        if let Some(template) = &injected.template {
            patch.extend(patch::between(asked.template(), template, asked.known_kind().template()));
        }
        Patch(patch)
    }

    /// Returns what the author should know of the patch.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes: Vec<String> = self.unknown_namespace().into_iter().collect();
        if self.membership == Membership::Member {
            notes.extend(self.policies.invalid_policies_for(&self.request.workload, self.facts));
        }
        notes.extend(self.injected.notes.iter().cloned());
        if self.request.operation == Operation::Create
            && self.autoscaler_of_others().is_none()
            && let Some((workload, effective)) = self.admitted()
        {
            let recognised = effective.runtimes().recognise(&workload);
            let problem = companions::autoscaler_problem(&workload, &recognised, effective, self.facts);
            notes.extend(problem.map(|problem| format!("no autoscaler is made: {problem}")));
        }
        notes
    }

    /// Tells the author that policies could not be chosen by a namespace that has not been seen: it may have been made a
    /// moment ago.
    fn unknown_namespace(&self) -> Option<String> {
        let namespace = self.request.workload.namespace();
        let is_known = namespace.is_empty() || self.facts.namespaces.contains_key(namespace);
        (!is_known && self.membership == Membership::Member).then(|| {
            format!(
                "namespace {namespace} has not been seen yet: policies for namespaces or environments were not asked; apply \
                 again once it is there"
            )
        })
    }

    /// Judges the workload as it should be stored.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let Some(effective) = self.effective.as_ref().filter(|_| self.controller.is_none()) else {
            return Verdict::default();
        };
        let workload = self.workload();
        let recognised = effective.runtimes().recognise(&workload);
        let prior = receipt::prior_binding(self.injected.receipt.as_ref(), &workload);
        let costs = Costs::default();
        ratchet::judge(&Context {
            is_new: self.request.operation == Operation::Create,
            membership: self.membership,
            workload,
            old: self.request.old,
            policies: self.policies,
            effective,
            facts: self.facts,
            recognised: &recognised,
            prior: &prior,
            user: self.request.user,
            now: self.request.now,
            expressions: &Expressions::new(&costs),
        })
    }

    /// Plans the objects that belong to the workload. Only one that was admitted with a receipt has any: nobody is adopted
    /// by surprise.
    #[must_use]
    pub fn companions(&self) -> Companions {
        let wanted = self.admitted().map(|(workload, effective)| {
            let prior = receipt::prior_binding(self.injected.receipt.as_ref(), &workload);
            companions::wanted(&workload, &effective.runtimes().recognise(&workload), effective, self.facts, &prior)
        });
        wanted.unwrap_or_default()
    }

    /// Returns the autoscaler that somebody else made for the workload; Tidegate makes none beside it.
    #[must_use]
    pub fn autoscaler_of_others(&self) -> Option<&Autoscaler> {
        self.facts.autoscalers_of(&self.request.workload.reference()).iter().find(|found| !found.ours)
    }

    /// Returns a workload that has, or gets, a receipt, with the policies that it is under.
    fn admitted(&self) -> Option<(Workload<'_>, &Effective)> {
        self.injected.receipt.as_ref()?;
        Some((self.workload(), self.effective.as_ref()?))
    }

    /// Returns what the workload would record of the injection; none where nothing was ever injected.
    #[must_use]
    pub fn receipt(&self) -> Option<&Receipt> {
        self.injected.receipt.as_ref()
    }

    /// Returns the workload as it should be stored, as JSON.
    ///
    /// # Panics
    /// Never: a patch fits the object that it was made for.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut object = self.request.workload.object().clone();
        json_patch::patch(&mut object, &self.patch()).expect("a patch fits the object that it was made for");
        object
    }

    /// Returns the runtime that is recognised in the workload.
    #[must_use]
    pub fn runtime(&self) -> Option<&str> {
        let effective = self.effective.as_ref().filter(|_| self.membership != Membership::Leaving)?;
        effective.runtimes().recognise(&self.workload()).name()
    }

    /// Tells whether the workload is no model server by its labels, nor was one before.
    #[must_use]
    pub fn is_unlabelled(&self) -> bool {
        self.membership == Membership::Never
    }

    /// Tells whether the workload was here before Tidegate, and nobody has changed or adopted it since.
    #[must_use]
    pub fn is_unmanaged(&self) -> bool {
        self.injected.is_unmanaged
    }

    /// Returns the policies that the workload is under, as one.
    #[must_use]
    pub fn effective(&self) -> Option<&Effective> {
        self.effective.as_deref()
    }

    /// Returns the names of the policies that select the workload.
    #[must_use]
    pub fn policies(&self) -> Vec<String> {
        self.effective.as_ref().map(|effective| effective.names()).unwrap_or_default()
    }
}

impl Injected {
    fn new(request: &Request, effective: &Effective, facts: &Facts) -> Self {
        let mut injected = Self::default();
        match carry_over::template_of(request) {
            carry_over::Template::Unmanaged => {
                injected.is_unmanaged = true;
                injected.notes.push(carry_over::unmanaged(&request.workload));
            }
            carry_over::Template::Kept(receipt) => injected.receipt = Some(receipt),
            carry_over::Template::Restored(template, receipt) => {
                (injected.template, injected.receipt) = (Some(template), Some(receipt));
            }
            carry_over::Template::Fresh(template) => {
                injected.notes.extend(effective.problems());
                let (workload, prior) = (&request.workload, prior_binding(request, facts));
                let (template, receipt) =
                    inject::afresh(workload, template, effective, facts, &prior, &mut injected.notes);
                (injected.template, injected.receipt) = (Some(template), Some(receipt));
            }
        }
        if injected.receipt.is_some() {
            let template = injected.template.as_ref().unwrap_or_else(|| request.workload.template());
            injected.progress_deadline = progress::deadline(request, template, effective);
        }
        if let Some(kept) = replicas::kept(request, effective, facts) {
            injected.replicas = Some(kept.replicas);
            injected.notes.push(kept.warning);
        }
        injected
    }
}

/// Returns how a workload was led to its database before a request: one that is made again finds the database that was made for
/// it.
fn prior_binding(request: &Request, facts: &Facts) -> PriorBinding {
    match &request.old {
        Some(old) => receipt::prior_binding(Receipt::read(old).as_ref(), old).before(),
        None => PriorBinding::again(facts.databases_of(&request.workload.reference()).next().is_some()),
    }
}

/// A workload that is deleted, in a namespace that is, or that the control plane is clearing away.
fn is_on_its_way_out(request: &Request, facts: &Facts) -> bool {
    request.workload.is_being_deleted()
        || facts.is_terminating(request.workload.namespace())
        || COLLECTORS.contains(&request.user.name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::RECEIPT_ANNOTATION;
    use crate::companions::Wanted;
    use crate::companions::autoscaler::Autoscaling;
    use crate::facts::Namespace;
    use crate::policy::InvalidPolicy;
    use crate::testing::{LABEL, facts, policies, with_container};

    fn spec(enforcement: &str) -> Value {
        json!({
            "enforcement": enforcement,
            "resources": {"cpu": {"limits": {"memory": "1Gi"}}},
            "autoscaling": {"metrics": [{"type": "ContainerResource", "containerResource": {"name": "cpu", "target": {"type": "AverageValue", "averageValue": "1"}}}]}
        })
    }

    fn violating() -> Value {
        with_container(&json!({"image": "api:latest"}))
    }

    fn decided(spec: Value, object: &Value, old: Option<&Value>, user: &str, facts: &Facts) -> Decision {
        let operation = if old.is_some() { Operation::Update } else { Operation::Create };
        let (workload, old) = (Workload::view(object).unwrap(), old.map(|old| Workload::view(old).unwrap()));
        decide(
            &Request { operation, workload, old, user: User::named(user), now: Timestamp::UNIX_EPOCH },
            &policies(&[("serving", spec)]),
            facts,
        )
    }

    fn created(enforcement: &str, object: &Value) -> Decision {
        decided(spec(enforcement), object, None, "jane", &facts())
    }

    /// Tells whether nothing at all follows from a request.
    fn is_nothing(decision: &Decision) -> bool {
        decision.patch.is_empty()
            && decision.verdict.allows()
            && decision.verdict.recorded.is_empty()
            && decision.receipt.is_none()
            && decision.companions == Companions::default()
            && decision.policies.is_empty()
    }

    #[test]
    fn what_is_on_its_way_out_is_let_go() {
        let old = with_container(&json!({}));
        let on = |object: &Value, user: &str, facts: &Facts| decided(spec("enforce"), object, Some(&old), user, facts);
        assert!(!on(&violating(), "jane", &facts()).verdict.allows());
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
            assert!(!on(&violating(), &other, &facts()).verdict.allows(), "{other}");
        }
    }

    #[test]
    fn a_policy_in_audit_changes_refuses_and_makes_nothing() {
        let decision = created("audit", &violating());
        assert!(
            decision.patch.is_empty()
                && decision.verdict.allows()
                && decision.verdict.warnings.is_empty()
                && decision.notes.is_empty()
        );
        assert_eq!((decision.receipt, decision.companions), (None, Companions::default()));
        let audited: Vec<&str> = decision.verdict.recorded.iter().map(|violation| &*violation.rule).collect();
        assert_eq!(audited, ["floating-tag", "missing-memory-limit"]);
    }

    #[test]
    fn what_another_controller_owns_is_left_to_it() {
        let mut object = violating();
        let owner = |controller: bool| json!([{"kind": "InferenceService", "name": "api", "controller": controller}]);
        object["metadata"]["ownerReferences"] = owner(true);
        let decision = created("enforce", &object);
        assert!(decision.patch.is_empty() && decision.verdict.allows() && decision.companions == Companions::default());
        assert_eq!(decision.controller.as_deref(), Some("InferenceService api"));
        object["metadata"]["ownerReferences"] = owner(false);
        assert!(!created("enforce", &object).verdict.allows(), "who only collects it does not write it");
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
    fn a_namespace_that_was_not_seen_is_told_of() {
        let object = with_container(&json!({"image": "api:1"}));
        let told = |facts: &Facts| decided(spec("warn"), &object, None, "jane", facts).notes;
        assert!(told(&facts()).is_empty());
        let unseen = told(&Facts { namespaces: [].into(), ..facts() });
        assert!(unseen.len() == 1 && unseen[0].contains("namespace ml has not been seen yet"), "{unseen:?}");
    }

    #[test]
    fn a_policy_that_is_not_in_force_is_told_of_to_those_it_would_be_for() {
        let object = with_container(&json!({"image": "api:1"}));
        let (workload, now) = (Workload::view(&object).unwrap(), Timestamp::UNIX_EPOCH);
        let request = Request { operation: Operation::Create, workload, old: None, user: User::default(), now };
        let told_by = |spec: Value| {
            let policy =
                json!({"apiVersion": "tidegate.dev/v1alpha1", "kind": "ServingPolicy", "metadata": {}, "spec": spec});
            let policy = serde_json::from_value(policy).unwrap();
            let set = policies(&[]).with_invalid(vec![InvalidPolicy::new("broken", Some(&policy), "there is no rule")]);
            decide(&request, &set, &facts()).notes
        };
        let told = |selected: &str| {
            told_by(json!({"match": {"selector": {"matchLabels": {LABEL: selected}}}, "rules": {"no-such": {}}}))
        };
        assert_eq!(told("model-server"), ["policy broken makes no sense, so it is not in force: there is no rule"]);
        assert!(told("web").is_empty());
        let in_audit = |prod: &str| {
            told_by(
                json!({"enforcement": "audit", "environments": {"prod": {"enforcement": prod}}, "rules": {"no-such": {}}}),
            )
        };
        assert_eq!((in_audit("off").len(), in_audit("warn").len()), (0, 1), "what only records tells nobody");
        let any = policies(&[]).with_invalid(vec![InvalidPolicy::new("broken", None, "it cannot be read")]);
        assert_eq!(decide(&request, &any, &facts()).notes.len(), 1);
    }

    #[test]
    fn a_receipt_that_somebody_made_up_is_taken_off() {
        let object = with_container(&json!({}));
        let admitted = created("warn", &object).receipt.unwrap();
        let mut forged = object.clone();
        forged["metadata"]["annotations"] = json!({RECEIPT_ANNOTATION: admitted.to_string(), "a": "b"});
        let decision = decided(spec("warn"), &forged, Some(&object), "jane", &facts());
        let mut stored = forged.clone();
        json_patch::patch(&mut stored, &decision.patch).unwrap();
        assert_eq!(stored["metadata"]["annotations"], json!({"a": "b"}));
        assert!(decision.receipt.is_none() && decision.companions == Companions::default());
    }

    #[test]
    fn a_label_that_is_taken_off_is_judged_and_nothing_is_changed() {
        let mut other = violating();
        let old = other.clone();
        other["metadata"]["labels"] = json!({});
        let decision = decided(spec("enforce"), &other, Some(&old), "jane", &facts());
        let found: Vec<&str> = decision.verdict.violations.iter().map(|violation| &*violation.rule).collect();
        assert_eq!((decision.patch.len(), &found[..]), (0, &["model-server-label-removed"][..]));
        let back = decided(spec("enforce"), &old, Some(&other), "jane", &facts());
        assert!(back.verdict.allows() && back.receipt.is_none(), "putting it on is no change of the template");
    }

    #[test]
    fn companions_are_for_what_was_admitted_and_has_a_name() {
        let object = with_container(&json!({}));
        assert!(matches!(created("warn", &object).companions.of(&Autoscaling), Wanted::Object(_)));
        let there_before = decided(spec("warn"), &object, Some(&object), "jane", &facts());
        assert_eq!(there_before.companions, Companions::default());
        let mut unnamed = object;
        unnamed["metadata"]["name"] = json!("");
        assert_eq!(created("warn", &unnamed).companions, Companions::default());
    }
}
