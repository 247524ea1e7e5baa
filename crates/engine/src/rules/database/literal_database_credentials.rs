//! ## What it checks
//! Database passwords in plain text: in variables such as `PGPASSWORD` and `DB_PASSWORD`, and in URLs such as
//! `postgresql://user:password@host/database`. Values are never shown.
//! ## Why it matters
//! Anyone who may read Deployments, their history or their source repository can read and change the data.
//! ## Instead
//! Remove the variables so that Tidegate binds the database by its Secret, or refer to your own Secret.

use serde_json::Value;

use crate::policy::{Context, Finding, Rule};
use crate::rules::{is_written_out, this_source, written_out};
use crate::workload::{Container, items};

/// The suffixes of the names of variables with database passwords.
const ENDINGS: [&str; 10] = [
    "PGPASSWORD",
    "POSTGRES_PASSWORD",
    "POSTGRESQL_PASSWORD",
    "MYSQL_PASSWORD",
    "MYSQL_ROOT_PASSWORD",
    "REDIS_PASSWORD",
    "DB_PASSWORD",
    "DB_PASS",
    "DATABASE_PASSWORD",
    "DATASOURCE_PASSWORD",
];

/// Finds database passwords in plain text.
#[derive(Debug)]
pub struct LiteralDatabaseCredentials;

impl Rule for LiteralDatabaseCredentials {
    fn id(&self) -> &'static str {
        "literal-database-credentials"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        context
            .workload
            .all_containers()
            .flat_map(|container| in_env(&container).into_iter().chain(in_arguments(&container)))
            .collect()
    }
}

fn in_env(container: &Container) -> Vec<Finding> {
    let entries = items(container.field("env"));
    let found = entries.filter_map(|entry| {
        let (name, value) = (entry["name"].as_str()?, entry["value"].as_str()?);
        let is_password = ENDINGS.iter().any(|ending| name.to_uppercase().ends_with(ending)) && is_written_out(value);
        (is_password || has_password(value)).then(|| written_out(container, name, "a password"))
    });
    found.collect()
}

fn in_arguments(container: &Container) -> Vec<Finding> {
    let lists = ["command", "args"].into_iter();
    let found = lists.filter_map(|list| {
        let mut words = items(container.field(list)).filter_map(Value::as_str).flat_map(str::split_whitespace);
        words.any(has_password).then(|| {
            Finding::in_container(container, list)
                .found("a database URL with a password in plain text")
                .expected("a variable that takes it from a Secret")
                .fix("env:\n  - name: DATABASE_URL\n    valueFrom:\n      secretKeyRef:\n        name: <secret>\n        key: <key>\n\
                          # and where the address stands: $(DATABASE_URL)")
        })
    });
    found.collect()
}

/// Returns whether a text contains a URL with a password: `scheme://user:password@host`.
///
/// <https://www.rfc-editor.org/rfc/rfc3986#section-3.2.1>
fn has_password(text: &str) -> bool {
    let Some((before, after)) = text.split_once("://") else { return false };
    let scheme = before.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '+').next().unwrap_or_default();
    let is_database = ["postgres", "postgresql", "mysql", "mariadb", "mongodb", "redis", "rediss"]
        .contains(&scheme.split('+').next().unwrap_or_default());
    let authority = after.split(['/', '?', '#']).next().unwrap_or_default();
    let password = authority.rsplit_once('@').and_then(|(user, _)| user.split_once(':')).map(|(_, password)| password);
    is_database && password.is_some_and(is_written_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_passwords_in_urls() {
        for text in [
            "postgresql://user:secret@host:5432/db",
            "--backend-store-uri=postgresql+psycopg://u:p@h/db?sslmode=require",
            "redis://:secret@host",
        ] {
            assert!(has_password(text), "{text}");
        }
        for text in [
            "postgresql://user@host/db",
            "postgresql://$(PGUSER):$(PGPASSWORD)@host/db",
            "postgresql://host:5432/db",
            "https://user:token@host/path",
            "postgresql://host/db?next=a:b@c",
        ] {
            assert!(!has_password(text), "{text}");
        }
    }
}
