//! Keeps the replicas that an autoscaler has set when an update would reset them, and lets the author's manifest own
//! the field as well.

use json_patch::jsonptr::PointerBuf;
use json_patch::{PatchOperation, ReplaceOperation};

use super::Request;
use crate::companions::autoscaler;
use crate::facts::{Autoscaler, Facts};
use crate::policy::Effective;
use crate::workload::Workload;

/// The live number of replicas, which an update does not reset, and a warning for the user.
pub(super) struct KeptReplicas {
    pub(super) replicas: i64,
    pub(super) warning: String,
}

/// Returns the change of the number of replicas of a workload.
pub(super) fn set(replicas: i64) -> PatchOperation {
    let path = PointerBuf::from_tokens(["spec", "replicas"]);
    PatchOperation::Replace(ReplaceOperation { path, value: replicas.into() })
}

/// Returns the live replicas if an update would reset them and an autoscaler has set them, within its bounds. Updates
/// from or to zero are allowed: users scale to zero, autoscalers do not.
pub(super) fn kept(request: &Request, effective: &Effective, facts: &Facts) -> Option<KeptReplicas> {
    if !autoscaler::preserves_replicas(effective) {
        return None;
    }
    let (live, wanted) = (request.old?.replicas()?, request.workload.replicas()?);
    if live == wanted || live == 0 || wanted == 0 {
        return None;
    }
    let autoscaler = holding(live, &request.workload, facts)?;
    Some(KeptReplicas {
        replicas: live,
        warning: format!(
            "spec.replicas stays {live} instead of {wanted}: {} {} keeps it between {} and {}; remove spec.replicas \
             from the manifest",
            autoscaler.kind, autoscaler.name, autoscaler.min, autoscaler.max
        ),
    })
}

/// Returns whether an autoscaler keeps the live replicas, and does not need to own them for that: an update that would
/// reset them is changed by [`kept`].
pub(super) fn are_shared(workload: &Workload, effective: &Effective, facts: &Facts) -> bool {
    autoscaler::shares_replicas(effective)
        && workload.replicas().is_some_and(|live| live != 0 && holding(live, workload, facts).is_some())
}

/// Returns the autoscaler that keeps a number of replicas within its bounds.
fn holding<'f>(live: i64, workload: &Workload, facts: &'f Facts) -> Option<&'f Autoscaler> {
    let autoscalers = facts.autoscalers_of(&workload.reference());
    autoscalers.iter().find(|autoscaler| (autoscaler.min..=autoscaler.max).contains(&live))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use serde_json::{Value, json};

    use super::*;
    use crate::decision::Operation;
    use crate::facts::User;
    use crate::testing::{deployment, facts, policies, scaled};
    use crate::workload::Workload;

    fn with_replicas(replicas: &Value) -> Value {
        let mut object = deployment(&json!([]));
        object["spec"]["replicas"] = replicas.clone();
        object
    }

    fn kept_by(spec: Value, facts: &Facts, live: &Value, wanted: &Value) -> Option<i64> {
        let policies = policies(&[("serving", spec)]);
        let (old, new) = (with_replicas(live), with_replicas(wanted));
        let (workload, old) = (Workload::view(&new).unwrap(), Workload::view(&old).unwrap());
        let request = Request {
            operation: Operation::Update,
            workload,
            old: Some(old),
            user: User::named("jane"),
            now: Timestamp::UNIX_EPOCH,
        };
        let effective = policies.resolve(&workload, facts).unwrap();
        kept(&request, &effective, facts).map(|kept| kept.replicas)
    }

    #[test]
    fn keeps_replicas_within_the_bounds_of_an_autoscaler() {
        let kept = |live: i64, wanted: i64| kept_by(json!({}), &scaled(2, 4), &json!(live), &json!(wanted));
        assert_eq!((kept(4, 1), kept(2, 9)), (Some(4), Some(2)));
        assert_eq!((kept(1, 3), kept(5, 3)), (None, None), "out of its bounds");
        assert_eq!(kept(3, 3), None);
    }

    #[test]
    fn allows_updates_from_and_to_zero() {
        let kept = |live: i64, wanted: i64| kept_by(json!({}), &scaled(0, 4), &json!(live), &json!(wanted));
        assert_eq!((kept(3, 0), kept(0, 3)), (None, None));
    }

    #[test]
    fn ignores_updates_without_replicas() {
        assert_eq!(kept_by(json!({}), &scaled(1, 4), &json!(3), &json!(null)), None);
        assert_eq!(kept_by(json!({}), &scaled(1, 4), &json!(null), &json!(3)), None);
    }

    #[test]
    fn shares_replicas_that_an_autoscaler_keeps() {
        let shared = |spec: Value, facts: &Facts, live: Value| {
            let (policies, object) = (policies(&[("serving", spec)]), with_replicas(&live));
            let workload = Workload::view(&object).unwrap();
            are_shared(&workload, &policies.resolve(&workload, facts).unwrap(), facts)
        };
        assert!(shared(json!({}), &scaled(2, 4), json!(3)));
        assert!(!shared(json!({}), &scaled(2, 4), json!(5)), "out of its bounds");
        assert!(!shared(json!({}), &scaled(0, 4), json!(0)), "updates from zero are not kept");
        assert!(!shared(json!({}), &facts(), json!(3)), "without an autoscaler");
        assert!(!shared(json!({"autoscaling": {"shareReplicas": false}}), &scaled(2, 4), json!(3)));
    }

    #[test]
    fn keeps_nothing_without_an_autoscaler_or_if_switched_off() {
        assert_eq!(kept_by(json!({}), &facts(), &json!(3), &json!(1)), None);
        let off = json!({"autoscaling": {"preserveReplicas": false}});
        assert_eq!(kept_by(off, &scaled(1, 4), &json!(3), &json!(1)), None);
    }
}
