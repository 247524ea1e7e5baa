//! Runs the commands of the guides in `docs/guides`, in their order, as a reader does.
//!
//! A block ` ```yaml NAME ` is saved as a file of that name. A block ` ```sh ` is run, and must succeed; ` ```sh fails ` must
//! not. Each line of a block ` ```text ` below it must be part of what it said.

#![allow(clippy::unwrap_used, reason = "a helper of tests fails as a test does")]

mod common;

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use common::{ControlPlane, Output, Tidegate, in_tree};

/// A block of code: what stands behind its fence, and its text.
struct Block {
    info: String,
    text: String,
}

fn blocks(markdown: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = markdown.lines();
    while let Some(line) = lines.next() {
        if let Some(info) = line.strip_prefix("```") {
            let text: Vec<&str> = lines.by_ref().take_while(|line| !line.starts_with("```")).collect();
            blocks.push(Block { info: info.to_owned(), text: text.join("\n") + "\n" });
        }
    }
    blocks
}

/// A reader at their shell.
struct Reader<'a> {
    plane: &'a ControlPlane,
    folder: &'a Path,
}

impl Reader<'_> {
    fn run(&self, script: &str) -> Output {
        let mut command = Command::new("bash");
        let binary = Path::new(env!("CARGO_BIN_EXE_tidegate")).parent().unwrap();
        let path = format!("{}:{}:{}", self.plane.programs().display(), binary.display(), env::var("PATH").unwrap());
        command.args(["-euo", "pipefail", "-c", script]).current_dir(self.folder);
        command.env("PATH", path).env("KUBECONFIG", self.plane.kubeconfig()).env("HOME", self.folder);
        Output::of(command, "")
    }

    fn follow(&self, guide: &str) {
        let mut said = String::new();
        for Block { info, text } in blocks(guide) {
            match info.split_once(' ').unwrap_or((&info, "")) {
                ("yaml", "") => {}
                ("yaml", file) => fs::write(self.folder.join(file), text).unwrap(),
                ("sh", expected) => {
                    let output = self.run(&text);
                    let fails = expected == "fails";
                    said = format!("{}{}", output.stdout, output.stderr);
                    assert_eq!(output.code != 0, fails, "{text}\n{said}");
                }
                ("text", _) => {
                    for line in text.lines().filter(|line| !line.trim().is_empty()) {
                        assert!(said.contains(line), "this is not said:\n{line}\nbut:\n{said}");
                    }
                }
                other => panic!("{other:?} is no block that a guide has"),
            }
        }
    }
}

#[test]
fn blocks_are_read_as_they_stand() {
    let found = blocks("a\n```sh fails\none\ntwo\n```\nb\n```text\nthree\n```\n");
    let found: Vec<(&str, &str)> = found.iter().map(|block| (&*block.info, &*block.text)).collect();
    assert_eq!(found, [("sh fails", "one\ntwo\n"), ("text", "three\n")]);
}

/// Follows a guide on a control plane of its own.
fn follow(guide: &str) {
    let plane = ControlPlane::start(&[]);
    let _tidegate = Tidegate::start(&plane);
    let folder = plane.new_folder();
    let reader = Reader { plane: &plane, folder: &folder };
    reader.follow(&fs::read_to_string(in_tree(guide)).unwrap());
}

#[test]
#[ignore = "needs the control plane"]
fn the_guide_to_policies_can_be_followed() {
    follow("docs/guides/policies.md");
}

#[test]
#[ignore = "needs the control plane"]
fn the_guide_to_autoscaling_can_be_followed() {
    follow("docs/guides/autoscaling.md");
}

#[test]
#[ignore = "needs the control plane"]
fn the_guide_to_databases_can_be_followed() {
    follow("docs/guides/databases.md");
}
