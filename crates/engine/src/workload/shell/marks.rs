//! Placeholders for unknown parts of a script, such as variables that the kubelet expands.

use crate::workload::text::{Piece, Text};

/// The first character that is used as a placeholder: they are in a private use area.
///
/// <https://www.unicode.org/faq/private_use>
const FIRST: u32 = 0xF0000;

/// The number of those characters.
const MOST: usize = 0x2_0000;

/// The unknown parts of scripts, as they are written, by the number of their placeholder.
#[derive(Default)]
pub(super) struct Marks(Vec<String>);

impl Marks {
    /// Returns a text as a script, with a placeholder for each unknown part; none if there are too many.
    pub(super) fn script(&mut self, text: &Text) -> Option<String> {
        let mut script = String::new();
        for piece in text.pieces() {
            match piece {
                Piece::Known(known) => {
                    for c in known.chars() {
                        script.push(if u32::from(c) < FIRST { c } else { self.mark(c.to_string())? });
                    }
                }
                Piece::Unknown(written) => script.push(self.mark(written.clone())?),
            }
        }
        Some(script)
    }

    fn mark(&mut self, written: String) -> Option<char> {
        let number = u32::try_from(self.0.len()).ok().filter(|_| self.0.len() < MOST)?;
        self.0.push(written);
        char::from_u32(FIRST + number)
    }

    /// Returns the part that a placeholder stands for, as it is written.
    pub(super) fn written(&self, c: char) -> Option<&str> {
        let number = u32::from(c).checked_sub(FIRST)?;
        self.0.get(usize::try_from(number).ok()?).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_unknown_parts_and_literal_placeholders() {
        let mut marks = Marks::default();
        let mut text = Text::known("a \u{f0000} ");
        text.push_unknown("$(B)");
        let script = marks.script(&text).unwrap();
        let found: Vec<&str> = script.chars().filter_map(|c| marks.written(c)).collect();
        assert_eq!((script.chars().count(), found), (5, vec!["\u{f0000}", "$(B)"]));
    }
}
