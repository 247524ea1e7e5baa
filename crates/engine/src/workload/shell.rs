//! The commands of a shell script, as far as they can be told without running it.
//!
//! <https://pubs.opengroup.org/onlinepubs/9799919799/utilities/V3_chap02.html>

use std::collections::HashMap;
use std::iter::Peekable;
use std::str::Chars;

/// What is known of a variable.
pub(super) enum Variable {
    /// It has this value.
    Is(String),
    /// It is not set.
    Unset,
    /// It may be anything.
    Unknown,
}

/// Splits a script into its commands, and each of them into its words: quotes are taken off, comments, redirections and
/// assignments left out, and variables resolved whose values are known. What is not known stays as it is written.
pub(super) fn commands(script: &str, environment: &dyn Fn(&str) -> Variable) -> Vec<Vec<String>> {
    let mut reader = Reader {
        rest: script.chars().peekable(),
        environment,
        assigned: HashMap::new(),
        word: None,
        command: Vec::new(),
        commands: Vec::new(),
        is_target: false,
    };
    reader.read();
    reader.commands
}

struct Reader<'s> {
    rest: Peekable<Chars<'s>>,
    environment: &'s dyn Fn(&str) -> Variable,
    /// What the script itself sets; none where that cannot be told.
    assigned: HashMap<String, Option<String>>,
    word: Option<String>,
    command: Vec<String>,
    commands: Vec<Vec<String>>,
    /// Whether the next word is where output goes, or input comes from.
    is_target: bool,
}

impl Reader<'_> {
    fn read(&mut self) {
        while let Some(c) = self.rest.next() {
            match c {
                '&' if self.rest.peek() == Some(&'>') => self.end_word(),
                '\n' | ';' | '&' | '|' | '(' | ')' => self.end_command(),
                c if c.is_whitespace() => self.end_word(),
                '#' if self.word.is_none() => while self.rest.next_if(|c| *c != '\n').is_some() {},
                '<' | '>' => self.redirection(),
                '\'' => {
                    let quoted = self.until('\'');
                    self.put(&quoted);
                }
                '"' => self.quoted(),
                '\\' => self.escaped(),
                '$' => self.expansion(),
                c => self.put(c.encode_utf8(&mut [0; 4])),
            }
        }
        self.end_command();
    }

    fn put(&mut self, text: &str) {
        self.word.get_or_insert_default().push_str(text);
    }

    fn until(&mut self, end: char) -> String {
        self.rest.by_ref().take_while(|c| *c != end).collect()
    }

    fn quoted(&mut self) {
        self.put("");
        while let Some(c) = self.rest.next() {
            match c {
                '"' => return,
                '\\' => self.escaped(),
                '$' => self.expansion(),
                c => self.put(c.encode_utf8(&mut [0; 4])),
            }
        }
    }

    /// A backslash before the end of a line goes on in the next one.
    fn escaped(&mut self) {
        if let Some(c) = self.rest.next().filter(|c| *c != '\n') {
            self.put(c.encode_utf8(&mut [0; 4]));
        }
    }

    /// `2>&1`, `>> file`, `< file`.
    fn redirection(&mut self) {
        if self.word.as_ref().is_some_and(|word| word.chars().all(|c| c.is_ascii_digit())) {
            self.word = None;
        }
        self.end_word();
        while self.rest.next_if(|c| matches!(c, '<' | '>' | '&')).is_some() {}
        self.is_target = true;
    }

    fn expansion(&mut self) {
        match self.rest.peek() {
            Some('(') => self.substitution(),
            Some('{') => {
                self.rest.next();
                let inner = self.until('}');
                let (name, default) =
                    inner.split_once(":-").map_or((&*inner, None), |(name, default)| (name, Some(default)));
                let value = self.value(name, default).unwrap_or_else(|| format!("${{{inner}}}"));
                self.put(&value);
            }
            Some(c) if is_part(*c) => {
                let mut name = String::new();
                while let Some(c) = self.rest.next_if(|c| is_part(*c)) {
                    name.push(c);
                }
                let value = self.value(&name, None).unwrap_or_else(|| format!("${name}"));
                self.put(&value);
            }
            _ => self.put("$"),
        }
    }

    /// `$(command)` and `$((sum))` come to what nobody knows.
    fn substitution(&mut self) {
        self.put("$");
        let mut depth = 0;
        while let Some(c) = self.rest.next() {
            self.put(c.encode_utf8(&mut [0; 4]));
            depth += i32::from(c == '(') - i32::from(c == ')');
            if depth == 0 {
                return;
            }
        }
    }

    fn value(&self, name: &str, default: Option<&str>) -> Option<String> {
        if !is_name(name) {
            return None;
        }
        if let Some(assigned) = self.assigned.get(name) {
            return assigned.clone();
        }
        match (self.environment)(name) {
            Variable::Is(value) if !value.is_empty() || default.is_none() => Some(value),
            Variable::Is(_) | Variable::Unset => default.filter(|default| !default.contains('$')).map(str::to_owned),
            Variable::Unknown => None,
        }
    }

    fn end_word(&mut self) {
        let Some(word) = self.word.take() else { return };
        if std::mem::take(&mut self.is_target) {
            return;
        }
        let is_leading = self.command.is_empty();
        match word.split_once('=').filter(|(name, _)| is_name(name)) {
            Some((name, value)) if is_leading || self.command[0] == "export" => {
                let known = Some(value.to_owned()).filter(|value| !value.contains(['$', '`']));
                self.assigned.insert(name.to_owned(), known);
            }
            _ => self.command.push(word),
        }
    }

    fn end_command(&mut self) {
        self.end_word();
        self.is_target = false;
        if !self.command.is_empty() {
            self.commands.push(std::mem::take(&mut self.command));
        }
    }
}

fn is_part(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn is_name(text: &str) -> bool {
    text.chars().all(is_part) && text.starts_with(|c: char| !c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(script: &str) -> Vec<Vec<String>> {
        commands(script, &|name| match name {
            "PORT" => Variable::Is("9000".to_owned()),
            "SECRET" => Variable::Unknown,
            _ => Variable::Unset,
        })
    }

    fn words(script: &str) -> Vec<String> {
        split(script).pop().unwrap()
    }

    #[test]
    fn a_script_is_split_into_commands() {
        let found = split(
            "set -eu; (pip list) && vllm serve m \\\n --port '9000' | tee log & sleep 1\n# vllm serve\ntrue # done",
        );
        let found: Vec<String> = found.iter().map(|words| words.join(" ")).collect();
        assert_eq!(found, ["set -eu", "pip list", "vllm serve m --port 9000", "tee log", "sleep 1", "true"]);
    }

    #[test]
    fn quotes_and_redirections_are_taken_off() {
        assert_eq!(words(r#"a "b c"'d' "" e\ f "\"g""#), ["a", "b cd", "", "e f", "\"g"]);
        assert_eq!(words("a b >log 2>&1 < in c &> all"), ["a", "b", "c"]);
        assert_eq!(words("a b=c#d"), ["a", "b=c#d"]);
        assert_eq!(words("a 'b"), ["a", "b"]);
    }

    #[test]
    fn variables_are_resolved_where_they_are_known() {
        for text in ["$PORT", "${PORT}", "\"$PORT\"", "${PORT:-8000}", "${OTHER:-9000}"] {
            assert_eq!(words(&format!("a {text}")), ["a", "9000"], "{text}");
        }
        for text in
            ["$SECRET", "${SECRET:-1}", "$OTHER", "$(cat port)", "$((PORT + 1))", "${PORT#x}", "${A:-$B}", "'$PORT'"]
        {
            assert!(words(&format!("a {text}"))[1].contains('$'), "{text}");
        }
        assert_eq!(words("PORT=1 a"), ["a"]);
        assert_eq!(words("export PORT=1; a $PORT"), ["a", "1"]);
        assert_eq!(words("PORT=$(cat port); a $PORT"), ["a", "$PORT"]);
    }
}
