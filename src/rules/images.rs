//! Rules about container images.

mod floating_tag;

pub use floating_tag::FloatingTag;
