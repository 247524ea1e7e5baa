//! What Tidegate may do in a cluster: only what it does, and nothing by a wildcard. What follows from the tables of kinds and of
//! providers is taken from there.

use std::fmt::Write as _;

use crate::controller::report_definitions;
use crate::webhooks;
use tidegate_engine::companions::database::apis;
use tidegate_engine::kind::{KINDS, Kind};

/// Permissions that belong together, and why they are needed.
struct Section {
    why: &'static str,
    rules: Vec<Rule>,
}

/// One rule of a role.
struct Rule {
    groups: Vec<String>,
    resources: Vec<String>,
    /// The objects that it is about; all of them where it names none.
    names: Vec<String>,
    verbs: &'static [&'static str],
}

/// To know all that there is, and what becomes of it.
const FOLLOW: &[&str] = &["list", "watch"];

/// To look at one as well, before it is acted upon.
const LOOK: &[&str] = &["get", "list", "watch"];

/// To make what others may make as well, and give way to them.
const KEEP: &[&str] = &["list", "watch", "create", "patch", "delete"];

/// To make what is never deleted.
const MAKE: &[&str] = &["list", "watch", "create", "patch"];

/// The companions that are kept, by their groups and plurals: databases come from their providers.
const COMPANIONS: [(&str, &str); 3] =
    [("autoscaling", "horizontalpodautoscalers"), ("keda.sh", "scaledobjects"), ("policy", "poddisruptionbudgets")];

/// The definitions by which it is told whether companions are served, where not every cluster serves them.
const DEFINITIONS: [&str; 1] = ["scaledobjects.keda.sh"];

impl Rule {
    fn new(groups: &[&str], resources: &[&str], verbs: &'static [&'static str]) -> Self {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
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

/// Writes words as they stand in a list of YAML; the group of the core is the empty one.
fn list(words: &[String]) -> String {
    let quoted = words.iter().map(|word| if word.is_empty() { "\"\"" } else { word.as_str() });
    quoted.collect::<Vec<_>>().join(", ")
}

/// Returns one rule for each group of these kinds; `part` is what it is about of each.
fn of_kinds<'k>(kinds: &'k [Kind], part: &'k str, verbs: &'static [&'static str]) -> impl Iterator<Item = Rule> + 'k {
    let is_first = |place: usize| !kinds[..place].iter().any(|before| before.group == kinds[place].group);
    (0..kinds.len()).filter(move |place| is_first(*place)).map(move |place| {
        let group = kinds[place].group;
        let plurals = kinds.iter().filter(|kind| kind.group == group).map(|kind| format!("{}{part}", kind.plural));
        Rule { resources: plurals.collect(), ..Rule::new(&[group], &[], verbs) }
    })
}

/// Returns the rules of the role for the whole cluster, where these kinds can be model servers.
fn sections(kinds: &[Kind]) -> [Section; 7] {
    let told = Rule::new(&["events.k8s.io"], &["events"], &["create", "patch"]);
    let section = |why, rules| Section { why, rules };
    [
        section("What decisions are made from.", known(kinds)),
        section("What Tidegate writes about them.", written()),
        section("Told on the workloads.", vec![told]),
        section("Companions. Autoscalers give way to their authors' own; databases are never deleted.", companions()),
        section("One report for each namespace, where they are asked for (--policy-reports).", vec![reports()]),
        section(
            "To own them with blockOwnerDeletion, where the cluster asks for that.",
            of_kinds(kinds, "/finalizers", &["update"]).collect(),
        ),
        section("To fill in the caBundle.", vec![configurations()]),
    ]
}

/// Returns the rules for what decisions are made from.
fn known(kinds: &[Kind]) -> Vec<Rule> {
    let of_providers = apis().map(|api| api.definition);
    let others = of_providers.chain(DEFINITIONS).chain(report_definitions()).map(str::to_owned);
    let definitions = kinds.iter().filter_map(Kind::definition).chain(others);
    let mut rules = vec![Rule::new(&[""], &["namespaces", "persistentvolumeclaims", "services"], FOLLOW)];
    rules.extend(of_kinds(kinds, "", LOOK));
    rules.push(Rule::new(&["apiextensions.k8s.io"], &["customresourcedefinitions"], FOLLOW).named(definitions));
    rules.push(Rule::new(&["apiregistration.k8s.io"], &["apiservices"], FOLLOW));
    rules.push(Rule::new(&["tidegate.dev"], &["servingpolicies", "servingexceptions"], FOLLOW));
    rules
}

/// Returns the rules for Tidegate's own kinds.
fn written() -> Vec<Rule> {
    let statuses = ["servingpolicies/status", "servingexceptions/status", "modelservers/status"];
    vec![Rule::new(&["tidegate.dev"], &statuses, &["patch"]), Rule::new(&["tidegate.dev"], &["modelservers"], MAKE)]
}

/// Returns the rule for reports, of whichever kind is served.
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
    let kept = COMPANIONS.map(|(group, plural)| Rule::new(&[group], &[plural], KEEP));
    let databases = apis().filter_map(|api| split(api.definition));
    kept.into_iter().chain(databases.map(|(plural, group)| Rule::new(&[group], &[plural], MAKE))).collect()
}

/// Returns the plural and the group that a definition is named after.
fn split(definition: &str) -> Option<(&str, &str)> {
    definition.split_once('.')
}

/// Returns the service account of Tidegate and what it may do, as YAML.
#[must_use]
pub fn manifest() -> String {
    let mut rules = String::new();
    for Section { why, rules: inside } in sections(KINDS) {
        let written: String = inside.iter().map(Rule::yaml).collect();
        write!(rules, "  # {why}\n{written}").expect("writing to a String does not fail");
    }
    format!("{ACCOUNT}{rules}{BOUND}")
}

/// The service account, and the beginning of its role for the whole cluster.
const ACCOUNT: &str = "\
# No Secrets: the credentials of a database reach its workload by the name of the operator's own Secret.
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

/// What binds the account to its role, and its role in its own namespace.
const BOUND: &str = "\
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
# The Lease by which the replicas elect the one that writes.
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

    /// What may be done of an object, such as `get apps/deployments` or `patch group/resource/name`.
    fn permissions(kinds: &[Kind]) -> Vec<String> {
        let yaml: String = sections(kinds).iter().flat_map(|section| &section.rules).map(Rule::yaml).collect();
        let rules: Vec<Value> = serde_saphyr::from_str(&yaml).unwrap();
        rules.iter().flat_map(permissions_of).collect()
    }

    fn permissions_of(rule: &Value) -> Vec<String> {
        let words = |field: &str| rule[field].as_array().map_or_else(|| vec![json!("")], Clone::clone);
        let mut all = vec![String::new()];
        for (field, separator) in [("verbs", " "), ("apiGroups", "/"), ("resources", "/"), ("resourceNames", "")] {
            let with = |known: &String| {
                words(field)
                    .into_iter()
                    .map(move |word| format!("{known}{}{separator}", word.as_str().unwrap()))
                    .collect::<Vec<_>>()
            };
            all = all.iter().flat_map(with).collect();
        }
        all.iter().map(|permission| permission.trim_end_matches('/').to_owned()).collect()
    }

    #[test]
    fn a_kind_that_is_added_may_be_watched_and_owned() {
        let [deployment, ..] = KINDS else { panic!("there are kinds") };
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
            "update example.com/servers/finalizers".to_owned(),
            format!("watch {definition}"),
            "watch example.com/servers".to_owned(),
        ];
        assert_eq!(more, expected);
    }

    #[test]
    fn nothing_is_allowed_by_a_wildcard_and_no_secret_is_read() {
        let all = permissions(KINDS);
        assert!(all.iter().all(|permission| !permission.contains('*') && !permission.contains("secrets")), "{all:?}");
    }

    #[test]
    fn the_manifest_is_yaml_of_whole_objects() {
        let objects: Vec<Value> = serde_saphyr::from_multiple(&manifest()).unwrap();
        let kinds: Vec<&Value> = objects.iter().map(|object| &object["kind"]).collect();
        assert_eq!(kinds, ["ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"]);
        let written = sections(KINDS).iter().map(|section| section.rules.len()).sum::<usize>();
        assert_eq!(objects[1]["rules"].as_array().map(Vec::len), Some(written));
    }
}
