//! What the author of a workload asks for by annotations on it.

use super::Workload;
use crate::api::{AUTOSCALING_ANNOTATION, DATABASE_ANNOTATION, MAX_REPLICAS_ANNOTATION, MIN_REPLICAS_ANNOTATION};

/// What the author of a workload asks for. A policy says how much of it is granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotations<'a> {
    /// The least number of replicas.
    pub min_replicas: Requested<'a, i32>,
    /// The most replicas.
    pub max_replicas: Requested<'a, i32>,
    /// Whether there is to be a database.
    pub database: Requested<'a, bool>,
    /// Whether something other than Tidegate scales the workload.
    pub scaled_elsewhere: Requested<'a, bool>,
}

/// One annotation, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requested<'a, T> {
    /// It is not there.
    Unsaid,
    /// It says this.
    Said(T),
    /// It says this, which means nothing.
    Unclear(&'a str),
}

impl<T: Copy> Requested<'_, T> {
    /// Returns what is asked for, where that is clear.
    #[must_use]
    pub fn said(&self) -> Option<T> {
        match self {
            Self::Said(value) => Some(*value),
            Self::Unsaid | Self::Unclear(_) => None,
        }
    }
}

impl<'a> Annotations<'a> {
    /// Reads the annotations of a workload.
    #[must_use]
    pub fn read(workload: &Workload<'a>) -> Self {
        let at_least = |least: i32| move |text: &str| text.parse().ok().filter(|count| *count >= least);
        Self {
            min_replicas: read(workload, MIN_REPLICAS_ANNOTATION, at_least(0)),
            max_replicas: read(workload, MAX_REPLICAS_ANNOTATION, at_least(1)),
            database: read(workload, DATABASE_ANNOTATION, |text| match text {
                "true" => Some(true),
                "none" => Some(false),
                _ => None,
            }),
            scaled_elsewhere: read(workload, AUTOSCALING_ANNOTATION, |text| (text == "external").then_some(true)),
        }
    }

    /// Tells whether something other than Tidegate scales the workload.
    #[must_use]
    pub fn is_scaled_elsewhere(&self) -> bool {
        self.scaled_elsewhere.said() == Some(true)
    }
}

fn read<'a, T>(workload: &Workload<'a>, key: &str, meaning: impl Fn(&str) -> Option<T>) -> Requested<'a, T> {
    let Some(text) = workload.annotation(key) else { return Requested::Unsaid };
    meaning(text).map_or(Requested::Unclear(text), Requested::Said)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn annotated(annotations: &Value) -> Value {
        json!({"metadata": {"annotations": annotations}})
    }

    #[test]
    fn what_is_clear_is_told_from_what_is_not() {
        let object = annotated(&json!({MIN_REPLICAS_ANNOTATION: "2", MAX_REPLICAS_ANNOTATION: "many",
            DATABASE_ANNOTATION: "none"}));
        let annotations = Annotations::read(&Workload::view(&object).unwrap());
        assert_eq!(
            (annotations.min_replicas, annotations.max_replicas),
            (Requested::Said(2), Requested::Unclear("many"))
        );
        assert_eq!((annotations.database, annotations.scaled_elsewhere), (Requested::Said(false), Requested::Unsaid));
        assert_eq!((annotations.min_replicas.said(), annotations.max_replicas.said()), (Some(2), None));
    }

    #[test]
    fn nobody_asks_for_no_replicas_at_most() {
        let read = |text: &str| {
            let object = annotated(&json!({MIN_REPLICAS_ANNOTATION: text, MAX_REPLICAS_ANNOTATION: text}));
            let annotations = Annotations::read(&Workload::view(&object).unwrap());
            (annotations.min_replicas.said(), annotations.max_replicas.said())
        };
        assert_eq!((read("0"), read("1")), ((Some(0), None), (Some(1), Some(1))));
        assert!(["-1", "1.5", ""].iter().all(|text| read(text) == (None, None)));
    }
}
