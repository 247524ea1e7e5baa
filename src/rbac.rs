//! What Tidegate may do in a cluster: only what it does, and nothing by a wildcard. What follows from the tables of kinds and of
//! providers is taken from there.

use std::fmt::Write as _;

use crate::controller::report_definitions;
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
        let list = |words: &[String]| {
            let quoted = words.iter().map(|word| if word.is_empty() { "\"\"" } else { word.as_str() });
            quoted.collect::<Vec<_>>().join(", ")
        };
        let mut text = format!("  - apiGroups: [{}]\n    resources: [{}]\n", list(&self.groups), list(&self.resources));
        match &self.names[..] {
            [] => {}
            [name] => text += &format!("    resourceNames: [{name}]\n"),
            names => text += &format!("    resourceNames:\n      - {}\n", names.join("\n      - ")),
        }
        text + &format!("    verbs: [{}]\n", self.verbs.join(", "))
    }
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
fn sections(kinds: &[Kind]) -> Vec<Section> {
    let reports: (Vec<&str>, Vec<&str>) = report_definitions().into_iter().filter_map(split).unzip();
    let section = |why, rules| Section { why, rules };
    vec![
        section("What decisions are made from.", known(kinds)),
        section(
            "What Tidegate writes about them.",
            vec![
                Rule::new(
                    &["tidegate.dev"],
                    &["servingpolicies/status", "servingexceptions/status", "modelservers/status"],
                    &["patch"],
                ),
                Rule::new(&["tidegate.dev"], &["modelservers"], MAKE),
            ],
        ),
        section("Told on the workloads.", vec![Rule::new(&["events.k8s.io"], &["events"], &["create"])]),
        section("Companions. Autoscalers give way to their authors' own; databases are never deleted.", companions()),
        section(
            "One report for each namespace, where they are asked for (--policy-reports).",
            vec![Rule::new(&reports.1, &reports.0, &["get", "create", "patch", "delete"])],
        ),
        section(
            "To own them with blockOwnerDeletion, where the cluster asks for that.",
            of_kinds(kinds, "/finalizers", &["update"]).collect(),
        ),
        section(
            "To fill in the caBundle.",
            vec![
                Rule::new(
                    &["admissionregistration.k8s.io"],
                    &["mutatingwebhookconfigurations", "validatingwebhookconfigurations"],
                    &["get", "list", "watch", "patch"],
                )
                .named(["tidegate".to_owned()]),
            ],
        ),
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

    /// The permissions of the role for these kinds, as `verb group/resource` or `verb group/resource/name`.
    fn permissions(kinds: &[Kind]) -> Vec<String> {
        let written: String = sections(kinds).iter().flat_map(|section| &section.rules).map(Rule::yaml).collect();
        let rules: Vec<Value> = serde_saphyr::from_str(&written).unwrap();
        let words = |rule: &Value, field: &str| -> Vec<String> {
            serde_json::from_value(rule.get(field).cloned().unwrap_or(json!([""]))).unwrap()
        };
        let mut all = Vec::new();
        for rule in &rules {
            for (group, resource) in words(rule, "apiGroups")
                .iter()
                .flat_map(|group| words(rule, "resources").into_iter().map(move |resource| (group.clone(), resource)))
            {
                for name in words(rule, "resourceNames") {
                    let object = format!("{group}/{resource}/{name}");
                    all.extend(
                        words(rule, "verbs").iter().map(|verb| format!("{verb} {}", object.trim_end_matches('/'))),
                    );
                }
            }
        }
        all
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
        assert!(objects[1]["rules"].as_array().is_some_and(|rules| rules.len() == 17));
    }
}
