//! Rust source as tokens: comments gone, strings blanked, test code taken out, line numbers kept.
//!
//! By hand rather than by a parser crate: the rules need names and their order, nothing more, and what this reader gets
//! wrong shows as a failing rule, never as a silent pass (its own tests are below).

/// A name or a punctuation mark (`::` is one token), with its line, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub line: usize,
    pub text: String,
}

/// A file without comments, string contents and test items; the line structure is that of the original.
pub struct Source {
    /// Path from the crate root, with slashes.
    pub path: String,
    pub code: String,
    pub tokens: Vec<Token>,
    /// Modules declared as `#[cfg(test)] mod name;`: their files are test code.
    pub test_modules: Vec<String>,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Self {
        let (code, test_modules) = without_tests(&without_comments(text));
        Self { path: path.to_owned(), tokens: tokens(&code), code, test_modules }
    }

    /// The lines where these tokens follow each other.
    pub fn lines_with(&self, sequence: &[&str]) -> Vec<usize> {
        let fits = |window: &&[Token]| window.iter().zip(sequence).all(|(token, wanted)| token.text == *wanted);
        self.tokens.windows(sequence.len()).filter(fits).map(|window| window[0].line).collect()
    }

    /// Lines from `first` to `last` (counted from 1, inclusive) that hold code.
    pub fn code_lines(&self, first: usize, last: usize) -> usize {
        let lines = self.code.lines().skip(first - 1).take(last + 1 - first);
        lines.filter(|line| !line.trim().is_empty()).count()
    }
}

/// Blanks comments, and the inside of strings and characters (`_` for what is not white space, so that a line of SQL
/// still counts as a line).
fn without_comments(text: &str) -> String {
    let mut reader = Reader { rest: text.chars().collect(), at: 0, out: String::with_capacity(text.len()) };
    while let Some(next) = reader.peek(0) {
        match (next, reader.peek(1)) {
            ('/', Some('/')) => reader.blank_while(|reader| reader.peek(0).is_some_and(|c| c != '\n'), ' '),
            ('/', Some('*')) => reader.block_comment(),
            ('"', _) => reader.string(0, true),
            ('r', Some('"' | '#')) if !reader.after_name() => reader.raw_string(1),
            ('b' | 'c', Some('r')) if matches!(reader.peek(2), Some('"' | '#')) && !reader.after_name() => {
                reader.raw_string(2);
            }
            ('\'', _) => reader.character_or_lifetime(),
            _ => reader.copy(1),
        }
    }
    reader.out
}

struct Reader {
    rest: Vec<char>,
    at: usize,
    out: String,
}

impl Reader {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.rest.get(self.at + ahead).copied()
    }

    /// Whether the last character belongs to a name, so that an `r` is no prefix.
    fn after_name(&self) -> bool {
        self.out.chars().last().is_some_and(|last| last.is_alphanumeric() || last == '_')
    }

    fn copy(&mut self, count: usize) {
        for _ in 0..count {
            self.out.extend(self.peek(0));
            self.at += 1;
        }
    }

    fn blank(&mut self, filler: char) {
        if let Some(next) = self.peek(0) {
            self.out.push(if next.is_whitespace() { next } else { filler });
            self.at += 1;
        }
    }

    fn blank_while(&mut self, mut go_on: impl FnMut(&Self) -> bool, filler: char) {
        while self.at < self.rest.len() && go_on(self) {
            self.blank(filler);
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0;
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some('/'), Some('*')) => depth += 1,
                (Some('*'), Some('/')) => depth -= 1,
                (None, _) => return,
                _ => {
                    self.blank(' ');
                    continue;
                }
            }
            self.blank(' ');
            self.blank(' ');
            if depth == 0 {
                return;
            }
        }
    }

    /// A string up to `"` and so many `#`.
    fn string(&mut self, hashes: usize, escapes: bool) {
        self.copy(1);
        loop {
            match self.peek(0) {
                None => return,
                Some('\\') if escapes => {
                    self.blank('_');
                    self.blank('_');
                }
                Some('"') if (1..=hashes).all(|ahead| self.peek(ahead) == Some('#')) => {
                    return self.copy(1 + hashes);
                }
                Some(_) => self.blank('_'),
            }
        }
    }

    fn raw_string(&mut self, prefix: usize) {
        let hashes = self.rest[self.at + prefix..].iter().take_while(|next| **next == '#').count();
        if self.peek(prefix + hashes) == Some('"') {
            self.copy(prefix + hashes);
            self.string(hashes, false);
        } else {
            // A raw name such as `r#type`.
            self.copy(prefix + hashes);
        }
    }

    fn character_or_lifetime(&mut self) {
        let is_character = self.peek(1) == Some('\\') || self.peek(2) == Some('\'');
        self.copy(1);
        if is_character {
            if self.peek(0) == Some('\\') {
                self.blank('_');
            }
            self.blank('_');
            self.blank_while(|reader| reader.peek(0) != Some('\''), '_');
            self.copy(1);
        }
    }
}

/// Blanks every item under `#[cfg(test)]`; gives the names of modules so declared that live in other files.
fn without_tests(code: &str) -> (String, Vec<String>) {
    const MARK: &str = "#[cfg(test)]";
    let (mut code, mut modules) = (code.to_owned(), Vec::new());
    while let Some(start) = code.find(MARK) {
        let length = item_length(&code[start + MARK.len()..]);
        let end = start + MARK.len() + length;
        let item = &code[start + MARK.len()..end];
        let words: Vec<&str> = item.split([' ', '\n', ';']).filter(|word| !word.is_empty()).collect();
        if let (false, Some(at)) = (item.contains('{'), words.iter().position(|word| *word == "mod")) {
            modules.extend(words.get(at + 1).map(|name| (*name).to_owned()));
        }
        let blanked: String =
            code[start..end].chars().map(|character| if character == '\n' { '\n' } else { ' ' }).collect();
        code.replace_range(start..end, &blanked);
    }
    (code, modules)
}

/// Length of the item at the start: to its closing brace, or to its semicolon.
fn item_length(code: &str) -> usize {
    let (mut braces, mut others) = (0i32, 0i32);
    for (at, character) in code.char_indices() {
        match character {
            '(' | '[' => others += 1,
            ')' | ']' => others -= 1,
            '{' => braces += 1,
            '}' => braces -= 1,
            ';' if braces == 0 && others == 0 => return at + 1,
            _ => {}
        }
        if character == '}' && braces == 0 && others == 0 {
            return at + 1;
        }
    }
    code.len()
}

fn tokens(code: &str) -> Vec<Token> {
    let mut found = Vec::new();
    for (number, text) in code.lines().enumerate() {
        let mut rest = text;
        while let Some(next) = rest.chars().next() {
            let is_name = |character: char| character.is_alphanumeric() || character == '_';
            let length = if is_name(next) {
                rest.find(|character| !is_name(character)).unwrap_or(rest.len())
            } else if rest.starts_with("::") {
                2
            } else {
                next.len_utf8()
            };
            let (token, after) = rest.split_at(length);
            if !next.is_whitespace() {
                found.push(Token { line: number + 1, text: token.to_owned() });
            }
            rest = after;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        let source = Source::new("src/x.rs", text);
        source.tokens.into_iter().map(|token| token.text).filter(|text| text.contains("hit")).collect()
    }

    #[test]
    fn comments_and_strings_are_no_code() {
        let hidden = [
            "// hit",
            "/// hit\n//! hit",
            "/* hit /* hit */ hit */",
            r#"let a = "hit";"#,
            r#"let a = "\" hit \\";"#,
            "let a = r\"\\\"; let b = r#\"hit \" hit\"#;",
            "let a = br##\"hit \"# hit\"##;",
            "let a = \"// not a comment\nhit\";",
        ];
        for text in hidden {
            assert!(names(text).is_empty(), "{text}: {:?}", names(text));
            assert_eq!(names(&format!("{text}\nhit")), ["hit"], "{text}");
        }
        for text in [
            "let c = '\"'; hit",
            "let c = '\\''; hit",
            "fn f<'a>(x: &'a str) { hit }",
            "let r#type = hit;",
            "'\\u{41}' hit",
        ] {
            assert_eq!(names(text), ["hit"], "{text}");
        }
    }

    #[test]
    fn test_items_are_no_code() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn hit() { { } }\n}\nfn hit_after() {}\n";
        let source = Source::new("src/x.rs", text);
        assert_eq!(names(text), ["hit_after"]);
        assert_eq!(source.tokens.iter().find(|token| token.text == "hit_after").unwrap().line, 6);
        assert!(names("#[cfg(test)]\n#[path = \"x\"]\nuse hit::{a, b};").is_empty());
        assert_eq!(names("#[cfg(test)]\nfn x() -> [u8; 2] { hit }\nfn hit() {}"), ["hit"]);
        assert_eq!(Source::new("src/x.rs", "#[cfg(test)]\nmod tests;\nfn a() {}").test_modules, ["tests"]);
    }

    #[test]
    fn lines_are_counted_by_their_code() {
        let source = Source::new("src/x.rs", "//! doc\n\nfn a() {\n    // why\n    b(\"SELECT\n      1\");\n}\n");
        assert_eq!(source.code_lines(1, 7), 4);
        assert_eq!(source.lines_with(&["b", "("]), [5]);
    }
}
