//! `tidegate explain`, as text: where each value comes from, and the result of each rule.

use std::fmt::Write as _;

use super::docs::first_sentence;
use super::plain;
use tidegate_engine::decision::{Evaluation, Receipt, Violation};
use tidegate_engine::policy::Rule;
use tidegate_engine::policy::{Effective, Selected};
use tidegate_engine::rules;
use tidegate_engine::workload::Workload;

/// Explains a rule: its page and its default enforcement.
#[must_use]
pub fn rule(rule: &dyn Rule) -> String {
    format!(
        "# {}\n{}## Enforcement\n`{}`, unless a policy sets another.\n",
        rule.id(),
        rules::page(rule),
        rule.enforcement()
    )
}

/// Lists the built-in rules with what they check.
#[must_use]
pub fn all_rules() -> String {
    let rows =
        rules::ALL.iter().map(|rule| [rule.id().to_owned(), rule.enforcement().to_string(), first_sentence(*rule)]);
    table(["rule", "enforcement", "what it checks"], rows).trim_start().to_owned()
}

/// Explains merged policies: every setting with the policy that it comes from, and every rule with its enforcement.
#[must_use]
pub fn policies(effective: &Effective) -> String {
    let mut text = String::new();
    for selected in effective.selected() {
        let _ = writeln!(text, "policy {}", summary(selected));
    }
    for problem in effective.problems() {
        let _ = writeln!(text, "problem: {problem}");
    }
    let settings =
        effective.merged().settings().map(|(field, value, policy)| [field, plain(value), policy.to_string()]);
    text.push_str(&table(["setting", "value", "from"], settings));
    let bounds = effective.all_bounds().map(|(policy, resource, bound)| {
        let end = |end: Option<String>| end.unwrap_or_default();
        let (min, max) = (bound.min.as_ref().map(ToString::to_string), bound.max.as_ref().map(ToString::to_string));
        [resource.to_owned(), format!("{}..{}", end(min), end(max)), policy.to_owned()]
    });
    text.push_str(&table(["bound", "within", "from"], bounds));
    let rules = effective
        .rules()
        .iter()
        .map(|active| [active.rule.id().to_owned(), active.enforcement.to_string(), active.policy.to_string()]);
    text.push_str(&table(["rule", "enforcement", "from"], rules));
    text
}

/// Explains the state of a stored workload: what was injected by which policy, and the current result of each rule.
#[must_use]
pub fn workload(workload: &Workload, evaluation: &Evaluation) -> String {
    let mut text = format!("{} {}/{}\n", workload.kind(), workload.namespace(), workload.name());
    let Some(effective) = evaluation.effective() else {
        text.push_str("no policy matches it\n");
        return text;
    };
    for selected in effective.selected() {
        let _ = writeln!(text, "policy {}", summary(selected));
    }
    let provenance = evaluation.provenance().cloned().unwrap_or_default();
    let _ = writeln!(text, "runtime {}: {provenance}", evaluation.runtime().unwrap_or("unknown"));
    text.push_str(&injected(workload));
    let verdict = evaluation.verdict();
    let found = |violations: &[Violation], result: &str| -> Vec<[String; 3]> {
        violations.iter().map(|violation| row(violation, result)).collect()
    };
    let mut rows = found(&verdict.violations, "violated");
    rows.extend(found(&verdict.warned, "warning"));
    rows.extend(found(&verdict.recorded, "recorded"));
    let exempted = |name: &str| format!("exempted by {name}");
    rows.extend(verdict.exempted.iter().map(|found| row(&found.violation, &exempted(&found.exception))));
    for active in effective.rules() {
        let is_listed = rows.iter().any(|[rule, ..]| rule == active.rule.id());
        if !is_listed {
            rows.push([active.rule.id().to_owned(), "conforms".to_owned(), String::new()]);
        }
    }
    text.push_str(&table(["rule", "result", "found"], rows));
    text
}

fn row(violation: &Violation, result: &str) -> [String; 3] {
    let finding = &violation.finding;
    [violation.rule.clone(), result.to_owned(), format!("{}: {}", finding.place, finding.found)]
}

/// Lists the entries of the receipt, and whether each field still has its injected value.
fn injected(workload: &Workload) -> String {
    let Some(receipt) = Receipt::read(workload) else {
        return "no receipt: nothing was injected, and nothing will be until the pod template changes\n".to_owned();
    };
    let rows = receipt.entries().map(|entry| {
        let value = entry.path.get(workload.pod_spec()).map_or_else(|| "(removed)".to_owned(), plain);
        let value = if entry.is_in(workload.pod_spec()) { value } else { format!("{value}, changed since") };
        [entry.path.to_string(), value, entry.policy.to_string()]
    });
    table(["injected", "value", "from"], rows)
}

fn summary(selected: &Selected) -> String {
    let environment = selected.environment.as_ref().map(|name| format!(" in environment {name}"));
    format!("{}{}: {}", selected.policy, environment.unwrap_or_default(), selected.enforcement)
}

/// Writes an empty line and a table with aligned columns; nothing if there are no rows.
fn table(heading: [&str; 3], rows: impl IntoIterator<Item = [String; 3]>) -> String {
    let rows: Vec<[String; 3]> = rows.into_iter().collect();
    if rows.is_empty() {
        return String::new();
    }
    let heading = heading.map(str::to_uppercase);
    let all = || std::iter::once(&heading).chain(&rows);
    let width = |column: usize| all().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let (first, second) = (width(0), width(1));
    all().fold("\n".to_owned(), |text, [one, two, three]| {
        let line = format!("{one:first$}  {two:second$}  {three}");
        text + line.trim_end() + "\n"
    })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;
    use serde_json::{Value, json};

    use super::*;
    use tidegate_engine::BUILTIN;
    use tidegate_engine::decision::{Operation, Request};
    use tidegate_engine::policy::PolicySet;
    use tidegate_engine::testing::{exception, facts, with_container};

    fn set() -> PolicySet {
        let serving = json!({
            "resources": {"cpu": {"limits": {"memory": "1Gi"}}, "bounds": {"memory": {"max": "64Gi"}}},
            "autoscaling": {"metrics": [{"type": "ContainerResource", "containerResource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}]},
            "environments": {"prod": {"autoscaling": {"minReplicas": 2}}}
        });
        let team = json!({"priority": 1, "enforcement": "warn", "autoscaling": {"maxReplicas": 4}});
        tidegate_engine::testing::policies(&[("serving", serving), ("team", team)])
    }

    #[test]
    fn explains_a_rule() {
        insta::assert_snapshot!(rule(BUILTIN.rule("floating-tag").unwrap()) + "\n" + &all_rules());
    }

    #[test]
    fn explains_policies_with_the_source_of_each_value() {
        let set = set();
        insta::assert_snapshot!(policies(&set.named(&["serving", "team"], Some("prod")).unwrap()));
    }

    #[test]
    fn explains_a_workload() {
        let exempted = json!({"workloads": {"names": ["api"]}, "rules": ["floating-tag"], "reason": "a pilot",
            "expires": "2027-01-01T00:00:00Z"});
        let (set, facts) = (set().with_exceptions([exception("pilot", &exempted)]), facts());
        let mut object = with_container(&json!({"image": "api:latest", "securityContext": {"privileged": true}}));
        let explain = |object: &Value, operation: Operation| {
            let (viewed, now) = (Workload::view(object).unwrap(), Timestamp::UNIX_EPOCH);
            let evaluation = Evaluation::new(Request::new(operation, viewed, now), &set, &facts);
            (evaluation.patch(), workload(&viewed, &evaluation))
        };
        let (patch, before) = explain(&object, Operation::Observe);
        assert!(patch.is_empty() && before.contains("no receipt"), "{before}");
        let (patch, _) = explain(&object, Operation::Create);
        json_patch::patch(&mut object, &patch).unwrap();
        object["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"] = "2Gi".into();
        insta::assert_snapshot!(explain(&object, Operation::Observe).1);
    }
}
