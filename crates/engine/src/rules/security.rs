//! Rules about what containers may do to their node and to others, and about secrets.

mod host_namespace;
mod host_path;
mod mounted_service_account_token;
mod privilege_escalation;
mod privileged_container;
mod runs_as_root;
mod secret_in_env;

pub use host_namespace::HostNamespace;
pub use host_path::HostPath;
pub use mounted_service_account_token::MountedServiceAccountToken;
pub use privilege_escalation::PrivilegeEscalation;
pub use privileged_container::PrivilegedContainer;
pub use runs_as_root::RunsAsRoot;
pub use secret_in_env::SecretInEnv;
