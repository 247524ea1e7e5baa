//! Edit distance, for suggestions.

use std::mem;

/// Returns the word nearest to a misspelt one, or `None` if no word is near.
pub(super) fn nearest<'w>(misspelt: &str, words: impl IntoIterator<Item = &'w str>) -> Option<&'w str> {
    let with_distance = words.into_iter().map(|word| (distance(&misspelt.to_lowercase(), word), word));
    let (distance, word) = with_distance.min_by_key(|(distance, _)| *distance)?;
    (distance <= word.len() / 3).then_some(word)
}

/// Counts the letters that have to be added, removed, replaced, or swapped with their neighbour to turn one word into
/// another.
///
/// <https://en.wikipedia.org/wiki/Damerau%E2%80%93Levenshtein_distance#Optimal_string_alignment_distance>
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    // The distances of prefixes of `from`, the current one and the two before it, to each prefix of `to`.
    let (mut older, mut old) = (Vec::new(), (0..=to.len()).collect::<Vec<_>>());
    for row in 1..=from.len() {
        let mut new = vec![row];
        for column in 1..=to.len() {
            let replaced = old[column - 1] + usize::from(from[row - 1] != to[column - 1]);
            let mut least = replaced.min(old[column] + 1).min(new[column - 1] + 1);
            let are_exchanged =
                row > 1 && column > 1 && from[row - 1] == to[column - 2] && from[row - 2] == to[column - 1];
            if are_exchanged {
                least = least.min(older[column - 2] + 1);
            }
            new.push(least);
        }
        older = mem::replace(&mut old, new);
    }
    old[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_each_edit_once() {
        for (from, to, wanted) in [
            ("", "", 0),
            ("", "ab", 2),
            ("min-replicas", "min-replicas", 0),
            ("min-replica", "min-replicas", 1),
            ("min-replicass", "min-replicas", 1),
            ("min_replicas", "min-replicas", 1),
            ("min-relpicas", "min-replicas", 1),
            ("ca", "abc", 3),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!((distance(from, to), distance(to, from)), (wanted, wanted), "{from} {to}");
        }
    }

    #[test]
    fn does_not_suggest_unrelated_words() {
        let words = ["min-replicas", "max-replicas", "database", "runtime"];
        assert_eq!(nearest("minReplicas", words), Some("min-replicas"));
        assert_eq!(nearest("databse", words), Some("database"));
        assert_eq!(nearest("owner", words), None);
        assert_eq!(nearest("", words), None);
        assert_eq!(nearest("runtime", []), None);
    }
}
