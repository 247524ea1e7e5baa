//! Rules about what authors ask for by annotations.

mod out_of_bounds;

pub use out_of_bounds::AnnotationOutOfBounds;
