//! `WWW-Authenticate` headers, read (RFC 9110, section 11.6.1).
//!
//! Not split at commas: one header may hold several challenges, the parameters of each are separated by commas too, and
//! quoted values contain commas (`scope="repository:app:pull,push"`). So this is a small scanner. It is tolerant: what it
//! cannot make sense of is skipped, because a wrong guess ends in a 401 that is reported anyway. It never fails or panics.

/// One challenge: a scheme with its parameters, names in lower case, values as sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Challenge {
    /// The scheme in lower case: `bearer`, `basic`.
    pub scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    /// The first value of the parameter `name` (lower case).
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// All challenges of one header value, in order.
pub(super) fn parse(header: &str) -> Vec<Challenge> {
    let mut scanner = Scanner { rest: header };
    let mut challenges: Vec<Challenge> = Vec::new();
    while !scanner.at_end() {
        let word = scanner.token();
        if word.is_empty() {
            scanner.skip_one();
            continue;
        }
        let name = word.to_ascii_lowercase();
        if scanner.equals_sign() {
            let value = scanner.value();
            if let Some(challenge) = challenges.last_mut() {
                challenge.parameters.push((name, value));
            }
        } else {
            challenges.push(Challenge { scheme: name, parameters: Vec::new() });
        }
    }
    challenges
}

struct Scanner<'a> {
    rest: &'a str,
}

impl<'a> Scanner<'a> {
    /// Skips separators; true when nothing is left.
    fn at_end(&mut self) -> bool {
        self.rest = self.rest.trim_start_matches([' ', '\t', ',']);
        self.rest.is_empty()
    }

    fn skip_one(&mut self) {
        let mut characters = self.rest.chars();
        characters.next();
        self.rest = characters.as_str();
    }

    fn take(&mut self, length: usize) -> &'a str {
        let (head, tail) = self.rest.split_at(length);
        self.rest = tail;
        head
    }

    fn token(&mut self) -> &'a str {
        let end = self.rest.find(|c: char| !is_token_character(c)).unwrap_or(self.rest.len());
        self.take(end)
    }

    /// Consumes `=` with optional white space around it, if it comes next.
    fn equals_sign(&mut self) -> bool {
        let Some(tail) = self.rest.trim_start_matches([' ', '\t']).strip_prefix('=') else { return false };
        self.rest = tail.trim_start_matches([' ', '\t']);
        true
    }

    fn value(&mut self) -> String {
        if !self.rest.starts_with('"') {
            let end = self.rest.find([',', ' ', '\t']).unwrap_or(self.rest.len());
            return self.take(end).to_owned();
        }
        let mut value = String::new();
        let mut characters = self.rest.chars();
        characters.next();
        loop {
            match characters.next() {
                None | Some('"') => break,
                Some('\\') => value.extend(characters.next()),
                Some(other) => value.push(other),
            }
        }
        self.rest = characters.as_str();
        value
    }
}

/// `tchar` of RFC 9110.
fn is_token_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bearer_challenge_with_a_quoted_comma() {
        let found = parse(
            "Bearer realm=\"https://auth.example.com/token\",service=\"registry.example.com\",\
             scope=\"repository:a/b:pull,push\",error=\"insufficient_scope\"",
        );
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].scheme, "bearer");
        assert_eq!(found[0].parameter("realm"), Some("https://auth.example.com/token"));
        assert_eq!(found[0].parameter("service"), Some("registry.example.com"));
        assert_eq!(found[0].parameter("scope"), Some("repository:a/b:pull,push"));
        assert_eq!(found[0].parameter("error"), Some("insufficient_scope"));
        assert_eq!(found[0].parameter("nothing"), None);
    }

    #[test]
    fn several_challenges_in_one_header() {
        let found = parse(r#"Negotiate, BASIC Realm="a \"quoted\" realm" , bearer REALM=https://x/t , scope = "a b""#);
        let schemes: Vec<_> = found.iter().map(|c| c.scheme.as_str()).collect();
        assert_eq!(schemes, ["negotiate", "basic", "bearer"]);
        assert_eq!(found[1].parameter("realm"), Some(r#"a "quoted" realm"#));
        assert_eq!(found[2].parameter("realm"), Some("https://x/t"));
        assert_eq!(found[2].parameter("scope"), Some("a b"));
    }

    #[test]
    fn an_unfinished_quote_and_stray_characters_are_survived() {
        assert_eq!(parse(r#"Basic realm="open"#)[0].parameter("realm"), Some("open"));
        assert_eq!(parse("(;) =x Basic")[0].scheme, "x");
        assert!(parse("").is_empty());
        assert!(parse(" , ,").is_empty());
    }

    proptest! {
        #[test]
        fn what_is_made_of_the_corpus_holds_no_more_than_was_sent(header in crate::corpus::mutated_lines("challenge")) {
            let found = parse(&header);
            let held = |challenge: &Challenge| {
                let parameters: usize = challenge.parameters.iter().map(|(name, value)| name.len() + value.len()).sum();
                challenge.scheme.len() + parameters
            };
            prop_assert!(found.iter().map(held).sum::<usize>() <= header.len());
            for challenge in &found {
                let names = challenge.parameters.iter().map(|(name, _)| name).chain([&challenge.scheme]);
                for name in names {
                    let sound = |c: char| is_token_character(c) && !c.is_ascii_uppercase();
                    prop_assert!(!name.is_empty() && name.chars().all(sound), "{name:?}");
                }
            }
        }

        #[test]
        fn never_panics_and_always_ends(header in ".{0,200}") {
            let _ = parse(&header);
        }

        #[test]
        fn reads_back_what_was_written(
            schemes in prop::collection::vec("[A-Za-z]{1,10}", 1..4),
            values in prop::collection::vec("[ -~]{0,30}", 1..4),
        ) {
            let quoted = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"");
            let written: Vec<String> = schemes
                .iter()
                .map(|scheme| {
                    let parameters: Vec<_> =
                        values.iter().enumerate().map(|(i, v)| format!("P{i}=\"{}\"", quoted(v))).collect();
                    format!("{scheme} {}", parameters.join(", "))
                })
                .collect();
            let found = parse(&written.join(","));
            prop_assert_eq!(found.len(), schemes.len());
            for (challenge, scheme) in found.iter().zip(&schemes) {
                prop_assert_eq!(&challenge.scheme, &scheme.to_ascii_lowercase());
                for (i, value) in values.iter().enumerate() {
                    prop_assert_eq!(challenge.parameter(&format!("p{i}")), Some(value.as_str()));
                }
            }
        }
    }
}
