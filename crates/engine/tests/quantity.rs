//! Tests quantities with golden vectors from apimachinery, and with properties of every text.
//!
//! Refresh the vectors with `go run . > ../../../tests/cases/quantity/vectors.json` in `dev/vectors/quantity`.

use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};
use tidegate_engine::quantity::{Quantity, QuantityError};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vectors {
    texts: Vec<Vector>,
    numbers: Vec<Vector>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vector {
    input: String,
    stored: Option<String>,
    nanos: Option<String>,
    error: Option<String>,
    /// The value that the API server stores where Tidegate rejects the text; for readers of the vectors.
    #[serde(rename = "server")]
    _server: Option<String>,
}

impl Vector {
    /// Describes how the outcome differs from the vector, if it does.
    fn mismatch(&self, outcome: &Result<Quantity, QuantityError>) -> Option<String> {
        let agrees = match outcome {
            Ok(quantity) => {
                self.stored == Some(quantity.to_string()) && self.nanos == Some(quantity.nanos().to_string())
            }
            Err(QuantityError::OutOfRange { .. }) => self.error.as_deref() == Some("out of range"),
            Err(_) => self.error.as_deref() == Some("malformed"),
        };
        (!agrees).then(|| {
            format!("{:?}: expected {:?} {:?} {:?}, got {outcome:?}", self.input, self.stored, self.nanos, self.error)
        })
    }
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("../../../tests/cases/quantity/vectors.json"))
        .expect("the vectors have the shape that the generator writes")
}

#[test]
fn texts_are_parsed_and_stored_as_in_apimachinery() {
    let wrong: Vec<_> = vectors().texts.iter().filter_map(|vector| vector.mismatch(&vector.input.parse())).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn json_numbers_are_parsed_as_in_apimachinery() {
    for vector in vectors().numbers {
        let value: Value = serde_json::from_str(&vector.input).unwrap();
        assert_eq!(vector.mismatch(&Quantity::from_json(&value)), None);
        let read: Quantity = serde_json::from_str(&vector.input).unwrap();
        assert_eq!(vector.mismatch(&Ok(read)), None);
    }
}

#[test]
fn stored_text_is_a_fixed_point() {
    for vector in vectors().texts {
        if let Some(stored) = vector.stored {
            let reread: Quantity = stored.parse().unwrap();
            assert_eq!(reread.to_string(), stored);
            assert_eq!(Some(reread.nanos().to_string()), vector.nanos);
        }
    }
}

#[test]
fn schema_is_that_of_kubernetes() {
    let schema = schemars::schema_for!(Quantity).to_value();
    assert_eq!(schema["x-kubernetes-int-or-string"], json!(true));
    // Kubernetes also has `anyOf`, which is implied here and would not be preserved in a structural schema.
    assert!(schema["anyOf"].is_null());
    assert_eq!(
        schema["pattern"],
        json!(
            r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$"
        )
    );
}

const UNITS: [(&str, u32); 4] = [("n", 0), ("u", 3), ("m", 6), ("", 9)];

proptest! {
    #[test]
    fn valid_texts_survive_a_round_trip(
        text in r"[+-]?[0-9]{0,25}(\.[0-9]{0,25})?([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?"
    ) {
        if let Ok(quantity) = text.parse::<Quantity>() {
            let stored = quantity.to_string();
            let reread: Quantity = stored.parse().unwrap();
            prop_assert_eq!(&reread, &quantity);
            prop_assert_eq!(reread.to_string(), stored);
        }
    }

    #[test]
    fn order_is_that_of_the_exact_values(
        left in any::<i64>(), right in any::<i64>(), left_unit in 0..4_usize, right_unit in 0..4_usize
    ) {
        let exact = |number: i64, unit: usize| i128::from(number) * 10_i128.pow(UNITS[unit].1);
        let read = |number: i64, unit: usize| -> Quantity {
            format!("{number}{}", UNITS[unit].0).parse().unwrap()
        };
        prop_assert_eq!(read(left, left_unit).nanos(), exact(left, left_unit));
        prop_assert_eq!(
            read(left, left_unit).cmp(&read(right, right_unit)),
            exact(left, left_unit).cmp(&exact(right, right_unit))
        );
    }

    #[test]
    fn no_text_panics(text in r"\PC{0,12}|[-+.0-9numkMGTPEKie]{0,50}") {
        let _ = text.parse::<Quantity>();
    }
}
