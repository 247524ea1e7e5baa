//! Tidegate keeps model servers on Kubernetes within their platform team's serving policy.
//!
//! The library decides; the binary, the webhook server and the controller only ask it. Modules in reading order, from
//! what everything stands on to what talks to the world; a module only looks at those before it:
//!
//! - [`quantity`], [`digest`]: values that Kubernetes and Tidegate write as text.
//! - [`api`], [`cel`]: our custom resources, and the expressions in them.
//! - [`workload`], [`facts`], [`policy`]: what a decision reads.
//! - [`rules`], [`runtimes`], [`companions`]: one file for each thing that can be added.
//! - [`engine`]: `decide`, the one function that everything else is a shell around.
//! - [`input`], [`trial`], [`admission`], [`report`]: objects and tests from files, decisions as wire formats and as text.
//! - [`server`], [`controller`], [`cli`]: talk to people, the API server and the clock.

pub mod admission;
pub mod api;
pub mod cel;
pub mod certs;
pub mod cli;
pub mod companions;
pub mod controller;
pub mod digest;
pub mod engine;
pub mod facts;
pub mod input;
pub mod policy;
pub mod quantity;
pub mod report;
pub mod rules;
pub mod runtimes;
pub mod server;
pub mod state;
pub mod telemetry;
#[cfg(test)]
mod testing;
pub mod trial;
pub mod webhooks;
pub mod workload;
