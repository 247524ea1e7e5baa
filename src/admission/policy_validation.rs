//! Reviews of Tidegate's own kinds: invalid policies and exceptions are refused when they are applied.

use k8s_openapi::jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Answer, BadReview, Envelope};
use crate::report;
use tidegate_engine::BUILTIN;
use tidegate_engine::api::{ServingException, ServingPolicy};
use tidegate_engine::companions::autoscaler;
use tidegate_engine::facts::Facts;
use tidegate_engine::policy::{Exception, Policy, PolicyConflicts, PolicySet};
use tidegate_engine::workload::{Workload, WorkloadRef};

/// Looks up a stored workload; none if it is not watched.
pub type Stored<'s> = &'s dyn Fn(&WorkloadRef) -> Option<Value>;

/// The warnings about an object, or why it is refused.
type Validation = Result<Vec<String>, String>;

/// Answers a review of a `ServingPolicy` or `ServingException`.
///
/// # Errors
/// If the body is not a valid review.
pub fn answer(
    body: &[u8],
    now: Timestamp,
    policies: &PolicySet,
    facts: &Facts,
    stored: Stored,
) -> Result<Vec<u8>, BadReview> {
    let request = serde_json::from_slice::<Envelope<Value>>(body).map_err(BadReview::Malformed)?.request()?;
    let object = request.object.unwrap_or_default();
    let validation = match &*request.kind.kind {
        "ServingPolicy" => of_policy(&object, request.old_object.as_ref(), policies).map(|(policy, mut warnings)| {
            warnings.extend(held(policy, policies, facts, stored));
            warnings
        }),
        "ServingException" => of_exception(&object, now, policies),
        _ => Ok(Vec::new()),
    };
    let named = format!("{} {}", request.kind.kind, request.name);
    Ok(match validation {
        Ok(warnings) => Answer { warnings, ..Answer::allow(&request.uid) },
        Err(why) => Answer::refuse(&request.uid, format!("tidegate refuses {named}: {why}"), Vec::new()),
    }
    .encode())
}

fn of_policy(object: &Value, old: Option<&Value>, policies: &PolicySet) -> Result<(Policy, Vec<String>), String> {
    let policy = compiled(object)?;
    let PolicyConflicts { conflicts, contradictions } = policies.beside(&policy);
    // Like a workload, a policy is not refused for problems that it had before.
    let before = old.and_then(|old| compiled(old).ok()).map(|old| policies.beside(&old)).unwrap_or_default();
    let new: Vec<&str> = contradictions.difference(&before.contradictions).map(String::as_str).collect();
    if !new.is_empty() {
        return Err(new.join("; "));
    }
    Ok((policy, contradictions.into_iter().chain(conflicts).collect()))
}

/// Warns of workloads with an autoscaler managed by Tidegate that have more replicas than a policy allows.
fn held(policy: Policy, policies: &PolicySet, facts: &Facts, stored: Stored) -> Option<String> {
    let name = policy.reference().name.clone();
    let scaled: Vec<&WorkloadRef> = facts.scaled_above(policy.least_max_replicas()?).collect();
    let policies = policies.replacing(policy);
    let replicas = |workload: &WorkloadRef| {
        let object = stored(workload)?;
        let workload = Workload::view(&object).ok()?;
        let effective = policies.resolve(&workload, facts)?;
        let is_meant = autoscaler::bounding_policy(&effective) == Some(&*name);
        autoscaler::settings(&effective).filter(|settings| is_meant && settings.is_wanted(&workload))?.above(&workload)
    };
    report::held(&scaled.into_iter().filter_map(|workload| Some((workload, replicas(workload)?))).collect())
}

fn compiled(object: &Value) -> Result<Policy, String> {
    Policy::compile(&read::<ServingPolicy>(object)?, &BUILTIN).map_err(|problem| report::chain(&problem))
}

fn of_exception(object: &Value, now: Timestamp, policies: &PolicySet) -> Validation {
    let exception =
        Exception::compile(&read::<ServingException>(object)?).map_err(|problem| report::chain(&problem))?;
    let mut warnings = Vec::new();
    if exception.expires() <= now {
        warnings.push(format!("the exception expired at {}: it has no effect", exception.expires()));
    }
    let unknown =
        exception.unknown_rules(&BUILTIN).filter(|id| !policies.policies().iter().any(|policy| policy.has_rule(id)));
    warnings.extend(unknown.map(|id| format!("unknown rule `{id}`; run `tidegate explain` for a list")));
    for policy in policies.policies() {
        let never = exception.rules().filter(|id| policy.never_excepts(id));
        let name = &policy.reference().name;
        warnings.extend(never.map(|id| format!("policy {name} does not allow exceptions to `{id}`: it still applies")));
    }
    Ok(warnings)
}

fn read<T: DeserializeOwned>(object: &Value) -> Result<T, String> {
    serde_json::from_value(object.clone()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use tidegate_engine::testing::{policies, scaled, with_container};

    /// The answer to an object of one of Tidegate's kinds, as text.
    fn review(kind: &str, spec: &Value, old: Option<&Value>) -> String {
        let other = policies(&[(
            "other",
            json!({
                "resources": {"cpu": {"limits": {"memory": "2Gi"}}}, "autoscaling": {"maxReplicas": 4},
                "exceptions": {"never": ["privileged-container"]}
            }),
        )]);
        let object = |spec: &Value| {
            let metadata = json!({"name": "new", "namespace": "ml", "creationTimestamp": "2026-01-01T00:00:00Z"});
            json!({"apiVersion": "tidegate.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec})
        };
        let body = json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
            "request": {
                "uid": "u-1", "operation": "CREATE", "name": "new", "object": object(spec), "oldObject": old.map(object),
                "kind": {"group": "tidegate.dev", "version": "v1alpha1", "kind": kind}
            }
        });
        let now = "2026-06-01T00:00:00Z".parse().unwrap();
        let stored = |workload: &WorkloadRef| {
            let mut object = with_container(&json!({}));
            object["metadata"]["name"] = workload.name.clone().into();
            object["spec"]["replicas"] = 3.into();
            Some(object)
        };
        let answer = answer(body.to_string().as_bytes(), now, &other, &scaled(1, 4), &stored).unwrap();
        let response = serde_json::from_slice::<Value>(&answer).unwrap()["response"].take();
        assert_eq!(response["uid"], "u-1");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let warnings =
            response["warnings"].as_array().into_iter().flatten().map(|warning| format!("warning: {}", text(warning)));
        let refused = (response["allowed"] == false).then(|| text(&response["status"]["message"]));
        let lines: Vec<String> = refused.into_iter().chain(warnings).collect();
        if lines.is_empty() { "allowed".to_owned() } else { lines.join("\n") }
    }

    #[test]
    fn validates_policies() {
        let bound = json!({"resources": {"bounds": {"memory": {"max": "1Gi"}}}});
        let answers = [
            review("ServingPolicy", &json!({}), None),
            review("ServingPolicy", &json!({"enforcements": "warn"}), None),
            review("ServingPolicy", &json!({"rules": {"no-latest": {}}}), None),
            review("ServingPolicy", &json!({"autoscaling": {"maxReplicas": 5}}), None),
            review("ServingPolicy", &bound, None),
            review("ServingPolicy", &bound, Some(&bound)),
            review("ServingPolicy", &json!({"priority": 1, "autoscaling": {"maxReplicas": 2}}), None),
            review("ServingPolicy", &json!({"priority": 1, "autoscaling": {"maxReplicas": 3}}), None),
            review("ServingPolicy", &json!({"priority": -1, "autoscaling": {"maxReplicas": 2}}), None),
            review("ServingPolicy", &json!({"priority": 1, "autoscaling": {"engine": "none", "maxReplicas": 2}}), None),
        ];
        insta::assert_snapshot!(answers.join("\n\n"));
    }

    #[test]
    fn warns_of_exceptions_without_effect() {
        let exception = |rules: Value, expires: &str| json!({"workloads": {"names": ["api"]}, "rules": rules, "reason": "a pilot", "expires": expires});
        let (later, earlier) = ("2027-01-01T00:00:00Z", "2026-01-01T00:00:00Z");
        let answers = [
            review("ServingException", &exception(json!(["floating-tag"]), later), None),
            review("ServingException", &exception(json!(["floating-tag"]), earlier), None),
            review("ServingException", &exception(json!(["floating-tags", "privileged-container"]), later), None),
            review("ServingException", &json!({"rules": []}), None),
        ];
        insta::assert_snapshot!(answers.join("\n\n"));
    }
}
