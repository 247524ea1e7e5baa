//! Rules about container images.

mod floating_tag;
mod missing_digest;
mod unmaintained_runtime;
mod untrusted_registry;
mod used_image;

pub use floating_tag::FloatingTag;
pub use missing_digest::MissingDigest;
pub use unmaintained_runtime::UnmaintainedRuntime;
pub use untrusted_registry::UntrustedRegistry;
