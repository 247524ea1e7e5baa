//! Injects the database binding: environment variables with the address and credentials of the database.

use super::Injector;
use crate::api::DatabaseEnv;
use crate::companions::{Binding, Variable};
use crate::policy::PolicyRef;
use crate::workload::{Container, FieldPath};

/// Injects a binding into the model server's container. Variables that the user has set agree with it: otherwise there
/// is no binding.
pub(super) fn inject(
    container: &Container,
    binding: &Binding,
    env: &DatabaseEnv,
    policy: &PolicyRef,
    injector: &mut Injector,
) {
    for Variable { name, source, .. } in binding.variables(env) {
        if container.env(&name).is_none() {
            injector.add(FieldPath::new([container.list(), container.name(), "env", &name]), source, policy);
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use serde_json::{Value, json};

    use crate::companions::Wanted;
    use crate::companions::database::Databases;
    use crate::decision::{Operation, Request, User, decide};
    use crate::facts::{Apis, Facts};
    use crate::testing::{deployment, facts, made_for, policies, with_container, with_database};
    use crate::workload::Workload;

    /// Binds a database, and returns the names of the container's variables and the notes.
    fn bound(object: &Value, facts: &Facts) -> (Vec<String>, Vec<String>) {
        bound_by(&json!("libpq"), object, facts)
    }

    /// Like [`bound`], with this `env` of the policy.
    fn bound_by(env: &Value, object: &Value, facts: &Facts) -> (Vec<String>, Vec<String>) {
        let zalando = json!({"teamId": "acid", "version": "17", "volume": {"size": "1Gi"}});
        let spec = json!({"database": {"provider": "zalando", "zalando": zalando, "env": env}});
        let request = Request {
            user: User::named("jane"),
            ..Request::new(Operation::Create, Workload::view(object).unwrap(), Timestamp::UNIX_EPOCH)
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
    fn the_annotation_requests_or_declines_a_database() {
        let is_bound = |create: &str, annotations: Value| {
            let zalando = json!({"teamId": "acid", "version": "17", "volume": {"size": "1Gi"}});
            let spec = json!({"database": {"provider": "zalando", "create": create, "zalando": zalando}});
            let mut object = with_container(&json!({}));
            object["metadata"]["annotations"] = annotations;
            let (workload, now) = (Workload::view(&object).unwrap(), Timestamp::UNIX_EPOCH);
            let request = Request { user: User::named("jane"), ..Request::new(Operation::Create, workload, now) };
            let decision = decide(&request, &policies(&[("serving", spec)]), &facts());
            let is_bound = decision.patch.to_string().contains("PGHOST");
            assert_eq!(is_bound, *decision.companions.of(&Databases) != Wanted::Nothing);
            is_bound
        };
        let (none, yes) = (json!({"tidegate.dev/database": "none"}), json!({"tidegate.dev/database": "true"}));
        assert!(is_bound("always", json!({})) && is_bound("always", yes.clone()) && !is_bound("always", none.clone()));
        assert!(!is_bound("on-request", json!({})) && is_bound("on-request", yes) && !is_bound("on-request", none));
    }

    #[test]
    fn injects_all_six_variables() {
        let (names, notes) = bound(&with_container(&json!({})), &facts());
        assert_eq!(names, ["PGHOST", "PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD", "PGSSLMODE"]);
        assert_eq!(notes, [""; 0]);
    }

    /// Returns a Deployment with this database annotation, whose container has these variables.
    fn with_variables(said: Option<&str>, env: &Value) -> Value {
        annotated(said, with_container(&json!({"env": env})))
    }

    fn annotated(said: Option<&str>, mut object: Value) -> Value {
        if let Some(said) = said {
            object["metadata"]["annotations"] = json!({"tidegate.dev/database": said});
        }
        object
    }

    /// Checks that nothing is bound to a Deployment, and returns the notes.
    #[track_caller]
    fn unbound(env: &Value, object: &Value) -> Vec<String> {
        let before = &object["spec"]["template"]["spec"]["containers"][0]["env"];
        let before: Vec<&str> =
            before.as_array().into_iter().flatten().filter_map(|entry| entry["name"].as_str()).collect();
        let (names, notes) = bound_by(env, object, &facts());
        assert_eq!(names, before, "no variables are injected");
        assert_eq!(database_of(env, object, None, &facts()), None, "no database is created");
        notes
    }

    /// Returns the name of the planned database of a Deployment.
    fn database_of(env: &Value, object: &Value, old: Option<&Value>, facts: &Facts) -> Option<String> {
        match updated(&spec(env), object, old, facts).1.companions.of(&Databases) {
            Wanted::Object(database) => database["metadata"]["name"].as_str().map(str::to_owned),
            _ => None,
        }
    }

    fn spec(env: &Value) -> Value {
        let zalando = json!({"teamId": "acid", "version": "17", "volume": {"size": "1Gi"}});
        json!({"enforcement": "warn", "database": {"provider": "zalando", "zalando": zalando, "env": env}})
    }

    /// Creates or updates a Deployment, and returns it as it is stored.
    fn updated(spec: &Value, object: &Value, old: Option<&Value>, facts: &Facts) -> (Value, crate::decision::Decision) {
        let request = Request {
            operation: if old.is_some() { Operation::Update } else { Operation::Create },
            workload: Workload::view(object).unwrap(),
            old: old.map(|old| Workload::view(old).unwrap()),
            user: User::named("jane"),
            now: Timestamp::UNIX_EPOCH,
        };
        let decision = decide(&request, &policies(&[("serving", spec.clone())]), facts);
        let mut stored = object.clone();
        json_patch::patch(&mut stored, &decision.patch).unwrap();
        (stored, decision)
    }

    fn variables(object: &Value) -> Vec<&str> {
        let env = object["spec"]["template"]["spec"]["containers"][0]["env"].as_array();
        env.into_iter().flatten().filter_map(|entry| entry["name"].as_str()).collect()
    }

    #[test]
    fn a_variable_of_another_container_does_not_keep_the_binding() {
        let mut object = with_container(&json!({}));
        let own = json!([{"name": "DATABASE_URL", "value": "sqlite:///data.db"}]);
        object["spec"]["template"]["spec"]["initContainers"] = json!([{"name": "migrate", "image": "m:1", "env": own}]);
        let (stored, _) = updated(&spec(&json!("libpq")), &object, None, &facts());
        assert_eq!(variables(&stored).len(), 6, "the init container is not bound");
        let mut changed = object.clone();
        changed["spec"]["template"]["spec"]["containers"][0]["env"] = own;
        let (stored, _) = updated(&spec(&json!("libpq")), &changed, Some(&stored), &facts());
        assert_eq!(variables(&stored), ["DATABASE_URL"]);
    }

    #[test]
    fn binds_nothing_if_the_user_names_a_server() {
        let secret = json!({"secretKeyRef": {"name": "own", "key": "host"}});
        for (env, own) in [
            ("libpq", json!([{"name": "PGHOST", "value": "db.internal"}])),
            ("libpq", json!([{"name": "PGHOST", "valueFrom": secret}])),
            ("libpq", json!([{"name": "PGHOST"}])),
            ("libpq", json!([{"name": "PGHOSTADDR", "value": "10.0.0.1"}])),
            ("libpq", json!([{"name": "PGSERVICE", "value": "own"}])),
            ("libpq", json!([{"name": "PGSERVICEFILE", "value": "/etc/pg/services"}])),
            ("libpq", json!([{"name": "PGPASSFILE", "value": "/etc/pg/passwords"}])),
            ("libpq", json!([{"name": "DATABASE_URL", "valueFrom": secret}])),
            ("url", json!([{"name": "PGHOST", "value": "db.internal"}])),
            ("url", json!([{"name": "DATABASE_URL", "value": "sqlite:///data.db"}])),
            ("both", json!([{"name": "DATABASE_URL", "value": "mine"}])),
        ] {
            let notes = unbound(&json!(env), &with_variables(None, &own));
            let name = own[0]["name"].as_str().unwrap();
            assert!(
                notes.len() == 1 && notes[0].contains(name) && notes[0].contains("tidegate.dev/database: \"true\""),
                "{env} {own}: {notes:?}"
            );
            assert_eq!(unbound(&json!(env), &with_variables(Some("none"), &own)), [""; 0], "{env} {own}");
        }
        let mapping = json!({"MLFLOW_BACKEND_STORE_URI": "uri", "MODEL_DB_HOST": "host"});
        for name in ["MLFLOW_BACKEND_STORE_URI", "MODEL_DB_HOST", "PGHOST"] {
            let notes = unbound(&mapping, &with_variables(None, &json!([{"name": name, "value": "own"}])));
            assert!(notes.len() == 1 && notes[0].contains(name), "{name}: {notes:?}");
        }
    }

    #[test]
    fn binds_nothing_if_the_user_sets_part_of_a_binding() {
        for name in ["PGPORT", "PGDATABASE", "PGUSER", "PGPASSWORD", "PGSSLMODE"] {
            for said in [None, Some("true")] {
                let notes = unbound(&json!("libpq"), &with_variables(said, &json!([{"name": name, "value": "own"}])));
                assert!(notes.len() == 1 && notes[0].contains(name), "{name}: {notes:?}");
            }
        }
        assert_eq!(
            unbound(&json!("libpq"), &with_variables(None, &json!([{"name": "PGPORT"}]))).len(),
            1,
            "empty value"
        );
        // The address is composed of the other variables.
        assert_eq!(
            unbound(&json!("url"), &with_variables(Some("true"), &json!([{"name": "PGUSER", "value": "me"}]))).len(),
            1
        );
    }

    #[test]
    fn binds_a_requested_database_unless_variables_conflict() {
        let asked = |env: &str, own: Value| bound_by(&json!(env), &with_variables(Some("true"), &own), &facts());
        let own = json!([{"name": "DATABASE_URL", "value": "sqlite:///data.db"}]);
        let (names, notes) = asked("libpq", own.clone());
        assert_eq!((names.len(), notes), (7, vec![]), "both");
        for mixed in [
            ("libpq", json!([{"name": "PGHOST", "value": "db.internal"}])),
            ("libpq", json!([{"name": "PGHOSTADDR", "value": "10.0.0.1"}])),
            ("libpq", json!([{"name": "PGSERVICE", "value": "own"}])),
            ("url", json!([{"name": "PGHOST", "value": "db.internal"}])),
            ("both", own),
        ] {
            let notes = unbound(&json!(mixed.0), &with_variables(Some("true"), &mixed.1));
            assert!(notes.len() == 1 && notes[0].contains("leave"), "{mixed:?}: {notes:?}");
        }
    }

    #[test]
    fn variables_that_refer_to_the_binding_do_not_conflict_with_it() {
        let address = "postgresql://$(PGUSER):$(PGPASSWORD)@$(PGHOST)/x";
        let (names, notes) =
            bound(&with_variables(None, &json!([{"name": "DATABASE_URL", "value": address}])), &facts());
        assert_eq!((names.len(), notes), (7, vec![]));
        for elsewhere in ["postgresql://$(PGUSER):$(PGPASSWORD)@db.internal/x", "postgresql://$$(PGHOST)/x"] {
            unbound(&json!("libpq"), &with_variables(None, &json!([{"name": "DATABASE_URL", "value": elsewhere}])));
        }
        let same = json!([{"name": "PGHOST", "value": "acid-api"}, {"name": "PGPORT", "value": "5432"}]);
        let (names, notes) = bound(&with_variables(None, &same), &facts());
        assert_eq!((names.len(), notes), (6, vec![]), "the same values as in the binding");
    }

    #[test]
    fn ignores_variables_of_other_containers() {
        let proxy = json!({"name": "proxy", "image": "b:1", "env": [{"name": "PGHOST", "value": "own"}],
            "envFrom": [{"secretRef": {"name": "own"}}]});
        let mut two = deployment(&json!([{"name": "api", "image": "a:1"}, proxy]));
        two["metadata"]["annotations"] = json!({"tidegate.dev/container": "api"});
        assert_eq!(
            bound(&two, &facts()),
            (bound(&with_container(&json!({})), &facts()).0.into_iter().chain(["PGHOST".into()]).collect(), vec![])
        );
    }

    #[test]
    fn binds_nothing_if_env_from_may_name_a_database() {
        let from = |source: Value| with_container(&json!({"envFrom": [source]}));
        let own = json!({"name": "own"});
        for source in [
            json!({"secretRef": own}),
            json!({"configMapRef": own}),
            json!({"prefix": "", "configMapRef": own}),
            json!({"prefix": "P", "configMapRef": own}),
            json!({"prefix": "PG", "configMapRef": own}),
            json!({"prefix": "DATABASE_", "configMapRef": own}),
        ] {
            let object = from(source);
            let notes = unbound(&json!("libpq"), &object);
            let parts = ["envFrom", "tidegate.dev/database: \"true\"", "none"];
            assert!(notes.len() == 1 && parts.iter().all(|part| notes[0].contains(part)), "{notes:?}");
            assert_eq!(unbound(&json!("libpq"), &annotated(Some("none"), object.clone())), [""; 0]);
            let (names, notes) = bound(&annotated(Some("true"), object), &facts());
            assert_eq!((names.len(), notes), (6, vec![]));
        }
        for prefix in ["MODEL_", "PGX", "PGHOST", "DATABASE_URL", "pg"] {
            let (names, notes) = bound(&from(json!({"prefix": prefix, "configMapRef": own})), &facts());
            if prefix == "PGHOST" {
                assert_eq!(names.len(), 0, "it may set PGHOSTADDR");
                continue;
            }
            assert_eq!((names.len(), notes), (6, vec![]), "{prefix}");
        }
        let mapping = json!({"MODEL_DB_HOST": "host"});
        let object = from(json!({"prefix": "MODEL_", "configMapRef": own}));
        assert_eq!(unbound(&mapping, &object).len(), 1);
    }

    /// Returns a Deployment whose receipt and variables hold a whole binding, with further variables of the user.
    fn bound_beside(own: &Value) -> Value {
        let mut object = updated(&spec(&json!("libpq")), &with_container(&json!({})), None, &facts()).0;
        let container = &mut object["spec"]["template"]["spec"]["containers"][0];
        if let Some(own) = own["env"].as_array() {
            container["env"].as_array_mut().unwrap().extend(own.iter().cloned());
        }
        if own["envFrom"].is_array() {
            container["envFrom"] = own["envFrom"].clone();
        }
        object
    }

    fn with_image(mut object: Value, image: &str) -> Value {
        object["spec"]["template"]["spec"]["containers"][0]["image"] = image.into();
        object
    }

    #[test]
    fn keeps_a_binding_beside_other_sources_of_variables() {
        let spec = spec(&json!("libpq"));
        let there = with_database("ml", "acid-api", made_for("Deployment/api"));
        for own in [
            json!({"envFrom": [{"secretRef": {"name": "own"}}]}),
            json!({"env": [{"name": "DATABASE_URL", "value": "sqlite:///data.db"}]}),
        ] {
            let old = bound_beside(&own);
            let (stored, decision) = updated(&spec, &with_image(old.clone(), "api:2"), Some(&old), &there);
            assert_eq!(variables(&stored)[..6], variables(&old)[..6], "{own}");
            assert!(matches!(decision.companions.of(&Databases), Wanted::Object(_)), "{own}");
            let [note] = &decision.notes[..] else { panic!("{:?}", decision.notes) };
            assert!(note.contains("acid-api") && note.contains("none"), "{note}");
            // It is still planned for the stored object.
            let observed = observed(&spec, &stored, &there);
            assert!(matches!(observed, Wanted::Object(_)), "{observed:?}");
            let asked = annotated(Some("true"), with_image(with_container(&own), "api:3"));
            assert_eq!(updated(&spec, &asked, Some(&stored), &there).1.notes, [""; 0]);
            let none = annotated(Some("none"), with_image(with_container(&own), "api:3"));
            assert!(!variables(&updated(&spec, &none, Some(&stored), &there).0).contains(&"PGHOST"));
        }
    }

    fn observed(spec: &Value, object: &Value, facts: &Facts) -> Wanted {
        let workload = Workload::view(object).unwrap();
        let request = Request::new(Operation::Observe, workload, Timestamp::UNIX_EPOCH);
        decide(&request, &policies(&[("serving", spec.clone())]), facts).companions.of(&Databases).clone()
    }

    #[test]
    fn unbinds_a_workload_whose_user_names_a_server_later() {
        let spec = spec(&json!("libpq"));
        let there = with_database("ml", "acid-api", made_for("Deployment/api"));
        let old = bound_beside(&json!({}));
        for name in ["PGHOST", "DATABASE_URL"] {
            let own = with_container(&json!({"env": [{"name": name, "value": "own"}]}));
            let (stored, decision) = updated(&spec, &own, Some(&old), &there);
            assert_eq!((variables(&stored), decision.notes.len()), (vec![name], 1));
            assert!(!matches!(decision.companions.of(&Databases), Wanted::Object(_) | Wanted::Impossible { .. }));
        }
        // An `envFrom` that is added later does not unbind.
        let own = with_container(&json!({"envFrom": [{"configMapRef": {"name": "settings"}}]}));
        assert_eq!(variables(&updated(&spec, &own, Some(&old), &there).0).len(), 6);
    }

    #[test]
    fn binds_a_recreated_workload_to_its_previous_database() {
        let own = with_container(&json!({"envFrom": [{"configMapRef": {"name": "settings"}}]}));
        let there = with_database("ml", "acid-api", made_for("Deployment/api"));
        let (names, notes) = bound(&own, &there);
        assert_eq!((names.len(), notes.len()), (6, 1));
        // A workload that was never bound to it is not bound on an update.
        let mut adopted = own.clone();
        adopted["metadata"]["annotations"] = json!({"tidegate.dev/adopted": "true"});
        let (stored, _) =
            updated(&spec(&json!("libpq")), &with_image(adopted.clone(), "api:2"), Some(&adopted), &there);
        assert_eq!(variables(&stored), [""; 0]);
    }

    #[test]
    fn injected_variables_do_not_count_as_the_users_after_a_policy_change() {
        let old = bound_beside(&json!({}));
        let there = with_database("ml", "acid-api", made_for("Deployment/api"));
        let mut named = spec(&json!("libpq"));
        named["database"]["zalando"]["secretName"] = "{username}-{cluster}".into();
        assert!(matches!(observed(&named, &old, &there), Wanted::Object(_)));
        named["rules"] = json!({"database-variable-overridden": {}});
        let (_, decision) = updated(&named, &old, Some(&old), &there);
        let found = decision.verdict.warned.iter().map(|violation| &*violation.rule).collect::<Vec<_>>();
        assert_eq!(found, ["missing-memory-limit"]);
    }

    #[test]
    fn binds_an_existing_database_of_this_workload_only() {
        let with = |workload: &str| with_database("ml", "acid-api", made_for(workload));
        assert_eq!(bound(&with_container(&json!({})), &with("Deployment/api")).0.len(), 6);
        let (names, notes) = bound(&with_container(&json!({})), &with("Deployment/web"));
        assert_eq!((names.len(), notes.len()), (0, 1));
    }

    #[test]
    fn notes_once_why_nothing_is_bound() {
        let two = deployment(&json!([{"name": "a", "image": "a:1"}, {"name": "b", "image": "b:1"}]));
        assert_eq!(bound(&two, &facts()).1.len(), 1);
        assert_eq!(bound(&two, &Facts { apis: Apis::default(), ..facts() }).1.len(), 1);
        let mut unnamed = with_container(&json!({}));
        unnamed["metadata"]["name"] = json!(null);
        let (names, notes) = bound(&unnamed, &facts());
        assert!(names.is_empty() && notes[0].contains("generateName"), "{notes:?}");
    }

    #[test]
    fn binds_nothing_to_a_workload_with_a_generated_name() {
        let mut object = with_container(&json!({}));
        object["metadata"]["generateName"] = json!("api-");
        let (names, notes) = bound(&object, &facts());
        assert!(names.is_empty() && notes[0].contains("generateName"), "{notes:?}");
    }
}
