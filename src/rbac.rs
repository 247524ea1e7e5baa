//! The permissions of Tidegate: only those that it uses, without wildcards. Kinds, companions and database providers
//! are taken from the engine's tables.

use std::fmt::Write as _;

use crate::controller::{POOLS, report_definitions};
use crate::webhooks;
use tidegate_engine::companions::database::apis;
use tidegate_engine::companions::{ManagedKind, managed_kinds};
use tidegate_engine::kind::{KINDS, Kind, Revisions};

/// A group of permissions, and why they are needed.
struct Section {
    why: &'static str,
    rules: Vec<Rule>,
}

/// One rule of a role.
#[derive(PartialEq)]
struct Rule {
    groups: Vec<String>,
    resources: Vec<String>,
    /// The names of the objects; all objects if empty.
    names: Vec<String>,
    verbs: &'static [&'static str],
}

/// Verbs to watch objects.
const WATCH: &[&str] = &["list", "watch"];

/// Verbs to watch objects and to read single ones.
const READ: &[&str] = &["get", "list", "watch"];

/// Verbs to manage companions, and delete them in favour of the user's own.
const MANAGE: &[&str] = &["list", "watch", "create", "patch", "delete"];

/// Verbs to manage objects that are never deleted.
const MANAGE_WITHOUT_DELETE: &[&str] = &["list", "watch", "create", "patch"];

impl Rule {
    fn new(groups: &[&str], resources: &[&str], verbs: &'static [&'static str]) -> Self {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Self { groups: owned(groups), resources: owned(resources), names: Vec::new(), verbs }
    }

    fn named(self, names: impl IntoIterator<Item = String>) -> Self {
        Self { names: names.into_iter().collect(), ..self }
    }

    fn yaml(&self) -> String {
        let (groups, resources, verbs) = (list(&self.groups), list(&self.resources), self.verbs.join(", "));
        let names = match &self.names[..] {
            [] => String::new(),
            [name] => format!("    resourceNames: [{name}]\n"),
            names => format!("    resourceNames:\n      - {}\n", names.join("\n      - ")),
        };
        format!("  - apiGroups: [{groups}]\n    resources: [{resources}]\n{names}    verbs: [{verbs}]\n")
    }
}

/// Writes the items of a YAML list; the core group is the empty string.
fn list(items: &[String]) -> String {
    let quoted = items.iter().map(|item| if item.is_empty() { "\"\"" } else { item.as_str() });
    quoted.collect::<Vec<_>>().join(", ")
}

/// Returns one rule for each group of these kinds; `part` is appended to each plural, such as `/finalizers`.
fn of_kinds<'k>(kinds: &'k [Kind], part: &'k str, verbs: &'static [&'static str]) -> impl Iterator<Item = Rule> + 'k {
    let is_first = |place: usize| !kinds[..place].iter().any(|before| before.group == kinds[place].group);
    (0..kinds.len()).filter(move |place| is_first(*place)).map(move |place| {
        let group = kinds[place].group;
        let plurals = kinds.iter().filter(|kind| kind.group == group).map(|kind| format!("{}{part}", kind.plural));
        Rule { resources: plurals.collect(), ..Rule::new(&[group], &[], verbs) }
    })
}

/// Returns the rules of the `ClusterRole`, if these kinds can be model servers.
fn sections(kinds: &[Kind]) -> [Section; 9] {
    let events = Rule::new(&["events.k8s.io"], &["events"], &["create", "patch"]);
    let section = |why, rules| Section { why, rules };
    [
        section("Input of decisions.", watched(kinds)),
        section("Statuses and ModelServers.", written()),
        section("Events on workloads.", vec![events]),
        section("Companions. Autoscalers are deleted in favour of the user's own; databases never are.", companions()),
        section(
            "To give up the ownership of spec.replicas that autoscalers get (autoscaling.shareReplicas).",
            of_kinds(kinds, "", &["patch"]).collect(),
        ),
        section("To allow rollbacks to admitted revisions.", revisions(kinds)),
        section("One report per namespace (--policy-reports).", vec![reports()]),
        section(
            "To set blockOwnerDeletion, in clusters that require this permission for it.",
            of_kinds(kinds, "/finalizers", &["update"]).collect(),
        ),
        section("To add the caBundle.", vec![configurations()]),
    ]
}

/// Returns the rules for the input of decisions.
fn watched(kinds: &[Kind]) -> Vec<Rule> {
    let of_providers = apis().map(|api| api.definition.to_owned());
    let optional = managed_kinds().filter(|managed| !managed.is_built_in);
    let of_companions = optional.map(|ManagedKind { group, plural, .. }| format!("{plural}.{group}"));
    let of_reports = report_definitions().map(str::to_owned);
    let others = of_providers.chain(of_companions).chain(of_reports);
    let definitions = kinds.iter().filter_map(Kind::definition).chain(others).chain([POOLS.to_owned()]);
    let mut rules = vec![Rule::new(&[""], &["namespaces", "persistentvolumeclaims", "services"], WATCH)];
    rules.extend(of_kinds(kinds, "", READ));
    rules.push(Rule::new(&["apiextensions.k8s.io"], &["customresourcedefinitions"], WATCH).named(definitions));
    rules.extend(split(POOLS).map(|(plural, group)| Rule::new(&[group], &[plural], WATCH)));
    rules.push(Rule::new(&["apiregistration.k8s.io"], &["apiservices"], WATCH));
    rules.push(Rule::new(&["tidegate.dev"], &["servingpolicies", "servingexceptions"], WATCH));
    rules
}

/// Returns the rules for the revisions of workloads.
fn revisions(kinds: &[Kind]) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for Revisions { group, plural, .. } in kinds.iter().filter_map(|kind| kind.revisions) {
        let rule = Rule::new(&[group], &[plural], &["list"]);
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    rules
}

/// Returns the rules for Tidegate's own kinds.
fn written() -> Vec<Rule> {
    let statuses = ["servingpolicies/status", "servingexceptions/status", "modelservers/status"];
    vec![
        Rule::new(&["tidegate.dev"], &statuses, &["patch"]),
        Rule::new(&["tidegate.dev"], &["modelservers"], MANAGE_WITHOUT_DELETE),
    ]
}

/// Returns the rule for reports of both kinds.
fn reports() -> Rule {
    let (plurals, groups): (Vec<&str>, Vec<&str>) = report_definitions().into_iter().filter_map(split).unzip();
    Rule::new(&groups, &plurals, &["get", "create", "patch", "delete"])
}

/// Returns the rule for Tidegate's own webhook configurations.
fn configurations() -> Rule {
    let kinds = ["mutatingwebhookconfigurations", "validatingwebhookconfigurations"];
    let rule = Rule::new(&["admissionregistration.k8s.io"], &kinds, &["get", "list", "watch", "patch"]);
    rule.named([webhooks::NAME.to_owned()])
}

/// Returns the rules for companions.
fn companions() -> Vec<Rule> {
    let managed = managed_kinds().map(|ManagedKind { group, plural, .. }| Rule::new(&[group], &[plural], MANAGE));
    let databases = apis().filter_map(|api| split(api.definition));
    managed.chain(databases.map(|(plural, group)| Rule::new(&[group], &[plural], MANAGE_WITHOUT_DELETE))).collect()
}

/// Splits the name of a definition into plural and group.
fn split(definition: &str) -> Option<(&str, &str)> {
    definition.split_once('.')
}

/// Returns the service account of Tidegate with its roles and bindings, as YAML.
#[must_use]
pub fn manifest() -> String {
    let mut rules = String::new();
    for Section { why, rules: section } in sections(KINDS) {
        let yaml: String = section.iter().map(Rule::yaml).collect();
        write!(rules, "  # {why}\n{yaml}").expect("writing to a String does not fail");
    }
    format!("{HEAD}{rules}{TAIL}")
}

/// The service account, and the beginning of its `ClusterRole`.
const HEAD: &str = "\
# No Secrets: workloads refer to the database operator's own Secret by name.
apiVersion: v1
kind: ServiceAccount
metadata:
  name: tidegate
  namespace: tidegate-system
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: tidegate
rules:
";

/// The `ClusterRoleBinding`, and the `Role` and `RoleBinding` in Tidegate's namespace.
const TAIL: &str = "\
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: tidegate
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: tidegate
subjects:
  - kind: ServiceAccount
    name: tidegate
    namespace: tidegate-system
---
# The Lease for leader election.
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: tidegate
  namespace: tidegate-system
rules:
  - apiGroups: [coordination.k8s.io]
    resources: [leases]
    verbs: [create]
  - apiGroups: [coordination.k8s.io]
    resources: [leases]
    resourceNames: [tidegate]
    verbs: [get, update]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: tidegate
  namespace: tidegate-system
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: tidegate
subjects:
  - kind: ServiceAccount
    name: tidegate
    namespace: tidegate-system
";

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The single permissions, such as `get apps/deployments` or `patch group/resource/name`.
    fn permissions(kinds: &[Kind]) -> Vec<String> {
        let yaml: String = sections(kinds).iter().flat_map(|section| &section.rules).map(Rule::yaml).collect();
        let rules: Vec<Value> = serde_saphyr::from_str(&yaml).unwrap();
        rules.iter().flat_map(permissions_of).collect()
    }

    fn permissions_of(rule: &Value) -> Vec<String> {
        let values = |field: &str| rule[field].as_array().map_or_else(|| vec![json!("")], Clone::clone);
        let mut all = vec![String::new()];
        for (field, separator) in [("verbs", " "), ("apiGroups", "/"), ("resources", "/"), ("resourceNames", "")] {
            let with = |prefix: &String| {
                values(field)
                    .into_iter()
                    .map(move |value| format!("{prefix}{}{separator}", value.as_str().unwrap()))
                    .collect::<Vec<_>>()
            };
            all = all.iter().flat_map(with).collect();
        }
        all.iter().map(|permission| permission.trim_end_matches('/').to_owned()).collect()
    }

    #[test]
    fn allows_to_watch_and_own_an_added_kind() {
        let [deployment, ..] = KINDS else { panic!("no kinds") };
        let added = Kind { group: "example.com", plural: "servers", is_built_in: false, ..*deployment };
        let before = permissions(KINDS);
        let with_it: Vec<Kind> = KINDS.iter().map(|kind| Kind { ..*kind }).chain([added]).collect();
        let mut more = permissions(&with_it);
        more.retain(|permission| !before.contains(permission));
        more.sort();
        let definition = "apiextensions.k8s.io/customresourcedefinitions/servers.example.com";
        let expected = [
            "get example.com/servers".to_owned(),
            format!("list {definition}"),
            "list example.com/servers".to_owned(),
            "patch example.com/servers".to_owned(),
            "update example.com/servers/finalizers".to_owned(),
            format!("watch {definition}"),
            "watch example.com/servers".to_owned(),
        ];
        assert_eq!(more, expected);
    }

    #[test]
    fn has_no_wildcards_and_reads_no_secrets() {
        let all = permissions(KINDS);
        assert!(all.iter().all(|permission| !permission.contains('*') && !permission.contains("secrets")), "{all:?}");
    }

    #[test]
    fn manifest_is_valid_yaml() {
        let objects: Vec<Value> = serde_saphyr::from_multiple(&manifest()).unwrap();
        let kinds: Vec<&Value> = objects.iter().map(|object| &object["kind"]).collect();
        assert_eq!(kinds, ["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"]);
        let written = sections(KINDS).iter().map(|section| section.rules.len()).sum::<usize>();
        assert_eq!(objects[1]["rules"].as_array().map(Vec::len), Some(written));
    }
}
