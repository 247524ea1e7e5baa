//! Policy reports, if enabled: one per namespace with the results of its model servers, of `openreports.io` if that is
//! served, else of `wgpolicyk8s.io`.
//!
//! <https://github.com/openreports/reports-api>

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::ResourceExt as _;
use kube::api::DynamicObject;
use serde_json::{Value, json};
use tracing::warn;

use super::Parts;
use super::apply::{Writer, apply, read};
use super::informer::{Handler, Key};
use super::kinds::{follow_definition, is_established};
use crate::report::chain;
use tidegate_engine::companions::plan::Action;
use tidegate_engine::companions::{MANAGED_BY_LABEL, MANAGER, contains};
use tidegate_engine::decision::{Decision, Violation};
use tidegate_engine::workload::{Workload, WorkloadRef};

/// How often changed reports are written: each at most this often.
const TICK: Duration = Duration::from_secs(5);

/// The most results of a report, some 400 bytes each: etcd limits objects to 1.5 MiB. The summary counts all.
const MOST_RESULTS: usize = 500;

/// The longest message of a result, in characters.
const MAX_MESSAGE: usize = 512;

/// A kind of report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    OpenReports,
    PolicyReport,
}

impl Kind {
    /// The name of its CustomResourceDefinition.
    fn definition(self) -> &'static str {
        match self {
            Self::OpenReports => "reports.openreports.io",
            Self::PolicyReport => "policyreports.wgpolicyk8s.io",
        }
    }

    fn of_definition(name: &str) -> Option<Self> {
        [Self::OpenReports, Self::PolicyReport].into_iter().find(|kind| kind.definition() == name)
    }

    /// Returns an empty report of a namespace.
    fn report(self, namespace: &str) -> Value {
        let metadata = json!({"name": MANAGER, "namespace": namespace, "labels": {MANAGED_BY_LABEL: MANAGER}});
        match self {
            Self::OpenReports => json!({
                "apiVersion": "openreports.io/v1alpha1", "kind": "Report", "metadata": metadata, "source": MANAGER,
                "configuration": {"limits": {"maxResults": MOST_RESULTS}}
            }),
            Self::PolicyReport => {
                json!({"apiVersion": "wgpolicyk8s.io/v1alpha2", "kind": "PolicyReport", "metadata": metadata})
            }
        }
    }
}

/// The results of one workload.
#[derive(Clone, Debug, Default, PartialEq)]
struct Results {
    /// The findings, each with the workload.
    results: Vec<Value>,
    /// How many rules have no finding.
    passed: usize,
}

impl Results {
    fn of(workload: &Workload, decision: &Decision) -> Self {
        let resources = json!([{
            "apiVersion": workload.known_kind().api_version(), "kind": workload.kind(), "namespace": workload.namespace(), "name": workload.name(),
            "uid": workload.uid()
        }]);
        let result = |violation: &Violation, outcome: &str, severity: &str| {
            let message: String = violation.to_string().chars().take(MAX_MESSAGE).collect();
            json!({
                "source": MANAGER, "policy": violation.policy, "rule": violation.rule, "result": outcome,
                "severity": severity, "message": message, "resources": resources
            })
        };
        let verdict = &decision.verdict;
        let refused = verdict.violations.iter().map(|found| result(found, "fail", "high"));
        let warned = verdict.warned.iter().map(|found| result(found, "warn", "medium"));
        let recorded = verdict.recorded.iter().map(|found| result(found, "warn", "info"));
        let exempted = verdict.exempted.iter().map(|found| result(&found.violation, "skip", "info"));
        let results: Vec<Value> = refused.chain(warned).chain(recorded).chain(exempted).collect();
        let found: BTreeSet<&str> = results.iter().filter_map(|result| result["rule"].as_str()).collect();
        let passed = decision.rules.saturating_sub(found.len());
        Self { results, passed }
    }
}

/// Returns the report of a namespace.
fn report(kind: Kind, namespace: &str, workloads: &BTreeMap<WorkloadRef, Results>) -> Value {
    let results = || workloads.values().flat_map(|workload| &workload.results);
    let count = |outcome: &str| results().filter(|result| result["result"] == outcome).count();
    let mut report = kind.report(namespace);
    report["summary"] = json!({
        "pass": workloads.values().map(|workload| workload.passed).sum::<usize>(),
        "fail": count("fail"), "warn": count("warn"), "error": 0, "skip": count("skip")
    });
    // Failures come first, in case the report is truncated.
    let mut sorted: Vec<&Value> = results().collect();
    sorted.sort_by_key(|result| ["fail", "warn", "skip"].iter().position(|outcome| result["result"] == *outcome));
    sorted.truncate(MOST_RESULTS);
    report["results"] = sorted.into_iter().cloned().collect();
    report
}

/// The reports of all namespaces.
pub(super) struct Reports {
    writer: Writer,
    content: Mutex<Content>,
}

#[derive(Default)]
struct Content {
    served: BTreeSet<Kind>,
    /// The results by namespace and workload.
    results: BTreeMap<String, BTreeMap<WorkloadRef, Results>>,
    /// The namespaces whose reports may be out of date.
    changed: BTreeSet<String>,
}

impl Reports {
    /// Creates an empty set of reports.
    pub(super) fn new(writer: Writer) -> Arc<Self> {
        Arc::new(Self { writer, content: Mutex::default() })
    }

    /// Stores the results of a workload.
    pub(super) fn record(&self, workload: &Workload, decision: &Decision) {
        let (reference, results) = (workload.reference(), Results::of(workload, decision));
        let mut content = self.content();
        let namespace = content.results.entry(reference.namespace.clone()).or_default();
        if namespace.get(&reference) != Some(&results) {
            namespace.insert(reference.clone(), results);
            content.changed.insert(reference.namespace);
        }
    }

    /// Forgets a workload.
    pub(super) fn forget(&self, workload: &WorkloadRef) {
        let mut content = self.content();
        let Some(namespace) = content.results.get_mut(&workload.namespace) else { return };
        if namespace.remove(workload).is_some() {
            content.changed.insert(workload.namespace.clone());
        }
    }

    /// Starts to watch which kinds of reports are served, and to write reports.
    pub(super) fn start(self: &Arc<Self>, parts: &mut Parts) {
        for definition in Self::definitions() {
            parts.spawn("reports", follow_definition(parts.client, definition, Definitions(Arc::clone(self))));
        }
        parts.spawn_writing("reports", Arc::clone(self).write());
    }

    /// The CustomResourceDefinitions of reports.
    pub(super) fn definitions() -> [&'static str; 2] {
        [Kind::OpenReports, Kind::PolicyReport].map(Kind::definition)
    }

    /// Writes changed reports while it is polled.
    async fn write(self: Arc<Self>) {
        let mut ticks = tokio::time::interval(TICK);
        loop {
            ticks.tick().await;
            if !self.writer.leads() {
                // Changes are kept in case this replica becomes the leader.
                continue;
            }
            for namespace in self.due() {
                if let Some(report) = self.report_of(&namespace) {
                    self.put(&report).await;
                }
            }
        }
    }

    /// Returns the namespaces whose reports may be out of date.
    fn due(&self) -> BTreeSet<String> {
        let mut content = self.content();
        if content.served.is_empty() { BTreeSet::new() } else { std::mem::take(&mut content.changed) }
    }

    /// Returns the report of a namespace, empty if it has no model servers. Locks the content for one report at a time,
    /// so that reconciliations need not wait for all of them.
    fn report_of(&self, namespace: &str) -> Option<Value> {
        let mut content = self.content();
        let kind = content.served.first().copied()?;
        let none = BTreeMap::new();
        let report = report(kind, namespace, content.results.get(namespace).unwrap_or(&none));
        content.results.retain(|_, workloads| !workloads.is_empty());
        Some(report)
    }

    async fn put(&self, report: &Value) {
        let found = read(&self.writer, report).await.and_then(|found| serde_json::to_value(found).ok());
        let is_empty = report["results"].as_array().is_none_or(Vec::is_empty) && report["summary"]["pass"] == 0;
        let action = match found {
            Some(_) if is_empty => Action::Delete(report.clone()),
            None if is_empty => return,
            Some(found) if contains(&found, report) => return,
            _ => Action::Apply(report.clone()),
        };
        if let Err(error) = apply(&self.writer, &action).await {
            let namespace = report["metadata"]["namespace"].as_str().unwrap_or_default();
            warn!(namespace, error = chain(&error), "cannot write a report; trying again");
            self.content().changed.insert(namespace.to_owned());
        }
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Definitions(Arc<Reports>);

impl Definitions {
    /// Updates which kinds are served; all reports are written again.
    fn update(&self, name: &str, is_served: bool) {
        let Some(kind) = Kind::of_definition(name) else { return };
        let mut content = self.0.content();
        if is_served {
            content.served.insert(kind)
        } else {
            content.served.remove(&kind)
        };
        content.changed = content.results.keys().cloned().collect();
    }
}

impl Handler<DynamicObject> for Definitions {
    fn put(&mut self, _: Key, definition: DynamicObject) {
        self.update(&definition.name_any(), is_established(&definition.data));
    }

    fn remove(&mut self, key: &Key) {
        self.update(&key.1, false);
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use tidegate_engine::decision::{Operation, Request, decide};
    use tidegate_engine::testing::{facts, policies, with_container};

    fn results(name: &str, fields: &Value) -> (WorkloadRef, Results) {
        let mut object = with_container(fields);
        object["metadata"]["name"] = name.into();
        let workload = Workload::view(&object).unwrap();
        let request = Request::new(Operation::Observe, workload, Timestamp::UNIX_EPOCH);
        let spec = json!({"rules": {"missing-memory-limit": {"enforcement": "warn"}}});
        let decision = decide(&request, &policies(&[("serving", spec)]), &facts());
        (workload.reference(), Results::of(&workload, &decision))
    }

    #[test]
    fn report_lists_findings_and_counts_passes() {
        let all = [results("wrong", &json!({"image": "api:latest"})), results("warned", &json!({}))].into();
        insta::assert_json_snapshot!(report(Kind::OpenReports, "ml", &all));
        let other = report(Kind::PolicyReport, "ml", &all);
        assert_eq!((&other["source"], &other["configuration"]), (&Value::Null, &Value::Null), "its schema has neither");
    }

    #[test]
    fn report_is_limited_and_lists_failures_first() {
        let many = |index: usize| results(&format!("api-{index:04}"), &json!({"image": "api:latest"}));
        let all: BTreeMap<_, _> = (0..MOST_RESULTS).map(many).collect();
        let report = report(Kind::PolicyReport, "ml", &all);
        let results = report["results"].as_array().unwrap();
        assert!(results.len() == MOST_RESULTS && results.iter().all(|result| result["result"] == "fail"));
        assert_eq!(report["summary"]["warn"], MOST_RESULTS);
        assert!(report.to_string().len() < 500_000);
    }
}
