//! A real model server as a process of this machine, which ends with the test.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, thread};

use serde_json::Value;
use tempfile::TempDir;

/// Installs a runtime, unless it is; returns its folder.
pub(crate) fn installed(name: &str) -> PathBuf {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/dev/runtimes/build");
    let output = Command::new(script).arg(name).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{script} {name} fails");
    String::from_utf8(output.stdout).unwrap().lines().last().unwrap().into()
}

/// A running server, with all processes that it has started.
pub(crate) struct Server {
    process: Child,
    folder: TempDir,
}

impl Server {
    /// Starts the command of a container in a copy of the folder with its model.
    pub(crate) fn start(name: &str, installed: &Path, container: &Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real_runtimes/models").join(name), folder.path());
        let text = |value: &Value| local(value.as_str().unwrap());
        let mut words =
            ["command", "args"].into_iter().filter_map(|field| container[field].as_array()).flatten().map(text);
        let bin = installed.join("bin");
        let path = env::join_paths([bin.clone()].into_iter().chain(env::split_paths(&env::var_os("PATH").unwrap())));
        let program = words.next().unwrap();
        let own = bin.join(&program);
        let mut command = Command::new(if own.exists() { own } else { program.into() });
        command.args(words).current_dir(&folder).env("PATH", path.unwrap()).process_group(0).stdin(Stdio::null());
        for variable in container["env"].as_array().into_iter().flatten() {
            command.env(variable["name"].as_str().unwrap(), text(&variable["value"]));
        }
        let log = File::create(folder.path().join("log")).unwrap();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        Self { process: command.spawn().unwrap(), folder }
    }

    /// Returns whether its process is still there.
    pub(crate) fn runs(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    /// Sends SIGTERM to its process, as a container runtime does.
    pub(crate) fn terminate(&self) {
        assert!(kill("-TERM", &self.process.id().to_string()));
    }

    /// Waits until its process has ended; returns whether it has in time.
    pub(crate) fn ends_within(&mut self, time: Duration) -> bool {
        const PAUSE: Duration = Duration::from_millis(100);
        let pauses = time.as_millis() / PAUSE.as_millis();
        (0..pauses).any(|_| {
            thread::sleep(PAUSE);
            !self.runs()
        })
    }

    /// Returns all that it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        kill("-KILL", &format!("-{}", self.process.id()));
        let _ = self.process.wait();
    }
}

/// Listens on localhost, where all addresses are meant: this is no container.
fn local(text: &str) -> String {
    text.replace("0.0.0.0", "127.0.0.1")
}

fn kill(signal: &str, pid: &str) -> bool {
    Command::new("kill").args([signal, "--", pid]).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
