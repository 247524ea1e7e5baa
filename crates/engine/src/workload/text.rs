//! Text and words of which parts may be unknown.

/// A part of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// It is this.
    Known(String),
    /// It may be anything; this is how it is written.
    Unknown(String),
}

/// A text of which parts may be unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Text(Vec<Piece>);

impl Text {
    /// Returns a text that is known.
    pub(super) fn known(text: impl Into<String>) -> Self {
        let text = text.into();
        Self(if text.is_empty() { Vec::new() } else { vec![Piece::Known(text)] })
    }

    /// Returns a text of which nothing is known but how it is written.
    pub(super) fn unknown(written: impl Into<String>) -> Self {
        Self(vec![Piece::Unknown(written.into())])
    }

    /// Adds a character that is known.
    pub(super) fn push(&mut self, c: char) {
        self.push_str(c.encode_utf8(&mut [0; 4]));
    }

    /// Adds what is known.
    pub(super) fn push_str(&mut self, text: &str) {
        match self.0.last_mut() {
            Some(Piece::Known(known)) => known.push_str(text),
            _ if text.is_empty() => {}
            _ => self.0.push(Piece::Known(text.to_owned())),
        }
    }

    /// Adds what may be anything.
    pub(super) fn push_unknown(&mut self, written: &str) {
        self.0.push(Piece::Unknown(written.to_owned()));
    }

    /// Adds another text.
    pub(super) fn append(&mut self, other: &Self) {
        for piece in &other.0 {
            match piece {
                Piece::Known(text) => self.push_str(text),
                Piece::Unknown(written) => self.push_unknown(written),
            }
        }
    }

    /// Returns each part.
    pub(super) fn pieces(&self) -> impl Iterator<Item = &Piece> {
        self.0.iter()
    }

    /// Returns the text, where all of it is known.
    pub(super) fn told(&self) -> Option<&str> {
        match self.0.as_slice() {
            [] => Some(""),
            [Piece::Known(text)] => Some(text),
            _ => None,
        }
    }

    /// Returns what is known of its beginning.
    pub(super) fn begin(&self) -> &str {
        match self.0.first() {
            Some(Piece::Known(text)) => text,
            _ => "",
        }
    }

    /// Returns the text with what is unknown as it is written.
    pub(super) fn written(&self) -> String {
        let written = |piece: &Piece| match piece {
            Piece::Known(text) | Piece::Unknown(text) => text.clone(),
        };
        self.0.iter().map(written).collect()
    }

    /// Returns the text as a variable's value that is written like this: what is unknown of it is called so.
    pub(super) fn called(&self, written: &str) -> Self {
        match self.0.as_slice() {
            [Piece::Unknown(_)] => Self::unknown(written),
            _ => self.clone(),
        }
    }

    /// Returns how long the text is, as far as it is known.
    pub(super) fn len(&self) -> usize {
        let len = |piece: &Piece| match piece {
            Piece::Known(text) | Piece::Unknown(text) => text.len(),
        };
        self.0.iter().map(len).sum()
    }
}

/// What stands in the place of a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One word.
    One,
    /// One word that is a value or an operand, and no flag.
    Value,
    /// Any number of words.
    Several,
    /// Nothing: it is not sure that the command is run like this, or at all.
    Doubt,
}

/// A word of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// What it is.
    pub(super) text: Text,
    /// What stands in its place.
    pub(super) kind: Kind,
}

impl Word {
    /// Returns one word.
    pub(super) fn of(text: Text) -> Self {
        Self { text, kind: Kind::One }
    }

    /// Returns a doubt, in words that follow "it cannot be told".
    pub(super) fn doubt(of: &str) -> Self {
        Self { text: Text::unknown(of), kind: Kind::Doubt }
    }

    /// Tells whether it stands for any number of words, or makes all of them doubtful.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.kind, Kind::Several | Kind::Doubt)
    }

    /// Returns the word, where it is one and all of it is known.
    pub(super) fn told(&self) -> Option<&str> {
        self.text.told().filter(|_| !self.is_open())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_a_text_is_kept_together() {
        let mut text = Text::known("--po");
        text.append(&Text::known("rt"));
        assert_eq!((text.told(), text.len()), (Some("--port"), 6));
        text.push('=');
        text.push_unknown("$PORT");
        text.push_str("0");
        assert_eq!((text.told(), text.begin()), (None, "--port="));
        assert_eq!(text.written(), "--port=$PORT0");
        assert_eq!((Text::known("").told(), Text::unknown("$A").begin()), (Some(""), ""));
    }

    #[test]
    fn only_one_word_is_told() {
        let word = |kind| Word { text: Text::known("a"), kind };
        assert_eq!([Kind::One, Kind::Value].map(|kind| word(kind).told().is_some()), [true, true]);
        assert_eq!([Kind::Several, Kind::Doubt].map(|kind| word(kind).told().is_some()), [false, false]);
    }
}
