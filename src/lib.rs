//! Tidegate keeps model servers on Kubernetes within their platform team's serving policy.
//!
//! The crate `tidegate-engine` decides; the modules here only ask it. In reading order, a module only looks at those before
//! it:
//!
//! - [`manifests`], [`policy_tests`], [`report`], [`admission`]: objects and tests from files, decisions as text and as wire formats.
//! - [`shared_state`], [`certs`], [`webhooks`]: what the shells share, and how the API server finds them.
//! - [`server`], [`controller`], [`rbac`], [`cli`]: talk to people, the API server and the clock; what the controller may do.

pub mod admission;
pub mod certs;
pub mod cli;
pub mod controller;
pub mod manifests;
pub mod policy_tests;
pub mod rbac;
pub mod report;
pub mod server;
pub mod shared_state;
pub mod telemetry;
pub mod webhooks;
