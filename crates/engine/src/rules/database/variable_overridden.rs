//! ## What it checks
//! Variables of the database binding, such as `PGHOST` or `DATABASE_URL`, that the model server's container sets otherwise
//! although a database is bound to it.
//! ## Why it matters
//! What the author wrote stays: the server goes elsewhere, or mixes both, while the database that was made for it stands empty.
//! ## Instead
//! Leave the variable out. Or keep it, and say with the annotation `tidegate.dev/database: none` that no database is wanted.

use super::binding;
use crate::companions::Variable;
use crate::policy::{Context, Finding, Rule};
use crate::rules::this_source;
use crate::{api::Enforcement, workload::items};

/// Finds bindings that lead elsewhere.
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
        let (Some(container), Some(binding), Some((settings, _))) =
            (context.recognised.container, binding(context), context.effective.database())
        else {
            return Vec::new();
        };
        let variables = binding.variables(&settings.env);
        let entries = items(container.field("env"));
        let overridden = entries.filter_map(|entry| {
            let Variable { name, source, .. } = variables.iter().find(|variable| entry["name"] == variable.name)?;
            let field = if entry["valueFrom"].is_null() { "value" } else { "valueFrom" };
            (entry[field] != source[field]).then(|| {
                Finding::of_item(&container, "env", name)
                    .found(format!("`{name}` is the author's own"))
                    .expected(format!("the one of the database {}, which is bound", binding.name))
                    .instead(format!("# leave {name} out of env"))
            })
        });
        overridden.collect()
    }
}
