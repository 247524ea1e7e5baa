//! Rules about the databases of model servers.

mod literal_database_credentials;
mod variable_overridden;

pub use literal_database_credentials::LiteralDatabaseCredentials;
pub use variable_overridden::DatabaseVariableOverridden;

use crate::companions;
use crate::policy::Context;

/// Returns the variables that keep the model server from being bound to the database that a policy gives it.
fn in_the_way(context: &Context) -> Vec<String> {
    let Context { workload, recognised, effective, facts, prior, .. } = context;
    companions::database::in_the_way(workload, recognised, effective, facts, prior)
}
