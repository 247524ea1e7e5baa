//! Tidegate keeps model servers on Kubernetes within their platform team's serving policy.
//!
//! The crate `tidegate-engine` makes the decisions; the modules here call it. In reading order, each module uses only
//! those before it:
//!
//! - [`manifests`], [`policy_tests`], [`report`], [`admission`]: objects and tests from files, decisions as text and as
//!   wire formats.
//! - [`shared_state`], [`certs`], [`webhooks`]: shared state, certificates, and the webhook configurations.
//! - [`telemetry`], [`server`], [`controller`], [`rbac`], [`cli`]: logs, HTTP, the controller and its permissions, and
//!   the command line.

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
