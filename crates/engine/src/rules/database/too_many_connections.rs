//! ## What it checks
//! Model servers whose pods, during a rollout at the maximum number of replicas, may open more connections than their
//! database accepts: the size of the pool of each process times the pods. It is checked only where both are written
//! down: a variable such as `DATABASE_POOL_SIZE`, with its maximum overflow, or `connection_limit` in `DATABASE_URL`;
//! and `max_connections` in the parameters of the database's object. A database with a connection pooler is ignored.
//! ## Why it matters
//! When the load is highest, the last replicas get no connection and fail, and so does every other client of the
//! database.
//! ## Instead
//! Make the pool smaller, allow more connections, or use a connection pooler.

use serde_json::json;

use crate::api::Enforcement;
use crate::companions::database::bound_to;
use crate::policy::{Context, Finding, Rule};
use crate::rules::rollout::surge::most_pods;
use crate::rules::{replicas, snippet, this_source};
use crate::workload::Container;

/// Finds pools that exhaust the connections of a database.
#[derive(Debug)]
pub struct TooManyConnections;

impl Rule for TooManyConnections {
    fn id(&self) -> &'static str {
        "too-many-connections"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let workload = &context.workload;
        let databases = bound_to(workload, context.facts).filter(|(_, database)| !database.is_pooled);
        let known = databases.filter_map(|(name, database)| Some((name, database.max_connections?)));
        let Some((database, most)) = known.min_by_key(|(_, most)| *most) else { return Vec::new() };
        let pods = most_pods(workload, replicas(context).1).max(1);
        let pools = workload.long_running().filter_map(|container| Some((container, Pool::of(&container)?)));
        let larger = pools.filter(|(_, pool)| pool.connections().saturating_mul(pods) > most);
        let finding = |(container, pool): (Container, Pool)| {
            let fitting = most / pods - pool.overflow;
            let finding = Finding::of_item(&container, "env", pool.variable)
                .found(format!("{} connections for each of up to {pods} pods", pool.connections()))
                .expected(format!("at most {most} together, which the database `{database}` accepts"));
            if pool.variable == ADDRESS.0 || fitting < 1 {
                return finding;
            }
            finding.fix(snippet(&json!({"env": [{"name": pool.variable, "value": fitting.to_string()}]})))
        };
        larger.map(finding).collect()
    }
}

/// The variables for the size of a pool, and for how far it may grow beyond.
///
/// <https://docs.openwebui.com/reference/env-configuration>,
/// <https://mlflow.org/docs/latest/api_reference/python_api/mlflow.environment_variables.html> and the parameters of
/// <https://docs.sqlalchemy.org/en/20/core/engines.html#sqlalchemy.create_engine>
const VARIABLES: [(&str, &str); 4] = [
    ("DATABASE_POOL_SIZE", "DATABASE_POOL_MAX_OVERFLOW"),
    ("MLFLOW_SQLALCHEMYSTORE_POOL_SIZE", "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW"),
    ("SQLALCHEMY_POOL_SIZE", "SQLALCHEMY_MAX_OVERFLOW"),
    ("DB_POOL_SIZE", "DB_MAX_OVERFLOW"),
];

/// The variable with the address of a database, and the parameter in it that limits the connections.
///
/// <https://www.prisma.io/docs/orm/overview/databases/postgresql>
const ADDRESS: (&str, &str) = ("DATABASE_URL", "connection_limit=");

/// The connections that a process keeps.
struct Pool {
    variable: &'static str,
    size: i64,
    overflow: i64,
}

impl Pool {
    /// Returns the pool of a container, as far as it is written down.
    fn of(container: &Container) -> Option<Self> {
        let number = |name: &str| container.env(name)?["value"].as_str()?.trim().parse::<i64>().ok();
        let of_variable = |(variable, overflow): (&'static str, &str)| {
            let size = number(variable).filter(|size| *size > 0)?;
            Some(Self { variable, size, overflow: number(overflow).unwrap_or_default().max(0) })
        };
        VARIABLES.into_iter().find_map(of_variable).or_else(|| Self::of_address(container))
    }

    fn of_address(container: &Container) -> Option<Self> {
        let (variable, parameter) = ADDRESS;
        let (_, parameters) = container.env(variable)?["value"].as_str()?.split_once('?')?;
        let limit = parameters.split('&').find_map(|part| part.strip_prefix(parameter))?;
        let size = limit.parse().ok().filter(|size| *size > 0)?;
        Some(Self { variable, size, overflow: 0 })
    }

    fn connections(&self) -> i64 {
        self.size.saturating_add(self.overflow)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::testing::with_container;
    use crate::workload::Workload;

    fn connections(env: &Value) -> Option<i64> {
        let object = with_container(&json!({"env": env}));
        let workload = Workload::view(&object).unwrap();
        let container = workload.containers().next().unwrap();
        Pool::of(&container).map(|pool| pool.connections())
    }

    #[test]
    fn counts_only_what_is_written_down() {
        let is = |name: &str, value: &str| json!({"name": name, "value": value});
        assert_eq!(connections(&json!([is("DATABASE_POOL_SIZE", "10")])), Some(10));
        let both = json!([is("SQLALCHEMY_POOL_SIZE", "5"), is("SQLALCHEMY_MAX_OVERFLOW", "10")]);
        assert_eq!(connections(&both), Some(15));
        let address = |parameters: &str| json!([is("DATABASE_URL", &format!("postgresql://db/api{parameters}"))]);
        assert_eq!(connections(&address("?schema=public&connection_limit=7")), Some(7));
        assert_eq!((connections(&address("")), connections(&address("?connection_limit=all"))), (None, None));
        let from = json!([{"name": "DATABASE_POOL_SIZE", "valueFrom": {"configMapKeyRef": {"name": "a", "key": "b"}}}]);
        assert_eq!((connections(&from), connections(&json!([is("DATABASE_POOL_SIZE", "-1")]))), (None, None));
    }
}
