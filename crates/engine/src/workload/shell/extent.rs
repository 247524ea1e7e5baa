//! Finds the end of quotes and brackets in a word.

/// A kind of quotes or brackets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opened {
    /// `"…"`
    Quotes,
    /// `${…}`; within double quotes, quotes in it have another meaning.
    Braces {
        /// Whether it is within double quotes.
        is_quoted: bool,
    },
    /// `$(…)` and `$((…))`
    Parentheses,
    /// `` `…` ``
    Backquotes,
}

/// Returns the index of the end of what was opened before `from`; none if it is not closed, or if finding its end takes
/// a full parser.
pub(super) fn end(of: Opened, chars: &[char], from: usize) -> Option<usize> {
    let mut at = from;
    let mut depth = 0;
    while let Some(&c) = chars.get(at) {
        match (c, of) {
            ('"', Opened::Quotes) | ('`', Opened::Backquotes) | ('}', Opened::Braces { .. }) => return Some(at),
            (')', Opened::Parentheses) if depth == 0 => return Some(at),
            (')', Opened::Parentheses) => depth -= 1,
            ('(', Opened::Parentheses) => depth += 1,
            ('#', Opened::Parentheses) if at == from || chars[at - 1].is_whitespace() => return None,
            ('<', Opened::Parentheses) if chars.get(at + 1) == Some(&'<') => return None,
            ('c', Opened::Parentheses) if chars[at..].starts_with(&['c', 'a', 's', 'e']) => return None,
            ('\\', _) => at += 1,
            _ => at = nested(of, chars, at)?,
        }
        at += 1;
    }
    None
}

/// Returns the index of the last character of what begins at `at`: `at` itself, unless something is opened there.
fn nested(of: Opened, chars: &[char], at: usize) -> Option<usize> {
    let is_quoted = matches!(of, Opened::Quotes | Opened::Braces { is_quoted: true });
    match (chars[at], chars.get(at + 1)) {
        _ if of == Opened::Backquotes => Some(at),
        ('\'', _) if !is_quoted => chars[at + 1..].iter().position(|c| *c == '\'').map(|length| at + 1 + length),
        ('"', _) => end(Opened::Quotes, chars, at + 1),
        ('`', _) => end(Opened::Backquotes, chars, at + 1),
        ('$', Some('(')) => end(Opened::Parentheses, chars, at + 2),
        ('$', Some('{')) => end(Opened::Braces { is_quoted }, chars, at + 2),
        _ => Some(at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rest(of: Opened, text: &str) -> Option<String> {
        let chars: Vec<char> = text.chars().collect();
        Some(chars[end(of, &chars, 0)?..].iter().collect())
    }

    #[test]
    fn skips_quoted_and_nested_brackets() {
        let (quoted, bare) = (Opened::Braces { is_quoted: true }, Opened::Braces { is_quoted: false });
        for (of, text, expected) in [
            (Opened::Quotes, r#"a\"b" c"#, Some("\" c")),
            (Opened::Quotes, r#"a$(b "c)")" d"#, Some("\" d")),
            (bare, "a:-'}'} c", Some("} c")),
            (quoted, "a:-'}'} c", Some("}'} c")),
            (bare, "a:-${b:-\"}\"}} c", Some("} c")),
            (bare, r"a:-\}} c", Some("} c")),
            (Opened::Parentheses, "a (b) ')' \")\" `)`) c", Some(") c")),
            (Opened::Parentheses, "(1 + 2)) c", Some(") c")),
            (Opened::Backquotes, r"a \` b` c", Some("` c")),
        ] {
            assert_eq!(rest(of, text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn gives_up_on_comments_case_and_here_documents() {
        for text in ["a # )\n) b", "case x in a) b;; esac) c", "cat <<E\n)\nE\n) c", "a", "a '", "a \""] {
            assert_eq!(rest(Opened::Parentheses, text), None, "{text}");
        }
    }
}
