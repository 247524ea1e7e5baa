//! The database binding: environment variables that tell the model server of its database.

use super::Injector;
use crate::api::{DATABASE_ANNOTATION, DatabaseEnv};
use crate::companions::{Binding, Variable};
use crate::policy::PolicyRef;
use crate::workload::{Container, Path, items};

/// Injects a binding into the model server's container, and returns what its author is told. A variable that its author set
/// stays: the rule `database-variable-overridden` tells of it.
pub(super) fn inject(
    container: &Container,
    binding: &Binding,
    env: &DatabaseEnv,
    policy: &PolicyRef,
    injector: &mut Injector,
) -> Vec<String> {
    let is_theirs = |name: &str| container.env(name).is_some();
    let mut variables = binding.variables(env);
    variables.retain(|variable| !is_theirs(&variable.name));
    // Put together with what is theirs, which may stand behind it, it would lead nowhere.
    let (set, left): (Vec<Variable>, Vec<Variable>) =
        variables.into_iter().partition(|variable| !variable.of.iter().any(|name| is_theirs(name)));
    let mut notes: Vec<String> = left
        .iter()
        .map(|Variable { name, of, .. }| {
            format!(
                "{name} is not set: it is put together from {}, which the container sets otherwise",
                of.join(" and ")
            )
        })
        .collect();
    let names: Vec<&str> = set.iter().map(|variable| variable.name.as_str()).collect();
    // What those hold is not known here; a variable in `env` comes before one of the same name from `envFrom`.
    if !names.is_empty() && items(container.field("envFrom")).next().is_some() {
        let (name, names, database) = (container.name(), names.join(", "), &binding.name);
        notes.push(format!(
            "container {name} takes variables from `envFrom`: of those, {names} count no more, for the database {database} \
             is bound; the annotation {DATABASE_ANNOTATION}: none keeps it unbound"
        ));
    }
    for Variable { name, source, .. } in set {
        injector.add(Path::new([container.list(), container.name(), "env", &name]), source, policy);
    }
    notes
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use serde_json::{Value, json};

    use crate::companions::Wanted;
    use crate::decision::{Operation, Request, User, decide};
    use crate::facts::{Apis, Facts};
    use crate::testing::{deployment, facts, made_for, policies, with_container, with_database};
    use crate::workload::Workload;

    /// Binds a database, and returns the names of the variables and what the author is told.
    fn bound(object: &Value, facts: &Facts) -> (Vec<String>, Vec<String>) {
        bound_by(&json!("libpq"), object, facts)
    }

    /// The same with these variables.
    fn bound_by(env: &Value, object: &Value, facts: &Facts) -> (Vec<String>, Vec<String>) {
        let zalando = json!({"teamId": "acid", "version": "17", "volume": {"size": "1Gi"}});
        let spec = json!({"database": {"provider": "zalando", "zalando": zalando, "env": env}});
        let request = Request {
            operation: Operation::Create,
            workload: Workload::view(object).unwrap(),
            old: None,
            user: User::named("jane"),
            now: Timestamp::UNIX_EPOCH,
        };
        let decision = decide(&request, &policies(&[("serving", spec)]), facts);
        let mut patched = object.clone();
        json_patch::patch(&mut patched, &decision.patch).unwrap();
        let workload = Workload::view(&patched).unwrap();
        let env =
            workload.containers().flat_map(|container| container.field("env").as_array().cloned().unwrap_or_default());
        (env.map(|entry| entry["name"].as_str().unwrap().to_owned()).collect(), decision.notes)
    }

    #[test]
    fn authors_say_whether_they_need_one() {
        let wanted = |create: &str, said: Value| {
            let zalando = json!({"teamId": "acid", "version": "17", "volume": {"size": "1Gi"}});
            let spec = json!({"database": {"provider": "zalando", "create": create, "zalando": zalando}});
            let mut object = with_container(&json!({}));
            object["metadata"]["annotations"] = said;
            let (workload, now) = (Workload::view(&object).unwrap(), Timestamp::UNIX_EPOCH);
            let request = Request { operation: Operation::Create, workload, old: None, user: User::named("jane"), now };
            let decision = decide(&request, &policies(&[("serving", spec)]), &facts());
            let is_bound = decision.patch.to_string().contains("PGHOST");
            assert_eq!(is_bound, decision.companions.database != Wanted::Nothing);
            is_bound
        };
        let (none, yes) = (json!({"tidegate.dev/database": "none"}), json!({"tidegate.dev/database": "true"}));
        assert!(wanted("always", json!({})) && wanted("always", yes.clone()) && !wanted("always", none.clone()));
        assert!(!wanted("on-request", json!({})) && wanted("on-request", yes) && !wanted("on-request", none));
    }

    #[test]
    fn all_six_variables_are_set() {
        let (names, notes) = bound(&with_container(&json!({})), &facts());
        assert_eq!(names, ["PGHOST", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD", "PGSSLMODE"]);
        assert_eq!(notes, [""; 0]);
    }

    #[test]
    fn a_variable_without_a_value_is_set_all_the_same() {
        let (names, notes) = bound(&with_container(&json!({"env": [{"name": "PGPORT"}]})), &facts());
        assert_eq!(names, ["PGHOST", "PGDATABASE", "PGUSER", "PGPASSWORD", "PGSSLMODE", "PGPORT"]);
        assert_eq!(notes, [""; 0], "the rule database-variable-overridden tells of it");
    }

    #[test]
    fn variables_from_elsewhere_are_told_of() {
        let from = json!({"envFrom": [{"secretRef": {"name": "own-database"}}]});
        let (names, notes) = bound(&with_container(&from), &facts());
        assert_eq!(names.len(), 6);
        assert!(notes.len() == 1 && notes[0].contains("envFrom") && notes[0].contains("none"), "{notes:?}");
    }

    #[test]
    fn a_database_made_for_this_workload_is_bound_and_another_is_not() {
        let with = |workload: &str| with_database("ml", "acid-api", made_for(workload));
        assert_eq!(bound(&with_container(&json!({})), &with("Deployment/api")).0.len(), 6);
        let (names, notes) = bound(&with_container(&json!({})), &with("Deployment/web"));
        assert_eq!((names.len(), notes.len()), (0, 1));
    }

    #[test]
    fn why_nothing_is_bound_is_told_once() {
        let two = deployment(&json!([{"name": "a", "image": "a:1"}, {"name": "b", "image": "b:1"}]));
        assert_eq!(bound(&two, &facts()).1.len(), 1);
        assert_eq!(bound(&two, &Facts { apis: Apis::default(), ..facts() }).1.len(), 1);
        let mut unnamed = with_container(&json!({}));
        unnamed["metadata"]["name"] = json!(null);
        let (names, notes) = bound(&unnamed, &facts());
        assert!(names.is_empty() && notes[0].contains("generateName"), "{notes:?}");
    }

    #[test]
    fn a_generated_name_is_not_bound_once_it_is_known_either() {
        let mut object = with_container(&json!({}));
        object["metadata"]["generateName"] = json!("api-");
        let (names, notes) = bound(&object, &facts());
        assert!(names.is_empty() && notes[0].contains("generateName"), "{notes:?}");
    }

    #[test]
    fn an_address_is_not_put_together_from_what_the_author_set() {
        let own = with_container(&json!({"env": [{"name": "PGUSER", "value": "me"}]}));
        let (names, notes) = bound_by(&json!("url"), &own, &facts());
        assert_eq!(names, ["PGPASSWORD", "PGUSER"]);
        let told = "DATABASE_URL is not set: it is put together from PGUSER and PGPASSWORD, which the container sets otherwise";
        assert_eq!(notes, [told]);
        let own = with_container(&json!({"env": [{"name": "DATABASE_URL", "value": "mine"}]}));
        assert_eq!(bound_by(&json!("url"), &own, &facts()).0, ["PGUSER", "PGPASSWORD", "DATABASE_URL"]);
    }
}
