//! Peace with the autoscaler: an update does not reset the replicas that an autoscaler holds.

use json_patch::jsonptr::PointerBuf;
use json_patch::{PatchOperation, ReplaceOperation};

use super::Request;
use crate::companions::autoscaler;
use crate::facts::Facts;
use crate::policy::Effective;

/// The live number of replicas, kept against an update, and what its author is told.
pub(super) struct KeptReplicas {
    pub(super) replicas: i64,
    pub(super) warning: String,
}

/// Returns the change of a workload to a number of replicas; it said another one.
pub(super) fn set(replicas: i64) -> PatchOperation {
    let path = PointerBuf::from_tokens(["spec", "replicas"]);
    PatchOperation::Replace(ReplaceOperation { path, value: replicas.into() })
}

/// Tells whether an update would reset replicas that an autoscaler holds within its bounds. Zero, and zero to any number,
/// are a person's doing and let through.
pub(super) fn kept(request: &Request, effective: &Effective, facts: &Facts) -> Option<KeptReplicas> {
    if !autoscaler::preserves_replicas(effective) {
        return None;
    }
    let (live, wanted) = (request.old?.replicas()?, request.workload.replicas()?);
    if live == wanted || live == 0 || wanted == 0 {
        return None;
    }
    let autoscalers = facts.autoscalers_of(&request.workload.reference());
    let holder = autoscalers.iter().find(|held| (held.min..=held.max).contains(&live))?;
    Some(KeptReplicas {
        replicas: live,
        warning: format!(
            "spec.replicas stays {live}, not {wanted}: {} {} holds it between {} and {}; drop spec.replicas from the manifest",
            holder.kind, holder.name, holder.min, holder.max
        ),
    })
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

    fn of(replicas: &Value) -> Value {
        let mut object = deployment(&json!([]));
        object["spec"]["replicas"] = replicas.clone();
        object
    }

    fn kept_by(spec: Value, facts: &Facts, live: &Value, wanted: &Value) -> Option<i64> {
        let policies = policies(&[("serving", spec)]);
        let (old, new) = (of(live), of(wanted));
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
    fn what_an_autoscaler_holds_within_its_bounds_is_kept() {
        let kept = |live: i64, wanted: i64| kept_by(json!({}), &scaled(2, 4), &json!(live), &json!(wanted));
        assert_eq!((kept(4, 1), kept(2, 9)), (Some(4), Some(2)));
        assert_eq!((kept(1, 3), kept(5, 3)), (None, None), "out of its bounds it holds nothing");
        assert_eq!(kept(3, 3), None);
    }

    #[test]
    fn zero_is_a_persons_doing() {
        let kept = |live: i64, wanted: i64| kept_by(json!({}), &scaled(0, 4), &json!(live), &json!(wanted));
        assert_eq!((kept(3, 0), kept(0, 3)), (None, None));
    }

    #[test]
    fn replicas_that_are_not_said_are_left_to_the_api_server() {
        assert_eq!(kept_by(json!({}), &scaled(1, 4), &json!(3), &json!(null)), None);
        assert_eq!(kept_by(json!({}), &scaled(1, 4), &json!(null), &json!(3)), None);
    }

    #[test]
    fn without_an_autoscaler_or_where_the_policy_says_so_nothing_is_kept() {
        assert_eq!(kept_by(json!({}), &facts(), &json!(3), &json!(1)), None);
        let off = json!({"autoscaling": {"preserveReplicas": false}});
        assert_eq!(kept_by(off, &scaled(1, 4), &json!(3), &json!(1)), None);
    }
}
