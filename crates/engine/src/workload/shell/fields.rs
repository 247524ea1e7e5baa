//! Field splitting: the words that a word expands to.

use crate::workload::text::{Kind, Piece, Text, Word};

/// The words that a word has expanded to, and the one that is being built.
#[derive(Default)]
pub(super) struct Fields {
    done: Vec<Word>,
    current: Option<Word>,
}

impl Fields {
    /// Starts a word, unless one has been started: a quoted empty string is a word, too.
    pub(super) fn start(&mut self) -> &mut Word {
        self.current.get_or_insert_with(|| Word::new(Text::default()))
    }

    /// Ends the current word.
    pub(super) fn end(&mut self) {
        self.done.extend(self.current.take());
    }

    pub(super) fn put(&mut self, c: char) {
        self.start().text.push(c);
    }

    /// Appends text without splitting it.
    pub(super) fn put_whole(&mut self, text: &Text) {
        if text.len() > 0 {
            self.start().text.append(text);
        }
    }

    /// Appends unknown text; `several` if it may expand to any number of words.
    pub(super) fn put_unknown(&mut self, written: &str, several: bool) {
        let word = self.start();
        word.text.push_unknown(written);
        if several {
            word.kind = Kind::Several;
        }
    }

    /// Appends an expanded word to the current one.
    pub(super) fn put_word(&mut self, word: &Word) {
        let current = self.start();
        current.text.append(&word.text);
        if word.is_open() {
            current.kind = Kind::Several;
        }
    }

    /// Appends text and splits it at blanks.
    ///
    /// <https://pubs.opengroup.org/onlinepubs/9799919799/utilities/V3_chap02.html#tag_19_06_05>
    pub(super) fn put_split(&mut self, text: &Text) {
        for piece in text.pieces() {
            match piece {
                Piece::Known(known) => known.chars().for_each(|c| if is_blank(c) { self.end() } else { self.put(c) }),
                Piece::Unknown(written) => self.put_unknown(written, true),
            }
        }
    }

    /// Returns the words.
    pub(super) fn words(mut self) -> Vec<Word> {
        self.end();
        self.done
    }

    /// Returns the words as one text.
    pub(super) fn text(self) -> Text {
        let mut text = Text::default();
        for (index, word) in self.words().iter().enumerate() {
            text.push_str(if index > 0 { " " } else { "" });
            text.append(&word.text);
        }
        text
    }
}

/// Returns whether words are split at a character.
pub(super) fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n')
}
