//! What to do about the companions of one workload: a function of what is wanted and what is there.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::Observed;
use tidegate_engine::companions::{
    Companions, MANAGED_BY_LABEL, MANAGER, WORKLOAD_ANNOTATION, Wanted, contains, names,
};
use tidegate_engine::facts::{Autoscaler, SCALED_OBJECT};
use tidegate_engine::quantity::fields::Fields;
use tidegate_engine::workload::WorkloadRef;

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
    /// What to do about the autoscaler.
    pub autoscaler: Course,
    /// What to do about the PodDisruptionBudget.
    pub budget: Course,
    /// What to do about the database.
    pub database: Course,
    /// When to look again although nothing may have changed.
    pub again: Option<Duration>,
}

/// What to do about one companion, and how it stands once that is done.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Course {
    /// What to do, in order.
    pub actions: Vec<Action>,
    /// How it stands then.
    pub standing: Standing,
}

/// How a companion stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Standing {
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

impl From<Standing> for Course {
    fn from(standing: Standing) -> Self {
        Self { actions: Vec::new(), standing }
    }
}

/// Plans the companions of a workload. `waited` is how long its autoscaler or its budget has been wanted without being there:
/// the first one is made after `settle`, so that one of the author's own in the same apply wins.
#[must_use]
pub fn plan(
    workload: &WorkloadRef,
    wanted: &Companions,
    observed: &Observed,
    waited: Duration,
    settle: Duration,
) -> Plan {
    let is_settled = waited >= settle;
    let autoscaler = autoscaler(workload, &wanted.autoscaler, observed, is_settled);
    let budget = budget(workload, &wanted.budget, observed, is_settled);
    let is_awaited = [&autoscaler, &budget].iter().any(|course| matches!(course.standing, Standing::Pending(_)));
    let again = (is_awaited && !is_settled).then(|| settle.saturating_sub(waited));
    Plan { autoscaler, budget, database: database(workload, &wanted.database, observed), again }
}

fn autoscaler(workload: &WorkloadRef, wanted: &Wanted, observed: &Observed, is_settled: bool) -> Course {
    let (ours, others): (Vec<&Value>, Vec<&Value>) = observed
        .autoscalers
        .iter()
        .partition(|found| is_ours(found, workload) && names::is_autoscaler_of(found, &workload.kind, &workload.name));
    if let Some(theirs) = others.iter().find(|found| Autoscaler::target(found).as_ref() == Some(workload)) {
        // Two autoscalers on one workload switch each other off.
        return Course { actions: deletions(ours), standing: Standing::Theirs((*theirs).clone()) };
    }
    if *wanted == Wanted::Declined {
        return Course { actions: deletions(ours), standing: Standing::Declined };
    }
    if let Some(handed_over) = handed_over(wanted, &ours, observed) {
        return handed_over;
    }
    match (wanted, ours.first()) {
        (Wanted::Object(object), _) if others.iter().any(|other| has_name_of(other, object)) => {
            let message = "an autoscaler of that name is there and is not tidegate's".to_owned();
            Standing::Impossible("NameTaken", message).into()
        }
        (Wanted::Object(_), None) if !is_settled => {
            Standing::Pending("it is made once it is clear that its author brings none".to_owned()).into()
        }
        (Wanted::Object(object), found) => kept(object, found.copied()),
        (Wanted::Impossible { reason, message }, None) => Standing::Impossible(reason, message.clone()).into(),
        (Wanted::Impossible { reason, message }, Some(found)) => {
            Standing::Left((*found).clone(), reason, message.clone()).into()
        }
        (_, Some(found)) => Standing::Unmanaged((*found).clone()).into(),
        (_, None) => Course::default(),
    }
}

/// Keeps an object of ours as it is wanted, under the name that it has: an earlier release may have given it another.
fn kept(wanted: &Value, found: Option<&Value>) -> Course {
    let mut wanted = wanted.clone();
    if let Some(found) = found {
        wanted["metadata"]["name"] = found["metadata"]["name"].clone();
    }
    let standing = Standing::Ours(found.unwrap_or(&wanted).clone());
    let is_right = found.is_some_and(|found| contains(found, &wanted));
    Course { actions: if is_right { Vec::new() } else { vec![Action::Apply(wanted)] }, standing }
}

/// Tells whether an object has the kind and the name of one that is wanted.
fn has_name_of(found: &Value, wanted: &Value) -> bool {
    found["kind"] == wanted["kind"] && found["metadata"]["name"] == wanted["metadata"]["name"]
}

/// Hands a workload over from one engine to the other: what one has made goes, with all that KEDA made for it, before the
/// other makes anything. None where there is nothing to hand over.
fn handed_over(wanted: &Wanted, ours: &[&Value], observed: &Observed) -> Option<Course> {
    let Wanted::Object(object) = wanted else { return None };
    let stale: Vec<&Value> = ours.iter().copied().filter(|found| found["kind"] != object["kind"]).collect();
    if let Some(first) = stale.first() {
        let (kind, name) = (text(&first["kind"]), text(&first["metadata"]["name"]));
        let message = format!("{kind} {name}, which the other engine made, goes first");
        return Some(Course { actions: deletions(stale), standing: Standing::Pending(message) });
    }
    // With a ScaledObject of ours it is what KEDA made for that.
    let is_derived = observed.is_scaled_by_keda && ours.iter().all(|found| found["kind"] != SCALED_OBJECT);
    let message = "the HorizontalPodAutoscaler that KEDA made for a ScaledObject goes first";
    is_derived.then(|| Standing::Pending(message.to_owned()).into())
}

/// Deletes objects, but for those that are on their way out already.
fn deletions(objects: Vec<&Value>) -> Vec<Action> {
    let staying = objects.into_iter().filter(|object| object["metadata"]["deletionTimestamp"].is_null());
    staying.cloned().map(Action::Delete).collect()
}

fn budget(workload: &WorkloadRef, wanted: &Wanted, observed: &Observed, is_settled: bool) -> Course {
    let (kind, name) = (&workload.kind, &workload.name);
    let names = [names::disruption_budget(kind, name), names::former_disruption_budget(kind, name)];
    let has_our_name = |found: &Value| names.iter().any(|name| found["metadata"]["name"] == **name);
    let (ours, others): (Vec<&Value>, Vec<&Value>) =
        observed.budgets.iter().partition(|found| is_ours(found, workload) && has_our_name(found));
    match (wanted, ours.first(), others.first()) {
        // With two budgets for one pod the API server evicts it no more.
        (_, _, Some(theirs)) => Course { actions: deletions(ours), standing: Standing::Theirs((*theirs).clone()) },
        (Wanted::Object(_), None, _) if !is_settled => {
            Standing::Pending("it is made once it is clear that its author brings none".to_owned()).into()
        }
        (Wanted::Object(object), found, _) => kept(object, found.copied()),
        (_, Some(found), _) => Standing::Unmanaged((*found).clone()).into(),
        (_, None, _) => Course::default(),
    }
}

fn database(workload: &WorkloadRef, wanted: &Wanted, observed: &Observed) -> Course {
    match (wanted, &observed.database) {
        (Wanted::Theirs(object), _) => Standing::External(object.clone()).into(),
        (Wanted::Object(object), None) => {
            Course { actions: vec![Action::Create(object.clone())], standing: Standing::Ours(object.clone()) }
        }
        (Wanted::Object(_), Some(found)) if !is_ours(found, workload) => {
            let message = "a database of that name is there and is not tidegate's".to_owned();
            Standing::Impossible("NameTaken", message).into()
        }
        (Wanted::Object(object), Some(found)) => {
            let standing = match drift(object, found) {
                Some(drifted) => Standing::Drifted(found.clone(), drifted),
                None => Standing::Ours(found.clone()),
            };
            Course { actions: additions(object, found).map(Action::Merge).into_iter().collect(), standing }
        }
        (Wanted::Impossible { reason, message }, _) => Standing::Impossible(reason, message.clone()).into(),
        (Wanted::Elsewhere(message), found) => {
            let ours = found.clone().filter(|found| is_ours(found, workload));
            Standing::Elsewhere(ours, message.clone()).into()
        }
        (Wanted::Declined | Wanted::Nothing, Some(found)) if is_ours(found, workload) => {
            Standing::Unmanaged(found.clone()).into()
        }
        (Wanted::Declined | Wanted::Nothing, _) => Course::default(),
    }
}

/// What is only ever added to a database.
const ADDED: [&str; 3] = ["users", "databases", "preparedDatabases"];

/// Returns the users and databases that a provider's object lacks, as an object to merge into it.
fn additions(wanted: &Value, found: &Value) -> Option<Value> {
    let lacking = |field: &str| {
        let wanted = wanted["spec"][field].as_object()?;
        let missing = wanted.iter().filter(|(name, _)| found["spec"][field][*name].is_null());
        let missing: Map<String, Value> = missing.map(|(name, value)| (name.clone(), value.clone())).collect();
        (!missing.is_empty()).then(|| (field.to_owned(), Value::Object(missing)))
    };
    let spec: Map<String, Value> = ADDED.into_iter().filter_map(lacking).collect();
    let (name, namespace) = (&wanted["metadata"]["name"], &wanted["metadata"]["namespace"]);
    (!spec.is_empty()).then(|| {
        json!({
            "apiVersion": wanted["apiVersion"], "kind": wanted["kind"],
            "metadata": {"name": name, "namespace": namespace}, "spec": spec
        })
    })
}

/// Names the fields in which a database is not as the policy has it.
fn drift(wanted: &Value, found: &Value) -> Option<String> {
    let fields = wanted["spec"].as_object()?.iter().filter(|(field, _)| !ADDED.contains(&field.as_str()));
    let of_spec = Fields::of(wanted).below("spec");
    let drifted: Vec<String> = fields
        .filter(|(field, value)| !of_spec.below(field).contain(&found["spec"][*field], value))
        .map(|(field, value)| format!("spec.{field} is {}, the policy has {value}", found["spec"][field]))
        .collect();
    (!drifted.is_empty()).then(|| drifted.join("; "))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Tells whether Tidegate made an object for this workload.
fn is_ours(object: &Value, workload: &WorkloadRef) -> bool {
    let metadata = &object["metadata"];
    metadata["labels"][MANAGED_BY_LABEL] == MANAGER
        && metadata["annotations"][WORKLOAD_ANNOTATION] == format!("{}/{}", workload.kind, workload.name)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let wanted = Companions { autoscaler: wanted, ..Companions::default() };
        let observed = Observed { autoscalers, ..Observed::default() };
        plan(&workload(), &wanted, &observed, waited, SETTLE)
    }

    fn stored(wanted: Wanted, database: Option<Value>) -> Plan {
        let wanted = Companions { database: wanted, ..Companions::default() };
        let observed = Observed { database, ..Observed::default() };
        plan(&workload(), &wanted, &observed, Duration::ZERO, SETTLE)
    }

    #[test]
    fn the_first_autoscaler_waits_until_things_have_settled() {
        let wanted = Wanted::Object(hpa("api-tidegate", true, 10));
        let early = scaled(wanted.clone(), vec![], Duration::from_secs(2));
        assert_eq!((early.autoscaler.actions, early.again), (vec![], Some(Duration::from_secs(3))));
        let settled = scaled(wanted, vec![], SETTLE);
        let made = vec![Action::Apply(hpa("api-tidegate", true, 10))];
        assert_eq!((settled.autoscaler.actions, settled.again), (made, None));
    }

    #[test]
    fn a_hand_edited_autoscaler_is_mended_and_a_right_one_left_alone() {
        let wanted = Wanted::Object(hpa("api-tidegate", true, 10));
        let edited = scaled(wanted.clone(), vec![hpa("api-tidegate", true, 99)], Duration::ZERO);
        assert_eq!(edited.autoscaler.actions, [Action::Apply(hpa("api-tidegate", true, 10))]);
        let mut more = hpa("api-tidegate", true, 10);
        more["spec"]["behavior"] = json!({"scaleDown": {}});
        assert_eq!(scaled(wanted, vec![more], Duration::ZERO).autoscaler.actions, []);
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
        assert_eq!(scaled(Wanted::Object(wanted.clone()), vec![found], SETTLE).autoscaler.actions, []);
        let other = of(json!("6"), json!("50m"));
        assert_eq!(
            scaled(Wanted::Object(wanted.clone()), vec![other], SETTLE).autoscaler.actions,
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
        let standing = |found: Value| stored(Wanted::Object(of("1Gi", "1")), Some(found)).database.standing;
        assert!(matches!(standing(of("1024Mi", "1000m")), Standing::Ours(_)));
        assert!(matches!(standing(of("2Gi", "1000m")), Standing::Drifted(..)));
    }

    #[test]
    fn ours_yields_to_the_authors() {
        let wanted = Wanted::Object(hpa("api-tidegate", true, 10));
        let (ours, theirs) = (hpa("api-tidegate", true, 10), hpa("mine", false, 3));
        let both = scaled(wanted.clone(), vec![ours.clone(), theirs.clone()], SETTLE);
        let standing = Standing::Theirs(theirs.clone());
        assert_eq!(both.autoscaler, Course { actions: vec![Action::Delete(ours)], standing });
        assert_eq!(scaled(wanted, vec![theirs], SETTLE).autoscaler.actions, []);
    }

    #[test]
    fn a_copy_of_ours_under_another_name_is_its_authors() {
        let wanted = Wanted::Object(hpa("api-tidegate", true, 10));
        let (ours, copy) = (hpa("api-tidegate", true, 10), hpa("copy", true, 10));
        let both = scaled(wanted, vec![ours.clone(), copy.clone()], SETTLE).autoscaler;
        assert_eq!(both, Course { actions: vec![Action::Delete(ours)], standing: Standing::Theirs(copy) });
    }

    #[test]
    fn an_autoscaler_of_our_name_that_is_not_ours_is_not_taken() {
        let mut foreign = hpa("api-tidegate", false, 3);
        foreign["spec"]["scaleTargetRef"]["name"] = json!("other");
        let plan = scaled(Wanted::Object(hpa("api-tidegate", true, 10)), vec![foreign], SETTLE);
        assert_eq!(plan.autoscaler.actions, []);
        assert!(matches!(plan.autoscaler.standing, Standing::Impossible("NameTaken", _)));
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
            let wanted = Companions { autoscaler: Wanted::Object(of(&now, 10)), ..Companions::default() };
            let observed = Observed { autoscalers, ..Observed::default() };
            plan(&workload, &wanted, &observed, SETTLE, SETTLE).autoscaler
        };
        assert_eq!(planned(vec![]).actions, [Action::Apply(of(&now, 10))]);
        assert_eq!(planned(vec![of(former, 10)]), Standing::Ours(of(former, 10)).into());
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
            let course = scaled(Wanted::Object(ours.clone()), vec![ours.clone(), theirs.clone()], SETTLE).autoscaler;
            assert_eq!(
                course,
                Course { actions: vec![Action::Delete(ours)], standing: Standing::Theirs(theirs.clone()) }
            );
        }
    }

    #[test]
    fn engines_hand_over_one_after_the_other() {
        let (hpa, object) = (hpa("api-tidegate", true, 10), scaled_object("api-tidegate", true));
        for (from, to) in [(&hpa, &object), (&object, &hpa)] {
            let course = scaled(Wanted::Object(to.clone()), vec![from.clone()], SETTLE);
            assert_eq!(course.autoscaler.actions, [Action::Delete(from.clone())]);
            assert!(matches!(course.autoscaler.standing, Standing::Pending(_)));
            assert_eq!(course.again, None, "its going is told by a watch");
            let then = scaled(Wanted::Object(to.clone()), vec![], SETTLE).autoscaler;
            assert_eq!(then.actions, [Action::Apply(to.clone())]);
        }
        let mut going = object.clone();
        going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        assert_eq!(scaled(Wanted::Object(hpa), vec![going], SETTLE).autoscaler.actions, []);
    }

    #[test]
    fn what_keda_made_goes_before_an_autoscaler_is_made() {
        let of = |wanted: &Value, autoscalers: Vec<Value>| {
            let wanted = Companions { autoscaler: Wanted::Object(wanted.clone()), ..Companions::default() };
            let observed = Observed { autoscalers, is_scaled_by_keda: true, ..Observed::default() };
            plan(&workload(), &wanted, &observed, SETTLE, SETTLE).autoscaler
        };
        let object = scaled_object("api-tidegate", true);
        for wanted in [&hpa("api-tidegate", true, 10), &object] {
            let course = of(wanted, vec![]);
            assert!(course.actions.is_empty() && matches!(course.standing, Standing::Pending(_)), "{course:?}");
        }
        assert_eq!(of(&object, vec![object.clone()]), Standing::Ours(object).into(), "it was made for ours");
    }

    #[test]
    fn ours_goes_where_the_author_has_it_scaled_elsewhere() {
        let ours = scaled_object("api-tidegate", true);
        let course = scaled(Wanted::Declined, vec![ours.clone()], SETTLE).autoscaler;
        assert_eq!(course, Course { actions: vec![Action::Delete(ours)], standing: Standing::Declined });
    }

    #[test]
    fn what_cannot_be_had_instead_leaves_what_is_there() {
        let ours = hpa("api-tidegate", true, 10);
        let wanted = Wanted::Impossible { reason: "EngineNotServed", message: "no KEDA".into() };
        let course = scaled(wanted, vec![ours.clone()], SETTLE).autoscaler;
        assert_eq!(course, Standing::Left(ours, "EngineNotServed", "no KEDA".into()).into());
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

    fn guarded(wanted: Wanted, budgets: Vec<Value>, waited: Duration) -> Course {
        let wanted = Companions { budget: wanted, ..Companions::default() };
        plan(&workload(), &wanted, &Observed { budgets, ..Observed::default() }, waited, SETTLE).budget
    }

    #[test]
    fn a_budget_is_made_once_things_have_settled_and_kept_right() {
        let ours = budget("api-tidegate", true, 1);
        let wanted = || Wanted::Object(ours.clone());
        assert!(matches!(guarded(wanted(), vec![], Duration::ZERO).standing, Standing::Pending(_)));
        assert_eq!(guarded(wanted(), vec![], SETTLE).actions, [Action::Apply(ours.clone())]);
        assert_eq!(guarded(wanted(), vec![ours.clone()], Duration::ZERO).actions, []);
        let edited = budget("api-tidegate", true, 3);
        assert_eq!(guarded(wanted(), vec![edited], Duration::ZERO).actions, [Action::Apply(ours.clone())]);
        assert_eq!(guarded(Wanted::Nothing, vec![ours.clone()], SETTLE), Standing::Unmanaged(ours.clone()).into());
    }

    #[test]
    fn a_budget_gives_way_to_the_authors() {
        let (ours, theirs) = (budget("api-tidegate", true, 1), budget("mine", false, 2));
        let both = guarded(Wanted::Object(ours.clone()), vec![ours.clone(), theirs.clone()], SETTLE);
        assert_eq!(both, Course { actions: vec![Action::Delete(ours.clone())], standing: Standing::Theirs(theirs) });
        let foreign = budget("api-tidegate", false, 2);
        assert_eq!(guarded(Wanted::Object(ours), vec![foreign.clone()], SETTLE), Standing::Theirs(foreign).into());
    }

    #[test]
    fn what_no_policy_asks_for_any_more_stays() {
        let ours = hpa("api-tidegate", true, 10);
        let plan = scaled(Wanted::Nothing, vec![ours.clone()], SETTLE);
        assert_eq!(plan.autoscaler, Standing::Unmanaged(ours).into());
        let database = postgres(true, "17", &json!({"api": []}));
        let plan = stored(Wanted::Nothing, Some(database.clone()));
        assert_eq!(plan.database, Standing::Unmanaged(database).into());
    }

    #[test]
    fn a_database_is_created_once_and_then_only_added_to() {
        let wanted = postgres(true, "17", &json!({"api": []}));
        assert_eq!(stored(Wanted::Object(wanted.clone()), None).database.actions, [Action::Create(wanted.clone())]);
        assert_eq!(stored(Wanted::Object(wanted.clone()), Some(wanted.clone())).database.actions, []);
        let lacking = postgres(true, "17", &json!({"own": ["createdb"]}));
        let [Action::Merge(added)] = &stored(Wanted::Object(wanted), Some(lacking)).database.actions[..] else {
            panic!("the missing user is added")
        };
        assert_eq!(added["spec"], json!({"users": {"api": []}}));
    }

    #[test]
    fn a_persons_change_to_a_database_is_told_and_not_reverted() {
        let wanted = Wanted::Object(postgres(true, "17", &json!({"api": []})));
        let database = stored(wanted, Some(postgres(true, "18", &json!({"api": []})))).database;
        assert_eq!(database.actions, []);
        let Standing::Drifted(_, told) = database.standing else { panic!("the change is told") };
        assert_eq!(told, r#"spec.postgresql is {"version":"18"}, the policy has {"version":"17"}"#);
    }

    #[test]
    fn a_secret_that_is_there_already_is_left_to_whoever_made_it() {
        let secret = json!({"kind": "Secret", "metadata": {"name": "s"}});
        let plan = stored(Wanted::Theirs(secret.clone()), None);
        assert_eq!(plan.database, Standing::External(secret).into());
    }

    #[test]
    fn where_the_author_has_another_ours_is_left_as_it_is() {
        let elsewhere = |found: Option<Value>| stored(Wanted::Elsewhere("PGHOST".to_owned()), found).database;
        let is = |found: Option<Value>| Standing::Elsewhere(found, "PGHOST".to_owned()).into();
        let (ours, theirs) = (postgres(true, "17", &json!({})), postgres(false, "17", &json!({})));
        assert_eq!(elsewhere(None), is(None));
        assert_eq!(elsewhere(Some(ours.clone())), is(Some(ours)));
        assert_eq!(elsewhere(Some(theirs)), is(None));
    }

    #[test]
    fn somebody_elses_database_is_never_adopted() {
        let wanted = Wanted::Object(postgres(true, "17", &json!({"api": []})));
        let database = stored(wanted, Some(postgres(false, "17", &json!({})))).database;
        assert_eq!(database.actions, []);
        assert!(matches!(database.standing, Standing::Impossible("NameTaken", _)));
    }
}
