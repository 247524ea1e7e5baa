//! Rules about what containers may do to their node.

mod privileged_container;

pub use privileged_container::PrivilegedContainer;
