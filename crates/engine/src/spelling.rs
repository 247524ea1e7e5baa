//! Suggestions for misspelt words.

use strsim::osa_distance;

/// Returns the word nearest to a misspelt one, or `None` if no word is near.
#[must_use]
pub fn nearest<'w>(misspelt: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let with_distance = words.into_iter().map(|word| (osa_distance(&misspelt.to_lowercase(), word), word));
    let (distance, word) = with_distance.min_by_key(|(distance, _)| *distance)?;
    (distance <= word.len() / 3).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn does_not_suggest_unrelated_words() {
        let words = ["min-replicas", "max-replicas", "database", "runtime"];
        assert_eq!(nearest("minReplicas", words), Some("min-replicas"));
        assert_eq!(nearest("min-relpicas", words), Some("min-replicas"));
        assert_eq!(nearest("databse", words), Some("database"));
        assert_eq!(nearest("owner", words), None);
        assert_eq!(nearest("", words), None);
        assert_eq!(nearest("runtime", []), None);
    }
}
