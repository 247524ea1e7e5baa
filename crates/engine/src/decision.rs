//! `decide`: everything that Tidegate does for one workload, as a pure function.
//!
//! There is no client, clock, environment, log or `async` in here: the same input gives the same output in the webhook,
//! in the controller and on the command line.

mod carry_over;
mod inject;
mod patch;
mod progress;
mod ratchet;
mod receipt;
mod replicas;
mod rollback;
mod subject;

use std::cell::OnceCell;
use std::sync::Arc;

use json_patch::Patch;
use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

pub use inject::Injection;
pub use patch::between;
pub use ratchet::{Exempted, Verdict, Violation, Warning};
pub use receipt::{Entry, Receipt};
pub use rollback::{may_be_rollback, revision_of};

use crate::companions::{self, Companion, Companions, Wanted};
pub use crate::facts::User;
use crate::facts::{Autoscaler, Facts};
use crate::policy::{Context, Costs, Effective, Expressions, Membership, PolicySet};
use crate::runtimes::{Provenance, Recognition};
use crate::workload::{LeftAlone, PriorBinding, Workload};
use subject::Subject;

/// The operation on a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// The workload is created.
    Create,
    /// The workload is updated.
    Update,
    /// None: the stored workload is checked.
    Observe,
}

/// A request to the engine.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The operation.
    pub operation: Operation,
    /// The workload as it is submitted.
    pub workload: Workload<'a>,
    /// The stored workload, for an update.
    pub old: Option<Workload<'a>>,
    /// The user who sends the request.
    pub user: User<'a>,
    /// The time, by which exceptions expire.
    pub now: Timestamp,
}

impl<'a> Request<'a> {
    /// Returns a request without a user, about a workload that is not stored yet or not changed.
    #[must_use]
    pub fn new(operation: Operation, workload: Workload<'a>, now: Timestamp) -> Self {
        Self { operation, workload, old: None, user: User::default(), now }
    }
}

/// The result of a request.
#[derive(Debug, Default)]
pub struct Decision {
    /// The changes to the workload; empty if there are none.
    pub patch: Patch,
    /// Notes on the patch for the user, one line each.
    pub notes: Vec<String>,
    /// The result of the rules for the patched workload.
    pub verdict: Verdict,
    /// The companions of the workload once it is stored.
    pub companions: Companions,
    /// The receipt of the injection.
    pub receipt: Option<Receipt>,
    /// Whether an autoscaler sets the replicas, and need not own `spec.replicas`.
    pub shares_replicas: bool,
    /// The recognised runtime.
    pub runtime: Option<String>,
    /// How the runtime is known.
    pub provenance: Provenance,
    /// The names of the policies that select the workload.
    pub policies: Vec<String>,
    /// The number of rules that check the workload.
    pub rules: usize,
    /// Whether the enforcement is `audit`: all violations are only recorded.
    pub is_in_audit: bool,
    /// Whether the workload existed before Tidegate and has not been changed or adopted since: it has no companions.
    pub is_unmanaged: bool,
    /// Why Tidegate leaves the workload alone; none if it does not.
    pub left_alone: Option<LeftAlone>,
}

/// Decides one request. The same input always gives the same decision.
#[must_use]
pub fn decide(request: &Request, policies: &PolicySet, facts: &Facts) -> Decision {
    let evaluation = Evaluation::new(*request, policies, facts);
    // Fills the cells that are taken below.
    let _ = (evaluation.verdict(), evaluation.companions());
    Decision {
        patch: evaluation.patch(),
        notes: evaluation.notes(),
        runtime: evaluation.runtime().map(str::to_owned),
        provenance: evaluation.provenance().cloned().unwrap_or_default(),
        policies: evaluation.policies(),
        rules: evaluation.effective.as_ref().map_or(0, |effective| effective.rules().len()),
        is_in_audit: evaluation.effective.as_ref().is_some_and(|effective| !effective.injects()),
        is_unmanaged: evaluation.is_unmanaged(),
        shares_replicas: evaluation.shares_replicas(),
        verdict: evaluation.verdict.into_inner().unwrap_or_default(),
        companions: evaluation.companions.into_inner().unwrap_or_default(),
        left_alone: evaluation.left_alone,
        receipt: evaluation.injected.receipt,
    }
}

/// A request with its injection. All other results are computed once, on first use: the mutating webhook does not check
/// objects.
pub struct Evaluation<'a> {
    request: Request<'a>,
    /// The workload as it is submitted.
    asked: Subject<'a>,
    /// The stored workload, for an update.
    old: Option<Subject<'a>>,
    policies: &'a PolicySet,
    facts: &'a Facts,
    /// The policies that apply to the workload, merged; none if Tidegate ignores the workload.
    effective: Option<Arc<Effective>>,
    /// Whether the workload is labelled as a model server; others are only checked for being one.
    membership: Membership,
    /// Why the workload is left alone; none if it is not.
    left_alone: Option<LeftAlone>,
    injected: Injected,
    /// The name of the admitted revision whose template the workload has.
    rollback: Option<&'a str>,
    /// What is recognised in the patched workload.
    recognition: OnceCell<Recognition>,
    /// The database binding of the patched workload, by its receipt.
    prior: OnceCell<PriorBinding>,
    verdict: OnceCell<Verdict>,
    companions: OnceCell<Companions>,
}

/// The result of injection.
#[derive(Default)]
struct Injected {
    template: Option<Value>,
    replicas: Option<i64>,
    progress_deadline: Option<i64>,
    receipt: Option<Receipt>,
    /// What was recognised, if it is the same with the injected fields.
    recognition: Option<Recognition>,
    /// Whether the workload was never admitted: a receipt on it is not Tidegate's.
    is_unmanaged: bool,
    notes: Vec<String>,
}

impl<'a> Evaluation<'a> {
    /// Evaluates one request.
    #[must_use]
    pub fn new(request: Request<'a>, policies: &'a PolicySet, facts: &'a Facts) -> Self {
        let (asked, old) = (Subject::new(request.workload), request.old.map(Subject::new));
        let covered = |workload: &Workload| policies.covers(workload, facts);
        let (membership, under) = match request.old.filter(covered) {
            _ if covered(&request.workload) => (Membership::Member, request.workload),
            Some(old) => (Membership::Leaving, old),
            None => (Membership::Never, request.workload),
        };
        let under = Some(under).filter(|_| !is_being_removed(&request, facts));
        let effective = under.and_then(|workload| policies.resolve(&workload, facts));
        let left_alone = request.workload.left_alone();
        let effective = effective.filter(|effective| {
            membership != Membership::Never || left_alone.is_none() && asked.recognition(effective).name().is_some()
        });
        let is_not_changed = membership != Membership::Member || left_alone.is_some();
        let injecting = effective.as_ref().filter(|effective| !is_not_changed && effective.injects());
        let injected = injecting.map(|effective| Injected::new(&request, &asked, old.as_ref(), effective, facts));
        let mut injected = injected.unwrap_or_default();
        Self {
            recognition: injected.recognition.take().map(OnceCell::from).unwrap_or_default(),
            request,
            asked,
            old,
            policies,
            facts,
            effective,
            membership,
            left_alone,
            injected,
            rollback: None,
            prior: OnceCell::new(),
            verdict: OnceCell::new(),
            companions: OnceCell::new(),
        }
    }

    /// Evaluates the request as a rollback to an admitted revision, which [`revision_of`] has found.
    #[must_use]
    pub fn rolling_back_to(self, revision: Option<&'a str>) -> Self {
        Self { rollback: revision, ..self }
    }

    /// Returns what is recognised in the patched workload.
    fn recognition(&self, effective: &Effective) -> &Recognition {
        match &self.injected.template {
            None => self.asked.recognition(effective),
            Some(_) => self.recognition.get_or_init(|| effective.runtimes().recognise(&self.workload())),
        }
    }

    /// Returns the database binding of the patched workload, by its receipt.
    fn prior(&self) -> &PriorBinding {
        let receipt = self.injected.receipt.as_ref();
        self.prior.get_or_init(|| receipt::prior_binding(receipt, &self.workload()))
    }

    /// Returns the patched workload.
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

    /// Returns the changes to the workload.
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
            patch.extend(patch::between(asked.template(), template, asked.template_pointer()));
        }
        Patch(patch)
    }

    /// Returns notes on the patch for the user.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes: Vec<String> = self.unknown_namespace().into_iter().collect();
        if self.membership == Membership::Member {
            notes.extend(self.policies.invalid_policies_for(&self.request.workload, self.facts));
        }
        notes.extend(self.injected.notes.iter().cloned());
        if self.request.operation == Operation::Create
            && let Some((workload, effective)) = self.admitted()
        {
            let recognised = self.recognition(effective).view(&workload);
            if self.autoscaler_of_others().is_none() {
                let problem = companions::autoscaler_problem(&workload, &recognised, effective, self.facts);
                notes.extend(problem.map(|problem| format!("no autoscaler is created: {problem}")));
            }
            // Planning all companions is costly, and few workloads are harmed by one.
            if companions::may_harm(&workload, &recognised, self.facts) {
                notes.extend(self.harmful_companions());
            }
        }
        notes
    }

    /// Returns a note for each companion that is not created because it would harm the workload.
    fn harmful_companions(&self) -> Vec<String> {
        let note = |(companion, wanted): (&dyn Companion, &Wanted)| match wanted {
            Wanted::Harmful { message, .. } => {
                let (_, what) = companion.title().split_once(' ')?;
                Some(format!("no {what} is created: {message}"))
            }
            _ => None,
        };
        self.companions().each().filter_map(note).collect()
    }

    /// Returns a note if the namespace is not in the cache, so that policies could not be selected by it: it may be
    /// new.
    fn unknown_namespace(&self) -> Option<String> {
        let namespace = self.request.workload.namespace();
        let is_known = namespace.is_empty() || self.facts.namespaces.contains_key(namespace);
        (!is_known && self.membership == Membership::Member).then(|| {
            format!(
                "namespace {namespace} not found: policies that select namespaces or environments were not \
                 applied; apply the workload again once the namespace exists"
            )
        })
    }

    /// Checks the patched workload.
    #[must_use]
    pub fn verdict(&self) -> &Verdict {
        self.verdict.get_or_init(|| {
            let checked = self.effective.as_ref().filter(|_| self.left_alone.is_none());
            checked.map(|effective| self.check(effective)).unwrap_or_default()
        })
    }

    fn check(&self, effective: &Effective) -> Verdict {
        let (workload, costs) = (self.workload(), Costs::default());
        let context = Context {
            is_new: self.request.operation == Operation::Create,
            membership: self.membership,
            workload,
            old: self.request.old,
            policies: self.policies,
            effective,
            facts: self.facts,
            recognised: &self.recognition(effective).view(&workload),
            prior: self.prior(),
            ownership: &self.asked.ownership,
            user: self.request.user,
            now: self.request.now,
            expressions: &Expressions::new(&costs),
        };
        ratchet::check(&context, self.old.as_ref(), self.rollback)
    }

    /// Plans the companions of the workload. Only a workload with a receipt has any: Tidegate adopts none unasked.
    #[must_use]
    pub fn companions(&self) -> &Companions {
        self.companions.get_or_init(|| {
            let wanted = self.admitted().map(|(workload, effective)| {
                let recognised = self.recognition(effective).view(&workload);
                companions::wanted(&workload, &recognised, effective, self.facts, self.prior())
            });
            wanted.unwrap_or_default()
        })
    }

    /// Returns an autoscaler of the workload that Tidegate does not manage; Tidegate then creates none.
    #[must_use]
    pub fn autoscaler_of_others(&self) -> Option<&Autoscaler> {
        self.facts.autoscalers_of(&self.request.workload.reference()).iter().find(|found| !found.ours)
    }

    /// Returns the patched workload and its policies if it has, or gets, a receipt.
    fn admitted(&self) -> Option<(Workload<'_>, &Effective)> {
        self.injected.receipt.as_ref()?;
        Some((self.workload(), self.effective.as_ref()?))
    }

    /// Returns the receipt of the injection; none if the workload was never admitted.
    #[must_use]
    pub fn receipt(&self) -> Option<&Receipt> {
        self.injected.receipt.as_ref()
    }

    /// Returns the patched workload as JSON.
    ///
    /// # Panics
    /// Never: the patch was computed for this object.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut object = self.request.workload.object().clone();
        json_patch::patch(&mut object, &self.patch()).expect("the patch was computed for this object");
        object
    }

    /// Returns the recognised runtime of the workload.
    #[must_use]
    pub fn runtime(&self) -> Option<&str> {
        let effective = self.effective.as_ref().filter(|_| self.membership != Membership::Leaving)?;
        self.recognition(effective).name()
    }

    /// Returns how the runtime is known; none if no policy matches the workload.
    #[must_use]
    pub fn provenance(&self) -> Option<&Provenance> {
        let effective = self.effective.as_ref().filter(|_| self.membership != Membership::Leaving)?;
        Some(self.recognition(effective).provenance())
    }

    /// Returns whether the workload is not labelled as a model server, and was not before.
    #[must_use]
    pub fn is_unlabelled(&self) -> bool {
        self.membership == Membership::Never
    }

    /// Returns whether the workload existed before Tidegate and has not been changed or adopted since.
    #[must_use]
    pub fn is_unmanaged(&self) -> bool {
        self.injected.is_unmanaged
    }

    /// Returns whether an autoscaler sets the replicas, and need not own `spec.replicas`.
    fn shares_replicas(&self) -> bool {
        let is_member = self.membership == Membership::Member && self.left_alone.is_none();
        let effective = self.effective.as_ref().filter(|effective| is_member && effective.injects());
        effective.is_some_and(|effective| replicas::are_shared(&self.request.workload, effective, self.facts))
    }

    /// Returns the policies that apply to the workload, merged.
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
    fn new(request: &Request, asked: &Subject, old: Option<&Subject>, effective: &Effective, facts: &Facts) -> Self {
        let mut injected = Self::default();
        match carry_over::template_of(request.operation, asked, old) {
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
                let prior = prior_binding(asked, old, facts);
                let fresh = inject::into_template(asked, template, effective, facts, &prior);
                injected.notes.extend(fresh.notes);
                injected.recognition = fresh.recognition;
                (injected.template, injected.receipt) = (Some(fresh.template), Some(fresh.receipt));
            }
        }
        if injected.receipt.is_some() {
            let template = injected.template.as_ref().unwrap_or_else(|| request.workload.template());
            injected.progress_deadline = progress::deadline(asked, request.old.as_ref(), template, effective);
        }
        if let Some(kept) = replicas::kept(request, effective, facts) {
            injected.replicas = Some(kept.replicas);
            injected.notes.push(kept.warning);
        }
        injected
    }
}

/// Returns how a workload was bound to its database before a request: a recreated workload uses its previous database.
fn prior_binding(asked: &Subject, old: Option<&Subject>, facts: &Facts) -> PriorBinding {
    match old {
        Some(old) => old.prior().clone().without_injected(),
        None => PriorBinding::recreated(facts.databases_of(&asked.workload.reference()).next().is_some()),
    }
}

/// Returns whether the workload or its namespace is being deleted, or the control plane garbage-collects the workload.
fn is_being_removed(request: &Request, facts: &Facts) -> bool {
    request.workload.is_being_deleted()
        || facts.is_terminating(request.workload.namespace())
        || request.user.is_garbage_collector()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::RECEIPT_ANNOTATION;
    use crate::companions::autoscaler::Autoscaling;
    use crate::facts::Namespace;
    use crate::policy::InvalidPolicy;
    use crate::testing::{LABEL, facts, policies, with_container};
    use crate::workload::WorkloadRef;

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

    /// Returns whether a request has no effect.
    fn is_nothing(decision: &Decision) -> bool {
        decision.patch.is_empty()
            && decision.verdict.allows()
            && decision.verdict.recorded.is_empty()
            && decision.receipt.is_none()
            && decision.companions == Companions::default()
            && decision.policies.is_empty()
    }

    #[test]
    fn ignores_workloads_that_are_being_deleted() {
        let old = with_container(&json!({}));
        let updated =
            |object: &Value, user: &str, facts: &Facts| decided(spec("enforce"), object, Some(&old), user, facts);
        assert!(!updated(&violating(), "jane", &facts()).verdict.allows());
        let mut deleted = violating();
        deleted["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert!(is_nothing(&updated(&deleted, "jane", &facts())));
        let terminating = Namespace { terminating: true, ..Namespace::default() };
        let facts_then = Facts { namespaces: [("ml".into(), terminating)].into(), ..facts() };
        assert!(is_nothing(&updated(&violating(), "jane", &facts_then)));
        for collector in ["generic-garbage-collector", "namespace-controller"] {
            let user = format!("system:serviceaccount:kube-system:{collector}");
            assert!(is_nothing(&updated(&violating(), &user, &facts())), "{user}");
            let other = format!("system:serviceaccount:ml:{collector}");
            assert!(!updated(&violating(), &other, &facts()).verdict.allows(), "{other}");
        }
    }

    #[test]
    fn a_policy_in_audit_only_records() {
        let decision = created("audit", &violating());
        assert!(
            decision.patch.is_empty()
                && decision.verdict.allows()
                && decision.verdict.warnings.is_empty()
                && decision.notes.is_empty()
        );
        assert_eq!((decision.receipt, decision.companions), (None, Companions::default()));
        let recorded: Vec<&str> = decision.verdict.recorded.iter().map(|violation| &*violation.rule).collect();
        assert_eq!(recorded, ["floating-tag", "missing-memory-limit"]);
    }

    #[test]
    fn ignores_workloads_that_a_controller_owns() {
        let mut object = violating();
        let owner = |controller: bool| json!([{"kind": "InferenceService", "name": "api", "controller": controller}]);
        object["metadata"]["ownerReferences"] = owner(true);
        let decision = created("enforce", &object);
        assert!(decision.patch.is_empty() && decision.verdict.allows() && decision.companions == Companions::default());
        assert_eq!(decision.left_alone.unwrap().reason, "OwnedByController");
        object["metadata"]["ownerReferences"] = owner(false);
        assert!(!created("enforce", &object).verdict.allows(), "an owner that is not the controller");
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
    fn notes_an_unknown_namespace() {
        let object = with_container(&json!({"image": "api:1"}));
        let notes = |facts: &Facts| decided(spec("warn"), &object, None, "jane", facts).notes;
        assert!(notes(&facts()).is_empty());
        let unknown = notes(&Facts { namespaces: [].into(), ..facts() });
        assert!(unknown.len() == 1 && unknown[0].contains("namespace ml not found"), "{unknown:?}");
    }

    #[test]
    fn notes_an_invalid_policy_on_workloads_that_it_selects() {
        let object = with_container(&json!({"image": "api:1"}));
        let (workload, now) = (Workload::view(&object).unwrap(), Timestamp::UNIX_EPOCH);
        let request = Request::new(Operation::Create, workload, now);
        let notes_with = |spec: Value| {
            let policy =
                json!({"apiVersion": "tidegate.dev/v1alpha1", "kind": "ServingPolicy", "metadata": {}, "spec": spec});
            let policy = serde_json::from_value(policy).unwrap();
            let set = policies(&[]).with_invalid(vec![InvalidPolicy::new("broken", Some(&policy), "there is no rule")]);
            decide(&request, &set, &facts()).notes
        };
        let notes = |selected: &str| {
            notes_with(json!({"match": {"selector": {"matchLabels": {LABEL: selected}}}, "rules": {"no-such": {}}}))
        };
        assert_eq!(notes("model-server"), [r#"invalid policy "broken" is not applied: there is no rule"#]);
        assert!(notes("web").is_empty());
        let in_audit = |prod: &str| {
            notes_with(
                json!({"enforcement": "audit", "environments": {"prod": {"enforcement": prod}}, "rules": {"no-such": {}}}),
            )
        };
        assert_eq!((in_audit("off").len(), in_audit("warn").len()), (0, 1), "no note where all is only recorded");
        let any = policies(&[]).with_invalid(vec![InvalidPolicy::new("broken", None, "it cannot be read")]);
        assert_eq!(decide(&request, &any, &facts()).notes.len(), 1);
    }

    #[test]
    fn removes_a_forged_receipt() {
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
    fn checks_but_does_not_change_a_workload_whose_label_is_removed() {
        let mut other = violating();
        let old = other.clone();
        other["metadata"]["labels"] = json!({});
        let decision = decided(spec("enforce"), &other, Some(&old), "jane", &facts());
        let found: Vec<&str> = decision.verdict.violations.iter().map(|violation| &*violation.rule).collect();
        assert_eq!((decision.patch.len(), &found[..]), (0, &["model-server-label-removed"][..]));
        let back = decided(spec("enforce"), &old, Some(&other), "jane", &facts());
        assert!(back.verdict.allows() && back.receipt.is_none(), "adding the label does not change the template");
    }

    /// Returns a LeaderWorkerSet with these images; none for a leader without a template of its own.
    fn leader_worker_set(leader: Option<&str>, worker: &str) -> Value {
        let container = |image: &str| json!({"name": "api", "image": image, "ports": [{"containerPort": 8080}]});
        let pod = |image: &str| json!({"spec": {"containers": [container(image)]}});
        let mut object = with_container(&json!({}));
        object["apiVersion"] = "leaderworkerset.x-k8s.io/v1".into();
        object["kind"] = "LeaderWorkerSet".into();
        let templates = json!({"size": 2, "leaderTemplate": leader.map(pod), "workerTemplate": pod(worker)});
        object["spec"] = json!({"replicas": 2, "leaderWorkerTemplate": templates});
        object
    }

    #[test]
    fn injects_into_the_leader_or_else_the_worker() {
        let limit = |leader: Option<&str>, template: &str| {
            let mut object = leader_worker_set(leader, "api:1");
            let patch = created("warn", &object).patch;
            json_patch::patch(&mut object, &patch).unwrap();
            let container = &object["spec"]["leaderWorkerTemplate"][template]["spec"]["containers"][0];
            container["resources"]["limits"]["memory"].as_str().map(str::to_owned)
        };
        assert_eq!(limit(Some("api:1"), "leaderTemplate").as_deref(), Some("1Gi"));
        assert_eq!(limit(Some("api:1"), "workerTemplate"), None);
        assert_eq!(limit(None, "workerTemplate").as_deref(), Some("1Gi"));
    }

    #[test]
    fn checks_the_pods_of_workers_but_not_whether_they_serve() {
        let spec = json!({"rules": {"missing-readiness-probe": {}, "missing-memory-limit": {"enforcement": "off"}}});
        let found = |object: &Value, old: Option<&Value>| -> Vec<String> {
            let verdict = decided(spec.clone(), object, old, "jane", &facts()).verdict;
            let all = verdict.violations.iter().chain(&verdict.warned);
            all.map(|violation| format!("{} {}", violation.rule, violation.finding.place)).collect()
        };
        let refused = |object: &Value, old: &Value| {
            let verdict = decided(spec.clone(), object, Some(old), "jane", &facts()).verdict;
            verdict.violations.into_iter().map(|violation| violation.rule).collect::<Vec<_>>()
        };
        let place = |template: &str| format!("spec.leaderWorkerTemplate.{template}.spec.containers[0]");
        let probe = format!("missing-readiness-probe {}.readinessProbe", place("leaderTemplate"));
        let tag = |template: &str| format!("floating-tag {}.image", place(template));
        let of = |leader: &str, worker: &str| leader_worker_set(Some(leader), worker);
        assert_eq!(found(&of("api:1", "api:latest"), None), [tag("workerTemplate"), probe.clone()]);
        assert_eq!(found(&of("api:latest", "api:1"), None), [tag("leaderTemplate"), probe]);
        assert_eq!(refused(&of("api:1", "api:latest"), &of("api:2", "api:latest")), [""; 0], "it was there before");
        assert_eq!(refused(&of("api:1", "api:latest"), &of("api:latest", "api:1")), ["floating-tag"], "elsewhere");
    }

    #[test]
    fn a_deployment_whose_template_a_rollout_uses_gets_no_autoscaler() {
        let object = with_container(&json!({}));
        let deployment = Workload::view(&object).unwrap().reference();
        let mut known = facts();
        let user = WorkloadRef { kind: "Rollout".into(), ..deployment.clone() };
        assert_eq!(known.note_template_user(&user, Some(&deployment)), std::slice::from_ref(&deployment));
        assert_eq!(known.note_template_user(&user, Some(&deployment)), [], "no change");
        let decision = decided(spec("warn"), &object, None, "jane", &known);
        let Wanted::Harmful { reason, .. } = decision.companions.of(&Autoscaling) else { panic!("it gets one") };
        let note = "no autoscaler is created: Rollout api uses its pod template and runs the pods instead: an autoscaler \
                    has to target Rollout api";
        assert_eq!((*reason, &*decision.notes), ("TemplateUsed", &[note.to_owned()][..]));
        let other = WorkloadRef { name: "other".into(), ..deployment.clone() };
        assert_eq!(known.note_template_user(&user, Some(&other)), [deployment.clone(), other.clone()]);
        assert_eq!((known.template_user(&deployment), known.template_user(&other)), (None, Some(&user)));
        assert_eq!(known.note_template_user(&user, None), [other]);
        assert!(known.template_users.is_empty());
    }

    #[test]
    fn plans_companions_for_admitted_workloads_with_a_name() {
        let object = with_container(&json!({}));
        assert!(matches!(created("warn", &object).companions.of(&Autoscaling), Wanted::Object(_)));
        let existing = decided(spec("warn"), &object, Some(&object), "jane", &facts());
        assert_eq!(existing.companions, Companions::default());
        let mut unnamed = object;
        unnamed["metadata"]["name"] = json!("");
        assert_eq!(created("warn", &unnamed).companions, Companions::default());
    }
}
