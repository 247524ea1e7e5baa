//! A real control plane, stopped with the test binary.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

use tempfile::TempDir;

use super::{Api, Output, Tidegate};

/// etcd, API server, controllers, scheduler and KWOK, in their own folder.
pub(crate) struct ControlPlane {
    folder: PathBuf,
    programs: PathBuf,
    pub(crate) api: Api,
    // The control plane stops when its stdin is closed, however this process ends.
    _launcher: Child,
}

/// Runs a control plane, then deletes its folder. Ignores interrupts, which are for the test binary.
const LAUNCH: &str = r#"
trap '' INT
program=$1 folder=$2
shift 2
"$program" up --dir "$folder" --until-stdin-closes "$@"
rm -rf "$folder"
"#;

impl ControlPlane {
    /// Returns the control plane and the Tidegate shared by the tests of a binary.
    pub(crate) fn shared() -> (&'static Self, &'static Tidegate) {
        static PLANE: LazyLock<ControlPlane> = LazyLock::new(|| ControlPlane::start(&[]));
        static TIDEGATE: LazyLock<Tidegate> = LazyLock::new(|| Tidegate::start(&PLANE));
        (&PLANE, &TIDEGATE)
    }

    /// Starts a control plane with these flags, and applies Tidegate's CRDs.
    pub(crate) fn start(flags: &[&str]) -> Self {
        let programs = built("dev/controlplane/build");
        let folder = TempDir::with_prefix("tidegate-").unwrap().keep();
        let mut launcher = Command::new("sh")
            .args(["-c", LAUNCH, "sh"])
            .args([&programs.join("controlplane"), &folder])
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let answer = BufReader::new(launcher.stdout.take().unwrap()).lines().next();
        assert!(
            answer.is_some_and(|line| line.unwrap().starts_with("export KUBECONFIG=")),
            "the control plane does not start: see `dev/controlplane/README.md`"
        );
        let api = Api::connect(&folder.join("kubeconfig"));
        let plane = Self { folder, programs, api, _launcher: launcher };
        plane.kubectl(&["apply", "-f", &in_tree("manifests/base/crds.yaml")], "").succeeds();
        let established = ["wait", "--for=condition=Established", "-f", &in_tree("manifests/base/crds.yaml")];
        plane.kubectl(&established, "").succeeds();
        plane
    }

    /// Runs kubectl with this text as its stdin.
    pub(crate) fn kubectl(&self, arguments: &[&str], stdin: &str) -> Output {
        let mut command = self.kubectl_command();
        command.args(arguments);
        Output::of(command, stdin)
    }

    /// Returns kubectl without arguments.
    pub(crate) fn kubectl_command(&self) -> Command {
        let mut command = Command::new(self.programs.join("kubectl"));
        command.env("KUBECONFIG", self.kubeconfig()).arg("--cache-dir").arg(self.folder.join("kubectl-cache"));
        command
    }

    /// Stops or starts a component.
    pub(crate) fn order(&self, what: &str, component: &str) {
        let mut command = Command::new(self.programs.join("controlplane"));
        command.arg(what).arg("--dir").arg(&self.folder).arg(component);
        Output::of(command, "").succeeds();
    }

    /// Returns the audit log of the API server, one request per line.
    pub(crate) fn audit_log(&self) -> String {
        self.read("logs/audit.log")
    }

    /// Returns a file of the control plane's folder.
    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.folder.join(path)).unwrap()
    }

    /// Returns the folder of the programs, including kubectl.
    pub(crate) fn programs(&self) -> &Path {
        &self.programs
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }

    /// Creates a new folder in that of the control plane.
    pub(crate) fn new_folder(&self) -> PathBuf {
        TempDir::new_in(&self.folder).unwrap().keep()
    }
}

/// Returns the path of a file of this package.
pub(crate) fn in_tree(path: &str) -> String {
    format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))
}

/// Runs a script of this package that builds or downloads something, and returns the path in its last line of output.
pub(crate) fn built(script: &str) -> PathBuf {
    let output = Command::new(in_tree(script)).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{script} fails");
    String::from_utf8(output.stdout).unwrap().lines().last().unwrap().into()
}
