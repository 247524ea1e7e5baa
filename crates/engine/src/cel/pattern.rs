//! How much there is to compile in a regular expression: each use compiles it anew, and a few characters can stand for a
//! great deal.

use std::iter::Peekable;
use std::str::Chars;

/// How many states a class such as `\w` has: it stands for many letters of many alphabets.
const CLASS: usize = 256;

/// Returns about how many states a regular expression has once what is repeated is written out. It need not be one.
pub(super) fn states(pattern: &str) -> usize {
    sequence(&mut pattern.chars().peekable())
}

/// Counts up to the end of a group.
fn sequence(rest: &mut Peekable<Chars>) -> usize {
    let mut states = 0_usize;
    while let Some(c) = rest.next() {
        let item = match c {
            ')' => break,
            '(' => stacker::maybe_grow(RED_ZONE, STACK, || sequence(rest)),
            '[' => set(rest),
            '\\' => escaped(rest),
            '.' => CLASS / 16,
            _ => 1,
        };
        states = states.saturating_add(item.saturating_mul(repetitions(rest)));
    }
    states.max(1)
}

/// The stack that is kept free, and that which is added: groups may stand in each other as deep as a pattern is long.
const RED_ZONE: usize = 64 << 10;
const STACK: usize = 1 << 20;

/// Counts what one of several characters may stand for.
fn set(rest: &mut Peekable<Chars>) -> usize {
    let mut states = 1_usize;
    while let Some(c) = rest.next() {
        match c {
            ']' => break,
            '\\' => states += escaped(rest),
            _ => states += 1,
        }
    }
    states
}

fn escaped(rest: &mut Peekable<Chars>) -> usize {
    match rest.next() {
        Some('d' | 'D' | 's' | 'S' | 'w' | 'W' | 'p' | 'P') => CLASS,
        _ => 1,
    }
}

/// Returns how often the item before is repeated at the most, as far as that is bounded.
fn repetitions(rest: &mut Peekable<Chars>) -> usize {
    let mut times = 1_usize;
    while rest.next_if_eq(&'{').is_some() {
        let mut counts = String::new();
        while let Some(c) = rest.next_if(|c| *c != '}') {
            counts.push(c);
        }
        rest.next();
        let most = counts.split(',').filter_map(|count| count.trim().parse::<usize>().ok()).max();
        times = times.saturating_mul(most.unwrap_or(1).max(1));
    }
    times
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_repeated_counts_as_often() {
        let table = [
            ("", 1),
            ("abc", 3),
            ("a{3}", 3),
            ("a{3,5}b", 6),
            ("(ab){10}", 20),
            ("((a{10}){10}){10}", 1000),
            ("[a-c]{2}", 8),
            (r"\d{2}", 512),
            (r"[\w.]{2}", 516),
            (r"\.{2}", 2),
            ("a{99999999999}{99999999999}", usize::MAX),
            ("(((", 1),
            ("a{", 1),
        ];
        for (pattern, expected) in table {
            assert_eq!(states(pattern), expected, "{pattern}");
        }
        assert_eq!(states(&"(".repeat(100_000)), 1);
    }
}
