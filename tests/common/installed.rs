//! Tidegate as installed by the manifests: with its own service account, behind a Service, in several replicas.

use std::cell::Cell;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use super::{ControlPlane, SOON, Tidegate, free_addresses, in_tree, wait_until};

/// The service account of the manifests.
pub(crate) const ACCOUNT: &str = "system:serviceaccount:tidegate-system:tidegate";

/// The verbs that write.
const WRITES: [&str; 5] = ["create", "update", "patch", "delete", "deletecollection"];

/// An installation from the manifests; its replicas run on this machine.
pub(crate) struct Installed<'a> {
    plane: &'a ControlPlane,
    service: Service,
    folder: PathBuf,
    seen: Cell<usize>,
}

impl<'a> Installed<'a> {
    /// Applies the manifests, and points their Service to this machine.
    pub(crate) fn new(plane: &'a ControlPlane) -> Self {
        plane.kubectl(&["apply", "-k", &in_tree("manifests/base")], "").succeeds();
        let service = Service::listen();
        point_service_to(plane, service.address);
        Self { plane, service, folder: plane.new_folder(), seen: Cell::default() }
    }

    /// Starts a replica with this name, with its own token and the certificates of its last run.
    pub(crate) fn start(&self, identity: &str) -> Tidegate {
        let addresses @ [listen, _] = free_addresses();
        let arguments = ["--identity", identity, "--lease-seconds", "6"];
        let folder = self.folder.join(identity);
        fs::create_dir_all(&folder).unwrap();
        let started = Tidegate::run_in(&folder, &kubeconfig_of_account(self.plane), addresses, &arguments);
        self.service.add(listen);
        started
    }

    /// Starts a replica, and waits until it is ready.
    pub(crate) fn start_ready(&self, identity: &str) -> Tidegate {
        let started = self.start(identity);
        wait_until("tidegate to be ready", SOON, || started.is_ready());
        started
    }

    /// Returns the leader; empty if there is none.
    pub(crate) fn leader(&self) -> String {
        self.lease()["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits until a replica leads.
    #[track_caller]
    pub(crate) fn led_by(&self, identity: &str) {
        wait_until(&format!("{identity} to lead"), SOON, || self.leader() == identity);
    }

    /// Returns the Lease; null if there is none.
    pub(crate) fn lease(&self) -> Value {
        self.plane.api.get("Lease", "tidegate-system", "tidegate").unwrap_or_default()
    }

    /// Returns the write requests of the service account since the last call, without those of the Lease.
    pub(crate) fn writes(&self) -> Vec<Value> {
        let log = self.plane.audit_log();
        let lines: Vec<&str> = log.lines().collect();
        let new = &lines[self.seen.replace(lines.len())..];
        let requests = new.iter().filter(|line| line.contains(ACCOUNT)).map(|line| serde_json::from_str(line).unwrap());
        requests.filter(is_write).collect()
    }
}

fn is_write(request: &Value) -> bool {
    WRITES.iter().any(|verb| request["verb"] == *verb)
        && request["user"]["username"] == ACCOUNT
        && request["objectRef"]["resource"] != "leases"
}

/// Writes a kubeconfig for the service account of the manifests.
pub(crate) fn kubeconfig_of_account(plane: &ControlPlane) -> PathBuf {
    let token = plane.kubectl(&["--namespace", "tidegate-system", "create", "token", "tidegate"], "").succeeds();
    let text = fs::read_to_string(plane.kubeconfig()).unwrap();
    let mut config: Value = serde_saphyr::from_str(&text).unwrap();
    config["users"][0]["user"] = json!({"token": token.stdout.trim()});
    // As in a pod, whose service account is in this namespace.
    config["contexts"][0]["context"]["namespace"] = "tidegate-system".into();
    let path = plane.new_folder().join("kubeconfig");
    fs::write(&path, config.to_string()).unwrap();
    path
}

/// Points the Service of the manifests to this machine: Services have no network here, but external names work.
pub(crate) fn point_service_to(plane: &ControlPlane, address: SocketAddr) {
    let system = ["--namespace", "tidegate-system"];
    plane.kubectl(&[&system[..], &["delete", "service", "tidegate"]].concat(), "").succeeds();
    let service = ["create", "service", "externalname", "tidegate", "--external-name=localhost"];
    plane.kubectl(&[&system[..], &service].concat(), "").succeeds();
    for kind in ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"] {
        let webhooks = plane.api.get(kind, "", "tidegate").unwrap()["webhooks"].as_array().unwrap().len();
        let at = |index: usize| format!("/webhooks/{index}/clientConfig/service/port");
        let port = |index: usize| json!({"op": "replace", "path": at(index), "value": address.port()});
        let port = Value::from((0..webhooks).map(port).collect::<Vec<_>>());
        plane.kubectl(&["patch", kind, "tidegate", "--type=json", "--patch", &port.to_string()], "").succeeds();
    }
}

/// An address that forwards each connection to the next replica that listens, as a Service does.
struct Service {
    address: SocketAddr,
    replicas: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Service {
    fn listen() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let replicas: Arc<Mutex<Vec<SocketAddr>>> = Arc::default();
        let known = Arc::clone(&replicas);
        thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                let known = Arc::clone(&known);
                thread::spawn(move || forward(&connection, &known));
            }
        });
        Self { address, replicas }
    }

    fn add(&self, replica: SocketAddr) {
        self.replicas.lock().unwrap().push(replica);
    }
}

/// Forwards a connection to a replica; closes it if none listens.
fn forward(connection: &TcpStream, replicas: &Mutex<Vec<SocketAddr>>) {
    let next = {
        let mut replicas = replicas.lock().unwrap();
        if !replicas.is_empty() {
            replicas.rotate_left(1);
        }
        replicas.clone()
    };
    let Some(replica) = next.into_iter().find_map(|replica| TcpStream::connect(replica).ok()) else { return };
    thread::scope(|scope| {
        scope.spawn(|| copy(connection, &replica));
        scope.spawn(|| copy(&replica, connection));
    });
}

fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}
