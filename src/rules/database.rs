//! Rules about the databases of model servers.

mod literal_database_credentials;
mod variable_overridden;

pub use literal_database_credentials::LiteralDatabaseCredentials;
pub use variable_overridden::DatabaseVariableOverridden;
