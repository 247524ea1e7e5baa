//! What to do about the companions of one workload: a function of what is wanted and what is there.

use std::time::Duration;

use serde_json::Value;

use super::companion::ObjectRef;
use super::{ALL, Companion, Companions, MANAGED_BY_LABEL, MANAGER, WORKLOAD_ANNOTATION, Wanted, contains};
use crate::workload::WorkloadRef;

/// What exists around one workload.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// The objects that matter for each companion, in the order of [`ALL`].
    pub objects: Vec<Vec<Value>>,
    /// Whether KEDA's own HorizontalPodAutoscaler scales it, on behalf of a ScaledObject or one that has just gone.
    pub is_scaled_by_keda: bool,
    /// What was last written about it.
    pub model_server: Option<Value>,
    /// The name of what is written about it.
    pub model_server_name: String,
}

impl Observed {
    /// Looks up what exists around a workload, by the names that companions give.
    #[must_use]
    pub fn look_up(names: &[Vec<ObjectRef>], find: impl Fn(&ObjectRef) -> Option<Value>) -> Self {
        let objects = names.iter().map(|names| names.iter().filter_map(&find).collect()).collect();
        Self { objects, ..Self::default() }
    }

    /// Returns the objects that matter for a companion.
    #[must_use]
    pub fn of(&self, companion: &dyn Companion) -> &[Value] {
        self.objects.get(place(companion)).map_or(&[], Vec::as_slice)
    }
}

/// Returns the place of a companion in [`ALL`].
pub(super) fn place(companion: &dyn Companion) -> usize {
    ALL.iter().position(|known| known.name() == companion.name()).unwrap_or(ALL.len())
}

/// One change to the cluster.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Makes an object that must not be there yet.
    Create(Value),
    /// Applies an object by server-side apply under our field manager, taking back the fields in it and dropping those
    /// that it had before.
    Apply(Value),
    /// Adds fields to an object by a merge patch, and leaves all else as it is.
    Merge(Value),
    /// Deletes an object of ours.
    Delete(Value),
}

/// What to do about each companion, and when to look again.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    /// What to do about each companion, in the order of [`ALL`].
    pub companions: Vec<CompanionPlan>,
    /// When to look again although nothing may have changed.
    pub again: Option<Duration>,
}

/// What to do about one companion, and how it stands once that is done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CompanionPlan {
    /// What to do, in order.
    pub actions: Vec<Action>,
    /// How it stands then.
    pub state: CompanionState,
}

/// How a companion stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum CompanionState {
    /// There is none, and none is wanted.
    #[default]
    Absent,
    /// It is ours, and there or about to be.
    Ours(Value),
    /// Somebody else's serves instead.
    Theirs(Value),
    /// There is none: the workload's author says that something else takes its place.
    Declined,
    /// None is wanted: the workload's author has another, or may have, as a sentence says. Ours, where there is one, is left as
    /// it is.
    Elsewhere(Option<Value>, String),
    /// It is somebody else's, and that is what is wanted.
    External(Value),
    /// It is ours, but no policy asks for it any more: it is left as it is.
    Unmanaged(Value),
    /// It is ours, and what the policy asks for instead cannot be had: it is left as it is.
    Left(Value, &'static str, String),
    /// It is ours, and a person has changed it: it is left as it is.
    Drifted(Value, String),
    /// It is wanted, and waited for.
    Pending(String),
    /// It is wanted, but cannot be had.
    Impossible(&'static str, String),
    /// The API server did not take what was to be done.
    Refused(String),
}

impl CompanionPlan {
    /// Tells whether an object is made that must not be there yet.
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
    /// Returns what to do about a companion.
    ///
    /// # Panics
    /// Never, of a plan that was made for all of them.
    #[must_use]
    pub fn of(&self, companion: &dyn Companion) -> &CompanionPlan {
        &self.companions[place(companion)]
    }

    /// Plans for one companion and nothing for the others.
    #[cfg(any(test, feature = "test-util"))]
    #[must_use]
    pub fn single(companion: &dyn Companion, plan: CompanionPlan) -> Self {
        let mut companions = vec![CompanionPlan::default(); ALL.len()];
        companions[place(companion)] = plan;
        Self { companions, again: None }
    }

    /// Returns each companion with what to do about it.
    pub fn each(&self) -> impl Iterator<Item = (&'static dyn Companion, &CompanionPlan)> {
        ALL.into_iter().zip(&self.companions)
    }
}

/// Plans the companions of a workload. `waited` is how long one that settles has been wanted without being there: the first one
/// is made after `settle`, so that one of the author's own in the same apply wins.
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

/// Tells whether a companion that settles is wanted and not there at all.
#[must_use]
pub fn is_missing(wanted: &Companions, observed: &Observed) -> bool {
    let is_missing = |companion: &&dyn Companion| {
        companion.settles() && matches!(wanted.of(*companion), Wanted::Object(_)) && observed.of(*companion).is_empty()
    };
    ALL.iter().any(is_missing)
}

/// Keeps an object of ours as it is wanted, under the name that it has: an earlier release may have given it another.
pub(super) fn kept(wanted: &Value, found: Option<&Value>) -> CompanionPlan {
    let mut wanted = wanted.clone();
    if let Some(found) = found {
        wanted["metadata"]["name"] = found["metadata"]["name"].clone();
    }
    let state = CompanionState::Ours(found.unwrap_or(&wanted).clone());
    let is_right = found.is_some_and(|found| contains(found, &wanted));
    CompanionPlan { actions: if is_right { Vec::new() } else { vec![Action::Apply(wanted)] }, state }
}

/// Tells whether an object has the kind and the name of one that is wanted.
pub(super) fn has_name_of(found: &Value, wanted: &Value) -> bool {
    found["kind"] == wanted["kind"] && found["metadata"]["name"] == wanted["metadata"]["name"]
}

/// Deletes objects, but for those that are on their way out already.
pub(super) fn deletions(objects: Vec<&Value>) -> Vec<Action> {
    let staying = objects.into_iter().filter(|object| object["metadata"]["deletionTimestamp"].is_null());
    staying.cloned().map(Action::Delete).collect()
}

/// Returns a text; an empty one where it is none.
pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Tells whether Tidegate made an object for this workload.
pub(super) fn is_ours(object: &Value, workload: &WorkloadRef) -> bool {
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

    fn hpa(name: &str, ours: bool, max: i64) -> Value {
        let mut object = json!({
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"name": name, "namespace": "ns"},
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "api"}, "maxReplicas": max
            }
        });
        if ours {
            mark(&mut object);
        }
        object
    }

    fn mark(object: &mut Value) {
        object["metadata"]["labels"] = json!({MANAGED_BY_LABEL: MANAGER});
        object["metadata"]["annotations"] = json!({WORKLOAD_ANNOTATION: "Deployment/api"});
    }

    fn postgres(ours: bool, version: &str, users: &Value) -> Value {
        let mut object = json!({
            "apiVersion": "acid.zalan.do/v1", "kind": "postgresql", "metadata": {"name": "acid-api", "namespace": "ns"},
            "spec": {"postgresql": {"version": version}, "users": users, "databases": {"api": "api"}}
        });
        if ours {
            mark(&mut object);
        }
        object
    }

    /// A ScaledObject of KEDA.
    fn scaled_object(name: &str, ours: bool) -> Value {
        let mut object = json!({
            "kind": "ScaledObject", "metadata": {"name": name, "namespace": "ns"},
            "spec": {"scaleTargetRef": {"name": "api"}, "maxReplicaCount": 4}
        });
        if ours {
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
    fn the_first_autoscaler_waits_until_things_have_settled() {
        let wanted = Wanted::Object(hpa("api-tidegate", true, 10));
        let early = scaled(wanted.clone(), vec![], Duration::from_secs(2));
        assert_eq!((early.take(&Autoscaling).actions, early.again), (vec![], Some(Duration::from_secs(3))));
        let settled = scaled(wanted, vec![], SETTLE);
        let made = vec![Action::Apply(hpa("api-tidegate", true, 10))];
        assert_eq!((settled.take(&Autoscaling).actions, settled.again), (made, None));
    }

    #[test]
    fn a_hand_edited_autoscaler_is_mended_and_a_right_one_left_alone() {
        let wanted = Wanted::Object(hpa("api-tidegate", true, 10));
        let edited = scaled(wanted.clone(), vec![hpa("api-tidegate", true, 99)], Duration::ZERO);
        assert_eq!(edited.take(&Autoscaling).actions, [Action::Apply(hpa("api-tidegate", true, 10))]);
        let mut more = hpa("api-tidegate", true, 10);
        more["spec"]["behavior"] = json!({"scaleDown": {}});
        assert_eq!(scaled(wanted, vec![more], Duration::ZERO).take(&Autoscaling).actions, []);
    }

    #[test]
    fn an_autoscaler_that_means_the_same_is_left_alone() {
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
    fn a_size_that_means_the_same_has_not_drifted() {
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
    fn ours_yields_to_the_authors() {
        let wanted = Wanted::Object(hpa("api-tidegate", true, 10));
        let (ours, theirs) = (hpa("api-tidegate", true, 10), hpa("mine", false, 3));
        let both = scaled(wanted.clone(), vec![ours.clone(), theirs.clone()], SETTLE);
        let state = CompanionState::Theirs(theirs.clone());
        assert_eq!(both.take(&Autoscaling), CompanionPlan { actions: vec![Action::Delete(ours)], state });
        assert_eq!(scaled(wanted, vec![theirs], SETTLE).take(&Autoscaling).actions, []);
    }

    #[test]
    fn a_copy_of_ours_under_another_name_is_its_authors() {
        let wanted = Wanted::Object(hpa("api-tidegate", true, 10));
        let (ours, copy) = (hpa("api-tidegate", true, 10), hpa("copy", true, 10));
        let both = scaled(wanted, vec![ours.clone(), copy.clone()], SETTLE).take(&Autoscaling);
        assert_eq!(both, CompanionPlan { actions: vec![Action::Delete(ours)], state: CompanionState::Theirs(copy) });
    }

    #[test]
    fn an_autoscaler_of_our_name_that_is_not_ours_is_not_taken() {
        let mut foreign = hpa("api-tidegate", false, 3);
        foreign["spec"]["scaleTargetRef"]["name"] = json!("other");
        let plan = scaled(Wanted::Object(hpa("api-tidegate", true, 10)), vec![foreign], SETTLE);
        assert_eq!(plan.take(&Autoscaling).actions, []);
        assert!(matches!(plan.take(&Autoscaling).state, CompanionState::Impossible("NameTaken", _)));
    }

    #[test]
    fn what_an_earlier_release_made_keeps_its_name() {
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
    fn a_scaled_object_of_the_authors_wins_over_either_of_ours() {
        let theirs = scaled_object("mine", false);
        for ours in [hpa("api-tidegate", true, 10), scaled_object("api-tidegate", true)] {
            let course =
                scaled(Wanted::Object(ours.clone()), vec![ours.clone(), theirs.clone()], SETTLE).take(&Autoscaling);
            assert_eq!(
                course,
                CompanionPlan { actions: vec![Action::Delete(ours)], state: CompanionState::Theirs(theirs.clone()) }
            );
        }
    }

    #[test]
    fn engines_hand_over_one_after_the_other() {
        let (hpa, object) = (hpa("api-tidegate", true, 10), scaled_object("api-tidegate", true));
        for (from, to) in [(&hpa, &object), (&object, &hpa)] {
            let course = scaled(Wanted::Object(to.clone()), vec![from.clone()], SETTLE);
            assert_eq!(course.take(&Autoscaling).actions, [Action::Delete(from.clone())]);
            assert!(matches!(course.take(&Autoscaling).state, CompanionState::Pending(_)));
            assert_eq!(course.again, None, "its going is told by a watch");
            let then = scaled(Wanted::Object(to.clone()), vec![], SETTLE).take(&Autoscaling);
            assert_eq!(then.actions, [Action::Apply(to.clone())]);
        }
        let mut going = object.clone();
        going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        assert_eq!(scaled(Wanted::Object(hpa), vec![going], SETTLE).take(&Autoscaling).actions, []);
    }

    #[test]
    fn what_keda_made_goes_before_an_autoscaler_is_made() {
        let of = |wanted: &Value, autoscalers: Vec<Value>| {
            let wanted = Companions::with(&Autoscaling, Wanted::Object(wanted.clone()));
            let observed = Observed { objects: vec![autoscalers], is_scaled_by_keda: true, ..Observed::default() };
            plan(&workload(), &wanted, &observed, SETTLE, SETTLE).take(&Autoscaling)
        };
        let object = scaled_object("api-tidegate", true);
        for wanted in [&hpa("api-tidegate", true, 10), &object] {
            let course = of(wanted, vec![]);
            assert!(course.actions.is_empty() && matches!(course.state, CompanionState::Pending(_)), "{course:?}");
        }
        assert_eq!(of(&object, vec![object.clone()]), CompanionState::Ours(object).into(), "it was made for ours");
    }

    #[test]
    fn ours_goes_where_the_author_has_it_scaled_elsewhere() {
        let ours = scaled_object("api-tidegate", true);
        let course = scaled(Wanted::Declined, vec![ours.clone()], SETTLE).take(&Autoscaling);
        assert_eq!(course, CompanionPlan { actions: vec![Action::Delete(ours)], state: CompanionState::Declined });
    }

    #[test]
    fn what_cannot_be_had_instead_leaves_what_is_there() {
        let ours = hpa("api-tidegate", true, 10);
        let wanted = Wanted::Impossible { reason: "EngineNotServed", message: "no KEDA".into() };
        let course = scaled(wanted, vec![ours.clone()], SETTLE).take(&Autoscaling);
        assert_eq!(course, CompanionState::Left(ours, "EngineNotServed", "no KEDA".into()).into());
    }

    fn budget(name: &str, ours: bool, most: i64) -> Value {
        let mut object = json!({
            "kind": "PodDisruptionBudget", "metadata": {"name": name, "namespace": "ns"}, "spec": {"maxUnavailable": most}
        });
        if ours {
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
    fn a_budget_is_made_once_things_have_settled_and_kept_right() {
        let ours = budget("api-tidegate", true, 1);
        let wanted = || Wanted::Object(ours.clone());
        assert!(matches!(guarded(wanted(), vec![], Duration::ZERO).state, CompanionState::Pending(_)));
        assert_eq!(guarded(wanted(), vec![], SETTLE).actions, [Action::Apply(ours.clone())]);
        assert_eq!(guarded(wanted(), vec![ours.clone()], Duration::ZERO).actions, []);
        let edited = budget("api-tidegate", true, 3);
        assert_eq!(guarded(wanted(), vec![edited], Duration::ZERO).actions, [Action::Apply(ours.clone())]);
        assert_eq!(
            guarded(Wanted::Nothing, vec![ours.clone()], SETTLE),
            CompanionState::Unmanaged(ours.clone()).into()
        );
    }

    #[test]
    fn a_budget_gives_way_to_the_authors() {
        let (ours, theirs) = (budget("api-tidegate", true, 1), budget("mine", false, 2));
        let both = guarded(Wanted::Object(ours.clone()), vec![ours.clone(), theirs.clone()], SETTLE);
        assert_eq!(
            both,
            CompanionPlan { actions: vec![Action::Delete(ours.clone())], state: CompanionState::Theirs(theirs) }
        );
        let foreign = budget("api-tidegate", false, 2);
        assert_eq!(
            guarded(Wanted::Object(ours), vec![foreign.clone()], SETTLE),
            CompanionState::Theirs(foreign).into()
        );
    }

    #[test]
    fn what_no_policy_asks_for_any_more_stays() {
        let ours = hpa("api-tidegate", true, 10);
        let plan = scaled(Wanted::Nothing, vec![ours.clone()], SETTLE);
        assert_eq!(plan.take(&Autoscaling), CompanionState::Unmanaged(ours).into());
        let database = postgres(true, "17", &json!({"api": []}));
        let plan = stored(Wanted::Nothing, Some(database.clone()));
        assert_eq!(plan.take(&Databases), CompanionState::Unmanaged(database).into());
    }

    #[test]
    fn a_database_is_created_once_and_then_only_added_to() {
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
    }

    #[test]
    fn a_persons_change_to_a_database_is_told_and_not_reverted() {
        let wanted = Wanted::Object(postgres(true, "17", &json!({"api": []})));
        let database = stored(wanted, Some(postgres(true, "18", &json!({"api": []})))).take(&Databases);
        assert_eq!(database.actions, []);
        let CompanionState::Drifted(_, told) = database.state else { panic!("the change is told") };
        assert_eq!(told, r#"spec.postgresql is {"version":"18"}, the policy has {"version":"17"}"#);
    }

    #[test]
    fn a_secret_that_is_there_already_is_left_to_whoever_made_it() {
        let secret = json!({"kind": "Secret", "metadata": {"name": "s"}});
        let plan = stored(Wanted::Theirs(secret.clone()), None);
        assert_eq!(plan.take(&Databases), CompanionState::External(secret).into());
    }

    #[test]
    fn where_the_author_has_another_ours_is_left_as_it_is() {
        let elsewhere = |found: Option<Value>| stored(Wanted::Elsewhere("PGHOST".to_owned()), found).take(&Databases);
        let is = |found: Option<Value>| CompanionState::Elsewhere(found, "PGHOST".to_owned()).into();
        let (ours, theirs) = (postgres(true, "17", &json!({})), postgres(false, "17", &json!({})));
        assert_eq!(elsewhere(None), is(None));
        assert_eq!(elsewhere(Some(ours.clone())), is(Some(ours)));
        assert_eq!(elsewhere(Some(theirs)), is(None));
    }

    #[test]
    fn somebody_elses_database_is_never_adopted() {
        let wanted = Wanted::Object(postgres(true, "17", &json!({"api": []})));
        let database = stored(wanted, Some(postgres(false, "17", &json!({})))).take(&Databases);
        assert_eq!(database.actions, []);
        assert!(matches!(database.state, CompanionState::Impossible("NameTaken", _)));
    }
}
