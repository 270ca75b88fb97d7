//! What registries want to be read by people: `Warning` headers of the code 299 (distribution specification, warnings).
//!
//! Logged when they come rather than put into a report, because they are about the registry and not about a copy (a quota,
//! an end of service). Each text once per registry and process: a registry repeats itself with every answer. The words are a
//! registry's, so they are cut short and without control characters; the header itself is never printed.

use super::error::cleaned;
use http::HeaderMap;
use http::header::WARNING;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Most texts that are remembered, and so logged: beyond that, a registry writes another one each time.
const TEXTS_LIMIT: usize = 100;

/// The warnings that were logged: registry and text.
#[derive(Debug, Default)]
pub(super) struct Warnings(Mutex<BTreeSet<(String, String)>>);

impl Warnings {
    /// Logs the warnings among `headers` that `host` has not given before.
    pub fn log(&self, host: &str, headers: &HeaderMap) {
        for text in self.unheard(host, headers) {
            tracing::warn!(host, text, "the registry warns");
        }
    }

    fn unheard(&self, host: &str, headers: &HeaderMap) -> Vec<String> {
        let texts = headers.get_all(WARNING).iter().filter_map(|value| text_of(value.to_str().ok()?));
        let texts: Vec<String> = texts.collect();
        if texts.is_empty() {
            return texts;
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut is_new = |text: &String| known.len() < TEXTS_LIMIT && known.insert((host.to_owned(), text.clone()));
        texts.into_iter().filter(|text| is_new(text)).collect()
    }
}

/// The text of `299 AGENT "TEXT"`.
fn text_of(header: &str) -> Option<String> {
    let (_, text) = header.trim().strip_prefix("299 ")?.trim_start().split_once(' ')?;
    let quoted = text.trim().strip_prefix('"')?;
    let (mut text, mut characters) = (String::new(), quoted.chars());
    while let Some(character) = characters.next().filter(|character| *character != '"') {
        text.extend(if character == '\\' { characters.next() } else { Some(character) });
    }
    cleaned(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_text_is_what_stands_in_quotes() {
        assert_eq!(text_of(r#"299 - "over \"quota\" soon" x"#).as_deref(), Some(r#"over "quota" soon"#));
        assert_eq!(text_of(r#" 299  registry.example.com:5000 "bye""#).as_deref(), Some("bye"));
        for other in [r#"199 - "x""#, "299 - x", "299", r#"299 - """#, ""] {
            assert_eq!(text_of(other), None, "{other}");
        }
    }

    #[test]
    fn each_text_is_new_once_for_each_registry() {
        let warnings = Warnings::default();
        let mut headers = HeaderMap::new();
        for text in ["299 - \"one\"", "299 - \"two\"", "299 - \"one\""] {
            headers.append(WARNING, text.parse().unwrap());
        }
        assert_eq!(warnings.unheard("a", &headers), ["one", "two"]);
        assert!(warnings.unheard("a", &headers).is_empty());
        assert_eq!(warnings.unheard("b", &headers), ["one", "two"]);
        for number in 0..TEXTS_LIMIT * 2 {
            let header = format!("299 - \"{number}\"").parse().unwrap();
            warnings.unheard("a", &HeaderMap::from_iter([(WARNING, header)]));
        }
        assert_eq!(warnings.0.lock().unwrap().len(), TEXTS_LIMIT);
    }

    proptest! {
        #[test]
        fn never_panics(header in ".{0,80}") {
            let _ = text_of(&header);
        }
    }
}
