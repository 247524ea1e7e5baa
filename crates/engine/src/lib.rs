//! What Tidegate decides about a model server, as a pure function.
//!
//! A workload, the policies and what is known of the cluster go in; what to inject, what is wrong and which objects belong
//! to the workload come out ([`decision::decide`]). There is no client, clock, file, environment or `async` in this crate, so
//! the same input gives the same bytes in the webhook, in the controller and on the command line.
//!
//! The modules in reading order; a module only looks at those before it:
//!
//! - [`quantity`], [`digest`]: values that Kubernetes and Tidegate write as text.
//! - [`kind`]: the kinds of workloads that can be model servers.
//! - [`api`], [`cel`]: our custom resources, and the expressions in them.
//! - [`workload`], [`facts`], [`runtimes`]: what a decision reads.
//! - [`policy`]: policies compiled, what a rule is, and what several policies come to together.
//! - [`companions`], [`rules`]: one file for each thing that can be added.
//! - [`decision`]: `decide`, the one function that everything else is a shell around.

pub mod api;
pub mod cel;
pub mod companions;
pub mod decision;
pub mod digest;
pub mod facts;
pub mod kind;
pub mod policy;
pub mod quantity;
pub mod rules;
pub mod runtimes;
#[cfg(any(test, feature = "test-util"))]
pub mod testing;
pub mod workload;

/// What comes with Tidegate.
pub static BUILTIN: policy::Builtin = policy::Builtin { rules: rules::ALL, sections: &companions::SECTIONS };
