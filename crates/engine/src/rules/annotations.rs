//! Rules about Tidegate's annotations on workloads.

mod out_of_bounds;
mod unknown;

pub use out_of_bounds::AnnotationOutOfBounds;
pub use unknown::UnknownAnnotation;
