//! The decisions of Tidegate about model servers, as a pure function.
//!
//! The input is a workload, the policies and the state of the cluster; the output is the patch, the violations and the
//! companions of the workload ([`decision::decide`]). This crate has no client, clock, files, environment or `async`,
//! so the same input gives the same bytes in the webhook, in the controller and on the command line.
//!
//! The modules in reading order; a module only uses those before it:
//!
//! - [`quantity`], [`digest`], [`spelling`]: values and words in text form.
//! - [`kind`]: the kinds of workloads that can be model servers.
//! - [`api`], [`cel`]: the custom resources, and the expressions in them.
//! - [`workload`], [`facts`], [`runtimes`]: the input of a decision.
//! - [`policy`]: compiled policies, the interface of rules, and the combination of several policies.
//! - [`companions`], [`rules`]: one file for each companion and rule.
//! - [`decision`]: `decide`, the main function.

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
pub mod spelling;
#[cfg(any(test, feature = "test-util"))]
pub mod testing;
pub mod workload;

/// The built-in rules and sections of policies.
pub static BUILTIN: policy::Builtin = policy::Builtin { rules: rules::ALL, sections: &companions::SECTIONS };
