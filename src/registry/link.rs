//! The next page of a list, from its `Link` header (RFC 8288, which replaced RFC 5988).
//!
//! Pure. Only path and query of the target are kept: the next request goes to the same registry by the way the last one
//! went, whatever scheme a proxy made the registry write. A target on another host is never followed.

use url::Url;

/// Path and query of the page that a list at `at` names as its next one.
///
/// # Errors
/// A sentence, when the target is no URL, is on another host, or is the very page it stands on.
pub(super) fn next_page<'a>(at: &Url, headers: impl IntoIterator<Item = &'a str>) -> Result<Option<String>, String> {
    let Some(target) = headers.into_iter().find_map(next_target) else { return Ok(None) };
    let next = at.join(target).map_err(|error| format!("the link to the next page is no URL ({error})"))?;
    if next.host_str() != at.host_str() || (next.scheme() == at.scheme() && next.port() != at.port()) {
        return Err("the link to the next page leads to another host".to_owned());
    }
    if !matches!(next.scheme(), "http" | "https") {
        return Err("the link to the next page is not HTTP".to_owned());
    }
    let page = path_and_query(&next);
    if page == path_and_query(at) {
        return Err("the link to the next page leads to the same page again".to_owned());
    }
    Ok(Some(page))
}

fn path_and_query(url: &Url) -> String {
    match url.query() {
        Some(query) => format!("{}?{query}", url.path()),
        None => url.path().to_owned(),
    }
}

/// The target of the first link with the relation `next`.
fn next_target(header: &str) -> Option<&str> {
    let mut rest = header;
    loop {
        let (target, after) = rest.split_once('<')?.1.split_once('>')?;
        let (parameters, following) = until_unquoted(after, ',');
        if is_next(parameters) {
            return Some(target.trim());
        }
        rest = following;
    }
}

fn is_next(mut parameters: &str) -> bool {
    while !parameters.is_empty() {
        let (parameter, following) = until_unquoted(parameters, ';');
        if let Some((name, value)) = parameter.split_once('=')
            && name.trim().eq_ignore_ascii_case("rel")
        {
            let mut relations = value.trim().trim_matches('"').split_whitespace();
            return relations.any(|relation| relation.eq_ignore_ascii_case("next"));
        }
        parameters = following;
    }
    false
}

/// What stands before the first `separator` that is not within quotes, and what stands behind it.
fn until_unquoted(text: &str, separator: char) -> (&str, &str) {
    let mut quoted = false;
    for (index, character) in text.char_indices() {
        if character == '"' {
            quoted = !quoted;
        } else if character == separator && !quoted {
            return (&text[..index], &text[index + character.len_utf8()..]);
        }
    }
    (text, "")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn next(header: &str) -> Result<Option<String>, String> {
        next_page(&Url::parse("https://r.example.com:5000/v2/a/tags/list?n=2").unwrap(), [header])
    }

    #[test]
    fn relative_and_absolute_targets() {
        assert_eq!(next(r#"</v2/a/tags/list?last=b&n=2>; rel="next""#), Ok(Some("/v2/a/tags/list?last=b&n=2".into())));
        assert_eq!(next("<list?last=b>;rel=next"), Ok(Some("/v2/a/tags/list?last=b".into())));
        assert_eq!(next("<?last=b>; REL=Next"), Ok(Some("/v2/a/tags/list?last=b".into())));
        assert_eq!(next("<https://r.example.com:5000/other?x=%2F>; rel=next"), Ok(Some("/other?x=%2F".into())));
        // A proxy that ends TLS makes registries write their inner scheme.
        assert_eq!(next("<http://r.example.com/v2/x?last=b>; rel=next"), Ok(Some("/v2/x?last=b".into())));
    }

    #[test]
    fn the_right_one_of_several_links() {
        let header = r#"</first?a=1,2>; rel="prev"; title="a, b; rel=next", </third?x>; rel="last next""#;
        assert_eq!(next(header), Ok(Some("/third?x".into())));
        assert_eq!(next(r#"</first>; rel="prev""#), Ok(None));
        assert_eq!(next("garbage"), Ok(None));
    }

    #[test]
    fn other_hosts_and_loops_are_refused() {
        assert!(next("<https://evil.example.com/v2/a>; rel=next").is_err());
        assert!(next("<//evil.example.com/v2/a>; rel=next").is_err());
        assert!(next("<https://r.example.com:6000/v2/a>; rel=next").is_err());
        assert!(next("<file:///etc/passwd>; rel=next").is_err());
        assert!(next("</v2/a/tags/list?n=2>; rel=next").is_err());
    }

    proptest! {
        #[test]
        fn what_is_made_of_the_corpus_leads_nowhere_else(header in crate::corpus::mutated_lines("link")) {
            let at = Url::parse("https://r.example.com:5000/v2/a/tags/list?n=2").unwrap();
            let Ok(Some(page)) = next_page(&at, [header.as_str()]) else { return Ok(()) };
            prop_assert!(page.starts_with('/') && page.bytes().all(|byte| byte.is_ascii_graphic()), "{page:?}");
            prop_assert_ne!(&page, "/v2/a/tags/list?n=2");
            // As requests are made of it.
            let next = Url::parse(&format!("https://r.example.com:5000{page}")).unwrap();
            prop_assert_eq!(next.origin(), at.origin(), "{}", page);
            prop_assert_eq!(path_and_query(&next), page);
        }

        #[test]
        fn never_panics(header in ".{0,120}") {
            let _ = next(&header);
        }
    }
}
