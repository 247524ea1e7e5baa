//! Text and words of which parts may be unknown.

/// A part of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Known text.
    Known(String),
    /// Unknown text, as it is written in the source.
    Unknown(String),
}

/// A text of which parts may be unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Text(Vec<Piece>);

impl Text {
    /// Returns a known text.
    pub(super) fn known(text: impl Into<String>) -> Self {
        let text = text.into();
        Self(if text.is_empty() { Vec::new() } else { vec![Piece::Known(text)] })
    }

    /// Returns an unknown text, as it is written in the source.
    pub(super) fn unknown(written: impl Into<String>) -> Self {
        Self(vec![Piece::Unknown(written.into())])
    }

    /// Appends a known character.
    pub(super) fn push(&mut self, c: char) {
        self.push_str(c.encode_utf8(&mut [0; 4]));
    }

    /// Appends known text.
    pub(super) fn push_str(&mut self, text: &str) {
        match self.0.last_mut() {
            Some(Piece::Known(known)) => known.push_str(text),
            _ if text.is_empty() => {}
            _ => self.0.push(Piece::Known(text.to_owned())),
        }
    }

    /// Appends unknown text.
    pub(super) fn push_unknown(&mut self, written: &str) {
        self.0.push(Piece::Unknown(written.to_owned()));
    }

    /// Appends another text.
    pub(super) fn append(&mut self, other: &Self) {
        for piece in &other.0 {
            match piece {
                Piece::Known(text) => self.push_str(text),
                Piece::Unknown(written) => self.push_unknown(written),
            }
        }
    }

    /// Returns the parts.
    pub(super) fn pieces(&self) -> impl Iterator<Item = &Piece> {
        self.0.iter()
    }

    /// Returns the text, if all of it is known.
    pub(super) fn as_known(&self) -> Option<&str> {
        match self.0.as_slice() {
            [] => Some(""),
            [Piece::Known(text)] => Some(text),
            _ => None,
        }
    }

    /// Returns the known beginning.
    pub(super) fn known_start(&self) -> &str {
        match self.0.first() {
            Some(Piece::Known(text)) => text,
            _ => "",
        }
    }

    /// Returns the text, with unknown parts as they are written in the source.
    pub(super) fn written(&self) -> String {
        let written = |piece: &Piece| match piece {
            Piece::Known(text) | Piece::Unknown(text) => text.clone(),
        };
        self.0.iter().map(written).collect()
    }

    /// Returns the text as the value of a reference; an unknown value is written as that reference.
    pub(super) fn as_written(&self, written: &str) -> Self {
        match self.0.as_slice() {
            [Piece::Unknown(_)] => Self::unknown(written),
            _ => self.clone(),
        }
    }

    /// Returns the length, with unknown parts as they are written.
    pub(super) fn len(&self) -> usize {
        let len = |piece: &Piece| match piece {
            Piece::Known(text) | Piece::Unknown(text) => text.len(),
        };
        self.0.iter().map(len).sum()
    }
}

/// The kind of a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One word.
    One,
    /// One word that is a value or an operand, not a flag.
    Value,
    /// Any number of words.
    Several,
    /// No word: the command may be run differently, or not at all.
    Doubt,
}

/// A word of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    /// The text.
    pub(super) text: Text,
    /// The kind.
    pub(super) kind: Kind,
}

impl Word {
    /// Returns one word.
    pub(super) fn new(text: Text) -> Self {
        Self { text, kind: Kind::One }
    }

    /// Returns a doubt; its text follows "it is unknown".
    pub(super) fn doubt(of: &str) -> Self {
        Self { text: Text::unknown(of), kind: Kind::Doubt }
    }

    /// Returns whether it may be any number of words, or a doubt.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.kind, Kind::Several | Kind::Doubt)
    }

    /// Returns the text, if it is one word and all of it is known.
    pub(super) fn as_known(&self) -> Option<&str> {
        self.text.as_known().filter(|_| !self.is_open())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_known_parts() {
        let mut text = Text::known("--po");
        text.append(&Text::known("rt"));
        assert_eq!((text.as_known(), text.len()), (Some("--port"), 6));
        text.push('=');
        text.push_unknown("$PORT");
        text.push_str("0");
        assert_eq!((text.as_known(), text.known_start()), (None, "--port="));
        assert_eq!(text.written(), "--port=$PORT0");
        assert_eq!((Text::known("").as_known(), Text::unknown("$A").known_start()), (Some(""), ""));
    }

    #[test]
    fn several_words_and_doubts_are_not_known() {
        let word = |kind| Word { text: Text::known("a"), kind };
        assert_eq!([Kind::One, Kind::Value].map(|kind| word(kind).as_known().is_some()), [true, true]);
        assert_eq!([Kind::Several, Kind::Doubt].map(|kind| word(kind).as_known().is_some()), [false, false]);
    }
}
