//! Runs `tests/cases`: for every rule, what it reports, what it accepts and the fix; for every injection, the result.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use tidegate::manifests::{self, Manifests};
use tidegate_engine::api::Enforcement;
use tidegate_engine::decision::{Decision, Operation, Request, User, Violation, decide};
use tidegate_engine::facts::{Apis, Facts, Namespace};
use tidegate_engine::policy::Finding;
use tidegate_engine::policy::{PolicySet, Scope};
use tidegate_engine::rules;
use tidegate_engine::workload::{Workload, key_of};

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

/// Returns the policy of a case: its own, or else the shared one.
fn policies(case: &Path, otherwise: &Path) -> PolicySet {
    let own = case.join("policy.yaml");
    let path = if own.exists() { &own } else { otherwise };
    manifests::policies(&path.display().to_string(), &fs::read_to_string(path).unwrap(), scope()).unwrap()
}

fn scope() -> Scope {
    [(SCOPE.0.to_owned(), SCOPE.1.to_owned())].into()
}

fn facts(zalando: bool, cloudnative_pg: bool) -> Facts {
    let namespaces = [("ml".to_owned(), Namespace::default())].into();
    Facts { namespaces, apis: Apis { zalando, cloudnative_pg, ..Apis::all() }, ..Facts::default() }
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

    /// The folders of `tests/cases` that are not subjects of rules.
    const OTHERS: [&str; 5] = ["cel", "injection", "quantity", "reports", "runtimes"];

    fn cases() -> Vec<PathBuf> {
        let subjects = folders(&root()).into_iter().filter(|subject| !OTHERS.contains(&name(subject)));
        subjects.flat_map(|subject| folders(&subject)).collect()
    }

    /// Returns the objects in a file of a case.
    fn objects(case: &Path, file: &str) -> Vec<Value> {
        let path = case.join(file);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Decides on the only workload among some objects; the others are the known objects of the cluster.
    fn decide_with(policies: &PolicySet, objects: &[Value], old: Option<&Value>) -> Decision {
        let mut input = Manifests::new();
        for object in objects {
            input.add_text("case", &object.to_string(), "ml").unwrap();
        }
        input.facts.namespaces.entry("ml".to_owned()).or_default();
        let [found] = &input.workloads[..] else { panic!("a case has one workload") };
        decided(&found.object, old, policies, &input.facts)
    }

    /// Decides on a case under its policy, with every rule set to `enforce` unless the policy sets it: a case violates
    /// one rule and no other.
    fn decide_case(case: &Path, objects: &[Value]) -> Decision {
        let own = case.join("policy.yaml");
        let mut policy = yaml(if own.exists() { &own } else { &RULED });
        for rule in rules::ALL {
            let enforcement = &mut policy["spec"]["rules"][rule.id()]["enforcement"];
            if enforcement.is_null() {
                *enforcement = "enforce".into();
            }
        }
        let old = case.join("old.yaml");
        let old = old.exists().then(|| yaml(&old));
        let policies = manifests::policies("policy", &policy.to_string(), scope()).unwrap();
        decide_with(&policies, objects, old.as_ref())
    }

    static RULED: LazyLock<PathBuf> = LazyLock::new(|| root().join("policy.yaml"));

    fn found(decision: &Decision) -> BTreeSet<&str> {
        decision.verdict.violations.iter().map(|violation| &*violation.rule).collect()
    }

    /// Collects the failures of all cases, so that one run reports them all.
    fn each(check: impl Fn(&Path) -> Result<(), String>) {
        let wrong: Vec<String> = cases()
            .iter()
            .filter_map(|case| check(case).err().map(|why| format!("{}: {why}", case.display())))
            .collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    fn finds(case: &Path, file: &str, expected: &BTreeSet<&str>) -> Result<(), String> {
        let decision = decide_case(case, &objects(case, file));
        let verdict = &decision.verdict;
        let violations: Vec<String> = verdict.violations.iter().map(ToString::to_string).collect();
        (found(&decision) == *expected).then_some(()).ok_or_else(|| format!("{file}: {}", violations.join("; ")))
    }

    #[test]
    fn only_its_rule_reports_a_bad_case() {
        each(|case| finds(case, "bad.yaml", &[name(case)].into()));
    }

    #[test]
    fn no_rule_reports_a_good_case() {
        each(|case| finds(case, "good.yaml", &[].into()));
    }

    #[test]
    fn no_rule_reports_a_fixed_case() {
        each(|case| finds(case, "fixed.yaml", &[].into()));
    }

    #[test]
    fn a_fixed_case_is_the_bad_one_after_injection_and_fixes() {
        let mending =
            manifests::policies("mending", &fs::read_to_string(root().join("mending.yaml")).unwrap(), scope());
        let mending = mending.unwrap();
        each(|case| {
            let mut objects = objects(case, "bad.yaml");
            let patch = decide_with(&mending, &objects, None).patch;
            let workload = objects.iter_mut().find(|object| is_workload(object)).unwrap();
            json_patch::patch(workload, &patch).unwrap();
            forget_receipt(workload);
            for violation in decide_case(case, &objects).verdict.violations.into_iter().rev() {
                paste(&mut objects, &violation);
            }
            let fixed = super::of_rules::objects(case, "fixed.yaml");
            let differs = objects.iter().zip(&fixed).map(|(made, fixed)| json_patch::diff(fixed, made).to_string());
            (objects == fixed).then_some(()).ok_or_else(|| {
                format!("patch from fixed.yaml to the fixed bad.yaml: {}", differs.collect::<Vec<_>>().join("; "))
            })
        });
    }

    fn is_workload(object: &Value) -> bool {
        object["apiVersion"] == "apps/v1"
    }

    fn forget_receipt(object: &mut Value) {
        let metadata = object["metadata"].as_object_mut().unwrap();
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove("tidegate.dev/receipt");
            if annotations.is_empty() {
                metadata.remove("annotations");
            }
        }
    }

    /// Values for placeholders that only the author can know.
    const KNOWN: [(&str, &str); 11] = [
        ("<version>", "1.2.0"),
        ("<digest>", "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0"),
        ("<commit>", "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c"),
        ("<secret>", "credentials"),
        ("<key>", "value"),
        ("<claim>", "models"),
        ("<template>", "gpu"),
        ("<container>", "api"),
        ("<port>", "8080"),
        ("<health path>", "/healthz"),
        (
            "<an image of another runtime>",
            "registry.example.com/api@sha256:0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0",
        ),
    ];

    /// Applies the fix of a finding.
    fn paste(objects: &mut Vec<Value>, violation: &Violation) {
        let Finding { place, container, fix, .. } = &violation.finding;
        let known = KNOWN.iter().fold(fix.clone(), |text, (what, value)| text.replace(what, value));
        let snippet: Value = serde_saphyr::from_str(&known).unwrap();
        let (object, field) = match place.split_once(' ') {
            Some((beside, field)) => {
                let is_meant = |object: &Value| {
                    let (kind, name) = beside.split_once('/').unwrap();
                    object["kind"] == kind && object["metadata"]["name"] == name
                };
                (objects.iter().position(is_meant).unwrap(), field)
            }
            None => (objects.iter().position(is_workload).unwrap(), &**place),
        };
        if snippet.is_null() && object > 0 {
            objects.remove(object);
            return;
        }
        if snippet.get("kind").is_some() {
            objects.push(snippet);
            return;
        }
        let object = &mut objects[object];
        let target = match field.strip_prefix("spec.template.spec.") {
            Some(rest) if !container.is_empty() => {
                let list = rest.split('[').next().unwrap();
                let containers = object["spec"]["template"]["spec"][list].as_array_mut().unwrap();
                containers.iter_mut().find(|found| found["name"] == container.as_str()).unwrap()
            }
            Some(_) => &mut object["spec"]["template"]["spec"],
            None => object,
        };
        if snippet.is_null() {
            let field = &violation.finding.field;
            remove(target, field.strip_prefix("spec.template.spec.").unwrap_or(field));
        } else {
            merge(target, &snippet, "");
        }
    }

    /// Removes a field, or the item of a list by its key: `resources.limits.cpu`, `env[PGHOST]`.
    fn remove(target: &mut Value, field: &str) {
        if let Some((list, key)) = field.strip_suffix(']').and_then(|field| field.split_once('[')) {
            let items = target[list].as_array_mut().unwrap();
            items.retain(|item| item[key_of(list).unwrap()] != key);
            if items.is_empty() {
                target.as_object_mut().unwrap().remove(list);
            }
            return;
        }
        let (above, field) = field.rsplit_once('.').unwrap();
        let above = target.pointer_mut(&format!("/{}", above.replace('.', "/"))).unwrap();
        above.as_object_mut().unwrap().remove(field).expect("the field to remove exists");
    }

    /// Merges a snippet as a user would: list items by key, arguments appended to existing ones, null removes a field.
    fn merge(target: &mut Value, snippet: &Value, list: &str) {
        match (target, snippet) {
            (Value::Object(target), Value::Object(snippet)) => {
                for (name, value) in snippet {
                    if value.is_null() {
                        target.remove(name);
                    } else {
                        merge(target.entry(name).or_insert(Value::Null), value, name);
                    }
                }
            }
            (Value::Array(target), Value::Array(snippet)) => {
                let key = key_of(list).or((list == "ports").then_some("containerPort"));
                for item in snippet {
                    let known = key.and_then(|key| target.iter().position(|known| known[key] == item[key]));
                    match known {
                        Some(index) => merge(&mut target[index], item, ""),
                        None if key.is_none() && item.is_object() => *target = vec![item.clone()],
                        None => target.push(item.clone()),
                    }
                }
            }
            (target, snippet) => {
                *target = Value::Null;
                match snippet {
                    Value::Object(_) => {
                        *target = json!({});
                        merge(target, snippet, list);
                    }
                    _ => *target = snippet.clone(),
                }
            }
        }
    }

    #[test]
    fn findings_are_complete() {
        for case in cases() {
            for violation in decide_case(&case, &objects(&case, "bad.yaml")).verdict.violations {
                let finding = &violation.finding;
                for text in [&finding.place, &finding.found, &finding.expected, &finding.fix, &violation.policy] {
                    assert!(!text.is_empty(), "{finding:?}");
                }
                assert_eq!(violation.enforcement, Enforcement::Enforce);
            }
        }
    }

    #[test]
    fn never_shows_secrets() {
        for (case, secret) in [
            ("security/secret-in-env", "not-a-real-token"),
            ("database/literal-database-credentials", "not-a-real-password"),
        ] {
            let case = root().join(case);
            let bad = objects(&case, "bad.yaml");
            assert!(bad[0].to_string().contains(secret));
            let Decision { notes, verdict, receipt, .. } = decide_case(&case, &bad);
            let shown = format!("{notes:?} {verdict:?} {receipt:?}");
            assert!(!shown.contains(secret), "{shown}");
        }
    }

    #[test]
    fn every_rule_has_cases() {
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
    fn ids_name_the_problem() {
        for id in rules::ALL.iter().map(|rule| rule.id()) {
            assert!(id.split('-').all(|word| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase())), "{id}");
            let first = id.split('-').next().unwrap();
            let remedies = ["no", "not", "disallow", "deny", "forbid", "require", "must", "use", "set", "check"];
            assert!(!remedies.contains(&first), "{id}: \"allow {id}\" does not read as English");
        }
    }

    #[test]
    fn every_rule_starts_with_its_page() {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/engine/src/rules");
        for id in rules::ALL.iter().map(|rule| rule.id()) {
            let files = folders(&sources).into_iter().flat_map(|subject| fs::read_dir(subject).unwrap());
            let paths = files.map(|file| file.unwrap().path()).filter(|path| path.is_file());
            let texts = paths.map(|path| fs::read_to_string(path).unwrap());
            let mut own: Vec<String> = texts.filter(|text| text.contains(&format!("{id:?}"))).collect();
            assert_eq!(own.len(), 1, "one file under crates/engine/src/rules has the rule {id}");
            let own_text = own.remove(0);
            let page: Vec<String> =
                own_text.lines().map_while(|line| Some(line.strip_prefix("//!")?.trim().to_owned())).collect();
            let headings: Vec<&str> = page.iter().filter(|line| line.starts_with('#')).map(String::as_str).collect();
            let parameters = own_text.contains("fn with_params(").then_some("## Parameters");
            let expected =
                ["## What it checks", "## Why it matters"].into_iter().chain(parameters).chain(["## Instead"]);
            assert_eq!(headings, expected.collect::<Vec<_>>(), "{id}");
            assert_eq!(page[0], "## What it checks", "{id}");
            let paragraphs = page.join("\n");
            for paragraph in paragraphs.split("## ").skip(1) {
                assert!(paragraph.lines().count() > 1, "{id}: `{paragraph}` has no text");
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
        let known = if known.exists() { yaml(&known) } else { Value::Null };
        let is_there = |operator: &str| known[operator].as_bool().unwrap_or(true);
        let policies = policies(case, &case.parent().unwrap().join("policy.yaml"));
        let given = yaml(&case.join("given.yaml"));
        let decision = decided(&given, None, &policies, &facts(is_there("zalando"), is_there("cloudNativePg")));
        let mut object = given.clone();
        json_patch::patch(&mut object, &decision.patch).unwrap();
        (given, object, decision)
    }

    #[test]
    fn injects_what_is_expected() {
        let mut wrong = Vec::new();
        for case in cases() {
            let (_, object, _) = injected(&case);
            let (found, expected) = (&object["spec"]["template"], yaml(&case.join("expected.yaml")));
            if *found != expected {
                let changes = json_patch::diff(&expected, found);
                wrong.push(format!("{}: patch from expected to found: {changes}", case.display()));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn changes_only_the_template_and_the_receipt() {
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
    fn reports_why_something_is_not_injected() {
        for (case, said) in [
            ("probes/no-port", "declares 0 TCP ports"),
            ("probes/several-ports", "declares 2 TCP ports"),
            ("probes/two-containers", "it is unknown which container"),
            ("probes/an-annotation-that-names-nothing", "container `server` not found"),
            ("database/not-served", "does not serve"),
            ("database/variables-that-are-set", "container api sets PGHOST, so it has its own database"),
            ("database/variables-that-are-set-otherwise", "`PGUSER` is set by the workload"),
            ("database/variables-that-are-set-otherwise", "bound with all its variables or not at all"),
            ("database/env-from", "tidegate.dev/database: \"true\" to bind Tidegate's"),
            ("database/env-from-over", "none to leave it unbound"),
            (
                "multi-node/parts-of-one-server",
                "no topology spread is injected: its pods are parts of one server (`--nnodes 2`)",
            ),
            (
                "multi-node/parts-of-one-server",
                "no autoscaler is created: its pods are parts of one server (`--nnodes 2`)",
            ),
            ("multi-node/parts-of-one-server", "no disruption budget is created: its pods are parts of one server"),
        ] {
            let (_, _, Decision { notes, verdict, .. }) = injected(&root().join("injection").join(case));
            let mut messages = notes.iter().cloned().chain(verdict.warnings.iter().map(ToString::to_string));
            assert!(messages.any(|message| message.contains(said)), "{case}: {notes:?} {:?}", verdict.warnings);
        }
        for case in
            ["resources/all-absent", "probes/switched-off", "scope/all-at-once", "scope/audit", "multi-node/copies"]
        {
            let (_, _, decision) = injected(&root().join("injection").join(case));
            assert_eq!(decision.notes, [""; 0], "{case}");
        }
    }
}
