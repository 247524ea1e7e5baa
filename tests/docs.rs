//! Generated files are up to date.

#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

use std::process::Command;

#[test]
fn generated_files_are_up_to_date() {
    for what in ["crds", "webhooks", "rbac", "rules", "runtimes"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(["generate", what, "--check", "--root", env!("CARGO_MANIFEST_DIR")]);
        let output = command.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "run `make generate`: {errors}");
    }
}
