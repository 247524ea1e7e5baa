//! Policies and decisions spelt out: where each value comes from, and which rules have their say.

use std::fmt::Write as _;

use serde_json::Value;

use tidegate_engine::decision::{Evaluation, Receipt, Violation};
use tidegate_engine::policy::Rule;
use tidegate_engine::policy::{Effective, Selected};
use tidegate_engine::rules;
use tidegate_engine::workload::Workload;

/// Spells out a rule: its page, and how strict it is by itself.
#[must_use]
pub fn rule(rule: &dyn Rule) -> String {
    format!(
        "# {}\n{}## Enforcement\n`{}`, where no policy says otherwise.\n",
        rule.id(),
        rules::page(rule),
        rule.enforcement()
    )
}

/// Lists the built-in rules, each with what it checks.
#[must_use]
pub fn all_rules() -> String {
    let rows = rules::ALL.iter().map(|rule| {
        let page = rules::page(*rule);
        let what = page.lines().skip_while(|line| *line != "## What it checks").skip(1);
        let what: Vec<&str> = what.take_while(|line| !line.starts_with("##")).collect();
        let first = what.join(" ");
        let first = first.split_inclusive(". ").next().unwrap_or_default().trim().to_owned();
        [rule.id().to_owned(), rule.enforcement().to_string(), first]
    });
    table(["rule", "enforcement", "what it checks"], rows).trim_start().to_owned()
}

/// Spells out policies as one: every setting with the policy that it comes from, every rule with how strict it is.
#[must_use]
pub fn policies(effective: &Effective) -> String {
    let mut text = String::new();
    for selected in effective.selected() {
        let _ = writeln!(text, "policy {}", told(selected));
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

/// Spells out what became of a workload, as it is stored: what was injected into it and by whom, and what each rule says of
/// it today.
#[must_use]
pub fn workload(workload: &Workload, evaluation: &Evaluation) -> String {
    let mut text = format!("{} {}/{}\n", workload.kind(), workload.namespace(), workload.name());
    let Some(effective) = evaluation.effective() else {
        text.push_str("no policy is for it\n");
        return text;
    };
    for selected in effective.selected() {
        let _ = writeln!(text, "policy {}", told(selected));
    }
    let _ = writeln!(text, "runtime {}", evaluation.runtime().unwrap_or("unknown"));
    text.push_str(&injected(workload));
    let verdict = evaluation.verdict();
    let found = |of: &[Violation], outcome: &str| -> Vec<[String; 3]> {
        of.iter().map(|violation| row(violation, outcome)).collect()
    };
    let mut rows = found(&verdict.violations, "violated");
    rows.extend(found(&verdict.warned, "warned of"));
    rows.extend(found(&verdict.recorded, "recorded"));
    let excused = |name: &str| format!("excused by {name}");
    rows.extend(verdict.excused.iter().map(|found| row(&found.violation, &excused(&found.exception))));
    for active in effective.rules() {
        let is_told = rows.iter().any(|[rule, ..]| rule == active.rule.id());
        if !is_told {
            rows.push([active.rule.id().to_owned(), "conforms".to_owned(), String::new()]);
        }
    }
    text.push_str(&table(["rule", "outcome", "what was found"], rows));
    text
}

fn row(violation: &Violation, outcome: &str) -> [String; 3] {
    let finding = &violation.finding;
    [violation.rule.clone(), outcome.to_owned(), format!("{}: {}", finding.place, finding.found)]
}

/// Lists what the receipt names, and whether it is still there as it was injected.
fn injected(workload: &Workload) -> String {
    let Some(receipt) = Receipt::read(workload) else {
        return "no receipt: nothing was injected, and nothing will be until its pod template changes\n".to_owned();
    };
    let rows = receipt.entries().map(|entry| {
        let value = entry.path.get(workload.pod_spec()).map_or_else(|| "(gone)".to_owned(), plain);
        let value = if entry.is_in(workload.pod_spec()) { value } else { format!("{value}, changed since") };
        [entry.path.to_string(), value, entry.policy.to_string()]
    });
    table(["injected", "value", "from"], rows)
}

fn told(selected: &Selected) -> String {
    let environment = selected.environment.as_ref().map(|name| format!(" in environment {name}"));
    format!("{}{}: {}", selected.policy, environment.unwrap_or_default(), selected.enforcement)
}

/// Writes a value on one line, a text without quotes.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Writes a table with aligned columns below an empty line; nothing where there are no rows.
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
    use serde_json::json;

    use super::*;
    use tidegate_engine::BUILTIN;
    use tidegate_engine::decision::{Operation, Request, User};
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
    fn a_rule_is_spelt_out_with_its_page() {
        insta::assert_snapshot!(rule(BUILTIN.rule("floating-tag").unwrap()) + "\n" + &all_rules());
    }

    #[test]
    fn policies_are_spelt_out_with_where_everything_comes_from() {
        let set = set();
        insta::assert_snapshot!(policies(&set.named(&["serving", "team"], Some("prod")).unwrap()));
    }

    #[test]
    fn a_workload_is_spelt_out_with_what_was_injected_and_what_the_rules_say() {
        let excused = json!({"workloads": {"names": ["api"]}, "rules": ["floating-tag"], "reason": "a pilot",
            "expires": "2027-01-01T00:00:00Z"});
        let (set, facts) = (set().with_exceptions([exception("pilot", &excused)]), facts());
        let mut object = with_container(&json!({"image": "api:latest", "securityContext": {"privileged": true}}));
        let told = |object: &Value, operation: Operation| {
            let (viewed, now) = (Workload::view(object).unwrap(), Timestamp::UNIX_EPOCH);
            let evaluation = Evaluation::new(
                Request { operation, workload: viewed, old: None, user: User::default(), now },
                &set,
                &facts,
            );
            (evaluation.patch(), workload(&viewed, &evaluation))
        };
        let (patch, before) = told(&object, Operation::Observe);
        assert!(patch.is_empty() && before.contains("no receipt"), "{before}");
        let (patch, _) = told(&object, Operation::Create);
        json_patch::patch(&mut object, &patch).unwrap();
        object["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"] = "2Gi".into();
        insta::assert_snapshot!(told(&object, Operation::Observe).1);
    }
}
