//! Rules about the databases of model servers.

mod literal_database_credentials;
mod too_many_connections;
mod variable_overridden;

pub use literal_database_credentials::LiteralDatabaseCredentials;
pub use too_many_connections::TooManyConnections;
pub use variable_overridden::DatabaseVariableOverridden;

use crate::companions;
use crate::policy::Context;

/// Returns the variables that prevent the model server from being bound to its database.
fn in_the_way(context: &Context) -> Vec<String> {
    let Context { workload, recognised, effective, facts, prior, .. } = context;
    companions::database::in_the_way(workload, recognised, effective, facts, prior)
}
