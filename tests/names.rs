//! Properties of the names of companions: no two workloads of a namespace share one.

use proptest::prelude::*;
use proptest::sample::{Index, select};
use tidegate_engine::companions::names;
use tidegate_engine::kind::{KINDS, NAMES};

/// A workload, by kind and name.
type Subject = (&'static str, String);

/// An object of a workload: its kind, name and maximum length.
type Made = (&'static str, String, usize);

/// Returns the objects of a workload under a team's policy. KEDA creates a HorizontalPodAutoscaler for each
/// ScaledObject.
fn made(team: &str, (kind, name): &Subject) -> Vec<Made> {
    let scaled_object = names::scaled_object(kind, name);
    vec![
        ("ModelServer", names::model_server(kind, name), 253),
        ("HorizontalPodAutoscaler", names::autoscaler(kind, name), 253),
        ("HorizontalPodAutoscaler", format!("keda-hpa-{scaled_object}"), 253),
        ("ScaledObject", scaled_object, 63),
        ("PodDisruptionBudget", names::disruption_budget(kind, name), 253),
        ("postgresql", names::postgres_cluster(team, kind, name), 37),
        ("Cluster", names::cloudnative_pg_cluster(kind, name), 50),
    ]
}

/// Generates typical and long names.
fn plain() -> impl Strategy<Value = String> {
    let short = proptest::collection::vec(select(vec!["api", "a", "b", "7b", "tidegate", "x2"]), 1..4);
    let long = (1..249usize, select(vec!["", "-a", ".b", "-b-c"]));
    prop_oneof![
        4 => (short, select(vec!["-", "."])).prop_map(|(words, separator)| words.join(separator)),
        1 => long.prop_map(|(length, end)| format!("{}{end}", "m".repeat(length))),
        1 => Just("keda-hpa-api".to_owned()),
    ]
}

/// Returns a workload's name that is the name of another workload's object.
fn after(team: &str, subject: &Subject, which: Index) -> String {
    let made = made(team, subject);
    let (_, name, _) = which.get(&made);
    let mut ends = KINDS.iter().map(|kind| format!("-tidegate{}", kind.suffix));
    let name = ends.find_map(|end| name.strip_suffix(&*end)).unwrap_or(name);
    let beginnings = [format!("{team}-"), "db-".to_owned(), "keda-hpa-".to_owned()];
    beginnings.iter().find_map(|beginning| name.strip_prefix(&**beginning)).unwrap_or(name).to_owned()
}

/// Generates the workloads of a namespace; some are named after objects of others.
fn subjects() -> impl Strategy<Value = (&'static str, Vec<Subject>)> {
    let one = (select(NAMES.to_vec()), plain(), any::<Index>(), any::<Index>(), 0..3u8);
    (select(vec!["acid", "ml-platform"]), proptest::collection::vec(one, 2..8)).prop_map(|(team, drawn)| {
        let mut subjects: Vec<Subject> = Vec::new();
        for (kind, name, whose, which, how) in drawn {
            let name = match how {
                0 if !subjects.is_empty() => whose.get(&subjects).1.clone(),
                1 if !subjects.is_empty() => after(team, whose.get(&subjects), which),
                _ => name,
            };
            // A workload named after the digest of one with dots is deliberate: it gets no database.
            let is_new = !subjects.contains(&(kind, name.clone()));
            let is_dotted = subjects.iter().any(|(_, known)| known.contains('.')) && how == 1;
            if is_new && !is_dotted {
                subjects.push((kind, name));
            }
        }
        (team, subjects)
    })
}

/// Returns whether a name is valid for an object: a DNS label for PostgreSQL clusters, else a DNS subdomain.
fn is_valid(kind: &str, name: &str, most: usize) -> bool {
    let is_end = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let is_label = |label: &str| {
        label.starts_with(is_end) && label.ends_with(is_end) && label.chars().all(|c| is_end(c) || c == '-')
    };
    let is_of_database = kind == "postgresql" || kind == "Cluster";
    name.len() <= most && if is_of_database { is_label(name) } else { name.split('.').all(is_label) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn no_two_workloads_share_a_name((team, subjects) in subjects()) {
        let mut taken: Vec<(Made, &Subject)> = Vec::new();
        for subject in &subjects {
            for found in made(team, subject) {
                let (kind, name, most) = &found;
                prop_assert!(is_valid(kind, name, *most), "{subject:?}: {kind} {name}");
                let other = taken.iter().find(|((of, known, _), _)| of == kind && known == name);
                prop_assert!(other.is_none(), "{subject:?} and {other:?}: {kind} {name}");
                taken.push((found, subject));
            }
        }
    }
}
