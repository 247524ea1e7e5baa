//! Helpers for tests on a real control plane: one control plane per test binary, one namespace per test.
//!
//! These tests are ignored by default: run `cargo test -- --include-ignored`. `dev/controlplane/build` builds the
//! programs of the control plane if they are missing.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]
#![allow(dead_code, unused_imports, unused_macros, reason = "each test binary uses its own part")]

pub(crate) mod accepted;
mod api;
mod control_plane;
mod installed;
mod keda;
mod kubectl;
mod policies;
mod prometheus;
mod sandbox;
mod tidegate;
mod wait;
mod workloads;

pub(crate) use api::Api;
pub(crate) use control_plane::{ControlPlane, built, in_tree};
pub(crate) use installed::{ACCOUNT, Installed, kubeconfig_of_account, point_service_to};
pub(crate) use keda::{Keda, keda_source};
pub(crate) use kubectl::{Apply, Output};
pub(crate) use policies::{SCOPE, in_force};
pub(crate) use prometheus::Prometheus;
pub(crate) use sandbox::{Sandbox, condition};
pub(crate) use tidegate::{Tidegate, free_addresses};
pub(crate) use wait::{SOON, wait_for, wait_until};
pub(crate) use workloads::{LABEL, container, env, label, model_server, serving, vllm};

/// Snapshots an object without the fields that differ between runs.
macro_rules! assert_object_snapshot {
    ($object:expr) => {
        insta::assert_yaml_snapshot!($object, {
            ".metadata.uid" => "[uid]",
            ".metadata.resourceVersion" => "[version]",
            ".metadata.creationTimestamp" => "[time]",
            ".metadata.managedFields" => "[managed fields]",
            ".metadata.ownerReferences[].uid" => "[uid]",
            ".status" => "[status]",
        })
    };
}
pub(crate) use assert_object_snapshot;
