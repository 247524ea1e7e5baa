//! ## What it checks
//! Containers that do not set `allowPrivilegeEscalation: false`, or do not drop all capabilities. Privileged ones are
//! covered by `privileged-container`.
//! ## Why it matters
//! With a setuid program, anyone who breaks into the server becomes root in its container; the default capabilities,
//! such as `NET_RAW`, allow further attacks. No model server needs either.
//! ## Instead
//! Set both, and add back only the capability that the server really needs.

use serde_json::Value;

use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;
use crate::workload::{Container, items};

/// Finds containers that allow privilege escalation.
#[derive(Debug)]
pub struct PrivilegeEscalation;

impl Rule for PrivilegeEscalation {
    fn id(&self) -> &'static str {
        "privilege-escalation"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn is_about_pods(&self) -> bool {
        true
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        context.workload.all_containers().filter_map(|container| escalating(&container)).collect()
    }
}

fn escalating(container: &Container) -> Option<Finding> {
    let security = container.field("securityContext");
    // It already has all privileges, and the API server refuses the two together.
    if security["privileged"] == true {
        return None;
    }
    let (may_escalate, keeps) = (security["allowPrivilegeEscalation"] != false, !drops_all(&security["capabilities"]));
    let found = match (may_escalate, keeps) {
        (true, true) => "privilege escalation and capabilities that are not dropped",
        (true, false) => "privilege escalation",
        (false, true) => "capabilities that are not dropped",
        (false, false) => return None,
    };
    let instead = "securityContext:\n  allowPrivilegeEscalation: false\n  capabilities:\n    drop: [ALL]";
    let finding = Finding::in_container(container, "securityContext").found(found);
    Some(finding.expected("neither").fix(instead))
}

fn drops_all(capabilities: &Value) -> bool {
    items(&capabilities["drop"]).any(|name| name.as_str().is_some_and(|name| name.eq_ignore_ascii_case("all")))
}
