//! Estimates the cost to compile a regular expression: each use compiles it again, and a short pattern can be very
//! expensive.

use std::iter::Peekable;
use std::str::Chars;

/// The states of a class such as `\w`, which matches letters of many alphabets.
const CLASS: usize = 256;

/// Returns the approximate number of states of a regular expression with repetitions expanded. It may be invalid.
pub(super) fn states(pattern: &str) -> usize {
    sequence(&mut pattern.chars().peekable())
}

/// Counts the states up to the end of a group.
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

/// The stack to keep free, and the stack to add: groups may be nested as deep as a pattern is long.
const RED_ZONE: usize = 64 << 10;
const STACK: usize = 1 << 20;

/// Counts the states of a set of characters.
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

/// Returns the maximum number of repetitions of the item before, if it is bounded.
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
    fn counts_repetitions() {
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
