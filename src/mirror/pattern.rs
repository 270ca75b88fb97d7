//! Patterns of names: globs, and regular expressions between slashes.

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// Longest pattern, bytes.
const TEXT_LIMIT: usize = 1024;
/// Largest compiled pattern, bytes. Matching is linear in the name, whatever the pattern.
const COMPILED_LIMIT: usize = 1 << 20;

/// A pattern of repositories or tags. `/expression/` is a regular expression that is looked for anywhere in the name
/// (the syntax of the crate `regex`: that of RE2); anything else is a glob for the whole name: `*` is any run of characters,
/// `?` one character.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    regex: Regex,
    is_plain: bool,
}

impl Pattern {
    /// The name matches.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        self.regex.is_match(name)
    }

    /// What the wildcards of a glob, or the groups of an expression, stand for in a name that matches; None when it does not.
    #[must_use]
    pub fn captures(&self, name: &str) -> Option<Vec<String>> {
        let captures = self.regex.captures(name)?;
        Some(
            captures
                .iter()
                .skip(1)
                .map(|part| part.map_or_else(String::new, |part| part.as_str().to_owned()))
                .collect(),
        )
    }

    /// It is a name without wildcards: it can be asked for without a list.
    #[must_use]
    pub const fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The expression alone, as it is written in files that do not put it between slashes.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn regex(expression: &str) -> Result<Self, String> {
        format!("/{expression}/").parse()
    }
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("a pattern is empty: write * for all".to_owned());
        }
        if text.len() > TEXT_LIMIT {
            return Err(format!("a pattern has at most {TEXT_LIMIT} bytes"));
        }
        let inner = text.strip_prefix('/').and_then(|rest| rest.strip_suffix('/'));
        let expression = match inner {
            Some("") => return Err("`//` is no expression: write * for all".to_owned()),
            Some(expression) => expression.to_owned(),
            None => glob(text),
        };
        let regex = RegexBuilder::new(&expression)
            .size_limit(COMPILED_LIMIT)
            .dfa_size_limit(COMPILED_LIMIT)
            .build()
            .map_err(|error| format!("`{text}` is no expression: {}", reason(&error)))?;
        let is_plain = inner.is_none() && !text.contains(['*', '?']);
        Ok(Self { text: text.to_owned(), regex, is_plain })
    }
}

fn reason(error: &regex::Error) -> String {
    match error {
        regex::Error::CompiledTooBig(limit) => {
            format!("it would need more than {limit} bytes of memory: use smaller repetitions")
        }
        // The parser draws a picture over several lines; the last one says what is wrong.
        other => other.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned(),
    }
}

fn glob(text: &str) -> String {
    let mut expression = "^".to_owned();
    for character in text.chars() {
        match character {
            '*' => expression.push_str("(.*)"),
            '?' => expression.push_str("(.)"),
            other => expression.push_str(&regex::escape(other.encode_utf8(&mut [0; 4]))),
        }
    }
    expression.push('$');
    expression
}

impl fmt::Display for Pattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        text.parse().unwrap()
    }

    #[test]
    fn globs_are_for_the_whole_name() {
        for (text, yes, no) in [
            ("app", "app", "apps"),
            ("app*", "app/x/y", "my/app"),
            ("*-debug", "v1-debug", "v1-debug2"),
            ("*mid*", "a/mid/b", "a/b"),
            ("v1.?", "v1.2", "v1x2"),
            ("v1.?", "v1.2", "v1.23"),
            ("a+b", "a+b", "aab"),
            ("*", "anything", "\n"),
        ] {
            assert!(pattern(text).matches(yes), "{text} {yes}");
            assert!(!pattern(text).matches(no), "{text} {no}");
        }
        assert!(pattern("app").is_plain() && !pattern("app*").is_plain() && !pattern("/app/").is_plain());
    }

    #[test]
    fn expressions_stand_between_slashes_and_match_anywhere() {
        assert!(pattern(r"/^v\d+\.\d+$/").matches("v1.20"));
        assert!(!pattern(r"/^v\d+\.\d+$/").matches("v1.20.1"));
        assert!(pattern("/rc/").matches("1.0-rc1"));
        assert!(Pattern::regex("^[0-9]+$").unwrap().matches("12"));
    }

    #[test]
    fn wildcards_are_remembered() {
        assert_eq!(pattern("team-*/app-?").captures("team-a/b/app-1"), Some(vec!["a/b".to_owned(), "1".to_owned()]));
        assert_eq!(pattern("/(x)|(y)/").captures("y"), Some(vec![String::new(), "y".to_owned()]));
        assert_eq!(pattern("team-*").captures("x"), None);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for (text, word) in [
            ("", "empty"),
            ("//", "no expression"),
            ("/(/", "unclosed group"),
            ("/a{100000}{100000}/", "smaller repetitions"),
            (r"/(a)\1/", "backreferences"),
            (&"x".repeat(1025), "1024"),
        ] {
            let error = text.parse::<Pattern>().unwrap_err();
            assert!(error.contains(word) && !error.contains('\n'), "{text}: {error}");
        }
        // The names that make backtracking engines blow up.
        assert!(!pattern("/^(a+)+$/").matches(&format!("{}b", "a".repeat(100_000))));
    }
}
