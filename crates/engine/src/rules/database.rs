//! Rules about the databases of model servers.

mod literal_database_credentials;
mod variable_overridden;

pub use literal_database_credentials::LiteralDatabaseCredentials;
pub use variable_overridden::DatabaseVariableOverridden;

use crate::companions::{self, Binding};
use crate::policy::Context;

/// Returns how a workload reaches the database that a policy gives it.
fn binding(context: &Context) -> Option<Binding> {
    companions::binding(&context.workload, context.recognised, context.effective, context.facts).ok()?
}
