//! The words that come of one as it is written.

use crate::workload::text::{Kind, Piece, Text, Word};

/// The words that have come of one as it is written, and the one that is being put together.
#[derive(Default)]
pub(super) struct Fields {
    done: Vec<Word>,
    current: Option<Word>,
}

impl Fields {
    /// Begins a word, unless one has begun: what is quoted is one even if nothing is in it.
    pub(super) fn start(&mut self) -> &mut Word {
        self.current.get_or_insert_with(|| Word::of(Text::default()))
    }

    /// Ends the word that has begun.
    pub(super) fn end(&mut self) {
        self.done.extend(self.current.take());
    }

    pub(super) fn put(&mut self, c: char) {
        self.start().text.push(c);
    }

    /// Puts what is not split into the word.
    pub(super) fn put_whole(&mut self, text: &Text) {
        if text.len() > 0 {
            self.start().text.append(text);
        }
    }

    /// Puts what cannot be told; where it may come to any number of words, it is `several`.
    pub(super) fn put_unknown(&mut self, written: &str, several: bool) {
        let word = self.start();
        word.text.push_unknown(written);
        if several {
            word.kind = Kind::Several;
        }
    }

    /// Puts a word that the shell already has into the one that has begun.
    pub(super) fn put_word(&mut self, word: &Word) {
        let current = self.start();
        current.text.append(&word.text);
        if word.is_open() {
            current.kind = Kind::Several;
        }
    }

    /// Puts what is split at blanks.
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

    /// Returns all as one text.
    pub(super) fn text(self) -> Text {
        let mut text = Text::default();
        for (index, word) in self.words().iter().enumerate() {
            text.push_str(if index > 0 { " " } else { "" });
            text.append(&word.text);
        }
        text
    }
}

/// Tells whether words are split at a character.
pub(super) fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n')
}
