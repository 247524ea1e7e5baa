//! Plans the actions for the companions of one workload, from the desired and the observed state.

use std::time::Duration;

use serde_json::Value;

use super::companion::ObjectRef;
use super::{ALL, Companion, Companions, MANAGED_BY_LABEL, MANAGER, WORKLOAD_ANNOTATION, Wanted, contains};
use crate::workload::WorkloadRef;

/// The observed objects of one workload.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The objects that are relevant to each companion, in the order of [`ALL`].
    pub objects: Vec<Vec<Value>>,
    /// Whether a HorizontalPodAutoscaler of KEDA scales it, for a ScaledObject that exists or was just deleted.
    pub is_scaled_by_keda: bool,
    /// Its ModelServer, as last written.
    pub model_server: Option<Value>,
    /// The name of its ModelServer.
    pub model_server_name: String,
}

impl Observed {
    /// Looks up the objects that companions name.
    #[must_use]
    pub fn look_up(names: &[Vec<ObjectRef>], find: impl Fn(&ObjectRef) -> Option<Value>) -> Self {
        let objects = names.iter().map(|names| names.iter().filter_map(&find).collect()).collect();
        Self { objects, ..Self::default() }
    }

    /// Returns the objects that are relevant to a companion.
    #[must_use]
    pub fn of(&self, companion: &dyn Companion) -> &[Value] {
        self.objects.get(place(companion)).map_or(&[], Vec::as_slice)
    }
}

/// Returns the index of a companion in [`ALL`].
pub(super) fn place(companion: &dyn Companion) -> usize {
    ALL.iter().position(|known| known.name() == companion.name()).unwrap_or(ALL.len())
}

/// One change to the cluster.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Creates an object that must not exist yet.
    Create(Value),
    /// Applies an object by server-side apply with Tidegate's field manager. This takes ownership of its fields and
    /// removes those applied earlier.
    Apply(Value),
    /// Adds fields to an object by a merge patch, and leaves others unchanged.
    Merge(Value),
    /// Deletes an object that Tidegate manages.
    Delete(Value),
}

/// The plan for all companions of a workload.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// The plan for each companion, in the order of [`ALL`].
    pub companions: Vec<CompanionPlan>,
    /// When to reconcile again even if nothing has changed.
    pub again: Option<Duration>,
}

/// The actions for one companion, and its state after them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CompanionPlan {
    /// The actions, in order.
    pub actions: Vec<Action>,
    /// The state after the actions.
    pub state: CompanionState,
}

/// The state of a companion.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum CompanionState {
    /// None exists, and none is wanted.
    #[default]
    Absent,
    /// Tidegate manages it; it exists or is about to be created.
    Ours(Value),
    /// The user manages another one, which is used instead.
    Theirs(Value),
    /// None exists: the workload's author declines it by annotation.
    Declined,
    /// None exists: it would harm the workload.
    Harmful(&'static str, String),
    /// None is wanted: the workload has, or may have, one of its own; the message says why. An existing one of Tidegate
    /// is left unchanged.
    Elsewhere(Option<Value>, String),
    /// The user manages it, as the policy asks for.
    External(Value),
    /// Tidegate manages it, but no policy asks for it any more; it is left unchanged.
    Unmanaged(Value),
    /// Tidegate manages it, but what the policy now asks for cannot be created; it is left unchanged.
    Left(Value, &'static str, String),
    /// Tidegate manages it, but it was edited; it is left unchanged.
    Drifted(Value, String),
    /// It is wanted, but not created yet.
    Pending(String),
    /// It is wanted, but cannot be created.
    Impossible(&'static str, String),
    /// The API server refused an action.
    Refused(String),
}

impl CompanionPlan {
    /// Returns whether an object is created that must not exist yet.
    #[must_use]
    pub fn creates(&self) -> bool {
        self.actions.iter().any(|action| matches!(action, Action::Create(_)))
    }
}

impl From<CompanionState> for CompanionPlan {
    fn from(state: CompanionState) -> Self {
        Self { actions: Vec::new(), state }
    }
}

impl Plan {
    /// Returns the plan for a companion.
    ///
    /// # Panics
    /// Never, for a plan that includes all companions.
    #[must_use]
    pub fn of(&self, companion: &dyn Companion) -> &CompanionPlan {
        &self.companions[place(companion)]
    }

    /// Creates a plan for one companion, with no actions for the others.
    #[cfg(any(test, feature = "test-util"))]
    #[must_use]
    pub fn single(companion: &dyn Companion, plan: CompanionPlan) -> Self {
        let mut companions = vec![CompanionPlan::default(); ALL.len()];
        companions[place(companion)] = plan;
        Self { companions, again: None }
    }

    /// Returns each companion with its plan.
    pub fn each(&self) -> impl Iterator<Item = (&'static dyn Companion, &CompanionPlan)> {
        ALL.into_iter().zip(&self.companions)
    }
}

/// Plans the companions of a workload. `waited` is how long a companion with delayed creation has been missing. It is
/// created after `settle`, so that one that the user creates in the same apply takes precedence.
#[must_use]
pub fn plan(
    workload: &WorkloadRef,
    wanted: &Companions,
    observed: &Observed,
    waited: Duration,
    settle: Duration,
) -> Plan {
    let is_settled = waited >= settle;
    let planned = |companion: &dyn Companion| companion.plan(workload, wanted.of(companion), observed, is_settled);
    let companions: Vec<CompanionPlan> = ALL.into_iter().map(planned).collect();
    let is_awaited = companions.iter().any(|plan| matches!(plan.state, CompanionState::Pending(_)));
    Plan { companions, again: (is_awaited && !is_settled).then(|| settle.saturating_sub(waited)) }
}

/// Returns whether a companion with delayed creation is wanted but does not exist.
#[must_use]
pub fn is_missing(wanted: &Companions, observed: &Observed) -> bool {
    let is_missing = |companion: &&dyn Companion| {
        companion.settles() && matches!(wanted.of(*companion), Wanted::Object(_)) && observed.of(*companion).is_empty()
    };
    ALL.iter().any(is_missing)
}

/// Plans to update an object of Tidegate to the desired state. It keeps its name, which may be that of an earlier
/// release.
pub(super) fn kept(wanted: &Value, found: Option<&Value>) -> CompanionPlan {
    let mut wanted = wanted.clone();
    if let Some(found) = found {
        wanted["metadata"]["name"] = found["metadata"]["name"].clone();
    }
    let state = CompanionState::Ours(found.unwrap_or(&wanted).clone());
    let is_right = found.is_some_and(|found| contains(found, &wanted));
    CompanionPlan { actions: if is_right { Vec::new() } else { vec![Action::Apply(wanted)] }, state }
}

/// Returns whether an object has the kind and name of a wanted one.
pub(super) fn has_name_of(found: &Value, wanted: &Value) -> bool {
    found["kind"] == wanted["kind"] && found["metadata"]["name"] == wanted["metadata"]["name"]
}

/// Plans to delete objects, except those that are already being deleted.
pub(super) fn deletions(objects: Vec<&Value>) -> Vec<Action> {
    let staying = objects.into_iter().filter(|object| object["metadata"]["deletionTimestamp"].is_null());
    staying.cloned().map(Action::Delete).collect()
}

/// Returns a string, empty if the value is not one.
pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Returns whether Tidegate created an object for this workload.
pub(super) fn is_managed(object: &Value, workload: &WorkloadRef) -> bool {
    let metadata = &object["metadata"];
    metadata["labels"][MANAGED_BY_LABEL] == MANAGER
        && metadata["annotations"][WORKLOAD_ANNOTATION] == format!("{}/{}", workload.kind, workload.name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::companions::autoscaler::Autoscaling;
    use crate::companions::database::Databases;
    use crate::companions::disruption_budget::DisruptionBudget;
    use crate::companions::names;

    impl Plan {
        fn take(&self, companion: &dyn Companion) -> CompanionPlan {
            self.of(companion).clone()
        }
    }

    const SETTLE: Duration = Duration::from_secs(5);

    fn workload() -> WorkloadRef {
        WorkloadRef { namespace: "ns".into(), kind: "Deployment".into(), name: "api".into() }
    }

    fn hpa(name: &str, managed: bool, max: i64) -> Value {
        let mut object = json!({
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": name, "namespace": "ns"},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "api"}, "maxReplicas": max
            }
        });
        if managed {
            mark(&mut object);
        }
        object
    }

    fn mark(object: &mut Value) {
        object["metadata"]["labels"] = json!({MANAGED_BY_LABEL: MANAGER});
        object["metadata"]["annotations"] = json!({WORKLOAD_ANNOTATION: "Deployment/api"});
    }

    fn postgres(managed: bool, version: &str, users: &Value) -> Value {
        let mut object = json!({
            "apiVersion": "acid.zalan.do/v1", "kind": "postgresql", "metadata": {"name": "acid-api", "namespace": "ns"},
            "spec": {"postgresql": {"version": version}, "users": users, "databases": {"api": "api"}}
        });
        if managed {
            mark(&mut object);
        }
        object
    }

    /// Returns a ScaledObject of KEDA.
    fn scaled_object(name: &str, managed: bool) -> Value {
        let mut object = json!({
            "kind": "ScaledObject", "metadata": {"name": name, "namespace": "ns"},
            "spec": {"scaleTargetRef": {"name": "api"}, "maxReplicaCount": 4}
        });
        if managed {
            mark(&mut object);
        }
        object
    }

    fn scaled(wanted: Wanted, autoscalers: Vec<Value>, waited: Duration) -> Plan {
        let wanted = Companions::with(&Autoscaling, wanted);
        let observed = Observed { objects: vec![autoscalers], ..Observed::default() };
        plan(&workload(), &wanted, &observed, waited, SETTLE)
    }

    fn stored(wanted: Wanted, database: Option<Value>) -> Plan {
        let wanted = Companions::with(&Databases, wanted);
        let observed =
            Observed { objects: vec![vec![], vec![], database.into_iter().collect()], ..Observed::default() };
        plan(&workload(), &wanted, &observed, Duration::ZERO, SETTLE)
    }

    #[test]
    fn delays_the_creation_of_an_autoscaler() {
        let wanted = Wanted::Object(hpa("api-tidegate", true, 10));
        let early = scaled(wanted.clone(), vec![], Duration::from_secs(2));
        assert_eq!((early.take(&Autoscaling).actions, early.again), (vec![], Some(Duration::from_secs(3))));
        let settled = scaled(wanted, vec![], SETTLE);
        let made = vec![Action::Apply(hpa("api-tidegate", true, 10))];
        assert_eq!((settled.take(&Autoscaling).actions, settled.again), (made, None));
    }

    #[test]
    fn reverts_edits_to_an_autoscaler_and_leaves_a_correct_one_alone() {
        let wanted = Wanted::Object(hpa("api-tidegate", true, 10));
        let edited = scaled(wanted.clone(), vec![hpa("api-tidegate", true, 99)], Duration::ZERO);
        assert_eq!(edited.take(&Autoscaling).actions, [Action::Apply(hpa("api-tidegate", true, 10))]);
        let mut more = hpa("api-tidegate", true, 10);
        more["spec"]["behavior"] = json!({"scaleDown": {}});
        assert_eq!(scaled(wanted, vec![more], Duration::ZERO).take(&Autoscaling).actions, []);
    }

    #[test]
    fn leaves_an_equivalent_autoscaler_alone() {
        let of = |value: Value, tolerance: Value| {
            let mut object = hpa("api-tidegate", true, 10);
            object["apiVersion"] = "autoscaling/v2".into();
            let target = json!({"type": "AverageValue", "averageValue": value});
            object["spec"]["metrics"] =
                json!([{"type": "Pods", "pods": {"metric": {"name": "waiting"}, "target": target}}]);
            object["spec"]["behavior"] = json!({"scaleUp": {"tolerance": tolerance}});
            object
        };
        let (wanted, found) = (of(json!(5), json!(0.05)), of(json!("5"), json!("50m")));
        assert_eq!(scaled(Wanted::Object(wanted.clone()), vec![found], SETTLE).take(&Autoscaling).actions, []);
        let other = of(json!("6"), json!("50m"));
        assert_eq!(
            scaled(Wanted::Object(wanted.clone()), vec![other], SETTLE).take(&Autoscaling).actions,
            [Action::Apply(wanted)]
        );
    }

    #[test]
    fn equivalent_sizes_are_not_drift() {
        let of = |size: &str, cpu: &str| {
            let mut object = postgres(true, "17", &json!({"api": []}));
            object["spec"]["volume"] = json!({"size": size});
            object["spec"]["resources"] = json!({"requests": {"cpu": cpu}});
            object
        };
        let state = |found: Value| stored(Wanted::Object(of("1Gi", "1")), Some(found)).take(&Databases).state;
        assert!(matches!(state(of("1024Mi", "1000m")), CompanionState::Ours(_)));
        assert!(matches!(state(of("2Gi", "1000m")), CompanionState::Drifted(..)));
    }

    #[test]
    fn an_autoscaler_of_the_user_replaces_tidegates() {
        let wanted = Wanted::Object(hpa("api-tidegate", true, 10));
        let (managed, user_managed) = (hpa("api-tidegate", true, 10), hpa("mine", false, 3));
        let both = scaled(wanted.clone(), vec![managed.clone(), user_managed.clone()], SETTLE);
        let state = CompanionState::Theirs(user_managed.clone());
        assert_eq!(both.take(&Autoscaling), CompanionPlan { actions: vec![Action::Delete(managed)], state });
        assert_eq!(scaled(wanted, vec![user_managed], SETTLE).take(&Autoscaling).actions, []);
    }

    #[test]
    fn a_copy_under_another_name_belongs_to_the_user() {
        let wanted = Wanted::Object(hpa("api-tidegate", true, 10));
        let (managed, copy) = (hpa("api-tidegate", true, 10), hpa("copy", true, 10));
        let both = scaled(wanted, vec![managed.clone(), copy.clone()], SETTLE).take(&Autoscaling);
        assert_eq!(both, CompanionPlan { actions: vec![Action::Delete(managed)], state: CompanionState::Theirs(copy) });
    }

    #[test]
    fn does_not_take_over_an_autoscaler_with_its_name() {
        let mut foreign = hpa("api-tidegate", false, 3);
        foreign["spec"]["scaleTargetRef"]["name"] = json!("other");
        let plan = scaled(Wanted::Object(hpa("api-tidegate", true, 10)), vec![foreign], SETTLE);
        assert_eq!(plan.take(&Autoscaling).actions, []);
        assert!(matches!(plan.take(&Autoscaling).state, CompanionState::Impossible("NameTaken", _)));
    }

    #[test]
    fn keeps_the_names_of_earlier_releases() {
        let workload = WorkloadRef { name: "keda-hpa-api".into(), ..workload() };
        let of = |name: &str, max: i64| {
            let mut object = hpa(name, true, max);
            object["metadata"]["annotations"][WORKLOAD_ANNOTATION] = "Deployment/keda-hpa-api".into();
            object["spec"]["scaleTargetRef"]["name"] = "keda-hpa-api".into();
            object
        };
        let (now, former) = (names::autoscaler("Deployment", "keda-hpa-api"), "keda-hpa-api-tidegate");
        let planned = |autoscalers: Vec<Value>| {
            let wanted = Companions::with(&Autoscaling, Wanted::Object(of(&now, 10)));
            let observed = Observed { objects: vec![autoscalers], ..Observed::default() };
            plan(&workload, &wanted, &observed, SETTLE, SETTLE).take(&Autoscaling)
        };
        assert_eq!(planned(vec![]).actions, [Action::Apply(of(&now, 10))]);
        assert_eq!(planned(vec![of(former, 10)]), CompanionState::Ours(of(former, 10)).into());
        assert_eq!(planned(vec![of(former, 99)]).actions, [Action::Apply(of(former, 10))]);
        let of_keda = {
            let mut object = hpa(former, false, 3);
            object["spec"]["scaleTargetRef"]["name"] = "api".into();
            object
        };
        assert_eq!(planned(vec![of_keda]).actions, [Action::Apply(of(&now, 10))], "it has another name");
    }

    #[test]
    fn a_scaled_object_of_the_user_replaces_either_kind() {
        let user_managed = scaled_object("mine", false);
        for managed in [hpa("api-tidegate", true, 10), scaled_object("api-tidegate", true)] {
            let planned = scaled(Wanted::Object(managed.clone()), vec![managed.clone(), user_managed.clone()], SETTLE)
                .take(&Autoscaling);
            assert_eq!(
                planned,
                CompanionPlan {
                    actions: vec![Action::Delete(managed)],
                    state: CompanionState::Theirs(user_managed.clone())
                }
            );
        }
    }

    #[test]
    fn deletes_the_autoscaler_of_one_engine_before_creating_the_other() {
        let (hpa, object) = (hpa("api-tidegate", true, 10), scaled_object("api-tidegate", true));
        for (from, to) in [(&hpa, &object), (&object, &hpa)] {
            let planned = scaled(Wanted::Object(to.clone()), vec![from.clone()], SETTLE);
            assert_eq!(planned.take(&Autoscaling).actions, [Action::Delete(from.clone())]);
            assert!(matches!(planned.take(&Autoscaling).state, CompanionState::Pending(_)));
            assert_eq!(planned.again, None, "a watch reports its deletion");
            let then = scaled(Wanted::Object(to.clone()), vec![], SETTLE).take(&Autoscaling);
            assert_eq!(then.actions, [Action::Apply(to.clone())]);
        }
        let mut going = object.clone();
        going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        assert_eq!(scaled(Wanted::Object(hpa), vec![going], SETTLE).take(&Autoscaling).actions, []);
    }

    #[test]
    fn waits_for_the_deletion_of_kedas_autoscaler() {
        let of = |wanted: &Value, autoscalers: Vec<Value>| {
            let wanted = Companions::with(&Autoscaling, Wanted::Object(wanted.clone()));
            let observed = Observed { objects: vec![autoscalers], is_scaled_by_keda: true, ..Observed::default() };
            plan(&workload(), &wanted, &observed, SETTLE, SETTLE).take(&Autoscaling)
        };
        let object = scaled_object("api-tidegate", true);
        for wanted in [&hpa("api-tidegate", true, 10), &object] {
            let planned = of(wanted, vec![]);
            assert!(planned.actions.is_empty() && matches!(planned.state, CompanionState::Pending(_)), "{planned:?}");
        }
        assert_eq!(
            of(&object, vec![object.clone()]),
            CompanionState::Ours(object).into(),
            "it belongs to Tidegate's ScaledObject"
        );
    }

    #[test]
    fn deletes_the_autoscaler_of_a_workload_that_declines_it() {
        let managed = scaled_object("api-tidegate", true);
        let planned = scaled(Wanted::Declined, vec![managed.clone()], SETTLE).take(&Autoscaling);
        assert_eq!(planned, CompanionPlan { actions: vec![Action::Delete(managed)], state: CompanionState::Declined });
    }

    #[test]
    fn deletes_companions_that_would_harm_the_workload() {
        let harmful = || Wanted::Harmful { reason: "MultiNode", message: "parts".into() };
        let state = CompanionState::Harmful("MultiNode", "parts".into());
        let (autoscaler, budget) = (hpa("api-tidegate", true, 10), budget("api-tidegate", true, 1));
        let planned = scaled(harmful(), vec![autoscaler.clone()], SETTLE).take(&Autoscaling);
        assert_eq!(planned, CompanionPlan { actions: vec![Action::Delete(autoscaler)], state: state.clone() });
        let planned = guarded(harmful(), vec![budget.clone()], SETTLE);
        assert_eq!(planned, CompanionPlan { actions: vec![Action::Delete(budget)], state });
    }

    #[test]
    fn keeps_an_autoscaler_that_cannot_be_replaced() {
        let managed = hpa("api-tidegate", true, 10);
        let wanted = Wanted::Impossible { reason: "EngineNotServed", message: "no KEDA".into() };
        let planned = scaled(wanted, vec![managed.clone()], SETTLE).take(&Autoscaling);
        assert_eq!(planned, CompanionState::Left(managed, "EngineNotServed", "no KEDA".into()).into());
    }

    fn budget(name: &str, managed: bool, most: i64) -> Value {
        let mut object = json!({
            "kind": "PodDisruptionBudget", "metadata": {"name": name, "namespace": "ns"}, "spec": {"maxUnavailable": most}
        });
        if managed {
            mark(&mut object);
        }
        object
    }

    fn guarded(wanted: Wanted, budgets: Vec<Value>, waited: Duration) -> CompanionPlan {
        let wanted = Companions::with(&DisruptionBudget, wanted);
        plan(&workload(), &wanted, &Observed { objects: vec![vec![], budgets], ..Observed::default() }, waited, SETTLE)
            .take(&DisruptionBudget)
    }

    #[test]
    fn creates_a_budget_after_the_delay_and_reverts_edits() {
        let managed = budget("api-tidegate", true, 1);
        let wanted = || Wanted::Object(managed.clone());
        assert!(matches!(guarded(wanted(), vec![], Duration::ZERO).state, CompanionState::Pending(_)));
        assert_eq!(guarded(wanted(), vec![], SETTLE).actions, [Action::Apply(managed.clone())]);
        assert_eq!(guarded(wanted(), vec![managed.clone()], Duration::ZERO).actions, []);
        let edited = budget("api-tidegate", true, 3);
        assert_eq!(guarded(wanted(), vec![edited], Duration::ZERO).actions, [Action::Apply(managed.clone())]);
        assert_eq!(
            guarded(Wanted::Nothing, vec![managed.clone()], SETTLE),
            CompanionState::Unmanaged(managed.clone()).into()
        );
    }

    #[test]
    fn a_budget_of_the_user_replaces_tidegates() {
        let (managed, user_managed) = (budget("api-tidegate", true, 1), budget("mine", false, 2));
        let both = guarded(Wanted::Object(managed.clone()), vec![managed.clone(), user_managed.clone()], SETTLE);
        assert_eq!(
            both,
            CompanionPlan {
                actions: vec![Action::Delete(managed.clone())],
                state: CompanionState::Theirs(user_managed)
            }
        );
        let foreign = budget("api-tidegate", false, 2);
        assert_eq!(
            guarded(Wanted::Object(managed), vec![foreign.clone()], SETTLE),
            CompanionState::Theirs(foreign).into()
        );
    }

    #[test]
    fn keeps_companions_that_no_policy_asks_for_any_more() {
        let managed = hpa("api-tidegate", true, 10);
        let plan = scaled(Wanted::Nothing, vec![managed.clone()], SETTLE);
        assert_eq!(plan.take(&Autoscaling), CompanionState::Unmanaged(managed).into());
        let database = postgres(true, "17", &json!({"api": []}));
        let plan = stored(Wanted::Nothing, Some(database.clone()));
        assert_eq!(plan.take(&Databases), CompanionState::Unmanaged(database).into());
    }

    #[test]
    fn creates_a_database_and_then_only_adds_to_it() {
        let wanted = postgres(true, "17", &json!({"api": []}));
        assert_eq!(
            stored(Wanted::Object(wanted.clone()), None).take(&Databases).actions,
            [Action::Create(wanted.clone())]
        );
        assert_eq!(stored(Wanted::Object(wanted.clone()), Some(wanted.clone())).take(&Databases).actions, []);
        let lacking = postgres(true, "17", &json!({"own": ["createdb"]}));
        let [Action::Merge(added)] = &stored(Wanted::Object(wanted), Some(lacking)).take(&Databases).actions[..] else {
            panic!("the missing user is added")
        };
        assert_eq!(added["spec"], json!({"users": {"api": []}}));
        assert_eq!(added["metadata"]["annotations"], Value::Null);
    }

    #[test]
    fn adds_annotations_to_an_existing_database_but_changes_none() {
        let found = postgres(true, "17", &json!({"api": []}));
        let mut wanted = found.clone();
        wanted["metadata"]["annotations"]["example.com/new"] = "a".into();
        wanted["metadata"]["annotations"][WORKLOAD_ANNOTATION] = "b".into();
        let plan = stored(Wanted::Object(wanted), Some(found)).take(&Databases);
        let [Action::Merge(added)] = &plan.actions[..] else { panic!("the missing annotation is added") };
        assert_eq!(added["metadata"]["annotations"], json!({"example.com/new": "a"}));
        assert_eq!(added["spec"], Value::Null);
    }

    #[test]
    fn reports_edits_to_a_database_without_reverting_them() {
        let wanted = Wanted::Object(postgres(true, "17", &json!({"api": []})));
        let database = stored(wanted, Some(postgres(true, "18", &json!({"api": []})))).take(&Databases);
        assert_eq!(database.actions, []);
        let CompanionState::Drifted(_, message) = database.state else { panic!("the edit is reported") };
        assert_eq!(message, r#"spec.postgresql is {"version":"18"}, the policy has {"version":"17"}"#);
    }

    #[test]
    fn does_not_manage_an_existing_secret() {
        let secret = json!({"kind": "Secret", "metadata": {"name": "s"}});
        let plan = stored(Wanted::Theirs(secret.clone()), None);
        assert_eq!(plan.take(&Databases), CompanionState::External(secret).into());
    }

    #[test]
    fn keeps_the_database_of_a_workload_that_uses_another() {
        let elsewhere = |found: Option<Value>| stored(Wanted::Elsewhere("PGHOST".to_owned()), found).take(&Databases);
        let is = |found: Option<Value>| CompanionState::Elsewhere(found, "PGHOST".to_owned()).into();
        let (managed, user_managed) = (postgres(true, "17", &json!({})), postgres(false, "17", &json!({})));
        assert_eq!(elsewhere(None), is(None));
        assert_eq!(elsewhere(Some(managed.clone())), is(Some(managed)));
        assert_eq!(elsewhere(Some(user_managed)), is(None));
    }

    #[test]
    fn never_adopts_an_existing_database() {
        let wanted = Wanted::Object(postgres(true, "17", &json!({"api": []})));
        let database = stored(wanted, Some(postgres(false, "17", &json!({})))).take(&Databases);
        assert_eq!(database.actions, []);
        assert!(matches!(database.state, CompanionState::Impossible("NameTaken", _)));
    }
}
