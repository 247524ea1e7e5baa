//! ## What it checks
//! Variables of the database binding, such as `PGUSER`, that the model server's container sets itself although a policy
//! asks for a database. Variables that point libpq to another server count too: `PGHOST`, `PGHOSTADDR` and `PGSERVICE`.
//! A variable that selects a server, such as `PGHOST` or `DATABASE_URL`, is reported only if the annotation
//! `tidegate.dev/database: "true"` requests Tidegate's database.
//! ## Why it matters
//! The variable is kept, and a database is bound with all its variables or not at all: nothing is bound, and no
//! database is created. A partial binding would send the credentials of one server to another.
//! ## Instead
//! Remove the variable, or keep it and set the annotation `tidegate.dev/database: none` if no database is needed.

use super::in_the_way;
use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;

/// Finds variables that prevent the binding of a database.
#[derive(Debug)]
pub struct DatabaseVariableOverridden;

impl Rule for DatabaseVariableOverridden {
    fn id(&self) -> &'static str {
        "database-variable-overridden"
    }

    fn source(&self) -> &'static str {
        this_source!()
    }

    fn enforcement(&self) -> Enforcement {
        Enforcement::Warn
    }

    fn check(&self, context: &Context) -> Vec<Finding> {
        let Some(container) = context.recognised.container else { return Vec::new() };
        let found = in_the_way(context).into_iter().map(|name| {
            Finding::of_item(&container, "env", &name)
                .found(format!("`{name}` is set by the workload"))
                .expected("nothing: a database is bound with all its variables or not at all")
                .fix(format!("# remove {name} from env"))
        });
        found.collect()
    }
}
