//! Names of companions. They are final: changing one would orphan the object with that name.
//!
//! Each is a function of the kind and name of a workload, and is unique: a suffix marks the kind, and a name that ends
//! like another kind's, or has to be cut, gets a digest. Objects of earlier releases keep their names, which the
//! `former_*` functions return.

use serde_json::Value;

use crate::digest::{self, Digest};
use crate::facts::SCALED_OBJECT;
use crate::kind::{KINDS, Kind};

const AUTOSCALER_SUFFIX: &str = "-tidegate";

/// The prefix that KEDA adds to the name of a ScaledObject to name its HorizontalPodAutoscaler.
///
/// <https://keda.sh/docs/latest/reference/scaledobject-spec/#horizontalpodautoscalerconfig>
const KEDA_PREFIX: &str = "keda-hpa-";

/// The maximum length of the name of an object.
///
/// <https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#dns-subdomain-names>
const LONGEST: usize = 253;

/// The maximum length of the name of a ScaledObject, since KEDA uses it as a label value.
const LONGEST_SCALED_OBJECT: usize = 63;

/// Returns the name of a workload's autoscaler, at most 253 characters. Workloads of different kinds with the same name
/// each have their own.
#[must_use]
pub fn autoscaler(kind: &str, workload: &str) -> String {
    let suffix = AUTOSCALER_SUFFIX.to_owned() + suffix_of(kind);
    stem(workload, LONGEST - suffix.len(), starts_as_one_of_keda) + &suffix
}

/// Returns the name of earlier releases for a workload's autoscaler.
#[must_use]
pub fn former_autoscaler(kind: &str, workload: &str) -> String {
    let suffix = AUTOSCALER_SUFFIX.to_owned() + suffix_of(kind);
    former_stem(workload, LONGEST - suffix.len()) + &suffix
}

/// Returns the name of a workload's ScaledObject: at most 63 characters, since KEDA uses it as a label value.
#[must_use]
pub fn scaled_object(kind: &str, workload: &str) -> String {
    let suffix = AUTOSCALER_SUFFIX.to_owned() + suffix_of(kind);
    stem(workload, LONGEST_SCALED_OBJECT - suffix.len(), ends_as_one_of_keda) + &suffix
}

/// Returns the name of earlier releases for a workload's ScaledObject.
#[must_use]
pub fn former_scaled_object(kind: &str, workload: &str) -> String {
    let suffix = AUTOSCALER_SUFFIX.to_owned() + suffix_of(kind);
    former_stem(workload, LONGEST_SCALED_OBJECT - suffix.len()) + &suffix
}

/// Returns whether an autoscaler has the current or former name of a workload's.
#[must_use]
pub fn is_autoscaler_of(found: &Value, kind: &str, name: &str) -> bool {
    let (now, before) = if found["kind"] == SCALED_OBJECT {
        (scaled_object(kind, name), former_scaled_object(kind, name))
    } else {
        (autoscaler(kind, name), former_autoscaler(kind, name))
    };
    let found = &found["metadata"]["name"];
    *found == now || *found == before
}

/// Returns the name of a workload's PodDisruptionBudget.
#[must_use]
pub fn disruption_budget(kind: &str, workload: &str) -> String {
    let suffix = AUTOSCALER_SUFFIX.to_owned() + suffix_of(kind);
    stem(workload, LONGEST - suffix.len(), never) + &suffix
}

/// Returns the name of earlier releases for a workload's PodDisruptionBudget.
#[must_use]
pub fn former_disruption_budget(kind: &str, workload: &str) -> String {
    former_autoscaler(kind, workload)
}

/// Returns the kind and name of the workload whose autoscaler has this name, if the name was not cut.
#[must_use]
pub fn scaled_by(autoscaler: &str) -> Option<(&'static str, &str)> {
    KINDS
        .iter()
        .find_map(|kind| Some((kind.kind, autoscaler.strip_suffix(kind.suffix)?.strip_suffix(AUTOSCALER_SUFFIX)?)))
}

/// Returns the name of a workload's ModelServer.
#[must_use]
pub fn model_server(kind: &str, workload: &str) -> String {
    let suffix = suffix_of(kind);
    stem(workload, LONGEST - suffix.len(), if suffix.is_empty() { ends_as_a_kind } else { never }) + suffix
}

/// Returns the name of earlier releases for a workload's ModelServer.
#[must_use]
pub fn former_model_server(kind: &str, workload: &str) -> String {
    let suffix = suffix_of(kind);
    former_stem(workload, LONGEST - suffix.len()) + suffix
}

/// Returns the name of a workload's ModelServer if another workload's, from an earlier release, has its usual name.
#[must_use]
pub fn spare_model_server(kind: &str, workload: &str) -> String {
    cut(workload, &spare(kind, workload), LONGEST)
}

fn suffix_of(kind: &str) -> &'static str {
    Kind::named(kind).map_or("", |known| known.suffix)
}

/// Returns the kinds that add a suffix to the names of their objects. No suffix ends with another one, a digest or
/// `-tidegate`.
fn with_suffix() -> impl Iterator<Item = &'static Kind> {
    KINDS.iter().filter(|kind| !kind.suffix.is_empty())
}

/// Returns whether the name of a workload ends like that of an object for another kind.
fn ends_as_a_kind(workload: &str) -> bool {
    with_suffix().any(|kind| workload.ends_with(kind.suffix))
}

/// Returns whether the name of a workload ends like that of a cluster for another kind.
fn ends_as_a_cluster(workload: &str) -> bool {
    let is_of = |(full, digest): (&str, Digest)| {
        with_suffix().any(|kind| digest == digest::of_text(&identity(kind.kind, full)))
    };
    ends_as_a_kind(workload) || digested(workload).is_some_and(is_of)
}

/// Returns whether KEDA's autoscaler for this workload's ScaledObject would have the name of the autoscaler, with a
/// digest, of a workload that is named after one of KEDA's.
fn ends_as_one_of_keda(workload: &str) -> bool {
    let for_keda = format!("{KEDA_PREFIX}{workload}");
    digested(&for_keda).is_some_and(|(full, digest)| digest == digest::of_text(full))
}

/// Returns whether the autoscaler of this workload would have the name of one that KEDA creates for a ScaledObject.
fn starts_as_one_of_keda(workload: &str) -> bool {
    workload.starts_with(KEDA_PREFIX)
}

/// Returns that no name is ambiguous.
fn never(_: &str) -> bool {
    false
}

/// Returns whether a workload needs a digest: its name is like that of another workload's object, or like one that has
/// a digest for that reason.
fn is_ambiguous(workload: &str, is_like_others: fn(&str) -> bool) -> bool {
    let has_its_digest =
        |(full, digest): (&str, Digest)| digest == digest::of_text(full) && is_ambiguous(full, is_like_others);
    is_like_others(workload) || digested(workload).is_some_and(has_its_digest)
}

/// Returns the two parts of a name that ends like one with a digest.
fn digested(name: &str) -> Option<(&str, Digest)> {
    let (full, end) = name.rsplit_once('-')?;
    Some((full, Digest::parse(end)?))
}

/// Returns a workload's name as part of another, at most `room` characters long: unchanged, or with a digest.
fn stem(workload: &str, room: usize, is_like_others: fn(&str) -> bool) -> String {
    let is_plain = workload.len() <= room && !is_ambiguous(workload, is_like_others) && !looks_cut(workload, room);
    if is_plain { workload.to_owned() } else { cut(workload, workload, room) }
}

/// Returns a workload's name as part of another, as in earlier releases.
fn former_stem(workload: &str, room: usize) -> String {
    if workload.len() <= room { workload.to_owned() } else { cut(workload, workload, room) }
}

/// Returns whether a name may be another one cut to `length` characters. The cut may have removed a separator before
/// the digest.
fn looks_cut(name: &str, length: usize) -> bool {
    (name.len() == length || name.len() + 1 == length) && digested(name).is_some()
}

/// Returns the identity of a workload, which includes its kind.
fn identity(kind: &str, workload: &str) -> String {
    format!("{kind}/{workload}")
}

/// Returns the identity of a workload for its spare name.
fn spare(kind: &str, workload: &str) -> String {
    format!("spare/{kind}/{workload}")
}

/// The maximum length of the name of a PostgreSQL cluster of Zalando's operator, which creates a CronJob
/// `logical-backup-<cluster>` (CronJob names have at most 52 characters).
const LONGEST_POSTGRES: usize = 37;

/// The maximum length of the name of a CloudNativePG cluster.
const LONGEST_CLOUDNATIVE_PG: usize = 50;

/// The prefix of the names of CloudNativePG clusters, which must start with a letter.
const CLOUDNATIVE_PG_PREFIX: &str = "db-";

/// Returns the name of a workload's PostgreSQL cluster: `<team>-<workload>` with the suffix of its kind, at most 37
/// characters, since the operator creates a CronJob `logical-backup-<cluster>` (CronJob names have at most 52). It is a
/// DNS label, since Services are named after it. If the workload's name cannot be used unchanged, a digest makes it
/// unique.
#[must_use]
pub fn postgres_cluster(team: &str, kind: &str, workload: &str) -> String {
    cluster(&format!("{team}-"), kind, workload, LONGEST_POSTGRES)
}

/// Returns the name of a workload's PostgreSQL cluster if another workload's has its usual name.
#[must_use]
pub fn spare_postgres_cluster(team: &str, kind: &str, workload: &str) -> String {
    cut(&format!("{team}-{}", label(workload)), &spare(kind, workload), LONGEST_POSTGRES)
}

/// Returns the name of a workload's CloudNativePG cluster: `db-<workload>` with the suffix of its kind, at most 50
/// characters and a DNS label that starts with a letter, as the operator's webhook requires. If the workload's name
/// cannot be used unchanged, a digest makes it unique.
#[must_use]
pub fn cloudnative_pg_cluster(kind: &str, workload: &str) -> String {
    cluster(CLOUDNATIVE_PG_PREFIX, kind, workload, LONGEST_CLOUDNATIVE_PG)
}

/// Returns the name of a workload's CloudNativePG cluster if another workload's has its usual name.
#[must_use]
pub fn spare_cloudnative_pg_cluster(kind: &str, workload: &str) -> String {
    cut(&format!("{CLOUDNATIVE_PG_PREFIX}{}", label(workload)), &spare(kind, workload), LONGEST_CLOUDNATIVE_PG)
}

/// Returns whether a cluster with this name may belong to a workload with this name, of any kind and team: earlier
/// releases ignored both.
#[must_use]
pub fn is_cluster_of(cluster: &str, workload: &str) -> bool {
    cluster.ends_with(&format!("-{}", label(workload)))
}

/// Returns the name of a cluster, at most `length` characters long. Operators require the prefix, so the suffix of the
/// kind is left out if there is no room for it; the digest then includes the kind.
fn cluster(prefix: &str, kind: &str, workload: &str, length: usize) -> String {
    let (suffix, label) = (suffix_of(kind), label(workload));
    let name = format!("{prefix}{label}{suffix}");
    let is_ambiguous = suffix.is_empty() && (is_ambiguous(workload, ends_as_a_cluster) || looks_cut(&name, length));
    if label == workload && name.len() <= length && !is_ambiguous {
        return name;
    }
    let full = if suffix.is_empty() { workload.to_owned() } else { identity(kind, workload) };
    cut(&format!("{prefix}{label}"), &full, length)
}

/// Returns a workload's name with characters that are invalid in a DNS label replaced by dashes.
fn label(workload: &str) -> String {
    workload.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

/// Names that the operators or PostgreSQL reserve.
const RESERVED: [&str; 9] =
    ["admin", "cron_admin", "postgres", "standby", "pooler", "public", "none", "template0", "streaming_replica"];

/// Returns whether an operator or PostgreSQL reserves a name.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name) || ["pg_", "cnpg_", "template"].iter().any(|prefix| name.starts_with(prefix))
}

/// Returns the name of a workload's database and of the role that owns it: an identifier that needs no quotes in
/// PostgreSQL, at most 63 characters.
#[must_use]
pub fn postgres_database(workload: &str) -> String {
    let name: String =
        workload.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect();
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic());
    let name = if starts_well && !is_reserved(&name) { name } else { format!("app_{name}") };
    if name.len() <= 63 { name } else { cut(&name, workload, 63).replace('-', "_") }
}

/// Cuts a name and appends a digest of the full one.
fn cut(name: &str, full: &str, length: usize) -> String {
    let digest = digest::of_text(full);
    let kept: String = name.chars().take(length - Digest::LENGTH - 1).collect();
    format!("{}-{digest}", kept.trim_end_matches(['-', '.', '_']))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::NAMES;

    #[test]
    fn plain_names_are_kept() {
        assert_eq!(autoscaler("Deployment", "ai-model-serving"), "ai-model-serving-tidegate");
        assert_eq!(scaled_object("Deployment", "ai-model-serving"), "ai-model-serving-tidegate");
        assert_eq!(disruption_budget("StatefulSet", "ai-model-serving"), "ai-model-serving-tidegate-statefulset");
        assert_eq!(model_server("Deployment", "ai-model-serving"), "ai-model-serving");
        assert_eq!(postgres_cluster("acid", "Deployment", "ai-model-serving"), "acid-ai-model-serving");
        assert_eq!(cloudnative_pg_cluster("Deployment", "ai-model-serving"), "db-ai-model-serving");
        assert_eq!(postgres_database("ai-model-serving"), "ai_model_serving");
    }

    #[test]
    fn names_differ_between_kinds() {
        assert_eq!(autoscaler("StatefulSet", "api"), "api-tidegate-statefulset");
        assert_eq!(model_server("StatefulSet", "api"), "api-statefulset");
        assert_eq!(scaled_by("api-tidegate-statefulset"), Some(("StatefulSet", "api")));
        assert_eq!(scaled_by("api-tidegate"), Some(("Deployment", "api")));
        assert_eq!(scaled_by("api"), None);
    }

    #[test]
    fn names_of_deployments_that_end_like_another_kind_get_a_digest() {
        let digest = digest::of_text("api-statefulset");
        let digested = format!("api-statefulset-{digest}");
        assert_eq!(model_server("Deployment", "api-statefulset"), digested);
        assert_ne!(model_server("Deployment", &digested), digested, "a workload with that name is ambiguous too");
        assert_eq!(postgres_cluster("acid", "StatefulSet", "api"), "acid-api-statefulset");
        assert_eq!(postgres_cluster("acid", "Deployment", "api-statefulset"), format!("acid-{digested}"));
        assert_eq!(cloudnative_pg_cluster("StatefulSet", "api"), "db-api-statefulset");
        assert_eq!(model_server("Deployment", "api-0123abcd"), "api-0123abcd", "it is not the digest of another name");
    }

    #[test]
    fn keeps_the_team_prefix_of_a_cluster() {
        let (team, workload) = ("recommendations", "summarisation");
        let name = postgres_cluster(team, "StatefulSet", workload);
        assert!(name.starts_with("recommendations-summarisatio") && name.len() == 37, "{name}");
        assert_ne!(name, postgres_cluster(team, "Deployment", workload));
    }

    #[test]
    fn names_differ_from_those_of_kedas_autoscalers() {
        let of_keda = format!("keda-hpa-{}", scaled_object("Deployment", "api"));
        assert_eq!(former_autoscaler("Deployment", "keda-hpa-api"), of_keda);
        assert_ne!(autoscaler("Deployment", "keda-hpa-api"), of_keda);
    }

    #[test]
    fn recognizes_the_names_of_earlier_releases() {
        assert_eq!(former_model_server("Deployment", "api-statefulset"), "api-statefulset");
        for kind in NAMES {
            assert_eq!(former_model_server(kind, "api"), model_server(kind, "api"));
            assert_eq!(former_autoscaler(kind, "api"), autoscaler(kind, "api"));
            assert_eq!(former_scaled_object(kind, "api"), scaled_object(kind, "api"));
            assert_eq!(former_disruption_budget(kind, "api"), disruption_budget(kind, "api"));
        }
    }

    #[test]
    fn suffixes_of_kinds_are_unambiguous() {
        let suffixes = || with_suffix().map(|kind| kind.suffix);
        for suffix in suffixes() {
            assert_eq!(suffixes().filter(|other| other.ends_with(suffix)).count(), 1, "{suffix} ends another");
            assert!(digested(&format!("a{suffix}")).is_none() && suffix.starts_with('-'), "{suffix}");
            assert!(!suffix.ends_with(AUTOSCALER_SUFFIX), "{suffix}");
        }
        assert_eq!(suffixes().count() + 1, KINDS.len());
    }

    #[test]
    fn names_that_would_collide_get_a_digest() {
        let (dotted, dashed) =
            (postgres_cluster("acid", "Deployment", "a.b"), postgres_cluster("acid", "Deployment", "a-b"));
        assert_eq!(dashed, "acid-a-b");
        assert!(dotted.starts_with("acid-a-b-"), "{dotted}");
        let (one, other) = (format!("{}1", "m".repeat(40)), format!("{}2", "m".repeat(40)));
        assert_ne!(postgres_cluster("acid", "Deployment", &one), postgres_cluster("acid", "Deployment", &other));
        assert_ne!(cloudnative_pg_cluster("Deployment", "a.b"), cloudnative_pg_cluster("Deployment", "a-b"));
        assert_ne!(
            cloudnative_pg_cluster("Deployment", &one),
            cloudnative_pg_cluster("Deployment", &format!("{one}.1"))
        );
    }

    #[test]
    fn long_names_fit() {
        let long = "a".repeat(253);
        assert_eq!(autoscaler("Deployment", &long).len(), 253);
        assert_eq!(autoscaler("StatefulSet", &long).len(), 253);
        assert_eq!(scaled_object("StatefulSet", &long).len(), 63);
        assert!(scaled_object("StatefulSet", &long).ends_with("-tidegate-statefulset"));
        assert_eq!(model_server("StatefulSet", &long).len(), 253);
        assert_eq!(postgres_cluster("acid", "Deployment", &long).len(), 37);
        assert_eq!(cloudnative_pg_cluster("Deployment", &long).len(), 50);
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
            postgres_cluster("acid", "Deployment", "summarisation-and-translation-service"),
            "acid-summarisation-and-trans-7be3e13a"
        );
        assert_eq!(cloudnative_pg_cluster("Deployment", "7b.chat"), "db-7b-chat-9ebbb388");
    }
}
