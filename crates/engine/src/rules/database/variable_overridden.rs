//! ## What it checks
//! Variables of the database binding, such as `PGUSER`, that the model server's container sets itself although a database is
//! wanted for it. Variables beside it that lead libpq to another server count too: `PGHOST`, `PGHOSTADDR` and `PGSERVICE`. A
//! variable that says which server its author means, such as `PGHOST` or `DATABASE_URL`, is found only where the annotation
//! `tidegate.dev/database: "true"` asks for Tidegate's.
//! ## Why it matters
//! What the author wrote stays, and a database is bound as a whole or not at all: beside the variable nothing is bound, and no
//! database is made. Half a binding would send the credentials of one server to another.
//! ## Instead
//! Leave the variable out. Or keep it, and say with the annotation `tidegate.dev/database: none` that no database is wanted.

use super::in_the_way;
use crate::api::Enforcement;
use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;

/// Finds variables that keep a database from being bound.
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
