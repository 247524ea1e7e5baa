//! KEDA itself, stopped with the test binary: its operator, its metrics adapter and its admission webhooks.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

use super::tidegate::KEEP;
use super::{ControlPlane, SOON, built, free_addresses, wait_until};

/// KEDA's namespace, and the Service of its adapter, which is the name in its certificate.
const NAMESPACE: &str = "keda";
const ADAPTER: &str = "keda-metrics-apiserver";

/// The programs of KEDA, which reconcile the ScaledObjects of a control plane.
pub(crate) struct Keda {
    folder: PathBuf,
    // They stop when their stdin is closed, however this process ends.
    _programs: [Child; 3],
}

/// The settings common to the programs.
struct Settings<'a> {
    plane: &'a ControlPlane,
    programs: PathBuf,
    folder: PathBuf,
}

impl Keda {
    /// Returns the KEDA of the control plane that the tests of a binary share.
    pub(crate) fn shared() -> &'static Self {
        static KEDA: LazyLock<Keda> = LazyLock::new(|| Keda::start(ControlPlane::shared().0));
        &KEDA
    }

    fn start(plane: &ControlPlane) -> Self {
        let source = keda_source();
        let settings = Settings { plane, programs: built("dev/keda/build"), folder: plane.new_folder() };
        let authority = certify(&settings.folder);
        let file = |name: &str| source.join("config").join(name).display().to_string();
        // The definitions are too large for the annotation of client-side apply.
        plane.kubectl(&["apply", "--server-side", "-f", &file("crd/bases")], "").succeeds();
        plane.kubectl(&["wait", "--for=condition=Established", "-f", &file("crd/bases")], "").succeeds();
        plane.kubectl(&["create", "namespace", NAMESPACE], "").succeeds();
        let roles = ["-f", &file("metrics-server/role.yaml"), "-f", &file("metrics-server/role_binding.yaml")];
        plane.kubectl(&[&["apply"], &roles[..]].concat(), "").succeeds();

        let (operator, metrics) = settings.operator();
        let (adapter, serving) = settings.adapter(metrics);
        let (webhooks, listening) = settings.webhooks();
        for object in [service(serving.port()), api_service(serving.port(), &authority)] {
            plane.kubectl(&["apply", "-f", "-"], &object.to_string()).succeeds();
        }
        let available = ["--for=condition=Available", "--timeout=60s", "apiservice/v1beta1.external.metrics.k8s.io"];
        plane.kubectl(&[&["wait"], &available[..]].concat(), "").succeeds();
        let configuration = fs::read_to_string(file("webhooks/validation_webhooks.yaml")).unwrap();
        let configuration = with_address(&configuration, listening, &authority);
        plane.kubectl(&["apply", "-f", "-"], &configuration.to_string()).succeeds();
        Self { folder: settings.folder, _programs: [operator, adapter, webhooks] }
    }

    /// Returns all that a program has logged.
    pub(crate) fn log(&self, program: &str) -> String {
        fs::read_to_string(self.folder.join(program).with_extension("log")).unwrap_or_default()
    }
}

impl Settings<'_> {
    /// Starts the operator; returns the address for the adapter.
    fn operator(&self) -> (Child, SocketAddr) {
        let [health, metrics] = free_addresses();
        let operator = self.run("operator", |command| {
            command.arg(format!("--health-probe-bind-address={health}"));
            command.arg(format!("--metrics-service-bind-address={metrics}"));
            command.args([&format!("--cert-dir={}", self.folder.display()), "--enable-prometheus-metrics=false"]);
        });
        wait_until_listening("KEDA's operator", metrics);
        (operator, metrics)
    }

    /// Starts the adapter; returns the address for the API server.
    fn adapter(&self, operator: SocketAddr) -> (Child, SocketAddr) {
        let [serve, metrics] = free_addresses();
        let (kubeconfig, folder) = (self.plane.kubeconfig(), self.folder.display());
        let adapter = self.run("adapter", |command| {
            for flag in ["lister-kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"] {
                command.arg(format!("--{flag}={}", kubeconfig.display()));
            }
            command.args([&format!("--cert-dir={folder}"), &format!("--tls-cert-file={folder}/tls.crt")]);
            command.args([&format!("--tls-private-key-file={folder}/tls.key"), "--bind-address=127.0.0.1"]);
            command.args([&format!("--secure-port={}", serve.port()), &format!("--port={}", metrics.port())]);
            command.arg(format!("--metrics-service-address={operator}"));
        });
        wait_until_listening("KEDA's metrics adapter", serve);
        (adapter, serve)
    }

    /// Starts the admission webhooks; returns the address for the API server.
    fn webhooks(&self) -> (Child, SocketAddr) {
        let [listen, health] = free_addresses();
        let webhooks = self.run("webhooks", |command| {
            command.args(["--metrics-bind-address=0", &format!("--health-probe-bind-address={health}")]);
            command.args([&format!("--cert-dir={}", self.folder.display()), &format!("--port={}", listen.port())]);
        });
        wait_until_listening("KEDA's webhooks", listen);
        (webhooks, listen)
    }

    /// Runs a program until its stdin is closed.
    fn run(&self, name: &str, configure: impl FnOnce(&mut Command)) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", KEEP, "sh"]).arg(self.programs.join(name));
        configure(&mut command);
        // The environment that a pod has from its manifest.
        command.env("KUBECONFIG", self.plane.kubeconfig()).env("WATCH_NAMESPACE", "");
        command.env("POD_NAMESPACE", NAMESPACE).env("KEDA_CLUSTER_OBJECT_NAMESPACE", NAMESPACE);
        let log = File::create(self.folder.join(name).with_extension("log")).unwrap();
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(log).spawn().unwrap()
    }
}

/// Returns the folder of KEDA's own source, with its definitions.
pub(crate) fn keda_source() -> PathBuf {
    built("dev/keda/source")
}

fn wait_until_listening(what: &str, address: SocketAddr) {
    wait_until(&format!("{what} to listen"), SOON, || TcpStream::connect(address).is_ok());
}

/// Writes one certificate for all programs, as KEDA's own rotation does, and returns the CA certificate in base64.
fn certify(folder: &Path) -> String {
    let key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let ca = authority.self_signed(&key).unwrap().pem();
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned(), format!("{ADAPTER}.{NAMESPACE}.svc")];
    let mut leaf = CertificateParams::new(names).unwrap();
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let leaf_key = KeyPair::generate().unwrap();
    let leaf = leaf.signed_by(&leaf_key, &Issuer::new(authority, key)).unwrap().pem();
    for (file, text) in [("ca.crt", &ca), ("tls.crt", &leaf), ("tls.key", &leaf_key.serialize_pem())] {
        fs::write(folder.join(file), text).unwrap();
    }
    BASE64_STANDARD.encode(ca)
}

/// Services have no network here, but external names work.
fn service(port: u16) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": ADAPTER, "namespace": NAMESPACE},
        "spec": {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]}
    })
}

fn api_service(port: u16, authority: &str) -> Value {
    json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": "v1beta1.external.metrics.k8s.io"},
        "spec": {
            "group": "external.metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100,
            "versionPriority": 100, "caBundle": authority,
            "service": {"name": ADAPTER, "namespace": NAMESPACE, "port": port}
        }
    })
}

/// Points KEDA's own webhook configuration to an address of this machine.
fn with_address(configuration: &str, address: SocketAddr, authority: &str) -> Value {
    let mut configuration: Value = serde_saphyr::from_str(configuration).unwrap();
    for webhook in configuration["webhooks"].as_array_mut().unwrap() {
        let client = &mut webhook["clientConfig"];
        let path = client["service"]["path"].as_str().unwrap();
        *client = json!({"url": format!("https://{address}{path}"), "caBundle": authority});
    }
    configuration
}
