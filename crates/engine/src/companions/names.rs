//! Names of companions. They are final: changing one would orphan what it names.

use crate::digest;

const AUTOSCALER_SUFFIX: &str = "-tidegate";

/// Returns the name of a workload's autoscaler: at most 253 characters, as the names of objects are. A StatefulSet and a
/// Deployment of one name each have their own.
#[must_use]
pub fn autoscaler(kind: &str, workload: &str) -> String {
    let suffix = AUTOSCALER_SUFFIX.to_owned() + suffix_of(kind);
    let name = format!("{workload}{suffix}");
    let rest = 253 - suffix.len();
    if name.len() <= 253 { name } else { cut(workload, workload, rest) + &suffix }
}

/// Returns the name of a workload's ScaledObject: at most 63 characters, since KEDA makes a label of it.
#[must_use]
pub fn scaled_object(kind: &str, workload: &str) -> String {
    let suffix = AUTOSCALER_SUFFIX.to_owned() + suffix_of(kind);
    let name = format!("{workload}{suffix}");
    if name.len() <= 63 { name } else { cut(workload, workload, 63 - suffix.len()) + &suffix }
}

/// Returns the name of a workload's PodDisruptionBudget.
#[must_use]
pub fn disruption_budget(kind: &str, workload: &str) -> String {
    autoscaler(kind, workload)
}

/// Returns kind and name of the workload whose autoscaler has this name, if its name was not cut.
#[must_use]
pub fn scaled_by(autoscaler: &str) -> Option<(&'static str, &str)> {
    KINDS
        .into_iter()
        .find_map(|(kind, suffix)| Some((kind, autoscaler.strip_suffix(suffix)?.strip_suffix(AUTOSCALER_SUFFIX)?)))
}

/// Returns the name of a workload's ModelServer.
#[must_use]
pub fn model_server(kind: &str, workload: &str) -> String {
    let suffix = suffix_of(kind);
    let name = format!("{workload}{suffix}");
    if name.len() <= 253 { name } else { cut(workload, workload, 253 - suffix.len()) + suffix }
}

/// Returns kind and name of each workload that may have a ModelServer of this name.
pub fn described_by(model_server: &str) -> impl Iterator<Item = (&'static str, &str)> {
    KINDS.into_iter().filter_map(|(kind, suffix)| Some((kind, model_server.strip_suffix(suffix)?)))
}

/// The kinds of workloads, with what their kind adds to the names of what is made for them.
const KINDS: [(&str, &str); 2] = [("StatefulSet", "-statefulset"), ("Deployment", "")];

fn suffix_of(kind: &str) -> &'static str {
    KINDS.iter().find(|(known, _)| *known == kind).map_or("", |(_, suffix)| suffix)
}

/// Returns the name of a workload's PostgreSQL cluster: `<team>-<workload>`, at most 37 characters, since the operator
/// makes a CronJob `logical-backup-<cluster>` of it (CronJob names have at most 52). It is a DNS label, since Services
/// are named by it. Where the workload's name cannot be kept as it is, a digest of it tells it from others.
#[must_use]
pub fn postgres_cluster(team: &str, workload: &str) -> String {
    let label: String = workload.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let name = format!("{team}-{label}");
    if label == workload && name.len() <= 37 { name } else { cut(&name, workload, 37) }
}

/// Returns the name of a workload's cluster for CloudNativePG: `db-<workload>`, at most 50 characters and a DNS label with a
/// letter first, as the operator's webhook has it. Where the workload's name cannot be kept as it is, a digest of it tells
/// it from others.
#[must_use]
pub fn cloudnative_pg_cluster(workload: &str) -> String {
    let label: String = workload.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let name = format!("db-{label}");
    if label == workload && name.len() <= 50 { name } else { cut(&name, workload, 50) }
}

/// Names that the operators keep for themselves, and those that PostgreSQL does.
const RESERVED: [&str; 9] =
    ["admin", "cron_admin", "postgres", "standby", "pooler", "public", "none", "template0", "streaming_replica"];

/// Tells whether an operator or PostgreSQL keeps a name for itself.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name) || ["pg_", "cnpg_", "template"].iter().any(|prefix| name.starts_with(prefix))
}

/// Returns the name of a workload's database and of the role that owns it: what PostgreSQL takes without quotes, at
/// most 63 characters.
#[must_use]
pub fn postgres_database(workload: &str) -> String {
    let name: String =
        workload.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect();
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic());
    let name = if starts_well && !is_reserved(&name) { name } else { format!("app_{name}") };
    if name.len() <= 63 { name } else { cut(&name, workload, 63).replace('-', "_") }
}

/// Cuts a name and ends it in a digest of the full one.
fn cut(name: &str, full: &str, length: usize) -> String {
    let digest = digest::of_text(full);
    let kept: String = name.chars().take(length - digest.len() - 1).collect();
    format!("{}-{digest}", kept.trim_end_matches(['-', '.', '_']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_are_kept() {
        assert_eq!(autoscaler("Deployment", "ai-model-serving"), "ai-model-serving-tidegate");
        assert_eq!(scaled_object("Deployment", "ai-model-serving"), "ai-model-serving-tidegate");
        assert_eq!(disruption_budget("StatefulSet", "ai-model-serving"), "ai-model-serving-tidegate-statefulset");
        assert_eq!(model_server("Deployment", "ai-model-serving"), "ai-model-serving");
        assert_eq!(postgres_cluster("acid", "ai-model-serving"), "acid-ai-model-serving");
        assert_eq!(cloudnative_pg_cluster("ai-model-serving"), "db-ai-model-serving");
        assert_eq!(postgres_database("ai-model-serving"), "ai_model_serving");
    }

    #[test]
    fn a_stateful_set_and_a_deployment_of_one_name_have_their_own() {
        assert_eq!(autoscaler("StatefulSet", "api"), "api-tidegate-statefulset");
        assert_eq!(model_server("StatefulSet", "api"), "api-statefulset");
        assert_eq!(scaled_by("api-tidegate-statefulset"), Some(("StatefulSet", "api")));
        assert_eq!(scaled_by("api-tidegate"), Some(("Deployment", "api")));
        assert_eq!(scaled_by("api"), None);
    }

    #[test]
    fn names_that_would_fall_together_are_told_apart() {
        let (dotted, dashed) = (postgres_cluster("acid", "a.b"), postgres_cluster("acid", "a-b"));
        assert_eq!(dashed, "acid-a-b");
        assert!(dotted.starts_with("acid-a-b-"), "{dotted}");
        let (one, other) = (format!("{}1", "m".repeat(40)), format!("{}2", "m".repeat(40)));
        assert_ne!(postgres_cluster("acid", &one), postgres_cluster("acid", &other));
        assert_ne!(cloudnative_pg_cluster("a.b"), cloudnative_pg_cluster("a-b"));
        assert_ne!(cloudnative_pg_cluster(&one), cloudnative_pg_cluster(&format!("{one}.1")));
    }

    #[test]
    fn long_names_fit() {
        let long = "a".repeat(253);
        assert_eq!(autoscaler("Deployment", &long).len(), 253);
        assert_eq!(autoscaler("StatefulSet", &long).len(), 253);
        assert_eq!(scaled_object("StatefulSet", &long).len(), 63);
        assert!(scaled_object("StatefulSet", &long).ends_with("-tidegate-statefulset"));
        assert_eq!(model_server("StatefulSet", &long).len(), 253);
        assert_eq!(postgres_cluster("acid", &long).len(), 37);
        assert_eq!(cloudnative_pg_cluster(&long).len(), 50);
        assert_eq!(postgres_database(&long).len(), 63);
    }

    #[test]
    fn reserved_names_and_leading_digits_get_a_prefix() {
        assert_eq!(postgres_database("postgres"), "app_postgres");
        assert_eq!(postgres_database("pg-stats"), "app_pg_stats");
        assert_eq!(postgres_database("7b-chat"), "app_7b_chat");
        assert_eq!(postgres_database("streaming-replica"), "app_streaming_replica");
        assert_eq!(postgres_database("pool"), "pool");
    }

    #[test]
    fn names_are_the_same_in_every_release() {
        assert_eq!(
            postgres_cluster("acid", "summarisation-and-translation-service"),
            "acid-summarisation-and-trans-7be3e13a"
        );
        assert_eq!(cloudnative_pg_cluster("7b.chat"), "db-7b-chat-9ebbb388");
    }
}
