//! Evaluates the validation rules in the schema of `ServingPolicy`. The API server does so when a policy is applied;
//! this covers policies from files, and those stored before a rule was added.

use std::sync::LazyLock;

use kube::CustomResourceExt as _;
use kube_cel::{CompiledSchema, Validator, compile_schema};
use serde_json::Value;

use super::PolicyError;
use crate::api::ServingPolicy;

static SPEC: LazyLock<CompiledSchema> = LazyLock::new(|| {
    let definition = serde_json::to_value(ServingPolicy::crd()).expect("a CRD is serializable");
    let schema = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
    compile_schema(definition.pointer(schema).expect("the CRD has a schema for the spec"))
});

/// Checks a spec against the validation rules in its schema.
pub(super) fn check(spec: &Value) -> Result<(), PolicyError> {
    let Err(errors) = Validator::new().validate_compiled(&SPEC, spec, None) else { return Ok(()) };
    let error = errors.into_vec().into_iter().next();
    error.map_or(Ok(()), |error| Err(PolicyError::Schema { field: error.field_path, message: error.message }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn evaluates_every_validation_rule() {
        fn rules(schema: &Value) -> usize {
            let own = schema["x-kubernetes-validations"].as_array().map_or(0, Vec::len);
            let fields = schema["properties"].as_object().into_iter().flatten().map(|(_, field)| rules(field));
            let items = [&schema["items"], &schema["additionalProperties"]];
            own + fields.sum::<usize>() + items.into_iter().filter(|items| items.is_object()).map(rules).sum::<usize>()
        }
        let definition = serde_json::to_value(ServingPolicy::crd()).unwrap();
        let spec = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
        assert!(rules(spec) > 10);
        for wrong in [
            json!({"probes": {"startupBudget": "1s"}}),
            json!({"autoscaling": {"minReplicas": 3, "maxReplicas": 2}}),
            json!({"autoscaling": {"minReplicas": -1}}),
            json!({"autoscaling": {"keda": {"serverAddress": "prometheus"}}}),
            json!({"disruptionBudget": {"maxUnavailable": 0}}),
            json!({"environments": {"prod": {"autoscaling": {"maxReplicas": 0}}}}),
            json!({"database": {"zalando": {"teamId": "Team"}}}),
            json!({"database": {"zalando": {"version": "17.2"}}}),
            json!({"database": {"zalando": {"instances": 0}}}),
            json!({"database": {"zalando": {"secretName": "{username}"}}}),
            json!({"resources": {"bounds": {"cpu": {}}}}),
            json!({"match": {"selector": {"matchExpressions": [{"key": "a", "operator": "Equals"}]}}}),
            json!({"exceptions": {"maxDuration": "0s"}}),
        ] {
            assert!(check(&wrong).is_err(), "{wrong}");
        }
        let right = json!({"probes": {"startupBudget": "10m"}, "database": {"zalando": {"teamId": "team-a1"}}});
        assert!(check(&right).is_ok());
    }
}
