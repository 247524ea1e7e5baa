//! Word expansions.
//!
//! <https://pubs.opengroup.org/onlinepubs/9799919799/utilities/V3_chap02.html#tag_19_06>

use super::extent::{self, Opened};
use super::fields::{Fields, is_blank};
use super::marks::Marks;
use super::state::{Known, State};
use super::{Fuel, Shell, is_name, is_part};
use crate::workload::text::{Piece, Text, Word};

/// How a part of a word is quoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Quoting {
    /// Not quoted.
    None,
    /// In double quotes.
    Double,
    /// In braces that are in double quotes.
    Braces,
}

/// Expands words.
pub(super) struct Reader<'r> {
    pub(super) shell: Shell,
    pub(super) state: &'r mut State,
    pub(super) marks: &'r Marks,
    pub(super) fuel: &'r mut Fuel,
}

impl Reader<'_> {
    /// Returns the words that a word expands to.
    pub(super) fn words(&mut self, raw: &str) -> Vec<Word> {
        self.fields(raw, true).words()
    }

    /// Returns the value of an assignment, from what is after the `=`.
    pub(super) fn value(&mut self, raw: &str) -> Text {
        let is_list = raw.starts_with('(');
        if is_list { Text::unknown(raw) } else { self.fields(raw, false).text() }
    }

    fn fields(&mut self, raw: &str, splits: bool) -> Fields {
        let chars: Vec<char> = raw.chars().collect();
        let mut word = Expansion { fields: Fields::default(), splits, is_default: false, has_list: false };
        self.read(&chars, Quoting::None, &mut word);
        word.fields
    }

    fn read(&mut self, chars: &[char], quoting: Quoting, word: &mut Expansion) {
        self.fuel.spend(chars.len());
        let mut at = 0;
        while at < chars.len() && self.fuel.is_left() {
            at = self.step(chars, at, quoting, word);
        }
    }

    /// Expands what begins at an index, and returns the index after it.
    fn step(&mut self, chars: &[char], at: usize, quoting: Quoting, word: &mut Expansion) -> usize {
        let (c, is_bare) = (chars[at], quoting == Quoting::None);
        match c {
            '\'' if is_bare => self.single_quoted(chars, at, word),
            '"' if is_bare => self.double_quoted(chars, at, word),
            '"' => at + 1,
            '\\' => escaped(chars, at, quoting, word),
            '$' => self.dollar(chars, at, quoting, word),
            '`' => match extent::end(Opened::Backquotes, chars, at + 1) {
                Some(end) => word.command(&chars[at..=end], is_bare, end + 1),
                None => word.rest(chars, at),
            },
            '~' if is_bare && is_home(chars, at, word) => self.home(chars.get(at + 1), at, word),
            // `<(…)` expands to a file name, and `name=~` differs between shells.
            '<' | '>' if is_bare && chars.get(at + 1) == Some(&'(') => word.rest(chars, at),
            '=' if is_bare && word.splits && chars.get(at + 1) == Some(&'~') => word.rest(chars, at),
            c if is_bare && word.is_default && is_blank(c) => {
                word.fields.put_split(&Text::known(c));
                at + 1
            }
            c => {
                match self.marks.written(c) {
                    Some(written) => word.unknown(written, is_bare),
                    None => word.fields.put(c),
                }
                at + 1
            }
        }
    }

    fn single_quoted(&mut self, chars: &[char], at: usize, word: &mut Expansion) -> usize {
        let length = chars[at + 1..].iter().position(|c| *c == '\'').unwrap_or(chars.len() - at - 1);
        word.fields.start();
        for c in &chars[at + 1..=at + length] {
            match self.marks.written(*c) {
                Some(written) => word.unknown(written, false),
                None => word.fields.put(*c),
            }
        }
        at + length + 2
    }

    fn double_quoted(&mut self, chars: &[char], at: usize, word: &mut Expansion) -> usize {
        let Some(end) = extent::end(Opened::Quotes, chars, at + 1) else { return word.rest(chars, at) };
        let inner = &chars[at + 1..end];
        // `"$@"` expands to no word without parameters.
        let is_all = matches!(inner, ['$', '@'] | ['$', '{', '@', '}']);
        if !is_all || !word.splits {
            word.fields.start();
        }
        self.read(inner, Quoting::Double, word);
        end + 1
    }

    fn dollar(&mut self, chars: &[char], at: usize, quoting: Quoting, word: &mut Expansion) -> usize {
        let is_bare = quoting == Quoting::None;
        match chars.get(at + 1) {
            Some('(') => self.substitution(chars, at, is_bare, word),
            Some('{') => match extent::end(Opened::Braces { is_quoted: !is_bare }, chars, at + 2) {
                Some(end) => {
                    self.braces(&chars[at..=end], quoting, word);
                    end + 1
                }
                None => word.rest(chars, at),
            },
            Some(c) if is_part(*c) && !c.is_ascii_digit() => {
                let length = chars[at + 1..].iter().take_while(|c| is_part(**c)).count();
                let name: String = chars[at + 1..=at + length].iter().collect();
                self.parameter(&name, &format!("${name}"), is_bare, word);
                at + length + 1
            }
            Some(c) if c.is_ascii_digit() || is_special(*c) => {
                self.parameter(&c.to_string(), &format!("${c}"), is_bare, word);
                at + 2
            }
            // `$'…'`, `$"…"` and `$[…]` differ between shells.
            Some('\'' | '"' | '[') if is_bare => word.rest(chars, at),
            Some('[') => word.rest(chars, at),
            Some(c) if self.marks.written(*c).is_some() => word.rest(chars, at),
            _ => {
                word.fields.put('$');
                at + 1
            }
        }
    }

    /// Expands `$(command)` and `$((sum))`, which are unknown; a sum is one word.
    fn substitution(&mut self, chars: &[char], at: usize, is_bare: bool, word: &mut Expansion) -> usize {
        let Some(end) = extent::end(Opened::Parentheses, chars, at + 2) else { return word.rest(chars, at) };
        let inner = &chars[at + 2..end];
        let is_sum =
            inner.first() == Some(&'(') && inner.last() == Some(&')') && !inner.iter().any(|c| ";\n'\"".contains(*c));
        if is_sum {
            self.sum(&inner.iter().collect::<String>());
        }
        word.command(&chars[at..=end], is_bare && !is_sum, end + 1)
    }

    /// Makes the variables unknown that a sum may set: `x = 1`, `x++`.
    pub(super) fn sum(&mut self, sum: &str) {
        let compared = ["==", "!=", "<=", ">="].iter().fold(sum.to_owned(), |sum, sign| sum.replace(sign, "<"));
        if compared.contains('=') || compared.contains("++") || compared.contains("--") {
            let names = sum.split(|c| !is_part(c)).filter(|name| is_name(name));
            names.for_each(|name| self.state.forget(name));
        }
    }

    /// Expands `${name}`, `${name:-word}` and the like.
    fn braces(&mut self, chars: &[char], quoting: Quoting, word: &mut Expansion) {
        let written: String = chars.iter().collect();
        let is_bare = quoting == Quoting::None;
        let inner = &chars[2..chars.len() - 1];
        let length = match inner.first() {
            Some(c) if is_special(*c) => 1,
            Some(c) if c.is_ascii_digit() => inner.iter().take_while(|c| c.is_ascii_digit()).count(),
            _ => inner.iter().take_while(|c| is_part(**c)).count(),
        };
        let (name, rest) = inner.split_at(length);
        let name: String = name.iter().collect();
        let is_null_unset = rest.first() == Some(&':');
        let rest = &rest[usize::from(is_null_unset)..];
        match rest.split_first() {
            None if !name.is_empty() && !is_null_unset => self.parameter(&name, &written, is_bare, word),
            Some((sign @ ('-' | '=' | '+' | '?'), default)) if is_name(&name) || is_number(&name) => {
                let known = self.known(&name);
                let is_null = is_null(&known, is_null_unset, *sign);
                let conditional = Conditional { name: &name, known, sign: *sign, default, written: &written };
                self.conditional(&conditional, is_null, quoting, word);
            }
            _ if name == "#" && rest.iter().all(|c| is_part(*c)) => word.unknown(&written, false),
            _ => word.unknown(&written, is_bare || written.contains('@')),
        }
    }

    fn conditional(&mut self, of: &Conditional, is_null: Option<bool>, quoting: Quoting, word: &mut Expansion) {
        let is_bare = quoting == Quoting::None;
        match (of.sign, is_null) {
            (_, None) => {
                if of.sign == '=' {
                    self.state.forget(of.name);
                }
                word.unknown(of.written, is_bare);
            }
            ('-', Some(true)) | ('+', Some(false)) => self.default(of.default, quoting, word),
            ('=', Some(true)) if is_name(of.name) => {
                let mut default =
                    Expansion { fields: Fields::default(), splits: false, is_default: false, has_list: false };
                let inner = if is_bare { Quoting::None } else { Quoting::Braces };
                self.read(of.default, inner, &mut default);
                let text = default.fields.text();
                self.state.set(of.name, text.clone());
                self.put(&text, of.written, is_bare, word);
            }
            ('+', Some(true)) => {}
            ('-' | '=' | '?', Some(false)) => match &of.known {
                Known::Set(text) => self.put(&text.clone(), of.written, is_bare, word),
                _ => word.unknown(of.written, is_bare),
            },
            _ => word.unknown(of.written, is_bare),
        }
    }

    /// Expands the default of a variable, which is split unless it is quoted.
    fn default(&mut self, default: &[char], quoting: Quoting, word: &mut Expansion) {
        let was_default = std::mem::replace(&mut word.is_default, word.splits);
        let quoting = if quoting == Quoting::None { Quoting::None } else { Quoting::Braces };
        self.read(default, quoting, word);
        word.is_default = was_default;
    }

    fn known(&self, name: &str) -> Known {
        match name.parse::<usize>() {
            Ok(number) => self.state.parameter(number),
            Err(_) => self.state.variable(name),
        }
    }

    fn parameter(&mut self, name: &str, written: &str, is_bare: bool, word: &mut Expansion) {
        match name {
            "@" | "*" => self.all(name, written, is_bare, word),
            "#" if !self.state.parameters.iter().any(Word::is_open) => {
                word.fields.put_whole(&Text::known(self.state.parameters.len().to_string()));
            }
            "#" | "?" | "-" | "$" | "!" => word.unknown(written, false),
            _ => match self.known(name) {
                Known::Set(text) => self.put(&text, written, is_bare, word),
                Known::Unset => {}
                Known::Undeclared | Known::Unknown => word.unknown(written, is_bare),
            },
        }
    }

    /// Appends the value of a variable, which is split unless it is quoted.
    fn put(&mut self, text: &Text, written: &str, is_bare: bool, word: &mut Expansion) {
        self.fuel.spend(text.len());
        if !self.fuel.is_left() {
            return;
        }
        let text = &text.as_written(written);
        if !is_bare || !word.splits {
            return word.fields.put_whole(text);
        }
        let is_split = text.pieces().any(|piece| matches!(piece, Piece::Known(known) if known.contains(is_blank)));
        let is_odd = self.shell == Shell::Zsh || word.has_list && self.shell != Shell::Bash;
        if self.state.splits_otherwise && text.len() > 0 || is_odd && is_split {
            word.unknown(written, true);
        } else {
            word.fields.put_split(text);
        }
    }

    /// Expands `$@` and `$*`.
    fn all(&mut self, name: &str, written: &str, is_bare: bool, word: &mut Expansion) {
        word.has_list |= !is_bare && name == "@";
        let parameters = self.state.parameters.clone();
        self.fuel.spend(parameters.iter().map(|parameter| parameter.text.len() + 1).sum());
        let is_joined = !word.splits || (!is_bare && name == "*");
        if is_joined && self.state.splits_otherwise {
            return word.unknown(written, is_bare);
        }
        for (index, parameter) in parameters.iter().enumerate() {
            if !self.fuel.is_left() {
                return;
            }
            match index {
                0 => {}
                _ if is_joined => word.fields.put(' '),
                _ => word.fields.end(),
            }
            match is_bare && word.splits {
                true if parameter.is_open() => word.unknown(written, true),
                true => self.put(&parameter.text, written, true, word),
                false => word.fields.put_word(parameter),
            }
        }
    }

    fn home(&mut self, next: Option<&char>, at: usize, word: &mut Expansion) -> usize {
        match self.state.variable("HOME") {
            Known::Set(home) if matches!(next, None | Some('/')) => word.fields.put_whole(&home),
            _ => word.unknown("~", false),
        }
        at + 1
    }
}

/// A word that is being expanded.
struct Expansion {
    fields: Fields,
    /// Whether it may expand to several words.
    splits: bool,
    /// Whether the default of a variable is being expanded.
    is_default: bool,
    /// Whether it has `"$@"`: Dash splits what follows at each blank.
    has_list: bool,
}

impl Expansion {
    fn unknown(&mut self, written: &str, is_bare: bool) {
        self.fields.put_unknown(written, is_bare && self.splits);
    }

    /// Appends the unknown output of a command.
    fn command(&mut self, chars: &[char], is_bare: bool, next: usize) -> usize {
        self.unknown(&chars.iter().collect::<String>(), is_bare);
        next
    }

    /// Gives up on the rest of the word.
    fn rest(&mut self, chars: &[char], at: usize) -> usize {
        self.command(&chars[at..], true, chars.len())
    }
}

/// `${name:-word}` and the like.
struct Conditional<'c> {
    name: &'c str,
    known: Known,
    sign: char,
    default: &'c [char],
    written: &'c str,
}

/// Returns whether a parameter counts as having no value; none if that is unknown. The default of a variable that is
/// not declared is used, although the image may set it.
fn is_null(known: &Known, is_null_unset: bool, sign: char) -> Option<bool> {
    match known {
        Known::Set(text) if is_null_unset && text.len() == 0 => Some(true),
        Known::Set(text) if is_null_unset => {
            text.pieces().any(|piece| matches!(piece, Piece::Known(_))).then_some(false)
        }
        Known::Set(_) => Some(false),
        Known::Unset => Some(true),
        Known::Undeclared => matches!(sign, '-' | '=').then_some(true),
        Known::Unknown => None,
    }
}

/// Expands a backslash. At the end of a line it continues the line; in double quotes it only escapes special
/// characters.
fn escaped(chars: &[char], at: usize, quoting: Quoting, word: &mut Expansion) -> usize {
    let Some(c) = chars.get(at + 1) else {
        word.fields.put('\\');
        return at + 1;
    };
    let quotes = match quoting {
        Quoting::None => true,
        Quoting::Double => matches!(c, '$' | '`' | '"' | '\\'),
        Quoting::Braces => matches!(c, '$' | '`' | '"' | '\\' | '}'),
    };
    match (c, quotes) {
        ('\n', _) => {}
        (_, true) => word.fields.put(*c),
        (_, false) => {
            word.fields.put('\\');
            return at + 1;
        }
    }
    at + 2
}

/// Returns whether a `~` expands to a home directory.
fn is_home(chars: &[char], at: usize, word: &Expansion) -> bool {
    at == 0 || !word.splits && chars[at - 1] == ':'
}

fn is_special(c: char) -> bool {
    matches!(c, '@' | '*' | '#' | '?' | '-' | '$' | '!')
}

fn is_number(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_digit())
}
