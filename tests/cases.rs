//! Walks `tests/cases`: every rule with what it finds, what it does not and what to write instead; every injection with
//! what comes out.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use tidegate::api::Enforcement;
use tidegate::engine::{Decision, Operation, Request, User, Violation, decide};
use tidegate::facts::{Apis, Facts, Namespace};
use tidegate::input;
use tidegate::policy::PolicySet;
use tidegate::rules;
use tidegate::workload::Workload;

const SCOPE: (&str, &str) = ("app.kubernetes.io/component", "model-server");

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

fn folders(of: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(of).unwrap_or_else(|error| panic!("{}: {error}", of.display()));
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

fn yaml(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The policy of a case: its own, else the one of the folder above all.
fn policies(case: &Path, otherwise: &Path) -> PolicySet {
    let own = case.join("policy.yaml");
    let path = if own.exists() { &own } else { otherwise };
    let scope = [(SCOPE.0.to_owned(), SCOPE.1.to_owned())].into();
    input::policies(&path.display().to_string(), &fs::read_to_string(path).unwrap(), scope).unwrap()
}

fn facts(zalando: bool) -> Facts {
    let namespaces = [("ml".to_owned(), Namespace::default())].into();
    Facts { namespaces, apis: Apis { zalando }, ..Facts::default() }
}

fn decided(object: &Value, old: Option<&Value>, policies: &PolicySet, facts: &Facts) -> Decision {
    let operation = if old.is_some() { Operation::Update } else { Operation::Create };
    let old = old.map(|old| Workload::view(old).unwrap());
    decide(
        &Request {
            operation,
            workload: Workload::view(object).unwrap(),
            old,
            user: User::named("jane"),
            now: Timestamp::UNIX_EPOCH,
        },
        policies,
        facts,
    )
}

mod of_rules {
    use super::*;

    /// The folders of `tests/cases` that are not a rule's subject.
    const OTHERS: [&str; 2] = ["injection", "quantity"];

    fn cases() -> Vec<PathBuf> {
        let subjects = folders(&root()).into_iter().filter(|subject| !OTHERS.contains(&name(subject)));
        subjects.flat_map(|subject| folders(&subject)).collect()
    }

    fn judged(case: &Path, file: &str) -> Decision {
        let old = case.join("old.yaml");
        let old = old.exists().then(|| yaml(&old));
        decided(&yaml(&case.join(file)), old.as_ref(), &policies(case, &root().join("policy.yaml")), &facts(true))
    }

    /// The rules that find something, however strict they are.
    fn found(decision: &Decision) -> BTreeSet<&str> {
        assert!(
            decision.verdict.warnings.is_empty(),
            "a case is told by violations alone: {:?}",
            decision.verdict.warnings
        );
        decision.verdict.violations.iter().map(|violation| &*violation.rule).collect()
    }

    #[test]
    fn bad_is_found_by_its_rule_and_no_other() {
        for case in cases() {
            assert_eq!(found(&judged(&case, "bad.yaml")), [name(&case)].into(), "{}", case.display());
        }
    }

    #[test]
    fn good_is_found_by_no_rule() {
        for case in cases() {
            assert_eq!(found(&judged(&case, "good.yaml")), [].into(), "{}", case.display());
        }
    }

    #[test]
    fn fixed_is_found_by_no_rule() {
        for case in cases() {
            assert_eq!(found(&judged(&case, "fixed.yaml")), [].into(), "{}", case.display());
        }
    }

    #[test]
    fn fixed_is_bad_with_what_the_rule_says_to_write_instead() {
        for case in cases() {
            let mut object = yaml(&case.join("bad.yaml"));
            for violation in judged(&case, "bad.yaml").verdict.violations {
                paste(&mut object, &violation);
            }
            assert_eq!(object, yaml(&case.join("fixed.yaml")), "{}", case.display());
        }
    }

    /// Pastes a snippet where its finding is: into the container, the pod or the whole object.
    fn paste(object: &mut Value, violation: &Violation) {
        let finding = &violation.finding;
        // What only the author can know.
        let snippet: Value = serde_saphyr::from_str(&finding.instead.replace("<version>", "1.2.0")).unwrap();
        if snippet.is_null() {
            let (above, field) = finding.place.rsplit_once('.').unwrap();
            let above = object.pointer_mut(&format!("/{}", above.replace('.', "/"))).unwrap();
            above.as_object_mut().unwrap().remove(field).expect("what is to be left out is there");
            return;
        }
        let pod = "spec.template.spec.";
        let place = match finding.place.strip_prefix(pod) {
            None => object,
            Some(rest) if finding.subject.is_empty() => {
                assert!(rest.starts_with("resources"), "{}", finding.place);
                &mut object["spec"]["template"]["spec"]
            }
            Some(rest) => {
                let list = rest.split('[').next().unwrap();
                let containers = object["spec"]["template"]["spec"][list].as_array_mut().unwrap();
                containers.iter_mut().find(|container| container["name"] == finding.subject.as_str()).unwrap()
            }
        };
        json_patch::merge(place, &snippet);
    }

    #[test]
    fn every_finding_says_all_that_a_person_needs() {
        for case in cases() {
            for violation in judged(&case, "bad.yaml").verdict.violations {
                let finding = &violation.finding;
                for text in [&finding.place, &finding.found, &finding.expected, &finding.instead, &violation.policy] {
                    assert!(!text.is_empty(), "{finding:?}");
                }
                assert_eq!(violation.enforcement, Enforcement::Enforce);
            }
        }
    }

    #[test]
    fn every_rule_has_its_cases_and_every_case_its_rule() {
        let ids: Vec<&str> = rules::ALL.iter().map(|rule| rule.id()).collect();
        let cases = cases();
        assert_eq!(cases.iter().map(|case| name(case)).collect::<BTreeSet<_>>(), ids.iter().copied().collect());
        assert_eq!(cases.len(), ids.len(), "each rule has one folder");
        for case in cases {
            for file in ["bad.yaml", "good.yaml", "fixed.yaml"] {
                assert!(case.join(file).exists(), "{} lacks {file}", case.display());
            }
        }
    }

    #[test]
    fn ids_name_what_was_found() {
        for id in rules::ALL.iter().map(|rule| rule.id()) {
            assert!(id.split('-').all(|word| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase())), "{id}");
            let first = id.split('-').next().unwrap();
            let remedies = ["no", "not", "disallow", "deny", "forbid", "require", "must", "use", "set", "check"];
            assert!(!remedies.contains(&first), "{id}: \"allow {id}\" does not read as English");
        }
    }

    #[test]
    fn every_rule_begins_with_its_page() {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/rules");
        for id in rules::ALL.iter().map(|rule| rule.id()) {
            let files = folders(&sources).into_iter().flat_map(|subject| fs::read_dir(subject).unwrap());
            let texts = files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap());
            let mut own: Vec<String> = texts.filter(|text| text.contains(&format!("{id:?}"))).collect();
            assert_eq!(own.len(), 1, "one file under src/rules has the rule {id}");
            let own_text = own.remove(0);
            let page: Vec<String> =
                own_text.lines().map_while(|line| Some(line.strip_prefix("//!")?.trim().to_owned())).collect();
            let headings: Vec<&str> = page.iter().filter(|line| line.starts_with('#')).map(String::as_str).collect();
            let parameters = own_text.contains("fn with(").then_some("## Parameters");
            let expected =
                ["## What it checks", "## Why it matters"].into_iter().chain(parameters).chain(["## Instead"]);
            assert_eq!(headings, expected.collect::<Vec<_>>(), "{id}");
            assert_eq!(page[0], "## What it checks", "{id}");
            let paragraphs = page.join("\n");
            for paragraph in paragraphs.split("## ").skip(1) {
                assert!(paragraph.lines().count() > 1, "{id}: nothing stands under `{paragraph}`");
            }
        }
    }
}

mod of_injection {
    use super::*;

    fn cases() -> Vec<PathBuf> {
        folders(&root().join("injection")).iter().flat_map(|subject| folders(subject)).collect()
    }

    fn injected(case: &Path) -> (Value, Value, Decision) {
        let known = case.join("facts.yaml");
        let zalando = !known.exists() || yaml(&known)["zalando"] == true;
        let policies = policies(case, &case.parent().unwrap().join("policy.yaml"));
        let given = yaml(&case.join("given.yaml"));
        let decision = decided(&given, None, &policies, &facts(zalando));
        let mut object = given.clone();
        json_patch::patch(&mut object, &decision.patch).unwrap();
        (given, object, decision)
    }

    #[test]
    fn what_comes_out_is_what_was_expected() {
        let mut wrong = Vec::new();
        for case in cases() {
            let (_, object, _) = injected(&case);
            let (found, expected) = (&object["spec"]["template"], yaml(&case.join("expected.yaml")));
            if *found != expected {
                let changes = json_patch::diff(&expected, found);
                wrong.push(format!("{}: to come from expected to found: {changes}", case.display()));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn only_the_template_and_the_receipt_change() {
        for case in cases() {
            let (mut given, mut object, decision) = injected(&case);
            if decision.receipt.is_some() {
                object["metadata"]["annotations"].as_object_mut().unwrap().remove("tidegate.dev/receipt").unwrap();
            }
            for object in [&mut given, &mut object] {
                object["spec"]["template"].take();
                let metadata = object["metadata"].as_object_mut().unwrap();
                metadata.entry("annotations").or_insert_with(|| json!({}));
            }
            assert_eq!(object, given, "{}", case.display());
        }
    }

    #[test]
    fn the_author_is_told_why_something_is_left_out() {
        for (case, said) in [
            ("probes/no-port", "declares 0 TCP ports"),
            ("probes/several-ports", "declares 2 TCP ports"),
            ("probes/two-containers", "cannot be told which container"),
            ("probes/an-annotation-that-names-nothing", "no container `server`"),
            ("database/not-served", "does not serve"),
            ("database/variables-that-are-set", "sets PGHOST, PGPASSWORD itself"),
        ] {
            let (_, _, decision) = injected(&root().join("injection").join(case));
            assert!(decision.notes.iter().any(|note| note.contains(said)), "{case}: {:?}", decision.notes);
        }
        for case in ["resources/all-absent", "probes/switched-off", "scope/all-at-once", "scope/audit"] {
            let (_, _, decision) = injected(&root().join("injection").join(case));
            assert_eq!(decision.notes, [""; 0], "{case}");
        }
    }
}
